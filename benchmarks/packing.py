"""Packing: the packer against the ideal, and training packed against unpacked.

    python benchmarks/packing.py --output results/packing.json

The lengths are those of `wikipedia_lengths`. Real text is cut to such lengths, so that
both trainings read the same tokens. They take turns, a process each time; what counts
is the median of the rounds' ratios of sequences/s (the same sequences, so also of
tokens/s).
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from wikipedia_lengths import SIZE, wikipedia_shares

from bert_tf.config.data import CreateDataConfig, IndexDataConfig, PackDataConfig
from bert_tf.data.commands.index import index_records
from bert_tf.data.commands.pack import pack_records
from bert_tf.data.packing.planning import make_plan
from bert_tf.data.pretraining.instances import Masker, TrainingInstance
from bert_tf.data.records.examples import serialize_instances
from bert_tf.data.records.tfrecord import RecordWriter, shard_name
from bert_tf.data.text.documents import cut_into_ranges, read_ranges
from bert_tf.data.text.input_files import expand_paths
from bert_tf.data.text.tokenization import WordPieceTokenizer

ROOT = pathlib.Path(__file__).parents[1]
PREDICTIONS = 80
NUM_WIKIPEDIA = 16_279_552


def plan_rows() -> list[dict[str, float]]:
    """The packer on as many sequences as Wikipedia has."""
    histogram = np.round(wikipedia_shares() * NUM_WIKIPEDIA).astype(np.int64)
    rows = []
    for limit in (1, 2, 3, 4, 8, None):
        begin = time.perf_counter()
        plan = make_plan(histogram, limit)
        seconds = time.perf_counter() - begin
        factor = plan.num_sequences / plan.num_packs
        rows.append(
            {
                "max_sequences": limit or 0,
                "efficiency": plan.efficiency,
                "sequences_per_record": factor,
                "seconds": seconds,
            }
        )
    return rows


def write_unpacked(folder: pathlib.Path, count: int) -> None:
    """Real text cut to sequences of those lengths, masked as usual."""
    config = CreateDataConfig(
        input="text",
        output_dir=str(folder),
        vocab_file=str(ROOT / ".data" / "vocab.txt"),
        max_seq_length=SIZE,
        max_predictions_per_seq=PREDICTIONS,
    )
    tokenizer = WordPieceTokenizer(config.vocab_file)
    masker = Masker(config, tokenizer.special, len(tokenizer.inverse_vocab), ())
    rng = random.Random(0)
    shares = wikipedia_shares()
    lengths = rng.choices(range(SIZE + 1), shares.tolist(), k=count)
    tokens = _tokens(tokenizer)
    folder.mkdir()
    with RecordWriter(folder / shard_name(0, 1)) as writer:
        for length in lengths:
            text = [next(tokens) for _ in range(length - 3)]
            half = rng.randint(1, len(text) - 1)
            special = tokenizer.special
            ids = [special.cls, *text[:half], special.sep, *text[half:], special.sep]
            first_b = half + 2
            segments = range(1, half + 1), range(first_b, length - 1)
            positions, labels = masker.mask(ids, segments, rng)
            segment_ids = [0] * first_b + [1] * (length - first_b)
            instance = TrainingInstance(
                ids, segment_ids, rng.random() < 0.5, positions, labels
            )
            for data in serialize_instances([instance], SIZE, PREDICTIONS):
                writer.write(data)
    index_records(IndexDataConfig(input_dir=str(folder)))


def _tokens(tokenizer: WordPieceTokenizer):  # noqa: ANN202 - a generator of ids
    """The ids of the speeches, again from the first when they are over."""
    paths = expand_paths(str(ROOT / ".data" / "text" / "sotu"))
    while True:
        for document in read_ranges(cut_into_ranges(paths, "text", 0), "text"):
            for sentence in tokenizer.encode(document):
                yield from sentence


def train(records: pathlib.Path, options: argparse.Namespace) -> float:
    """One training in a process of its own; sequences/s as it prints them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "run_pretraining.py", f"--preset={options.preset}"),
            *("--do_train", f"--input_files_dir={records}", f"--output_dir={folder}"),
            f"--num_train_steps={options.steps + 1}",
            f"--train_batch_size={options.batch_size}",
            f"--num_accumulation_steps={options.accumulation}",
            f"--precision={options.precision}",
            "--display_loss_steps=1000",
        ]
        result = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=3600
        )
    lines = [line for line in result.stdout.splitlines() if "throughput:" in line]
    if result.returncode or not lines:
        sys.exit(result.stderr[-2000:] + result.stdout[-2000:])
    return float(lines[-1].split("throughput:")[1].split()[0])


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Packs, and trains in turns."""
    with tempfile.TemporaryDirectory() as work:
        unpacked, packed = pathlib.Path(work, "unpacked"), pathlib.Path(work, "packed")
        write_unpacked(unpacked, options.sequences)
        begin = time.perf_counter()
        metadata = pack_records(
            PackDataConfig(
                input_dir=str(unpacked), output_dir=str(packed), num_processes=1
            )
        )
        seconds = time.perf_counter() - begin
        rounds = []
        for number in range(options.rounds):
            pair = {"unpacked": train(unpacked, options)}
            pair["packed"] = train(packed, options)
            rounds.append(pair)
            ratio = pair["packed"] / pair["unpacked"]
            print(
                f"round {number + 1}: unpacked {pair['unpacked']:.2f}, packed "
                f"{pair['packed']:.2f} sequences/s, ratio {ratio:.3f}",
                flush=True,
            )
    ratios = [pair["packed"] / pair["unpacked"] for pair in rounds]
    return {
        "preset": options.preset,
        "precision": options.precision,
        "sequences_per_record": metadata.avg_seq_per_sample,
        "packing_efficiency": metadata.packing_efficiency,
        "packed_sequences_per_second_with_planning": options.sequences / seconds,
        "rounds": rounds,
        "ratio": statistics.median(ratios),
        "share_of_promise": statistics.median(ratios) / metadata.avg_seq_per_sample,
    }


def main() -> None:
    """Prints two tables and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="timed steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sequences", type=int, default=20_000)
    parser.add_argument("--output", default="", help="a JSON file")
    options = parser.parse_args()
    plans = plan_rows()
    print("most per record  efficiency  sequences per record  planning")
    for row in plans:
        print(
            f"{row['max_sequences'] or 'any':>15}  {row['efficiency']:10.3%}  "
            f"{row['sequences_per_record']:20.3f}  {row['seconds']:6.2f} s"
        )
    training = measure(options)
    print(
        f"packed / unpacked: {training['ratio']:.3f} (median), promised "
        f"{training['sequences_per_record']:.3f}: {training['share_of_promise']:.1%}"
    )
    if options.output:
        path = pathlib.Path(options.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"plans": plans, "training": training}, indent=2))


if __name__ == "__main__":
    main()
