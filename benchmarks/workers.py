"""Two workers of one thread each against one of two: the same global batch.

    python benchmarks/workers.py --output results/workers.json

On one machine there is nothing to gain: what is lost is the cost of distribution, the
sum of the gradients and the optimizer step that each worker takes. Two workers have
half the rows in a micro-batch, or half the micro-batches (`--halved=accumulation`). The
runs take turns, and the median of the rounds' ratios counts. Each worker is bound to
its cores. Uses the records that `make demo` makes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = ROOT / ".data/demo/create/training"
ROWS, ACCUMULATION = 64, 8


def rate(workers: int, preset: str, steps: int, halved: str) -> float:
    """Sequences/s of a run on all cores."""
    rows, accumulation = ROWS, ACCUMULATION
    if halved == "rows":
        rows //= workers
    else:
        accumulation //= workers
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log.json")
        command = [
            *(sys.executable, ROOT / "run_pretraining.py"),
            f"--preset={preset}",
            f"--input_files_dir={RECORDS}",
            f"--output_dir={folder}/run",
            f"--num_train_steps={steps}",
            f"--train_batch_size={rows}",
            f"--num_accumulation_steps={accumulation}",
            f"--dllog_path={log}",
            *("--do_train", "--precision=bf16"),
        ]
        if workers > 1:
            launcher = [pathlib.Path(sys.executable).parent / "mpirun"]
            launcher += ["--allow-run-as-root", "--oversubscribe"]
            if cores := len(os.sched_getaffinity(0)) // workers:
                launcher += ["--bind-to", "core", "--map-by", f"slot:PE={cores}"]
            command = [*launcher, "-np", str(workers), *command, "--horovod"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=900)
        entries = [
            json.loads(line.removeprefix("DLLL "))
            for line in log.read_text().splitlines()
        ]
        found = [
            entry["data"]["throughput_train"]
            for entry in entries
            if "throughput_train" in entry.get("data", {})
        ]
        return found[-1]


def main() -> None:
    """Prints each round, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--halved", default="rows", choices=("rows", "accumulation"))
    parser.add_argument("--output", default="results/workers.json")
    arguments = parser.parse_args()
    if not RECORDS.is_dir():
        parser.exit(
            1,
            f"error: there are no records in {RECORDS}. Run `make demo`, or, for the "
            "records alone, `python -m bert_tf data all --config=demo.toml`.\n",
        )
    rounds = []
    for _ in range(arguments.rounds):
        work = (arguments.preset, arguments.steps, arguments.halved)
        one, two = (rate(n, *work) for n in (1, 2))
        rounds.append({"one": one, "two": two, "ratio": two / one})
        print(f"one {one:.1f}, two {two:.1f} sequences/s: {two / one:.3f}", flush=True)
    result = {
        "ratio": statistics.median(entry["ratio"] for entry in rounds),
        "rounds": rounds,
    }
    print(f"median {result['ratio']:.3f}")
    path = pathlib.Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
