"""Text to a folder of record shards: many processes, the same bytes for any number.

The text is cut into groups of documents, see `groups`. Workers make the records of a
group, shuffled; the groups are written in their order, their records to the shards in
turn. Training shuffles all records anyway.
"""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from bert_tf.config.data import CreateDataConfig
from bert_tf.data import output
from bert_tf.data.documents import expand_paths, read_documents
from bert_tf.data.groups import (
    Group,
    GroupRecords,
    cut_into_groups,
    duplicate_blocks,
    make_group_records,
)
from bert_tf.data.metadata import Metadata, Shard, metadata_file, write_metadata
from bert_tf.data.progress import ProgressReport
from bert_tf.data.records import RecordWriter, shard_name
from bert_tf.data.tokenization import load_vocabulary
from bert_tf.data.workers import in_order


def create_records(config: CreateDataConfig) -> Metadata:
    """Makes a folder of record shards and its metadata.

    The shards are written into a folder beside `output_dir`, named at the end; the
    metadata comes last.

    Args:
      config: All settings.

    Returns:
      The metadata that was written.

    Raises:
      FileNotFoundError: if text or vocabulary is missing.
      FileExistsError: if `output_dir` holds records and `overwrite` is false, or
        holds other files.
      ValueError: if the text cannot be used; the message says where.
      RunError: if a worker process dies.
    """
    paths = expand_paths(config.input)
    output.check_output_dir(
        "output_dir", config.output_dir, output.RECORDS, config.overwrite
    )
    vocab_size = len(load_vocabulary(config.vocab_file))
    vocab_sha256 = hashlib.sha256(Path(config.vocab_file).read_bytes()).hexdigest()
    groups = cut_into_groups(read_documents(paths, config.input_format))
    size = sum(os.path.getsize(path) for path in paths)
    progress = ProgressReport(size * config.dupe_factor)
    with output.temporary_output_dir(config.output_dir) as folder:
        with progress:
            results = _all_group_records(groups, config, vocab_sha256)
            shards, num_tokens = _write_shards(results, folder, config, progress)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(metadata_file(config.output_dir))
        output.move_into_place(folder, config.output_dir, output.RECORDS)
    metadata = dataclasses.replace(
        _metadata(config, shards, num_tokens),
        vocab_size=vocab_size,
        vocab_sha256=vocab_sha256,
    )
    write_metadata(config.output_dir, metadata)
    return metadata


def _all_group_records(
    groups: Iterator[Group], config: CreateDataConfig, vocab_sha256: str
) -> Iterator[GroupRecords]:
    """Results in the order of the groups, few of them at a time in memory."""
    settings = (config, vocab_sha256)
    blocks = duplicate_blocks(config.dupe_factor)
    pieces = ((group, block, *settings) for group in groups for block in blocks)
    yield from in_order(make_group_records, pieces, config.num_processes)


def _check_count(count: int, config: CreateDataConfig) -> None:
    """Refuses text without documents, and shards without records."""
    if not count:
        raise ValueError(
            "`input` must hold text. Received: "
            f"input={config.input}, which holds no document."
        )
    if count < config.num_shards:
        raise ValueError(
            "`num_shards` must not be greater than the number of records, "
            f"{count}. Received: num_shards={config.num_shards}."
        )


def _write_shards(
    results: Iterator[GroupRecords],
    folder: Path,
    config: CreateDataConfig,
    progress: ProgressReport,
) -> tuple[list[Shard], int]:
    """Deals the records out to the shards; returns these and the number of tokens."""
    num_tokens = 0
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                RecordWriter(folder / shard_name(number, config.num_shards))
            )
            for number in range(config.num_shards)
        ]
        count = 0
        stack.push(contextlib.closing(results))
        for result in results:
            for frame in result.frames:
                writers[count % config.num_shards].write_framed(frame)
                count += 1
            num_tokens += result.num_tokens
            progress.add(result.num_bytes, len(result.frames))
        _check_count(count, config)
    shards = [
        Shard(
            name=writer.path.name,
            records=writer.num_records,
            bytes=writer.num_bytes,
            crc32c=writer.crc32c,
        )
        for writer in writers
    ]
    return shards, num_tokens


def _metadata(
    config: CreateDataConfig, shards: list[Shard], num_tokens: int
) -> Metadata:
    samples = sum(shard.records for shard in shards)
    # How many processes made it does not matter, so the file does not tell.
    settings = dataclasses.asdict(config)
    for name in ("num_processes", "overwrite"):
        del settings[name]
    return Metadata(
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
        shards=tuple(shards),
        seed=config.seed,
        config=settings,
    )
