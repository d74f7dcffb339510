"""Sentence vectors of BoolQ's questions and passages, beside sentence-transformers.

    python benchmarks/sentences.py --work_dir results/sentences \
        --peer_python .venv-bench/bin/python

Both start with the same weights and have the same settings, and as many seeds; a seed
means another order and other dropout. Prints how well passages are found by their
questions, before and after. The peer needs the environment of `make bench`; without
--peer_python it is left out. It also reads the model that ours has exported, and prints
how far its vectors are from ours.
"""

import argparse
import json
import pathlib
import subprocess

import numpy as np

import bert_tf

ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {"max_seq_length": 128, "batch_size": 32, "scale": 20.0, "warmup": 0.1}


def write_pairs(folder: pathlib.Path, counts: dict[str, int]) -> None:
    """The first questions of each split, each passage once."""
    for split, count in counts.items():
        rows, seen = [], set()
        with open(ROOT / f".data/tasks/boolq/{split}.jsonl") as file:
            for row in map(json.loads, file):
                if row["passage"] not in seen and len(rows) < count:
                    seen.add(row["passage"])
                    pair = {"anchor": row["question"], "positive": row["passage"]}
                    rows.append(json.dumps(pair) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(rows))


def run_ours(options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Trains and evaluates with this project; seed 0 evaluates the start alone."""
    folder, steps = options.work_dir, options.steps if seed else 0
    more = {"do_train": True, "num_train_steps": steps, "export_steps": (str(steps),)}
    return bert_tf.train_sentences(
        init_checkpoint=options.weights,
        vocab_file=f"{ROOT}/.data/vocab.txt",
        train_file=folder / "train.jsonl",
        dev_file=folder / "dev.jsonl",
        output_dir=folder / f"{options.name}-{seed}",
        max_seq_length=SETTINGS["max_seq_length"],
        train_batch_size=SETTINGS["batch_size"],
        eval_batch_size=32,
        scale=SETTINGS["scale"],
        learning_rate=options.learning_rate,
        warmup_proportion=SETTINGS["warmup"],
        optimizer_type="adamw",
        pack_sequences=True,
        do_eval=True,
        overwrite_output_dir=True,
        seed=seed,
        **(more if seed else {}),
    )


def run_peer(options: argparse.Namespace, seed: int) -> None:
    """The same loop in sentence-transformers; prints its results."""
    work = SETTINGS | {
        "weights": str(options.weights),
        "vocabulary": f"{ROOT}/.data/models/minilm",
        "folder": str(options.work_dir),
        "learning_rate": options.learning_rate,
        "steps": options.steps if seed else 0,
        "seed": seed,
    }
    script = ROOT / "benchmarks/peers/with_sentence_transformers.py"
    command = [options.peer_python, script, json.dumps(work)]
    subprocess.run([str(word) for word in command], check=True)


def compare_export(options: argparse.Namespace) -> None:
    """Prints the distance of the vectors of the exported model in both programs."""
    exported = options.work_dir / f"{options.name}-1/export/step-{options.steps}"
    rows = (options.work_dir / "dev.jsonl").read_text().splitlines()[:200]
    texts = [json.loads(row)["positive"] for row in rows]
    texts += [json.loads(row)["anchor"] for row in rows]
    path = options.work_dir / "vectors.npz"
    np.savez(path, texts=texts, vectors=bert_tf.Embedder(exported)(texts))
    script = ROOT / "benchmarks/peers/with_sentence_transformers.py"
    work = json.dumps({"exported": str(exported), "vectors": str(path)})
    subprocess.run([str(options.peer_python), script, work], check=True)


def main() -> None:
    """Prints the results of each seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work_dir", type=pathlib.Path, required=True)
    parser.add_argument("--weights", default=f"{ROOT}/.data/models/minilm")
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--num_train", type=int, default=1920)
    parser.add_argument("--num_dev", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peer_python", default="")
    options = parser.parse_args()
    options.name = pathlib.Path(options.weights).name
    options.work_dir.mkdir(parents=True, exist_ok=True)
    counts = {"train": options.num_train, "dev": options.num_dev}
    write_pairs(options.work_dir, counts)
    for seed in range(options.seeds + 1):
        found = {n: round(float(x), 4) for n, x in run_ours(options, seed).items()}
        print("ours", "seed" if seed else "start", seed, found, flush=True)
        if options.peer_python:
            run_peer(options, seed)
    if options.peer_python:
        compare_export(options)


if __name__ == "__main__":
    main()
