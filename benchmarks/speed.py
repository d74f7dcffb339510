"""Speed and memory against other systems, on the same machine in the same minutes.

    make bench            # An hour and a half.
    make bench QUICK=1    # 20 minutes: base, small and predictions.

In each comparison all systems (`benchmarks/peers`) stay loaded and take turns: some
steps of ours, as many of each other's, on the same tokens and masked tokens. What
counts is the median over the rounds of the ratio of sequences/s, against the strongest
form of all others: it is the first line of the last table. The others run in a separate
environment, which `make bench` builds; one that fails is named with the reason. Tuned:
with the C library told to keep freed memory, as vendors advise for PyTorch.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert_tf.launch import HUGE_PAGES

ROOT = pathlib.Path(__file__).parents[1]
PEERS = pathlib.Path(__file__).parent / "peers"
OURS, OTHERS = ROOT / ".venv/bin/python", ROOT / ".venv-bench/bin/python"
PYTHONS = {
    "ours": OURS,
    "with_tf_models": OURS,
    "with_transformers": OTHERS,
    "with_keras_hub": OTHERS,
    "with_openvino": OTHERS,
    "with_onnxruntime": OTHERS,
}
TUNED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
# Weights as constants, in the layout of the products.
FROZEN = {"TORCHINDUCTOR_FREEZING": "1"}
MODES = ("default", "max-autotune")
# Ratios to the strongest form, by what the processor has.
TARGETS = {
    "amx": {"base": 2.0, "small": 2.5, "packed": 6.0, "prediction": 1.3},
    "avx512_bf16": {"base": 1.35, "small": 1.7, "packed": 4.0, "prediction": 1.0},
}
NATURAL_TARGET = 2.0
SHARES_OF_PRODUCTS = {"amx": 0.80, "avx512_bf16": 0.92}
SAME_LOSS = 1e-2  # Bfloat16 in two systems.
HEADER = "| work | against | ours / s | other / s | ratio | target | peak MB |"


class Side(NamedTuple):
    """One of the systems, and what it does."""

    system: str
    work: dict[str, Any]
    environment: dict[str, str]


class Comparison(NamedTuple):
    """Ours and others on the same work.

    Attributes:
      name: What both sides do.
      ours: Our side.
      others: Forms of other systems by name; those of an entry are loaded at a time.
      target: How much better ours should be than the strongest; None: no goal.
      steps: Steps of each side in each round.
    """

    name: str
    ours: Side
    others: dict[str, Side]
    target: float | None
    steps: int


def work(model: str = "base", kind: str = "train", **values: Any) -> dict[str, Any]:  # noqa: ANN401
    """A workload: see `peers/worker.py`."""
    defaults = {"batch": 32, "length": 128, "predictions": 20}
    return {"model": model, "kind": kind, "threads": len(os.sched_getaffinity(0))} | (
        defaults | values
    )


def ours(**values: Any) -> Side:  # noqa: ANN401
    """Our side, started as the scripts start themselves."""
    return Side("ours", work(**values), dict([HUGE_PAGES]))


def transformers(
    environment: dict[str, str] | None = None,
    **values: Any,  # noqa: ANN401
) -> Side:
    """PyTorch with transformers."""
    return Side("with_transformers", work(**values), environment or {})


def processor() -> str | None:
    """The key of `TARGETS` for this processor; None if it has no bfloat16."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return next((k for k, flag in (("amx", "amx_bf16"), ("avx512_bf16",) * 2)
                 if flag in flags), None)  # fmt: skip


def natural_lengths(count: int, size: int) -> list[int]:
    """Lengths as those of Wikipedia's sequences are distributed, up to 512."""
    from wikipedia_lengths import wikipedia_shares

    shares = wikipedia_shares()[: size + 1]
    return random.Random(1).choices(range(len(shares)), weights=list(shares), k=count)


def packed_rows(lengths: list[int], size: int) -> list[list[int]]:
    """Rows of at most `size` tokens, as `data pack` makes them."""
    import numpy as np

    from bert_tf.data.packing.planning import make_plan

    histogram = np.bincount(lengths, minlength=size + 1)
    plan = make_plan(histogram)
    rows = [list(s.lengths) for s in plan.strategies for _ in range(s.count)]
    random.Random(2).shuffle(rows)
    return rows


