"""Speed and memory on a GPU, against transformers under torch.compile.

    python benchmarks/gpu.py

Rows of 128 tokens, and natural lengths to 512: ours packed, transformers padded. Each
system has its own Python: `--peers_python` has PyTorch and transformers, for a GPU too.
See `benchmarks/speed.py` for how both are measured. Memory is that of tensors on the
GPU. XLA takes minutes to compile `base`.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

import speed

# TensorFlow would take the whole memory, and PyTorch find none.
SHARED = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
GPU = {"device": "cuda", "threads": 8}


def ours(**values: object) -> speed.Side:
    """Our side."""
    return speed.Side("ours", speed.work(**GPU, **values), SHARED)


def forms(modes: list[str], **values: object) -> dict[str, speed.Side]:
    """Forms of transformers, with `sdpa`."""
    return {
        f"transformers, masked head, torch.compile ({mode})": speed.transformers(
            **GPU, best=True, compile=mode, **values
        )
        for mode in modes
    }


def comparisons(modes: list[str], batch: int, rows: int) -> Iterator[speed.Comparison]:
    """Base at 128 tokens, and base packed to 512."""
    full = {"batch": batch}
    name = f"base, {batch} x 128"
    others = {"ours without XLA": ours(**full)} | forms(modes, **full)
    yield speed.Comparison(name, ours(use_xla=True, **full), others, None, 20)
    lengths = speed.natural_lengths(4000, 512)
    chosen = speed.evenly_chosen(speed.packed_rows(lengths, 512), rows)
    long = {"length": 512, "predictions": 80}
    yield speed.Comparison(
        f"base, natural lengths to 512, {rows} packed rows",
        ours(use_xla=True, rows=chosen, **long),
        forms(modes, rows=[[n] for row in chosen for n in row], **long),
        None,
        10,
    )
    full = long | {"batch": rows}
    yield speed.Comparison(
        f"base, {rows} full rows of 512",
        ours(use_xla=True, **full),
        forms(modes, **full),
        None,
        10,
    )


def main() -> None:
    """Prints a table line by line, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256, help="rows of 128 tokens")
    parser.add_argument("--rows", type=int, default=48, help="rows of 512 tokens")
    parser.add_argument("--modes", default=",".join(speed.MODES), help="torch.compile")
    parser.add_argument("--only", default="", help="works with this in their names")
    parser.add_argument("--ours_python", default=sys.executable)
    parser.add_argument("--peers_python", default=str(speed.OTHERS))
    parser.add_argument("--output", type=pathlib.Path, default="results/gpu.json")
    arguments = parser.parse_args()
    speed.PYTHONS |= {
        "ours": arguments.ours_python,
        "with_transformers": arguments.peers_python,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    results = []
    print(f"{speed.HEADER}\n{'| - ' * 7}|", flush=True)
    modes = arguments.modes.split(",")
    for comparison in comparisons(modes, arguments.batch, arguments.rows):
        if arguments.only in comparison.name:
            for result in speed.compare(comparison, arguments.rounds):
                print(speed.line_of(result), flush=True)
                results.append(result)
            arguments.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
