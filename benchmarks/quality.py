"""What fine-tuning comes to, against a plain loop of transformers on PyTorch.

    python benchmarks/quality.py boolq --train_file .data/tasks/boolq/train.jsonl \
        --dev_file .data/tasks/boolq/dev.jsonl
    python benchmarks/quality.py squad --train_file train-v1.1.json \
        --dev_file dev-v1.1.json
    python benchmarks/quality.py tags --train_file train.conll --dev_file dev.conll
    python benchmarks/quality.py labels --train_file train.jsonl --dev_file dev.jsonl
    python benchmarks/quality.py choices --train_file train.jsonl --dev_file dev.jsonl

Both start with the weights of `make data` and have the same settings and as many
seeds; a seed means another order, another head and other dropout in each. Both are
judged here, question by question: BoolQ and multiple choice by accuracy, SQuAD by its
official scorer, tags by the accuracy of words and seqeval's F1 of entities, several
labels (`text` and a list `labels`) by the accuracy of each and their F1.
Ours packs sequences. A run whose predictions are in --work_dir is not repeated, so
that runs can be spread over several calls: `--run ours 1` makes that of one seed.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

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
        task = TASKS[work["task"]]
        for split, file in (("train", "train_file"), ("test", "dev_file")):
            path = pathlib.Path(work[file]).resolve()
            (folder / f"{split}{path.suffix}").symlink_to(path)
        if work["task"] == "squad":
            script = "run_squad.py"
            values["train_file"] = work["train_file"]
            values["predict_file"] = work["dev_file"]
        else:
            script = "run_classifier.py"
            values |= task.flags | {"data_dir": folder}
        flags = [f"--{flag}={value}" for flag, value in values.items()]
        flags += ["--do_train", "--do_predict", "--pack_sequences", *task.switches]
        subprocess.run([sys.executable, ROOT / script, *flags], check=True)
        predicted = task.read(folder / "run")
        pathlib.Path(work["output_file"]).write_text(json.dumps(predicted))


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
        work = TASKS[arguments.task].settings | {
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


def read_lines(path: str) -> list[dict[str, Any]]:
    """Objects of a .jsonl file."""
    return [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]


def read_tags(path: str | pathlib.Path) -> list[list[str]]:
    """The tags of each sentence of a CoNLL file: its last columns."""
    parts = pathlib.Path(path).read_text().split("\n\n")
    rows = [[line.split() for line in part.splitlines() if line] for part in parts]
    rows = [[row[-1] for row in part if row[0] != "-DOCSTART-"] for part in rows]
    return [row for row in rows if row]


def best_classes(folder: pathlib.Path) -> list[int]:
    """The most likely class of each example, by what run_classifier has written."""
    return np.loadtxt(folder / "test_results.tsv").argmax(axis=1).tolist()


def likely_labels(folder: pathlib.Path) -> list[list[int]]:
    """1 where a label is likelier than not, in the alphabetical order of labels."""
    table = np.loadtxt(folder / "test_results.tsv", ndmin=2)
    with open(folder / "test_predictions.tsv", encoding="utf-8") as file:
        columns = file.readline().rstrip("\n").split("\t")
    names = columns[-table.shape[1] :]
    order = sorted(range(len(names)), key=names.__getitem__)
    return (table[:, order] > 0.5).astype(int).tolist()


def predicted_tags(folder: pathlib.Path) -> list[list[str]]:
    """The tags of each sentence."""
    return read_tags(folder / "test_predictions.conll")


def squad_answers(folder: pathlib.Path) -> dict[str, str]:
    """The answer to each question."""
    return json.loads((folder / "predictions.json").read_text())


Scores = dict[str, np.ndarray]


def class_scores(path: str, classes: list[int]) -> Scores:
    """100 where the class is right, else 0: [n]."""
    labels = [int(row["label"]) for row in read_lines(path)]
    return {"accuracy": 100.0 * (np.array(classes) == np.array(labels))}


def label_scores(path: str, predicted: list[list[int]]) -> Scores:
    """Accuracy of each label of each text, [n * L], and the micro-averaged F1, [1]."""
    rows = [row["labels"] for row in read_lines(path)]
    names = sorted({name for row in rows for name in row})
    right = np.array([[name in row for name in names] for row in rows], int)
    found = np.array(predicted)
    both = 200.0 * (right & found).sum() / (right.sum() + found.sum())
    return {"accuracy": 100.0 * (right == found).ravel(), "f1": np.array([both])}


def tag_scores(path: str, predicted: list[list[str]]) -> Scores:
    """Accuracy of each word, [n], and seqeval's F1 of entities, [1]."""
    from seqeval.metrics import f1_score

    right = read_tags(path)
    is_right = [
        x == y
        for a, b in zip(right, predicted, strict=True)
        for x, y in zip(a, b, strict=True)
    ]
    f1 = 100.0 * f1_score(right, predicted)
    return {"accuracy": 100.0 * np.array(is_right), "f1": np.array([f1])}


