"""Makes a folder of record shards from text, in many processes.

The text is cut into groups of documents, see `groups`, and consecutive groups form
jobs. Neither depends on the number of processes, so the output does not either. A job
writes its own shards and no others: finished shards survive an interruption, and the
workers of a cluster can divide the jobs among them.
"""

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bert_tf.config.data import CreateDataConfig
from bert_tf.data import output
from bert_tf.data.commands.output_folder import Stage, settings_of
from bert_tf.data.commands.summary import SUMMARY, summarize, vocabulary_warnings
from bert_tf.data.pretraining.counts import count_instances, merge_samples
from bert_tf.data.pretraining.document_groups import (
    Group,
    cut_into_groups,
    duplicate_blocks,
    make_instances,
    tokenizer_settings,
)
from bert_tf.data.processes import in_order
from bert_tf.data.records.metadata import (
    Metadata,
    metadata_file,
    read_metadata,
    write_metadata,
)
from bert_tf.data.records.shards import Part, record_shards, share
from bert_tf.data.records.tfrecord import (
    RecordWriter,
    frame_record,
    serialize_instance,
    shard_name,
)
from bert_tf.data.records.tokenizer_settings import choose_settings
from bert_tf.data.text.input_files import expand_paths
from bert_tf.data.text.tokenization import TokenizerSettings, load_vocabulary
from bert_tf.files import file_sha256
from bert_tf.launch import report
from bert_tf.progress import ProgressReport
from bert_tf.resources import available_cores

if TYPE_CHECKING:  # It loads TensorFlow, which the worker processes do without.
    from bert_tf.distribute import Communicator

_RAW = ".tfrecord"


@dataclasses.dataclass(frozen=True)
class Job:
    """Groups of documents, and the shards that hold their records and no others.

    Attributes:
      groups: In order; a single one if there are more shards than groups.
      shards: File names; a single one if there are more groups than shards.
    """

    groups: Sequence[Group]
    shards: Sequence[str]

    @property
    def num_bytes(self) -> int:
        """Size of its text."""
        return sum(group.num_bytes for group in self.groups)


@dataclasses.dataclass(frozen=True)
class GroupRecords:
    """What a worker process returns for some duplicates of a group.

    Attributes:
      frames: Records in TFRecord framing.
      lengths: Number of tokens without padding of each record.
      counts: Those of `text_counts` for the text and these records.
      sample: Hashes of the text's documents, see `text_counts.merge_samples`.
    """

    frames: list[bytes]
    lengths: list[int]
    counts: Counter[str]
    sample: Sequence[int]


def create_records(
    config: CreateDataConfig, communicator: "Communicator | None" = None
) -> Metadata:
    """Makes a folder of record shards and its metadata; resumes an interrupted call.

    Args:
      config: All settings.
      communicator: The workers, which divide the work and see the same folders.

    Returns:
      The metadata.

    Raises:
      FileNotFoundError: if text or vocabulary is missing.
      FileExistsError: if `output_dir` holds other records and `overwrite` is false, or
        holds other files.
      ValueError: if the text cannot be used; the message says where.
      RunError: if a worker process dies.
    """
    paths = expand_paths(config.input)
    config, notes = _with_tokenizer_settings(config)
    if communicator is None or communicator.rank == 0:
        for note in notes:
            print(note, flush=True)
    settings = settings_of(config, "input", "vocab_file", *_usual(config))
    inputs = [*paths, config.vocab_file]
    vocabulary = load_vocabulary(config.vocab_file)
    for line in vocabulary_warnings(vocabulary, tokenizer_settings(config)):
        report(line)
    stage = Stage("create", config.output_dir, output.RECORDS, settings, inputs)
    if communicator is not None and communicator.size > 1:
        return _create_together(config, paths, stage, communicator)
    with stage:
        parts = stage.begin(config.overwrite)
        if parts is None:
            jobs = cut_into_jobs(paths, config)
            _make_shards(jobs, config, stage)
            return _publish(jobs, config, stage)
    report(f"{config.output_dir} exists already, made from the same text.")
    return read_metadata(config.output_dir) or _write_metadata(config, parts)


