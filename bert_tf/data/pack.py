"""A folder of records to a folder of packed ones, by several processes."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert_tf.config.data import PackDataConfig
from bert_tf.data import output
from bert_tf.data.features import ExampleParser, ValueLimits, record_shape
from bert_tf.data.merging import merge_sequences, prediction_counts, sequence_lengths
from bert_tf.data.metadata import Metadata, Shard, metadata_file, write_metadata
from bert_tf.data.packing import PackingPlan, assign, length_histogram, make_plan
from bert_tf.data.progress import ProgressReport
from bert_tf.data.record_index import RecordIndex, record_files
from bert_tf.data.records import (
    RecordWriter,
    frame_record,
    serialize_examples,
    shard_name,
)
from bert_tf.data.workers import in_order
from bert_tf.errors import CorruptRecordError

# Rows that are made at once: enough for NumPy, little in memory.
_ROWS_AT_ONCE = 512
_RECORDS_AT_ONCE = 4096
_ROWS_WORTH_A_WORKER = 50_000
# Packing looks nothing up, so it limits nothing but what a record can hold.
_NO_LIMITS = ValueLimits(vocab_size=2**28, type_vocab_size=2**28)


def open_parser(files: tuple[str, ...]) -> tuple[RecordIndex, ExampleParser]:
    """An index of files and a parser of their records."""
    index = RecordIndex(list(files))
    return index, ExampleParser(index, record_shape(index), _NO_LIMITS)


# Kept by each worker process for all its pieces of work.
_open_once = functools.lru_cache(maxsize=1)(open_parser)


def _measure(parser: ExampleParser, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and masked tokens of every record: two [n] int32."""
    sizes = []
    for begin in range(0, count, _RECORDS_AT_ONCE):
        end = min(begin + _RECORDS_AT_ONCE, count)
        arrays = parser(np.arange(begin, end))
        sizes.append((sequence_lengths(arrays), prediction_counts(arrays)))
    lengths, masks = (np.concatenate(part) for part in zip(*sizes, strict=True))
    return lengths.astype(np.int32), masks.astype(np.int32)


def pack_rows(
    files: tuple[str, ...], rows: list[np.ndarray], max_predictions: int, width: int
) -> list[bytes]:
    """Makes some packed records.

    Args:
      files: The unpacked record files.
      rows: The numbers of the records that go into each row.
      max_predictions: Width of the masked_lm_* features.
      width: K, most sequences of any row.

    Returns:
      The rows as framed records.
    """
    _, parser = _open_once(files)
    arrays = parser(np.concatenate(rows))
    counts = np.asarray([len(row) for row in rows])
    packed = merge_sequences(arrays, counts, max_predictions, width)
    return [frame_record(data) for data in serialize_examples(packed)]


def pack_records(config: PackDataConfig) -> Metadata:
    """Packs a set of records, and writes its metadata last.

    Args:
      config: All settings.

    Returns:
      The metadata that was written.

    Raises:
      FileNotFoundError: if there are no records.
      FileExistsError: if `output_dir` holds records and `overwrite` is false.
      CorruptRecordError: if a record cannot be read, or is packed already.
      ValueError: if there are fewer rows than shards.
    """
    files = tuple(record_files(config.input_dir))
    output.check_output_dir(
        "output_dir", config.output_dir, output.RECORDS, config.overwrite
    )
    index, parser = open_parser(files)
    shape = parser.shape
    if shape.is_packed:
        raise CorruptRecordError(
            f"{files[0]} holds packed records already. Pack the unpacked ones."
        )
    lengths, masks = _measure(parser, len(index))
    histogram = length_histogram(lengths, shape.max_seq_length)
    plan = make_plan(histogram, config.max_sequences_per_pack or None)
    rows = list(assign(lengths, plan, config.seed))
    max_predictions = max(int(masks[row].sum()) for row in rows)
    shards = _write(config, files, rows, max_predictions, plan.max_sequences)
    metadata = _metadata(plan, shards, shape.max_predictions, max_predictions, config)
    write_metadata(config.output_dir, metadata)
    return metadata


def _write(
    config: PackDataConfig,
    files: tuple[str, ...],
    rows: list[np.ndarray],
    max_predictions: int,
    width: int,
) -> tuple[Shard, ...]:
    """Writes all rows into shards of equal size."""
    num_shards = config.num_shards or min(len(files), len(rows))
    if num_shards > len(rows):
        raise ValueError(
            f"`num_shards` must be at most the number of packed records, {len(rows)}. "
            f"Received: num_shards={num_shards}."
        )
    pieces = (
        (files, rows[begin : begin + _ROWS_AT_ONCE], max_predictions, width)
        for begin in range(0, len(rows), _ROWS_AT_ONCE)
    )
    # A worker takes as long to begin as to pack so many rows.
    useful = max(1, len(rows) // _ROWS_WORTH_A_WORKER)
    asked = config.num_processes or len(os.sched_getaffinity(0))
    results = in_order(pack_rows, pieces, min(asked, useful))
    with output.temporary_output_dir(config.output_dir) as folder:
        with ProgressReport(len(rows)) as progress:
            shards = _write_shards(folder, results, len(rows), num_shards, progress)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(metadata_file(config.output_dir))
        output.move_into_place(folder, config.output_dir, output.RECORDS)
    return shards


def _write_shards(
    folder: Path,
    results: Iterator[list[bytes]],
    num_rows: int,
    num_shards: int,
    progress: ProgressReport,
) -> tuple[Shard, ...]:
    names = [shard_name(number, num_shards) for number in range(num_shards)]
    writers = [RecordWriter(folder / name) for name in names]
    done = 0
    for frames in results:
        for frame in frames:
            writers[done * num_shards // num_rows].write_framed(frame)
            done += 1
        progress.add(len(frames), len(frames))
    for writer in writers:
        writer.close()
    return tuple(
        Shard(name=name, records=w.num_records, bytes=w.num_bytes, crc32c=w.crc32c)
        for name, w in zip(names, writers, strict=True)
    )


def _metadata(
    plan: PackingPlan,
    shards: tuple[Shard, ...],
    max_predictions_per_seq: int,
    max_predictions_per_pack: int,
    config: PackDataConfig,
) -> Metadata:
    """What the packed set holds, with the keys of Habana's packer."""
    size, sequences, packs = plan.max_seq_length, plan.num_sequences, plan.num_packs
    top = [list(strategy.lengths) for strategy in plan.strategies[:8]]
    return Metadata(
        packed=True,
        max_seq_length=size,
        max_predictions_per_seq=max_predictions_per_seq,
        max_predictions_per_pack=max_predictions_per_pack,
        max_sequences_per_pack=plan.max_sequences,
        original_number_of_samples=sequences,
        new_number_of_samples=packs,
        avg_seq_per_sample=sequences / packs,
        packing_efficiency=plan.efficiency,
        padding_tokens_original_dataset=sequences * size - plan.num_tokens,
        shards=shards,
        seed=config.seed,
        extra={
            "compression_ratio": 1 - packs / sequences,
            "expected_speedup": sequences / packs,
            "num_strategies_utilized": len(plan.strategies),
            "padding_tokens_packed_dataset": packs * size - plan.num_tokens,
            "sequences_dropped": 0,
            "theoretical_speedup": sequences * size / plan.num_tokens,
            "top_8_strategies": top,
        },
    )
