"""What --dynamic_masking costs: training with and without it, in pairs, in one process.

    python benchmarks/masking.py --preset=small --pairs=15

The same model trains on the same records in both halves of a pair, which takes turns in
who is first; what counts is the median of the pairs' ratios of seconds. Masks are drawn
in the background, so the price is what they take from the cores that compute.
"""

import argparse
import copy
import itertools
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bert_tf.config import (
    BatchConfig,
    CreateDataConfig,
    FilesConfig,
    OptimizerConfig,
    PretrainingConfig,
    RuntimeConfig,
    TrainingConfig,
)
from bert_tf.data.batches.record_batches import StepReader
from bert_tf.data.commands.create import create_records
from bert_tf.jobs.pretraining import prepare
from bert_tf.jobs.run.session import open_session
from bert_tf.jobs.run.training_loop import make_trainer
from bert_tf.training.trainer import Trainer

ROOT = pathlib.Path(__file__).parents[1]
_UNTIMED = 3  # Until the batches that are read ahead are there.


def make_config(options: argparse.Namespace, folder: str) -> PretrainingConfig:
    """A training with masks that are drawn anew, on records made here."""
    vocab_file = str(ROOT / ".data" / "vocab.txt")
    create_records(
        CreateDataConfig(
            input=str(ROOT / ".data" / "text" / "sotu"),
            input_format="text",
            output_dir=f"{folder}/records",
            vocab_file=vocab_file,
            max_seq_length=options.max_seq_length,
            max_predictions_per_seq=round(0.15 * options.max_seq_length) + 1,
            dupe_factor=1,
        )
    )
    return PretrainingConfig(
        files=FilesConfig(
            input_files_dir=f"{folder}/records",
            output_dir=f"{folder}/run",
            vocab_file=vocab_file,
            preset=options.preset,
        ),
        training=TrainingConfig(do_train=True, dynamic_masking=True),
        batch=BatchConfig(train_batch_size=options.batch),
        optimizer=OptimizerConfig(num_train_steps=10_000),
        runtime=RuntimeConfig(precision=options.precision),
    )


def seconds(trainer: Trainer, reader: StepReader, num_steps: int) -> float:
    """Time of a step: the mean of so many, from the first one of the run."""
    batches = reader.batches(_UNTIMED + num_steps)
    for batch in itertools.islice(batches, _UNTIMED):
        trainer.train_step(batch)
    begin = time.perf_counter()
    for batch in batches:
        trainer.train_step(batch)
    return (time.perf_counter() - begin) / num_steps


def main() -> None:
    """Measures, and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--preset", default="small")
    add("--precision", default="bf16")
    add("--max_seq_length", type=int, default=128)
    add("--batch", type=int, default=32)
    add("--steps", type=int, default=20, help="of half a pair")
    add("--pairs", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(options, folder)
        with open_session(config) as session:
            plan = session.make_plan(config, prepare)
            drawn = plan.make_reader()
            stored = copy.copy(drawn)
            stored._masker = None
            paused = session.watchdog.paused
            trainer = make_trainer(plan, session.communicator, drawn, paused)
            seconds(trainer, drawn, options.steps)
            ratios, each = [], {True: [], False: []}
            for number in range(options.pairs):
                for is_drawn in (True, False) if number % 2 else (False, True):
                    reader = drawn if is_drawn else stored
                    each[is_drawn].append(seconds(trainer, reader, options.steps))
                ratios.append(each[True][-1] / each[False][-1])
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(
        f"drawn {statistics.median(each[True]):.4f} s a step, stored "
        f"{statistics.median(each[False]):.4f} s; ratio {middle:.4f} (median of "
        f"{options.pairs} pairs, quartiles {low:.4f} to {high:.4f})"
    )


if __name__ == "__main__":
    main()