def _with_tokenizer_settings(
    config: CreateDataConfig,
) -> tuple[CreateDataConfig, list[str]]:
    """The config with case and accents filled in, and lines for the log."""
    names = [field.name for field in dataclasses.fields(TokenizerSettings)]
    flags = {name: getattr(config, name) for name in names}
    folder = os.path.dirname(config.vocab_file) or "."
    choice = choose_settings(flags, [folder], config.vocab_file)
    settings = dataclasses.asdict(choice.settings)
    return dataclasses.replace(config, **settings), choice.notes


def _usual(config: CreateDataConfig) -> list[str]:
    """Settings at their usual value, which manifests of earlier versions do not have.

    Left out of the manifest at that value, they do not make an earlier folder look
    different.
    """
    usual = {
        "strip_accents": config.do_lower_case,
        "tokenize_chinese_chars": True,
    }
    return [name for name, value in usual.items() if getattr(config, name) == value]


def _create_together(
    config: CreateDataConfig,
    paths: Sequence[str],
    stage: Stage,
    communicator: "Communicator",
) -> Metadata:
    """As `create_records`, on several workers: rank 0 prepares and publishes."""
    is_first = communicator.rank == 0
    if not config.num_processes:
        cores = available_cores(communicator.local_size)
        config = dataclasses.replace(config, num_processes=cores)
    with stage:
        parts, error = None, None
        try:
            parts = stage.begin(config.overwrite) if is_first else None
        except Exception as failure:  # noqa: BLE001 - raised on all workers
            error = failure
        communicator.agree(error)
        if not communicator.gather([parts is not None])[0, 0]:
            jobs = cut_into_jobs(paths, config)
            try:
                own = jobs[communicator.rank :: communicator.size]
                _make_shards(own, config, stage)
            except Exception as failure:  # noqa: BLE001 - raised on all workers
                error = failure
            communicator.agree(error)
            if is_first:
                _publish(jobs, config, stage)
        elif is_first and not read_metadata(config.output_dir):
            _write_metadata(config, parts)
        communicator.agree(None)
    return read_metadata(config.output_dir)


def cut_into_jobs(paths: Sequence[str], config: CreateDataConfig) -> list[Job]:
    """Divides groups and shards evenly into as many jobs as possible.

    Args:
      paths: The text.
      config: All settings.

    Returns:
      Jobs, in the order of text and shards.

    Raises:
      ValueError: if there is no text.
    """
    groups = list(
        cut_into_groups(
            paths, config.input_format, config.num_shards, tokenizer_settings(config)
        )
    )
    if not groups:
        raise ValueError(
            "`input` must hold text. Received: "
            f"input={config.input}, which holds no document with a word."
        )
    names = [shard_name(n, config.num_shards) for n in range(config.num_shards)]
    if config.format == "hdf5":
        names = [str(Path(name).with_suffix(".hdf5")) for name in names]
    count = min(len(groups), len(names))
    return [
        Job(share(groups, number, count), share(names, number, count))
        for number in range(count)
    ]


def make_group_records(
    group: Group, duplicates: range, config: CreateDataConfig, vocab_sha256: str
) -> GroupRecords:
    """Makes the records of some duplicates of a group: one task of a worker process."""
    instances, text = make_instances(group, duplicates, config, vocab_sha256)
    sizes = config.max_seq_length, config.max_predictions_per_seq
    return GroupRecords(
        [frame_record(serialize_instance(one, *sizes)) for one in instances],
        [len(one.input_ids) for one in instances],
        text.counts + count_instances(instances),
        text.sample,
    )


def _make_shards(jobs: Sequence[Job], config: CreateDataConfig, stage: Stage) -> None:
    """Writes the shards of all jobs that are not finished."""
    left = [job for job in jobs if not all(stage.finished(name) for name in job.shards)]
    if len(left) < len(jobs):
        report(f"Resuming: {len(jobs) - len(left)} of {len(jobs)} parts are done.")
    vocab_sha256 = file_sha256(config.vocab_file)
    blocks = duplicate_blocks(config.dupe_factor)
    pieces = (
        (group, block, config, vocab_sha256)
        for job in left
        for group in job.groups
        for block in blocks
    )
    total = sum(job.num_bytes for job in left) * config.dupe_factor
    results = in_order(make_group_records, pieces, config.num_processes)
    with contextlib.closing(results), ProgressReport(total) as progress:
        for job in left:
            _write_job(job, results, config, stage, progress)


