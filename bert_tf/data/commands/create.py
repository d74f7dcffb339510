"""Makes a folder of record shards from text, in many processes.

The text is cut into groups of documents, see `document_groups`, and consecutive groups
form jobs. Neither depends on the number of processes, so the output does not either. A
job writes its own shards and no others: finished shards survive an interruption, and
the workers of a cluster can divide the jobs among them.
"""

import contextlib
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bert_tf.config.data import CreateDataConfig
from bert_tf.data.commands.output_folder import RECORD_FILES, OutputFolder, settings_of
from bert_tf.data.output_files import OutputFile, no_text_error, total_counts
from bert_tf.data.pretraining.document_groups import (
    DocumentGroup,
    cut_into_groups,
    duplicate_blocks,
    make_instances,
    tokenizer_settings,
    without_repeated,
)
from bert_tf.data.pretraining.statistics import (
    SUMMARY,
    count_instances,
    merge_samples,
    summarize,
)
from bert_tf.data.processes import divide, in_order
from bert_tf.data.records.examples import serialize_instances
from bert_tf.data.records.metadata import (
    Metadata,
    read_metadata,
    record_shards,
    write_metadata,
)
from bert_tf.data.records.tfrecord import RecordWriter, frame_record, shard_name
from bert_tf.data.text.duplicates import make_finder
from bert_tf.data.text.input_files import expand_paths
from bert_tf.data.text.line_check import REMEDY, warn_of_plain_text
from bert_tf.data.text.tokenizer_settings import SETTING_NAMES, choose_settings
from bert_tf.data.text.unreachable_tokens import split_warnings
from bert_tf.data.text.vocabulary import load_vocabulary, vocabulary_sha256
from bert_tf.errors import counted
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

    groups: Sequence[DocumentGroup]
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
      counts: Those of `statistics` for the text and these records.
      sample: Hashes of the text's documents, see `merge_samples`.
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
    if config.dedup:
        make_finder(config.dedup)  # A package may be missing.
    paths = expand_paths(config.input)
    config, notes = _with_tokenizer_settings(config)
    if communicator is None or communicator.rank == 0:
        for note in notes:
            print(note, flush=True)
        if config.input_format == "google":
            for line in warn_of_plain_text(paths, REMEDY):
                report(line)
    for line in _cut_masks(config):
        report(line)
    settings = settings_of(config, "input", "vocab_file", *_usual(config))
    inputs = [*paths, config.vocab_file]
    vocabulary = load_vocabulary(config.vocab_file)
    for line in split_warnings(vocabulary, tokenizer_settings(config)):
        report(line)
    output = OutputFolder("create", config.output_dir, RECORD_FILES, settings, inputs)
    if communicator is not None and communicator.size > 1:
        return _create_together(config, paths, output, communicator)
    with output:
        files = output.begin(config.overwrite)
        if files is None:
            jobs = cut_into_jobs(paths, config)
            _write_shards(jobs, config, output)
            return _publish(jobs, config, output)
    report(f"{config.output_dir} exists already, made from the same text.")
    return _restored_metadata(config, files)


def _cut_masks(config: CreateDataConfig) -> Iterator[str]:
    """A warning if the limit leaves out many of the tokens to mask."""
    most = config.max_predictions_per_seq
    wanted = config.masked_lm_prob * config.max_seq_length
    if most < 0.9 * wanted:  # Published records have 76 of 76.8, and 20 of 19.2.
        yield (
            f"warning: --max_predictions_per_seq={most} is the most tokens that are "
            f"masked; --masked_lm_prob={config.masked_lm_prob:g} of "
            f"{config.max_seq_length} tokens are {wanted:.0f}. Pass "
            f"--max_predictions_per_seq={math.ceil(wanted)} to mask all of them."
        )


def _with_tokenizer_settings(
    config: CreateDataConfig,
) -> tuple[CreateDataConfig, list[str]]:
    """The config with case and accents filled in, and lines for the log."""
    flags = {name: getattr(config, name) for name in SETTING_NAMES}
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
        "do_nsp": True,
        "dedup": "",
    }
    return [name for name, value in usual.items() if getattr(config, name) == value]


