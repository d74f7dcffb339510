"""Packs a folder of records, in several processes."""

import dataclasses

import numpy as np

from bert_tf.config.data import PackDataConfig
from bert_tf.data.commands.output_folder import RECORD_FILES, OutputFolder, settings_of
from bert_tf.data.output_files import OutputFile
from bert_tf.data.packing.layout import (
    Arrays,
    merge_sequences,
    most_in_a_row,
    prediction_counts,
    sequence_lengths,
)
from bert_tf.data.packing.planning import (
    Assignment,
    PackingPlan,
    assign,
    length_histogram,
    make_plan,
)
from bert_tf.data.processes import blocks, divide, in_order
from bert_tf.data.records.checking import check_content
from bert_tf.data.records.examples import serialize_examples
from bert_tf.data.records.metadata import (
    Metadata,
    Shard,
    indexing,
    read_metadata,
    record_shards,
)
from bert_tf.data.records.provenance import origin_of
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import cached_input, open_input
from bert_tf.data.records.tfrecord import RecordWriter, frame_record, shard_name
from bert_tf.errors import CorruptRecordError
from bert_tf.progress import ProgressReport
from bert_tf.resources import available_cores

# Rows that are made at once: enough to be fast in NumPy, with little memory.
_ROWS_AT_ONCE = 512
_RECORDS_AT_ONCE = 4096
_RECORDS_WORTH_A_WORKER = 100_000


def measure_records(
    files: tuple[str, ...], numbers: range, cache_dir: str
) -> tuple[np.ndarray, np.ndarray]:
    """Counts of tokens and of masked tokens of some records: two [len(numbers)].

    Raises:
      CorruptRecordError: naming a record that cannot be packed.
    """
    parser = cached_input(files, cache_dir)
    arrays = parser(np.asarray(numbers))
    try:
        return _sizes(arrays)
    except ValueError:
        for row, number in enumerate(numbers):
            try:
                _sizes({name: array[[row]] for name, array in arrays.items()})
            except ValueError as error:
                location = parser.index.location(number)
                raise CorruptRecordError(f"{location}: {error}") from None
        raise


