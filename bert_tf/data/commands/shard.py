"""Divides documents into training and test shards.

The text is cut into jobs, which write different shards, so that finished ones survive
an interruption. Whether a document is training or test depends on its own text alone:
copies of it go to the same side, and no test document is in the training text too.
"""

import dataclasses
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bert_tf.config.text import ShardConfig
from bert_tf.data import output
from bert_tf.data.commands.output_folder import Stage, settings_of
from bert_tf.data.output import FileWriter
from bert_tf.data.processes import in_order
from bert_tf.data.records.shards import Part, share, total_counts
from bert_tf.data.text.documents import (
    Sentences,
    Stretch,
    cut_into_stretches,
    holds_words,
    read_stretch,
)
from bert_tf.data.text.input_files import expand_paths
from bert_tf.progress import ProgressReport

_SIDES = ("training", "test")
_STRETCH_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Job:
    """A part of the text, and the shards that hold it and no other text.

    Attributes:
      stretches: The text, in order.
      shards: Side, training or test -> file names.
    """

    stretches: Sequence[Stretch]
    shards: dict[str, Sequence[str]]

    @property
    def names(self) -> list[str]:
        """All file names of the job."""
        return [name for side in _SIDES for name in self.shards[side]]

    @property
    def num_bytes(self) -> int:
        """Size of its text."""
        return sum(stretch.num_bytes for stretch in self.stretches)


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
    settings = settings_of(config, "input")
    with Stage("shard", config.output_dir, output.SIDES, settings, paths) as stage:
        parts = stage.begin(config.overwrite)
        if parts is None:
            parts = _make_shards(config, paths, stage)
            stage.publish(parts)
    return {
        side: total_counts(part for part in parts if part.name.startswith(side))
        for side in _SIDES
    }


def _cut_into_jobs(config: ShardConfig, paths: Sequence[str]) -> list[Job]:
    """Makes as many jobs as the side with fewer shards allows."""
    counts = {"training": config.n_training_shards, "test": config.n_test_shards}
    names = {
        side: [f"{side}-{n:05d}-of-{count:05d}.txt" for n in range(count)]
        for side, count in counts.items()
    }
    size = sum(map(os.path.getsize, paths))
    wanted = min(_STRETCH_BYTES, size // min(counts.values()))
    stretches = list(cut_into_stretches(paths, "google", wanted))
    num_jobs = min(len(stretches), *counts.values())
    return [
        Job(
            share(stretches, number, num_jobs),
            {side: share(names[side], number, num_jobs) for side in _SIDES},
        )
        for number in range(num_jobs)
    ]


def _make_shards(config: ShardConfig, paths: Sequence[str], stage: Stage) -> list[Part]:
    jobs = _cut_into_jobs(config, paths)
    left = [job for job in jobs if not all(map(stage.finished, job.names))]
    pieces = ((job, config, stage.folder) for job in left)
    with ProgressReport(sum(job.num_bytes for job in left), "documents") as progress:
        results = in_order(write_shards, pieces, config.num_processes)
        for job, parts in zip(left, results, strict=True):
            for part in parts:
                _check_part(part, config)
                stage.finish(part)
            progress.add(job.num_bytes, total_counts(parts)["documents"])
    names = [job.names for job in jobs]
    return sorted(
        map(stage.finished, itertools.chain(*names)),
        key=lambda part: (not part.name.startswith("training"), part.name),
    )


def _check_part(part: Part, config: ShardConfig) -> None:
    if not part.counts.get("documents"):
        raise ValueError(
            f"`n_training_shards`, `n_test_shards` and `fraction_test_set` must leave "
            f"no shard empty, but {part.name} gets no document. Received: "
            f"n_training_shards={config.n_training_shards}, "
            f"n_test_shards={config.n_test_shards}, "
            f"fraction_test_set={config.fraction_test_set}. Pass fewer shards, another "
            "fraction or more documents."
        )


def write_shards(job: Job, config: ShardConfig, folder: Path) -> list[Part]:
    """Writes the documents of a job to its shards in turn: one task of a process."""
    with ExitStack() as stack:
        writers = {
            side: [stack.enter_context(FileWriter(folder / name)) for name in names]
            for side, names in job.shards.items()
        }
        counts: dict[str, Counter[str]] = {name: Counter() for name in job.names}
        turns = {side: itertools.cycle(writers[side]) for side in _SIDES}
        for stretch in job.stretches:
            for document in read_stretch(stretch, "google"):
                if not any(map(holds_words, document)):
                    continue  # Control characters and the like.
                fraction = config.fraction_test_set
                is_test = belongs_to_test(document, config.seed, fraction)
                writer = next(turns[_SIDES[is_test]])
                text = "\n".join(document) + "\n"
                writer.append(("\n" * (writer.num_bytes > 0) + text).encode())
                counts[writer.path.name].update(documents=1, sentences=len(document))
    return [
        Part(w.path.name, w.num_bytes, w.crc32c, dict(counts[w.path.name]))
        for side in _SIDES
        for w in writers[side]
    ]