def squad_scores(path: str, answers: dict[str, str]) -> Scores:
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


class Task(NamedTuple):
    """What is particular to a task.

    Attributes:
      settings: Of both systems.
      read: What our script predicted, from the folder of its run.
      scores: From the file of right answers and from what was predicted.
      flags: Of run_classifier.
      switches: Flags of it without a value.
    """

    settings: dict[str, Any]
    read: Callable[[pathlib.Path], Any]
    scores: Callable[[str, Any], Scores]
    flags: Mapping[str, str] = MappingProxyType({})
    switches: tuple[str, ...] = ()


def settings(max_seq_length: int, batch_size: int, epochs: int) -> dict[str, Any]:
    """Those of a task, with those that all have."""
    sizes = {"max_seq_length": max_seq_length, "batch_size": batch_size}
    return COMMON | sizes | {"epochs": epochs}


PAIR = {
    "task_name": "jsonl",
    "text_a_column": "question",
    "text_b_column": "passage",
    "label_column": "label",
}
LABELS = {"task_name": "jsonl", "text_a_column": "text", "label_column": "labels"}
CHOICES = {"task_name": "swag"}
TAGS = {"task_name": "conll"}
TASKS = {
    "boolq": Task(settings(128, 32, 2), best_classes, class_scores, PAIR),
    "squad": Task(settings(384, 16, 3), squad_answers, squad_scores),
    "tags": Task(settings(256, 8, 10), predicted_tags, tag_scores, TAGS),
    "labels": Task(
        *(settings(128, 16, 5), likely_labels, label_scores, LABELS),
        switches=("--is_multi_label",),
    ),
    "choices": Task(settings(128, 16, 3), best_classes, class_scores, CHOICES),
}


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
        if len(difference) > 1:  # Not the F1 of all examples together.
            result["interval_95"] = interval(difference)
    return result


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=tuple(TASKS))
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
    score = TASKS[arguments.task].scores
    runs: dict[str, list[dict[str, np.ndarray]]] = {s: [] for s in arguments.systems}
    for seed in arguments.seeds:
        for system, scores in runs.items():
            predicted = predictions(arguments, system, seed)
            scores.append(score(arguments.dev_file, predicted))
    [first, *_] = runs.values()
    metrics = [summary(metric, runs) for metric in first[0]]
    settings = TASKS[arguments.task].settings | {"weights": "all-MiniLM-L6-v2"}
    result = {"task": arguments.task, "settings": settings, "seeds": arguments.seeds}
    result["num_questions"] = len(first[0][metrics[0]["metric"]])
    if arguments.task == "boolq":
        share = np.mean([int(x["label"]) for x in read_lines(arguments.dev_file)])
        result["majority"] = 100.0 * float(max(share, 1 - share))
    result["metrics"] = metrics
    print(json.dumps(result, indent=2))
    path = pathlib.Path(arguments.output or f"results/quality_{arguments.task}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
