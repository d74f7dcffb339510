"""Whether a stuck pre-training says why, and a good one says nothing.

    python benchmarks/loss_doctor.py --work_dir results/loss-doctor

Plants seven faults in short trainings on the demo's text (`make data`), and runs ten
without one: two optimizers, five seeds. Prints the cause that the log of each names.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import tensorflow as tf

ROOT = pathlib.Path(__file__).parents[1]
COMMON = ["--preset=tiny", "--do_train", "--train_batch_size=32"]
STEPS = 800
CYRILLIC = str.maketrans({ord("a") + i: chr(0x430 + i) for i in range(26)})


def command(*words: object) -> None:
    """A command of `python -m bert_tf`."""
    subprocess.run([sys.executable, "-m", "bert_tf", *map(str, words)], check=True)


def create(text: object, folder: pathlib.Path, vocab: pathlib.Path, *flags: str) -> str:
    """Records of a text."""
    sizes = ("--max_seq_length=64", "--max_predictions_per_seq=10", "--dupe_factor=1")
    command(
        *("data", "create", f"--input={text}", f"--output_dir={folder}"),
        *(f"--vocab_file={vocab}", *sizes, "--num_shards=1", *flags),
    )
    return f"--input_files_dir={folder}"


def with_labels_of_others(records: pathlib.Path, folder: pathlib.Path) -> str:
    """The same records, each with the masked tokens of the one before."""
    [path] = records.glob("*.tfrecord")
    examples = [
        tf.train.Example.FromString(data)
        for data in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    ]
    found = [e.features.feature["masked_lm_ids"].int64_list for e in examples]
    labels = [list(each.value) for each in found]
    folder.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(folder / path.name)) as writer:
        for number, example in enumerate(examples):
            found[number].value[:] = labels[number - 1]
            writer.write(example.SerializeToString())
    shutil.copy(f"{records}_metadata.json", f"{folder}_metadata.json")
    return f"--input_files_dir={folder}"


def runs(work: pathlib.Path) -> Iterator[tuple[str, str, list[str]]]:
    """Name, expected cause ("" if none), and flags of each training."""
    sentences = (ROOT / ".data/demo/sentences/part-00000.txt").read_text().split("\n\n")
    work.mkdir(parents=True, exist_ok=True)
    text = work / "text.txt"
    text.write_text("\n\n".join(sentences))
    words = ("data", "vocab", f"--input={text}", f"--output_dir={work}/vocab")
    command(*words, "--vocab_size=4000")
    vocab = work / "vocab/vocab.txt"
    records = create(text, work / "records", vocab)
    for seed in range(1, 6):
        for optimizer, rate in (("lamb", 0.007), ("adamw", 0.001)):
            flags = [records, f"--optimizer_type={optimizer}", f"--seed={seed}"]
            yield f"good {optimizer} {seed}", "", [*flags, f"--learning_rate={rate}"]
    usual = ["--optimizer_type=adamw", "--learning_rate=0.001"]
    rate = ["--optimizer_type=adamw", records]
    yield "rate x 1000", "learning rate too high", [*rate, "--learning_rate=1"]
    yield "rate / 1000", "learning rate too low", [*rate, "--learning_rate=1e-6"]
    wrong = with_labels_of_others(work / "records", work / "labels")
    yield "labels of other records", "shuffled labels", [wrong, *usual]
    other = work / "other.txt"
    other.write_text(text.read_text().lower().translate(CYRILLIC))
    wrong = create(other, work / "wrong", vocab)
    yield "text in another script", "wrong vocabulary", [wrong, *usual]
    copies = work / "copies.txt"
    copies.write_text("\n\n".join(sentences[: len(sentences) // 20] * 20))
    wrong = create(copies, work / "copied", vocab)
    yield "each document 20 times", "repeated data", [wrong, *usual]
    folders = []
    size = -(-len(sentences) // 4)
    for number in range(4):  # Addresses, then an encyclopedia.
        part = work / f"part-{number}.txt"
        part.write_text("\n\n".join(sentences[number * size : (number + 1) * size]))
        create(part, work / f"sorted-{number}", vocab)
        folders.append(f"{work}/sorted-{number}")
    wrong = f"--input_files_dir={','.join(folders)}"
    yield "in the order of files", "no shuffle", [wrong, "--deterministic_run", *usual]
    yield "batch of one", "tiny batch", [records, "--train_batch_size=1", *usual]


def cause_of(flags: list[str], output: pathlib.Path) -> tuple[str, str]:
    """The cause that a training's log names, and its last loss."""
    shutil.rmtree(output, ignore_errors=True)
    words = [*COMMON, f"--num_train_steps={STEPS}", *flags, f"--output_dir={output}"]
    ended = subprocess.run(
        [sys.executable, ROOT / "run_pretraining.py", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = ended.stdout
    if ended.returncode:
        sys.exit(log)
    found = re.search(r"Likely cause: ([^:]*)", log)
    losses = re.findall(r"mlm_loss : ([\d.]+)", log)
    return found[1] if found else "", losses[-1]


def main() -> None:
    """Prints a line for each training, and how many were right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work_dir", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="trainings with this in their names")
    options = parser.parse_args()
    right = total = 0
    for name, expected, flags in runs(options.work_dir):
        if options.only in name:
            cause, loss = cause_of(flags, options.work_dir / "run")
            is_right = cause.startswith(expected) if expected else not cause
            right, total = right + is_right, total + 1
            print(f"{name}: loss {loss}; {cause or 'no cause named'}", flush=True)
    print(f"{right} of {total} right")


if __name__ == "__main__":
    main()
