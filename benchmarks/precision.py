"""Training in bfloat16 against float32: the same records, the same steps, both losses.

    python benchmarks/precision.py --output results/precision.json

Uses the records that `make demo` makes. The last figure is the mean loss over the last
tenth of the steps, where single batches no longer count.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
RECORDS = ROOT / ".data/demo/create/training"
SMALL = {
    "hidden_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "intermediate_size": 2048,
}


def losses(precision: str, steps: int, folder: pathlib.Path) -> dict[int, float]:
    """Trains, and returns the loss of each step."""
    vocabulary = sum(1 for _ in open(ROOT / ".data/vocab.txt", encoding="utf-8"))
    config = folder / "config.json"
    config.write_text(json.dumps(SMALL | {"vocab_size": vocabulary}))
    command = [
        *(sys.executable, ROOT / "run_pretraining.py"),
        f"--bert_config_file={config}",
        f"--input_files_dir={RECORDS}",
        f"--output_dir={folder / precision}",
        f"--num_train_steps={steps}",
        f"--precision={precision}",
        *("--do_train", "--train_batch_size=32", "--num_accumulation_steps=1"),
        *("--learning_rate=0.004", "--noscale_learning_rate", "--display_loss_steps=1"),
        f"--dllog_path={folder / precision}.log",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    result = {}
    for line in (folder / f"{precision}.log").read_text().splitlines():
        entry = json.loads(line.removeprefix("DLLL "))
        if "total_loss" in entry.get("data", {}):
            step = entry["step"]
            number = step if isinstance(step, int) else step[-1]
            result[number] = entry["data"]["total_loss"]
    return result


def main() -> None:
    """Prints both curves, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", default="results/precision.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        curves = {
            precision: losses(precision, arguments.steps, pathlib.Path(folder))
            for precision in ("fp32", "bf16")
        }
    path = pathlib.Path(arguments.output)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(curves, indent=2) + "\n")
    print(f"{'step':>6} {'fp32':>9} {'bf16':>9} {'difference':>11}")
    tenth = max(1, arguments.steps // 10)
    for last in range(tenth, arguments.steps + 1, tenth):
        means = [
            statistics.mean(curve[step] for step in range(last - tenth + 1, last + 1))
            for curve in curves.values()
        ]
        print(
            f"{last:6} {means[0]:9.4f} {means[1]:9.4f} {means[1] / means[0] - 1:11.3%}"
        )


if __name__ == "__main__":
    main()