def evenly_chosen(rows: list[list[int]], count: int) -> list[list[int]]:
    """Rows with about as many sequences as all of them have on average."""
    rows = sorted(rows, key=len)
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]


def training_forms(modes: tuple[str, ...], **values: Any) -> dict[str, Side]:  # noqa: ANN401
    """Each form of transformers, the likely strongest first."""
    best = {"best": True, **values}
    forms = {
        f"transformers, tuned, masked head, torch.compile ({mode})": transformers(
            TUNED, compile=mode, attention="eager", **best
        )
        for mode in modes
    }
    if modes == MODES:
        forms |= {
            "transformers, tuned, masked head, plain attention": transformers(
                TUNED, attention="eager", **best
            ),
            "transformers, tuned, masked head": transformers(TUNED, **best),
            "transformers, tuned": transformers(TUNED, **values),
            "transformers, as it ships": transformers(**values),
        }
    return forms


def prediction_forms(modes: tuple[str, ...], **values: Any) -> dict[str, Side]:  # noqa: ANN401
    """Whatever predicts on processors."""
    values = {"kind": "predict"} | values
    forms = {
        "OpenVINO": Side("with_openvino", work(**values), {}),
        "OpenVINO, for throughput": Side(
            "with_openvino", work(hint="THROUGHPUT", **values), {}
        ),
        "ONNX Runtime": Side("with_onnxruntime", work(**values), {}),
    }
    forms |= {
        f"transformers, tuned, bf16 weights, torch.compile ({mode})": transformers(
            TUNED | FROZEN, compile=mode, best=True, **values
        )
        for mode in modes
    }
    if modes == MODES:
        forms["transformers, tuned, bf16 weights"] = transformers(
            TUNED, best=True, **values
        )
        forms["transformers, as it ships"] = transformers(**values)
    return forms


def one_by_one(comparison: Comparison) -> Iterator[Comparison]:
    """A comparison with each of the others, where all do not fit into the memory."""
    for name, side in comparison.others.items():
        yield comparison._replace(others={name: side})


def trainings(modes: tuple[str, ...]) -> Iterator[Comparison]:
    """Steps of pre-training."""
    goals = TARGETS.get(processor(), {})
    others = training_forms(modes)
    if modes == MODES:
        others["tf-models"] = Side("with_tf_models", work(), {})
        others["keras-hub, no next-sentence loss"] = Side("with_keras_hub", work(), {})
    yield from one_by_one(
        Comparison("base, 32 x 128", ours(), others, goals.get("base"), 2)
    )
    small = training_forms(modes, model="small")
    yield from one_by_one(
        Comparison("small, 32 x 128", ours(model="small"), small, goals.get("small"), 8)
    )
    if modes != MODES:
        return
    tiny = training_forms(modes, model="tiny")
    yield Comparison("tiny, 32 x 128", ours(model="tiny"), tiny, 6, 20)
    rows = evenly_chosen(packed_rows(natural_lengths(1000, 512), 512), 8)
    long = {"model": "small", "length": 512, "predictions": 80}
    padded = [[n] for row in rows for n in row]
    yield from one_by_one(
        Comparison(
            "small, natural lengths to 512, packed : padded",
            ours(**long, rows=rows),
            training_forms(modes, **long, rows=padded),
            goals.get("packed"),
            3,
        )
    )


def predictions(modes: tuple[str, ...]) -> Iterator[Comparison]:
    """Questions and contexts: throughput of 8, and one at a time for its latency."""
    goals = TARGETS.get(processor(), {})
    goal = goals.get("prediction")
    common = {"kind": "predict", "length": 384}
    for batch, steps in ((8, 8), (1, 32)):
        full = common | {"batch": batch}
        name = f"prediction, {batch} x 384"
        yield Comparison(
            name, ours(**full), prediction_forms(modes, **full), goal, steps
        )
    lengths = natural_lengths(64, 384)
    rows = packed_rows(lengths, 384)
    alone = [[n] for n in lengths]
    name = "prediction, natural lengths to 384"
    yield Comparison(
        f"{name}, 8 at once (ours packed)",
        ours(**common, rows=rows, at_once=8),
        prediction_forms(modes, **common, rows=alone, at_once=8),
        NATURAL_TARGET,
        1,
    )
    yield Comparison(
        f"{name}, 1 at once",
        ours(**common, rows=alone, at_once=1),
        prediction_forms(modes, **common, rows=alone, at_once=1),
        None,
        1,
    )


