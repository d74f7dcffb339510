"""Divides documents into training and test shards.

The text is cut into jobs, which write different shards, so that finished ones survive
an interruption. Whether a document is training or test depends on its own text alone:
copies of it go to the same side, and no test document is in the training text too.
"""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bert_tf.config.text import ShardConfig
from bert_tf.data.commands.output_folder import SHARD_FILES, OutputFolder, settings_of
from bert_tf.data.output_files import (
    FileWriter,
    OutputFile,
    require_documents,
    total_counts,
)
from bert_tf.data.processes import divide, in_order
from bert_tf.data.text.documents import (
    FileRange,
    Sentences,
    cut_into_ranges,
    holds_words,
    read_ranges,
)
from bert_tf.data.text.input_files import expand_paths
from bert_tf.data.text.line_check import warn_of_plain_text
from bert_tf.files import content_size
from bert_tf.launch import report
from bert_tf.progress import ProgressReport

_SIDES = ("training", "test")
_RANGE_BYTES = 1 << 20
_FEWEST_BYTES = 3


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the text, and the shards that hold it and no other text.

    Attributes:
      ranges: The text, in order.
      shards: Side, training or test -> file names.
    """

    ranges: Sequence[FileRange]
    shards: dict[str, Sequence[str]]

    @property
    def names(self) -> list[str]:
        """All file names of the job."""
        return [name for side in _SIDES for name in self.shards[side]]

    @property
    def num_bytes(self) -> int:
        """Size of its text."""
        return sum(file_range.num_bytes for file_range in self.ranges)


def belongs_to_test(document: Sentences, seed: int, fraction: float) -> bool:
    """Whether a document goes to the test text, by its own text and the seed alone.

    Args:
      document: Its sentences.
      seed: Another seed makes another choice.
      fraction: Fraction of the documents that go to the test text, in (0, 1).

    Returns:
      The same answer wherever and however often the document occurs.
    """
    key = seed.to_bytes(16, "little")
    text = "\n".join(document).encode(errors="replace")
    digest = hashlib.blake2b(text, digest_size=8, key=key).digest()
    return int.from_bytes(digest, "little") < fraction * 2**64


def shard_documents(config: ShardConfig) -> dict[str, Counter[str]]:
    """Divides documents into shards; resumes an interrupted call.

    Args:
      config: All settings.

    Returns:
      Counts of `documents`, `sentences` and `bytes` for training and test.

    Raises:
      FileNotFoundError: if there is no text.
      FileExistsError: if `output_dir` holds other output.
      ValueError: if a shard would stay empty, or the text is not UTF-8.
    """
    paths = expand_paths(config.input)
    remedy = (
        "For plain text run `data extract` (with --input_format=lines if each line is "
        "a document) and `data sentences` before."
    )
    for line in warn_of_plain_text(paths, remedy):
        report(line)
    settings = settings_of(config, "input")
    output = OutputFolder("shard", config.output_dir, SHARD_FILES, settings, paths)
    files = output.complete(config.overwrite, lambda o: _make_shards(config, paths, o))
    return {
        side: total_counts(file for file in files if file.name.startswith(side))
        for side in _SIDES
    }


def _cut_into_jobs(config: ShardConfig, paths: Sequence[str]) -> list[Job]:
    """Makes as many jobs as the side with fewer shards allows."""
    counts = {"training": config.n_training_shards, "test": config.n_test_shards}
    names = {
        side: [f"{side}-{n:05d}-of-{count:05d}.txt" for n in range(count)]
        for side, count in counts.items()
    }
    size = sum(map(content_size, paths))
    for side, name in zip(_SIDES, ("n_training_shards", "n_test_shards"), strict=True):
        # A document is a letter, a line end and a blank line at least.
        most = max(1, size // _FEWEST_BYTES)
        if counts[side] > most:
            raise ValueError(
                f"`{name}` must leave no shard empty: at most {most:,} for {size:,} "
                f"bytes of text. Received: {name}={counts[side]}. Pass a smaller one."
            )
    wanted = min(_RANGE_BYTES, size // min(counts.values()))
    ranges = list(cut_into_ranges(paths, "google", wanted))
    num_jobs = min(len(ranges), *counts.values())
    training, test = (divide(names[side], num_jobs) for side in _SIDES)
    return [
        Job(job_ranges, dict(zip(_SIDES, shards, strict=True)))
        for job_ranges, *shards in zip(
            divide(ranges, num_jobs), training, test, strict=True
        )
    ]


def _make_shards(
    config: ShardConfig, paths: Sequence[str], output: OutputFolder
) -> list[OutputFile]:
    jobs = _cut_into_jobs(config, paths)
    left = [job for job in jobs if not all(map(output.finished, job.names))]
    tasks = ((job, config, output.partial_dir) for job in left)
    with ProgressReport(sum(job.num_bytes for job in left), "documents") as progress:
        results = in_order(write_shards, tasks, config.num_processes)
        for job, files in zip(left, results, strict=True):
            for file in files:
                _check_not_empty(file, config)
                output.finish(file)
            progress.add(job.num_bytes, total_counts(files)["documents"])
    if not jobs:
        require_documents([], output.partial_dir, config.input)
    shards = [job.shards for job in jobs]
    names = [name for side in _SIDES for sides in shards for name in sides[side]]
    return list(map(output.finished, names))


def _check_not_empty(file: OutputFile, config: ShardConfig) -> None:
    if not file.counts.get("documents"):
        raise ValueError(
            f"`n_training_shards`, `n_test_shards` and `fraction_test_set` must leave "
            f"no shard empty, but {file.name} gets no document. Received: input="
            f"{config.input}, "
            f"n_training_shards={config.n_training_shards}, "
            f"n_test_shards={config.n_test_shards}, "
            f"fraction_test_set={config.fraction_test_set}. Pass fewer shards, another "
            "fraction or more documents."
        )


def write_shards(job: Job, config: ShardConfig, folder: Path) -> list[OutputFile]:
    """Writes the documents of a job to its shards in turn: one task of a process."""
    with ExitStack() as stack:
        writers = {
            side: [stack.enter_context(FileWriter(folder / name)) for name in names]
            for side, names in job.shards.items()
        }
        counts: dict[str, Counter[str]] = {name: Counter() for name in job.names}
        turns = {side: itertools.cycle(writers[side]) for side in _SIDES}
        for document in read_ranges(job.ranges, "google"):
            if not any(map(holds_words, document)):
                continue  # Control characters and the like.
            is_test = belongs_to_test(document, config.seed, config.fraction_test_set)
            writer = next(turns[_SIDES[is_test]])
            text = "\n".join(document) + "\n"
            writer.append(("\n" * (writer.num_bytes > 0) + text).encode())
            counts[writer.path.name].update(documents=1, sentences=len(document))
    return [
        writer.described(counts[writer.path.name])
        for side in _SIDES
        for writer in writers[side]
    ]
