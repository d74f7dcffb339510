"""What fine-tuning comes to, against a plain loop of transformers on PyTorch.

    python benchmarks/quality.py boolq --train_file .data/tasks/boolq/train.jsonl \
        --dev_file .data/tasks/boolq/dev.jsonl
    python benchmarks/quality.py squad --train_file train-v1.1.json \
        --dev_file dev-v1.1.json

Both start with the weights of `make data` and have the same settings and as many
seeds; a seed means another order, another head and other dropout in each. Both are
judged here, question by question: BoolQ by accuracy, SQuAD by its official scorer.
Ours packs sequences. A run whose predictions are in --work_dir is not repeated, so
that runs can be spread over several calls: `--run ours 1` makes that of one seed.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
OURS, OTHER = "ours", "with_transformers"
COMMON = {
    "weights": str(ROOT / ".data/models/minilm"),
    "learning_rate": 1e-4,
    "epsilon": 1e-6,
    "weight_decay": 0.01,
    "warmup": 0.1,
    "max_grad_norm": 1.0,
}
SETTINGS = {
    "boolq": COMMON | {"max_seq_length": 128, "batch_size": 32, "epochs": 2},
    "squad": COMMON | {"max_seq_length": 384, "batch_size": 16, "epochs": 3},
}
# Freed memory is kept, and threads wait without taking the processor from others.
ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
    "OMP_WAIT_POLICY": "PASSIVE",
}
RESAMPLES = 10_000


def run_ours(work: dict[str, Any]) -> None:
    """Trains and predicts with this project's scripts."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        values = {
            "init_checkpoint": work["weights"],
            "output_dir": folder / "run",
            "max_seq_length": work["max_seq_length"],
            "train_batch_size": work["batch_size"],
            "predict_batch_size": work["batch_size"],
            "num_train_epochs": work["epochs"],
            "optimizer_type": "adamw",
            "learning_rate": work["learning_rate"],
            "epsilon": work["epsilon"],
            "weight_decay_rate": work["weight_decay"],
            "warmup_proportion": work["warmup"],
            "max_grad_norm": work["max_grad_norm"],
            "seed": work["seed"],
            "num_threads": work["threads"],
            "precision": "bf16",
        }
        if work["task"] == "squad":
            script, files = "run_squad.py", squad_files(work)
        else:
            script, files = "run_classifier.py", boolq_files(work, folder)
        flags = [f"--{flag}={value}" for flag, value in (values | files).items()]
        flags += ["--do_train", "--do_predict", "--pack_sequences"]
        subprocess.run([sys.executable, ROOT / script, *flags], check=True)
        if work["task"] == "squad":
            shutil.copy(folder / "run/predictions.json", work["output_file"])
        else:
            table = np.loadtxt(folder / "run/test_results.tsv")
            classes = table.argmax(axis=1).tolist()
            pathlib.Path(work["output_file"]).write_text(json.dumps(classes))


def squad_files(work: dict[str, Any]) -> dict[str, Any]:
    """Flags that name the questions."""
    return {"train_file": work["train_file"], "predict_file": work["dev_file"]}