def of_ourselves() -> Iterator[Comparison]:
    """What dropout, bfloat16 and all but the products cost."""
    share = SHARES_OF_PRODUCTS.get(processor())
    others = {"ours, dropout 0": ours(dropout=0.0)}
    yield Comparison("base, 32 x 128", ours(), others, 0.95, 2)
    others = {"ours, fp32": ours(model="small", precision="fp32")}
    yield Comparison("small, 32 x 128", ours(model="small"), others, None, 5)
    others = {
        "its products alone, by PyTorch": transformers(kind="products"),
        "its products alone, by us": ours(kind="products"),
    }
    yield Comparison("base, 32 x 128: share", ours(), others, share, 2)


def comparisons(is_quick: bool) -> Iterator[Comparison]:
    """All of them, the most telling first."""
    modes = MODES[:1] if is_quick else MODES
    yield from trainings(modes)
    yield from predictions(modes)
    if not is_quick:
        yield from of_ourselves()


@contextlib.contextmanager
def started(side: Side) -> Iterator[subprocess.Popen]:
    """A worker that is ready."""
    with tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen(
                [PYTHONS[side.system], PEERS / f"{side.system}.py"]
                + [json.dumps(side.work)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | side.environment,
            )
        except FileNotFoundError as error:
            raise RuntimeError(f"not installed: {error}") from None
        try:
            while line := process.stdout.readline():
                if line.strip() == "ready":
                    break
            else:
                raise RuntimeError(why_ended(process, errors))
            process.messages = errors
            yield process
        finally:
            process.kill()
            process.wait()


def why_ended(process: subprocess.Popen, errors: Any) -> str:  # noqa: ANN401
    """The last line of a worker's messages."""
    code = process.wait()
    errors.seek(0)
    lines = errors.read().strip().splitlines()
    return f"exit code {code}: {lines[-1].strip() if lines else 'no message'}"


def take(process: subprocess.Popen, steps: int) -> dict[str, float]:
    """Lets a worker take steps."""
    try:
        process.stdin.write(f"{steps}\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (BrokenPipeError, json.JSONDecodeError):
        raise RuntimeError(why_ended(process, process.messages)) from None


def num_sequences(side: Side) -> int:
    """Sequences in a batch."""
    rows = side.work.get("rows")
    return sum(map(len, rows)) if rows else side.work["batch"]


def log(line: str) -> None:
    """A line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", file=sys.stderr, flush=True)


def compare(comparison: Comparison, rounds: int) -> list[dict[str, Any]]:
    """Runs all sides in turn; a result for each other side."""
    sides = {"ours": comparison.ours} | comparison.others
    rates: dict[str, list[float]] = {name: [] for name in sides}
    peaks = dict.fromkeys(sides, 0.0)
    notes = dict.fromkeys(sides, "")
    failures: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        processes = {}
        for name, side in sides.items():
            log(f"{comparison.name}: {name} starts")
            try:
                processes[name] = stack.enter_context(started(side))
            except RuntimeError as error:
                failures[name] = str(error)
        for number in range(rounds if "ours" in processes else 0):
            log(f"{comparison.name}: round {number + 1} of {rounds}")
            for name, process in list(processes.items()):
                try:
                    answer = take(process, comparison.steps)
                except RuntimeError as error:
                    failures[name] = str(error)
                    del processes[name]
                    continue
                total = num_sequences(sides[name]) * comparison.steps
                rates[name].append(total / answer["seconds"])
                peaks[name] = max(peaks[name], answer["peak_mb"])
                notes[name] = answer["note"]
    results = []
    for name in comparison.others:
        result = {"work": comparison.name, "against": name, "target": comparison.target}
        failed = " and ".join(
            f"{who}: {failures[who]}" for who in ("ours", name) if who in failures
        )
        if failed:
            results.append(result | {"failed": failed})
            continue
        ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
        results.append(
            result
            | {
                "note": notes[name],
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "ours_per_second": rates["ours"],
                "other_per_second": rates[name],
                "peak_mb": [peaks["ours"], peaks[name]],
            }
        )
    return results


def line_of(result: dict[str, Any]) -> str:
    """A line of the table."""
    target = result["target"] or "-"
    note = f" ({result['note']})" if result.get("note") else ""
    begin = f"| {result['work']} | {result['against']}{note} |"
    if "failed" in result:
        return f"{begin} - | - | not measured: {result['failed']} | {target} | - |"
    rates = [
        f"{statistics.median(result[f'{side}_per_second']):.2f}"
        for side in ("ours", "other")
    ]
    peaks = " : ".join(f"{mb:,.0f}" for mb in result["peak_mb"])
    return f"{begin} {' | '.join(rates)} | {result['ratio']:.2f} | {target} | {peaks} |"


def ordered(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Works in their order, each with its strongest form first and failures last."""
    works = list(dict.fromkeys(result["work"] for result in results))
    return sorted(
        results, key=lambda r: (works.index(r["work"]), r.get("ratio", float("inf")))
    )


def check_losses() -> dict[str, Any]:
    """Both sides from the same weights without dropout: the loss of the first step."""
    rows = [[300, 150, 62], [200, 180, 100]]
    padded = [[n] for row in rows for n in row]
    long = {"length": 512, "predictions": 80}
    found: dict[str, Any] = {}
    for name, mine, theirs in (
        ("full rows", {"batch": 4}, {"batch": 4}),
        ("packed rows", {"rows": rows} | long, {"rows": padded} | long),
    ):
        try:
            losses = found[name] = first_losses(mine, theirs)
        except RuntimeError as error:
            print(f"First loss, {name}: not compared: {error}", flush=True)
            continue
        text = f"transformers {losses[0]:.4f}, ours {losses[1]:.4f}"
        print(f"First loss, {name}: {text}", flush=True)
        if not abs(losses[0] - losses[1]) < SAME_LOSS:
            sys.exit(f"error: with the same weights the losses differ: {found}")
    return found


def first_losses(mine: dict[str, Any], theirs: dict[str, Any]) -> list[float]:
    """Theirs and ours; the other side writes its weights, and ours reads them."""
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        same = {"model": "small", "dropout": 0.0, "weights": folder}
        for side in (transformers(best=True, **same, **theirs), ours(**same, **mine)):
            log(f"first loss of {side.system}")
            with started(side) as process:
                losses.append(take(process, 1)["first_loss"])
    return losses


def as_check(comparison: Comparison) -> Comparison:
    """The same with the smallest model and one step, to see whether it runs."""

    def smallest(side: Side) -> Side:
        return side._replace(work=side.work | {"model": "tiny"})

    others = {name: smallest(side) for name, side in comparison.others.items()}
    return comparison._replace(
        ours=smallest(comparison.ours), others=others, steps=1, target=None
    )


def main() -> None:
    """Prints a table line by line, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=0, help="default: 5, quick: 3")
    parser.add_argument("--quick", action="store_true", help="in 20 minutes")
    parser.add_argument(
        "--check", action="store_true", help="tiny models, one step: does all run?"
    )
    parser.add_argument("--only", default="", help="works or systems with this name")
    parser.add_argument("--output", default="results/speed.json")
    arguments = parser.parse_args()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    rounds = arguments.rounds or (1 if arguments.check else 3 if arguments.quick else 5)
    results: list[dict[str, Any]] = []
    path = pathlib.Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    losses = check_losses()
    print(f"{HEADER}\n{'| - ' * 7}|", flush=True)
    for comparison in comparisons(arguments.quick):
        chosen = {
            name: side
            for name, side in comparison.others.items()
            if arguments.only in f"{comparison.name}: {name}"
        }
        if not chosen:
            continue
        comparison = comparison._replace(others=chosen)
        if arguments.check:
            comparison = as_check(comparison)
        for result in compare(comparison, rounds):
            results.append(result)
            print(line_of(result), flush=True)
        document = {"first_losses": losses, "results": ordered(results)}
        path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\nThe strongest form of each first:\n\n{HEADER}\n{'| - ' * 7}|")
    print("\n".join(map(line_of, ordered(results))))


if __name__ == "__main__":
    main()