def _write_job(
    job: Job,
    results: Iterator[GroupRecords],
    config: CreateDataConfig,
    stage: Stage,
    progress: ProgressReport,
) -> None:
    """Writes the records of a job to its shards in turn."""
    num_tokens = [0] * len(job.shards)
    text: Counter[str] = Counter()
    samples: list[Sequence[int]] = []
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(RecordWriter((stage.folder / name).with_suffix(_RAW)))
            for name in job.shards
        ]
        for group in job.groups:
            for block in duplicate_blocks(config.dupe_factor):
                result = next(results)
                text.update(result.counts)
                samples.append(result.sample)
                for number, length in enumerate(result.lengths):
                    shard = number % len(writers)
                    writers[shard].write_framed(result.frames[number])
                    num_tokens[shard] += length
                progress.add(group.num_bytes * len(block), len(result.frames))
        count = sum(writer.num_records for writer in writers)
        if not all(writer.num_records for writer in writers):
            raise ValueError(
                "`num_shards` must leave no shard empty, but a part of the text makes "
                f"{count} records for {len(writers)} shards. Received: num_shards="
                f"{config.num_shards}. Pass a smaller --num_shards."
            )
    sample = merge_samples(samples)
    for name, writer, tokens in zip(job.shards, writers, num_tokens, strict=True):
        counts = {"records": writer.num_records, "tokens": tokens, "kept_tokens": 0}
        # The counts of the job's text are added up later: only one shard has them.
        part = Part(name, writer.num_bytes, writer.crc32c, counts | text, sample)
        text, sample = Counter(), ()
        if config.format == "hdf5":
            part = _to_hdf5(writer.path, stage.folder / name, part)
        stage.finish(part)


def _to_hdf5(raw: Path, path: Path, part: Part) -> Part:
    """Converts a finished shard: HDF5 files are created for a number of records."""
    # It loads TensorFlow, which takes seconds and is not needed for TFRecords.
    from bert_tf.data.commands.convert import Form, copy_shard

    copied = copy_shard((str(raw),), range(part.counts["records"]), path, Form("hdf5"))
    raw.unlink()
    return dataclasses.replace(copied, counts=part.counts, sample=part.sample)


def _publish(jobs: Sequence[Job], config: CreateDataConfig, stage: Stage) -> Metadata:
    """Renames the folder, all of whose parts are finished, and writes its metadata."""
    parts = [stage.finished(name) for job in jobs for name in job.shards]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(metadata_file(config.output_dir))
    stage.publish(parts)
    return _write_metadata(config, parts)


def _write_metadata(config: CreateDataConfig, parts: Sequence[Part]) -> Metadata:
    samples = sum(part.counts["records"] for part in parts)
    num_tokens = sum(part.counts["tokens"] for part in parts)
    # These do not affect the records, so the metadata leaves them out.
    settings = dataclasses.asdict(config)
    for name in ("num_processes", "overwrite", "horovod"):
        del settings[name]
    summary = summarize(parts, config)
    metadata = Metadata(
        format=config.format,
        packed=False,
        max_seq_length=config.max_seq_length,
        max_predictions_per_seq=config.max_predictions_per_seq,
        max_predictions_per_pack=config.max_predictions_per_seq,
        max_sequences_per_pack=1,
        original_number_of_samples=samples,
        new_number_of_samples=samples,
        avg_seq_per_sample=1.0,
        packing_efficiency=num_tokens / (samples * config.max_seq_length),
        padding_tokens_original_dataset=samples * config.max_seq_length - num_tokens,
        shards=record_shards(parts),
        vocab_size=len(load_vocabulary(config.vocab_file)),
        vocab_sha256=file_sha256(config.vocab_file),
        seed=config.seed,
        config=settings,
        extra={SUMMARY: summary} if summary else {},
    )
    write_metadata(config.output_dir, metadata)
    return metadata