def _create_together(
    config: CreateDataConfig,
    paths: Sequence[str],
    output: OutputFolder,
    communicator: "Communicator",
) -> Metadata:
    """As `create_records`, on several workers: rank 0 prepares and publishes."""
    is_first = communicator.rank == 0
    if not config.num_processes:
        cores = available_cores(communicator.local_size)
        config = dataclasses.replace(config, num_processes=cores)
    with output:
        files, error = None, None
        try:
            files = output.begin(config.overwrite) if is_first else None
        except Exception as failure:  # noqa: BLE001 - raised on all workers
            error = failure
        communicator.agree(error)
        if not communicator.gather([files is not None])[0, 0]:
            jobs = cut_into_jobs(paths, config)
            try:
                own = jobs[communicator.rank :: communicator.size]
                _write_shards(own, config, output)
            except Exception as failure:  # noqa: BLE001 - raised on all workers
                error = failure
            communicator.agree(error)
            if is_first:
                _publish(jobs, config, output)
        elif is_first:
            _restored_metadata(config, files)
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
    fewest = 2 if config.do_nsp else 1
    settings = tokenizer_settings(config)
    found = cut_into_groups(
        paths, config.input_format, config.num_shards, settings, fewest=fewest
    )
    groups = list(found)
    if config.dedup:
        groups, count = without_repeated(
            groups, config.input_format, config.dedup, fewest
        )
        repeated = counted(count, "document")
        report(f"--dedup={config.dedup}: left out {repeated} repeating an earlier one.")
    if not groups:
        raise no_text_error(config.input)
    # A record has a sentence of one letter at least.
    size = sum(group.num_bytes for group in groups)
    most = max(1, size * config.dupe_factor // 2)
    if config.num_shards > most:
        raise ValueError(
            f"`num_shards` must leave no shard empty: at most {most:,} for {size:,} "
            f"bytes of text, each used dupe_factor={config.dupe_factor} times. "
            f"Received: num_shards={config.num_shards}. Pass a smaller --num_shards."
        )
    names = [shard_name(n, config.num_shards) for n in range(config.num_shards)]
    if config.format == "hdf5":
        names = [str(Path(name).with_suffix(".hdf5")) for name in names]
    count = min(len(groups), len(names))
    return list(map(Job, divide(groups, count), divide(names, count)))


def make_group_records(
    group: DocumentGroup, duplicates: range, config: CreateDataConfig, vocab_sha256: str
) -> GroupRecords:
    """Makes the records of some duplicates of a group: one task of a worker process."""
    instances, text = make_instances(group, duplicates, config, vocab_sha256)
    sizes = config.max_seq_length, config.max_predictions_per_seq
    return GroupRecords(
        [frame_record(data) for data in serialize_instances(instances, *sizes)],
        [len(one.input_ids) for one in instances],
        text.counts + count_instances(instances),
        text.sample,
    )


def _write_shards(
    jobs: Sequence[Job], config: CreateDataConfig, output: OutputFolder
) -> None:
    """Writes the shards of all jobs that are not finished."""
    left = [job for job in jobs if not all(map(output.finished, job.shards))]
    if len(left) < len(jobs):
        report(f"Resuming: {len(jobs) - len(left)} of {len(jobs)} parts are done.")
    vocab_sha256 = file_sha256(config.vocab_file)
    blocks = duplicate_blocks(config.dupe_factor)
    tasks = (
        (group, block, config, vocab_sha256)
        for job in left
        for group in job.groups
        for block in blocks
    )
    total = sum(job.num_bytes for job in left) * config.dupe_factor
    results = in_order(make_group_records, tasks, config.num_processes)
    with contextlib.closing(results), ProgressReport(total) as progress:
        for job in left:
            _write_job(job, results, config, output, progress)


def _write_job(
    job: Job,
    results: Iterator[GroupRecords],
    config: CreateDataConfig,
    output: OutputFolder,
    progress: ProgressReport,
) -> None:
    """Writes the records of a job to its shards in turn."""
    num_tokens = [0] * len(job.shards)
    text: Counter[str] = Counter()
    samples: list[Sequence[int]] = []
    folder = output.partial_dir
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(RecordWriter(folder / Path(name).with_suffix(_RAW)))
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
        file = writer.described(counts | text, sample)
        text, sample = Counter(), ()
        if config.format == "hdf5":
            file = _to_hdf5(writer.path, folder / name, file)
        output.finish(file)


def _to_hdf5(raw: Path, path: Path, file: OutputFile) -> OutputFile:
    """Converts a finished shard: HDF5 files are created for a number of records."""
    # It loads TensorFlow, which takes seconds and is not needed for TFRecords.
    from bert_tf.data.commands.convert import RecordForm, copy_shard
    from bert_tf.data.records.record_set import cached_input

    cached_input.cache_clear()  # An earlier call may have had a file of this name.
    numbers = range(file.counts["records"])
    copied = copy_shard((str(raw),), numbers, path, RecordForm("hdf5"))
    raw.unlink()
    return dataclasses.replace(copied, counts=file.counts, sample=file.sample)


def _publish(
    jobs: Sequence[Job], config: CreateDataConfig, output: OutputFolder
) -> Metadata:
    files = [output.finished(name) for job in jobs for name in job.shards]
    metadata = _metadata(config, files)
    output.publish_records(files, metadata)
    return metadata


def _restored_metadata(
    config: CreateDataConfig, files: Sequence[OutputFile]
) -> Metadata:
    """The metadata of a folder that is complete; it is written if it is missing."""
    metadata = read_metadata(config.output_dir)
    if metadata is None:
        metadata = _metadata(config, files)
        write_metadata(config.output_dir, metadata)
    return metadata


def _metadata(config: CreateDataConfig, files: Sequence[OutputFile]) -> Metadata:
    totals = total_counts(files)
    counts = {"records": totals["records"], "sequences": totals["records"]}
    # These do not affect the records, so the metadata leaves them out.
    settings = dataclasses.asdict(config)
    for name in ("num_processes", "overwrite", "horovod"):
        del settings[name]
    if not config.dedup:  # Metadata of earlier versions do not have it.
        del settings["dedup"]
    summary = summarize(files, config.dupe_factor)
    return Metadata.of_counts(
        counts | {"tokens": totals["tokens"]},
        config.max_seq_length,
        format=config.format,
        packed=False,
        max_predictions_per_seq=config.max_predictions_per_seq,
        max_predictions_per_pack=config.max_predictions_per_seq,
        max_sequences_per_pack=1,
        shards=record_shards(files),
        vocab_size=len(load_vocabulary(config.vocab_file)),
        vocab_sha256=vocabulary_sha256(config.vocab_file),
        seed=config.seed,
        config=settings,
        extra={SUMMARY: summary} if summary else {},
    )