def boolq_files(work: dict[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Flags that name the questions: those of dev are what is predicted."""
    for split, file in (("train", "train_file"), ("test", "dev_file")):
        (folder / f"{split}.jsonl").symlink_to(pathlib.Path(work[file]).resolve())
    return {
        "task_name": "jsonl",
        "data_dir": folder,
        "text_a_column": "question",
        "text_b_column": "passage",
        "label_column": "label",
    }


def run_other(work: dict[str, Any]) -> None:
    """Trains and predicts with transformers, in its own environment."""
    script = pathlib.Path(__file__).parent / "peers/with_transformers_tasks.py"
    python = ROOT / ".venv-bench/bin/python"
    subprocess.run(
        [python, script, json.dumps(work)], check=True, env=os.environ | ENVIRONMENT
    )


def predictions(arguments: argparse.Namespace, system: str, seed: int) -> Any:  # noqa: ANN401
    """What a run has predicted; the run is made if it is not there yet."""
    path = pathlib.Path(
        arguments.work_dir, f"{arguments.task}-{system}-{seed}.json"
    ).resolve()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        work = SETTINGS[arguments.task] | {
            "task": arguments.task,
            "train_file": arguments.train_file,
            "dev_file": arguments.dev_file,
            "seed": seed,
            "threads": arguments.threads,
            "output_file": str(path),
        }
        print(f"{arguments.task}, {system}, seed {seed}", flush=True)
        (run_ours if system == OURS else run_other)(work)
    return json.loads(path.read_text())


def boolq_labels(path: str) -> np.ndarray:
    """The right classes, [n]."""
    lines = pathlib.Path(path).read_text().splitlines()
    return np.array([int(json.loads(line)["label"]) for line in lines])


def boolq_scores(path: str, classes: list[int]) -> dict[str, np.ndarray]:
    """100 where the class is right, else 0: [n]."""
    return {"accuracy": 100.0 * (np.array(classes) == boolq_labels(path))}


def squad_scores(path: str, answers: dict[str, str]) -> dict[str, np.ndarray]:
    """Exact match and F1 of each question in percent, [n], by the official scorer."""
    from official.nlp.tools import squad_evaluate_v1_1

    scores = collections.defaultdict(list)
    for article in json.loads(pathlib.Path(path).read_text())["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                alone = [{"paragraphs": [{"qas": [question]}]}]
                found = squad_evaluate_v1_1.evaluate(alone, answers)
                scores["exact_match"].append(100.0 * found["exact_match"])
                scores["f1"].append(100.0 * found["final_f1"])
    return {name: np.array(values) for name, values in scores.items()}


def interval(differences: np.ndarray) -> list[float]:
    """Where 95% of the means of resampled questions are (paired bootstrap)."""
    rng = np.random.default_rng(0)
    count = len(differences)
    means = [
        differences[rng.integers(count, size=count)].mean() for _ in range(RESAMPLES)
    ]
    return np.percentile(means, [2.5, 97.5]).tolist()


def summary(
    metric: str, runs: dict[str, list[dict[str, np.ndarray]]]
) -> dict[str, Any]:
    """A metric's values by system and seed, and how the means of two differ."""
    # Of each question, the mean over the seeds.
    of_questions = {
        system: np.mean([scores[metric] for scores in seeds], axis=0)
        for system, seeds in runs.items()
    }
    result: dict[str, Any] = {"metric": metric}
    for system, seeds in runs.items():
        values = [float(scores[metric].mean()) for scores in seeds]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        result[system] = {
            "values": values,
            "mean": float(np.mean(values)),
            "standard_deviation": spread,
        }
    if len(runs) == 2:
        difference = of_questions[OURS] - of_questions[OTHER]
        result["difference"] = float(difference.mean())
        result["interval_95"] = interval(difference)
    return result


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=tuple(SETTINGS))
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--dev_file", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--systems", nargs="+", default=[OURS, OTHER])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work_dir", default="results/quality")
    parser.add_argument("--output", default="")
    parser.add_argument("--run", nargs=2, metavar=("SYSTEM", "SEED"))
    return parser.parse_args()


def main() -> None:
    """Makes the runs that are missing, prints a table, and writes JSON."""
    arguments = parse()
    if arguments.run:
        system, seed = arguments.run
        predictions(arguments, system, int(seed))
        return
    score = {"boolq": boolq_scores, "squad": squad_scores}[arguments.task]
    runs: dict[str, list[dict[str, np.ndarray]]] = {s: [] for s in arguments.systems}
    for seed in arguments.seeds:
        for system, scores in runs.items():
            predicted = predictions(arguments, system, seed)
            scores.append(score(arguments.dev_file, predicted))
    [first, *_] = runs.values()
    metrics = [summary(metric, runs) for metric in first[0]]
    settings = SETTINGS[arguments.task] | {"weights": "all-MiniLM-L6-v2"}
    result = {"task": arguments.task, "settings": settings, "seeds": arguments.seeds}
    result["num_questions"] = len(first[0][metrics[0]["metric"]])
    if arguments.task == "boolq":
        share = boolq_labels(arguments.dev_file).mean()
        result["majority"] = 100.0 * float(max(share, 1 - share))
    result["metrics"] = metrics
    print(json.dumps(result, indent=2))
    path = pathlib.Path(arguments.output or f"results/quality_{arguments.task}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
