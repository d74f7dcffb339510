"""What 8-bit weights cost a classifier, in each runtime.

    python benchmarks/int8.py --work_dir results/int8 --models results/boolq

Converts each model of BoolQ with `convert --to=...`, with and without `--int8`, and
answers all development questions in a process with the runtime alone. Prints accuracy,
the share of equal answers, and 95% of 10,000 paired resamples of the questions, in
which each question counts with its mean over the models.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks/peers/in_runtime.py"
FORMS = ("onnx", "litert", "openvino")
MAX_SEQ_LENGTH = 128


def logits_of(
    model: pathlib.Path, to: str, int8: bool, work: pathlib.Path
) -> np.ndarray:
    """Logits [questions, 2] of a model that is converted, unless they are there."""
    folder = work / model.name / f"{to}{'-int8' * int8}"
    output = folder.with_suffix(".npy")
    if not output.exists():
        command = [sys.executable, "-m", "bert_tf", "convert", model, folder]
        command += [f"--to={to}", "--overwrite", *["--int8"] * int8]
        subprocess.run([str(word) for word in command], cwd=ROOT, check=True)
        job = {"runtime": to, "folder": str(folder), "output": str(output)}
        job |= {"pairs": str(work / "pairs.json"), "max_seq_length": MAX_SEQ_LENGTH}
        subprocess.run([sys.executable, "-P", SCRIPT, json.dumps(job)], check=True)
    return np.load(output)


def describe(plain: np.ndarray, small: np.ndarray, labels: np.ndarray) -> str:
    """A line about answers [models, questions] of float and int8."""
    gain = ((small == labels).astype(float) - (plain == labels)).mean(axis=0)
    drawn = np.random.default_rng(0).integers(len(gain), size=(10_000, len(gain)))
    low, high = np.percentile(gain[drawn].mean(axis=1), [2.5, 97.5])
    accuracies = [
        ", ".join(f"{100 * x:.2f}" for x in (answers == labels).mean(axis=1))
        for answers in (plain, small)
    ]
    return (
        f"float {accuracies[0]}; int8 {accuracies[1]}; difference "
        f"{100 * gain.mean():+.2f} ({100 * low:.2f} to {100 * high:.2f}); equal "
        f"answers {100 * (plain == small).mean():.1f}%"
    )


def main() -> None:
    """Prints a line for each runtime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work_dir", type=pathlib.Path, required=True)
    parser.add_argument("--models", type=pathlib.Path, nargs="+", required=True)
    parser.add_argument(
        "--dev_file", default=f"{ROOT}/.data/tasks/boolq/dev.jsonl", type=pathlib.Path
    )
    options = parser.parse_args()
    work = options.work_dir.resolve()
    work.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in options.dev_file.read_text().splitlines()]
    pairs = [(row["question"], row["passage"]) for row in rows]
    (work / "pairs.json").write_text(json.dumps(pairs))
    labels = np.array([int(row["label"]) for row in rows])
    models = [model.resolve() for model in options.models]
    served = np.array([logits_of(m, "savedmodel", False, work) for m in models])
    for to in FORMS:
        plain, small = (
            np.array([logits_of(model, to, int8, work) for model in models])
            for int8 in (False, True)
        )
        print(to, describe(plain.argmax(-1), small.argmax(-1), labels), flush=True)
        furthest = np.abs(plain - served).max()
        print(f"  float logits within {furthest:.1e} of TensorFlow's", flush=True)


if __name__ == "__main__":
    main()