def _sizes(arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    lengths, masks = sequence_lengths(arrays), prediction_counts(arrays)
    return lengths.astype(np.uint16), masks.astype(np.uint16)


def pack_rows(
    files: tuple[str, ...],
    members: np.ndarray,
    counts: np.ndarray,
    widths: tuple[int, int],
    cache_dir: str,
) -> list[bytes]:
    """Makes some packed records: one task of a worker process.

    Args:
      files: The unpacked record files.
      members: Global numbers of the records, row after row.
      counts: Number of records of each row.
      widths: The width of the masked_lm_* features, and K.
      cache_dir: Folder in which offsets of records are cached.

    Returns:
      The rows, in TFRecord framing.
    """
    parser = cached_input(files, cache_dir)
    packed = merge_sequences(parser(members), counts, *widths)
    return [frame_record(data) for data in serialize_examples(packed)]


def pack_records(
    config: PackDataConfig, widths: tuple[int, int] | None = None
) -> Metadata:
    """Packs a set of records; resumes an interrupted call.

    All records are measured first, then the rows are planned, then the records are read
    again, row by row. About 60 bytes per record are in memory, never all records.

    Args:
      config: All settings.
      widths: Widths of the masked_lm_* and next_sentence_* features, for programs that
        read only one width; None for as wide as needed.

    Returns:
      The metadata.

    Raises:
      FileNotFoundError: if there are no records.
      FileExistsError: if `output_dir` holds other records and `overwrite` is false.
      CorruptRecordError: if a record cannot be read, or is packed already.
      ValueError: if there are fewer rows than shards, or one is wider than `widths`.
    """
    files = tuple(record_files(config.input_dir))
    settings = settings_of(config, "input_dir") | ({"widths": widths} if widths else {})
    with OutputFolder(
        "pack", config.output_dir, RECORD_FILES, settings, files
    ) as output:
        if output.begin(config.overwrite) is None:
            return _pack(config, files, output, widths)
    metadata = read_metadata(config.output_dir)
    if metadata is None:
        raise FileNotFoundError(
            f"{config.output_dir} exists already, but its metadata does not. Run "
            f"{indexing(config.output_dir)}, which writes it."
        )
    print(f"{config.output_dir} exists already, made from the same records.")
    return metadata


def _pack(
    config: PackDataConfig,
    files: tuple[str, ...],
    output: OutputFolder,
    asked: tuple[int, int] | None,
) -> Metadata:
    cache_dir = str(output.partial_dir)
    cached_input.cache_clear()  # The files may have changed since the last call.
    parser = open_input(files, cache_dir)
    check_content(parser, output.inputs)
    shape = parser.shape
    origin = origin_of(files)
    if shape.is_packed:
        raise CorruptRecordError(
            f"{files[0]} holds packed records already. Pass the unpacked records as "
            "--input_dir."
        )
    lengths, masks = _measure(files, len(parser.index), config, cache_dir)
    histogram = length_histogram(lengths, shape.max_seq_length)
    plan = make_plan(histogram, config.max_sequences_per_pack or None)
    assignment = assign(lengths, plan, config.seed)
    widths = most_in_a_row(masks.astype(np.int64), assignment), plan.max_sequences
    if asked:
        _check_widths(widths, asked)
        widths = asked
    packed = _write_shards(config, files, assignment, widths, output)
    shards = record_shards(packed)
    metadata = dataclasses.replace(
        _metadata(plan, shards, shape.max_predictions, widths, config), **origin
    )
    output.publish_records(packed, metadata)
    return metadata


def _check_widths(needed: tuple[int, int], asked: tuple[int, int]) -> None:
    """Refuses widths that would drop masked tokens or sequences."""
    for name, need, width in zip(
        ("masked tokens", "sequences"), needed, asked, strict=True
    ):
        if need > width:
            raise ValueError(
                f"A packed record has {need} {name}, but must have at most {width}. "
                "Make the unpacked records with --max_predictions_per_seq of at least "
                "masked_lm_prob x max_seq_length, which always fits, or use `python -m "
                "bert_tf data pack`, whose records have any width and train here."
            )


def _measure(
    files: tuple[str, ...], count: int, config: PackDataConfig, cache_dir: str
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of tokens and of masked tokens of all records: two [n] arrays."""
    parts = blocks(range(count), _RECORDS_AT_ONCE)
    tasks = ((files, numbers, cache_dir) for numbers in parts)
    measured = []
    processes = _useful_processes(config, count)
    with ProgressReport(count, "records measured") as progress:
        for sizes in in_order(measure_records, tasks, processes):
            measured.append(sizes)
            progress.add(len(sizes[0]), len(sizes[0]))
    lengths, masks = map(np.concatenate, zip(*measured, strict=True))
    return lengths, masks


def _useful_processes(config: PackDataConfig, count: int) -> int:
    """Number of processes that pay off: starting one costs as much as many records."""
    asked = config.num_processes or available_cores()
    return min(asked, max(1, count // _RECORDS_WORTH_A_WORKER))


def _write_shards(
    config: PackDataConfig,
    files: tuple[str, ...],
    assignment: Assignment,
    widths: tuple[int, int],
    output: OutputFolder,
) -> list[OutputFile]:
    """Writes all rows to shards of equal size, unless these are finished."""
    num_rows = assignment.num_rows
    num_shards = config.num_shards or min(len(files), num_rows)
    if num_shards > num_rows:
        raise ValueError(
            f"`num_shards` must be at most the number of packed records, {num_rows}. "
            f"Received: num_shards={num_shards}. Pass a smaller --num_shards."
        )
    shards = {
        shard_name(number, num_shards): rows
        for number, rows in enumerate(divide(range(num_rows), num_shards))
    }
    left = {n: rows for n, rows in shards.items() if not output.finished(n)}
    tasks = (
        (files, *assignment.rows(x.start, x.stop), widths, str(output.partial_dir))
        for rows in left.values()
        for x in blocks(rows, _ROWS_AT_ONCE)
    )
    total = sum(map(len, left.values()))
    processes = _useful_processes(config, len(assignment.members))
    with ProgressReport(total) as progress:
        results = in_order(pack_rows, tasks, processes)
        for name, rows in left.items():
            with RecordWriter(output.partial_dir / name) as writer:
                for _ in blocks(rows, _ROWS_AT_ONCE):
                    frames = next(results)
                    for frame in frames:
                        writer.write_framed(frame)
                    progress.add(len(frames), len(frames))
            output.finish(writer.described({"records": writer.num_records}))
    return [output.finished(name) for name in shards]


def _metadata(
    plan: PackingPlan,
    shards: tuple[Shard, ...],
    max_predictions_per_seq: int,
    widths: tuple[int, int],
    config: PackDataConfig,
) -> Metadata:
    """Metadata of the packed set, with the keys of Habana's packer."""
    size, sequences, packs = plan.max_seq_length, plan.num_sequences, plan.num_packs
    top = [list(strategy.lengths) for strategy in plan.strategies[:8]]
    counts = {"records": packs, "sequences": sequences, "tokens": plan.num_tokens}
    return Metadata.of_counts(
        counts,
        size,
        packed=True,
        max_predictions_per_seq=max_predictions_per_seq,
        max_predictions_per_pack=widths[0],
        max_sequences_per_pack=widths[1],
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
