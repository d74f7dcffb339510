"""Rewrites record files: in another format, in other shards, or a selection."""

import contextlib
import dataclasses
import functools
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.data import output
from bert_tf.data.commands.index import count_records, counted_metadata
from bert_tf.data.commands.output_folder import Stage, settings_of
from bert_tf.data.processes import in_order
from bert_tf.data.records.formats import NO_LIMITS, open_parser
from bert_tf.data.records.metadata import (
    Metadata,
    metadata_file,
    read_metadata,
    write_metadata,
)
from bert_tf.data.records.provenance import origin_of
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_numbers import NumberedRecords
from bert_tf.data.records.schema import RecordParser
from bert_tf.data.records.shards import Part, record_shards, share, total_counts
from bert_tf.data.records.tfrecord import RecordWriter, serialize_examples, shard_name
from bert_tf.errors import CorruptRecordError
from bert_tf.progress import ProgressReport

_RECORDS_AT_ONCE = 1024
# Of an unpacked record, in the order in which `serialize_instance` writes them.
_FEATURES = (
    "input_ids",
    "input_mask",
    "segment_ids",
    "masked_lm_positions",
    "masked_lm_ids",
    "next_sentence_labels",
    "masked_lm_weights",
)

Config = ConvertDataConfig | ChopDataConfig | PickEvalConfig
Source = tuple[NumberedRecords, RecordParser]
# File name -> numbers of the records in it.
Shards = Mapping[str, Sequence[int] | np.ndarray]


@dataclasses.dataclass(frozen=True)
class Form:
    """How records are written.

    Attributes:
      format: tfrecord or hdf5.
      variable_length: hdf5 only: whether padding is left out.
      compression: hdf5 only: none or gzip.
    """

    format: str
    variable_length: bool = False
    compression: str = "none"


def convert_records(config: ConvertDataConfig) -> Metadata:
    """Converts each record file to another format, without loss.

    Args:
      config: All settings.

    Returns:
      The metadata that was written.

    Raises:
      FileNotFoundError: if there are no records.
      FileExistsError: if `output_dir` holds other records.
      CorruptRecordError: if a record cannot be read, or the format cannot hold it.
    """
    files = record_files(config.input_dir)
    form = Form(config.format, config.variable_length, config.compression)

    def shards(index: NumberedRecords) -> Shards:
        bounds = index.starts.tolist()
        names = [_shard_name(n, len(files), form.format) for n in range(len(files))]
        return {
            name: range(*bounds[number : number + 2])
            for number, name in enumerate(names)
        }

    return _copy("convert", config, files, shards, form)


def chop_records(config: ChopDataConfig) -> Metadata:
    """Divides all records into another number of files; see `convert_records`."""
    files = record_files(config.input_dir)

    def shards(index: NumberedRecords) -> Shards:
        return _even_shards(range(len(index)), config.num_shards, index.format)

    return _copy("chop", config, files, shards)


def pick_records(config: PickEvalConfig) -> Metadata:
    """Selects the records with numbers floor(i N / n) for i in 0 .. n - 1.

    See `convert_records`.
    """
    files = record_files(config.input_dir)

    def shards(index: NumberedRecords) -> Shards:
        count = config.num_examples
        if count > len(index):
            raise ValueError(
                f"`num_examples` must be at most the number of records, {len(index)}. "
                f"Received: num_examples={count}. Pass a smaller --num_examples."
            )
        chosen = np.arange(count) * len(index) // count
        return _even_shards(chosen, config.num_shards, index.format)

    return _copy("pick_eval", config, files, shards)


def _even_shards(
    numbers: Sequence[int] | np.ndarray, num_shards: int, file_format: str
) -> Shards:
    if num_shards > len(numbers):
        raise ValueError(
            f"`num_shards` must be at most the number of records, {len(numbers)}. "
            f"Received: num_shards={num_shards}. Pass a smaller --num_shards."
        )
    return {
        _shard_name(n, num_shards, file_format): share(numbers, n, num_shards)
        for n in range(num_shards)
    }


def _shard_name(number: int, num_shards: int, file_format: str) -> str:
    if file_format == "hdf5":  # The names that the PyTorch trainers' script writes.
        return f"part_{number:05d}_of_{num_shards:05d}.hdf5"
    return shard_name(number, num_shards)


def _copy(
    step: str,
    config: Config,
    files: Sequence[str],
    shards: Callable[[NumberedRecords], Shards],
    form: Form | None = None,
) -> Metadata:
    """Writes shards, unless earlier calls have finished them.

    Args:
      step: Name of the data command.
      config: Its settings.
      files: The record files to read.
      shards: Index of the records -> the numbers of the records of each file to write.
      form: How they are written; None for the form of the input.
    """
    settings = settings_of(config, "input_dir")
    with Stage(step, config.output_dir, output.RECORDS, settings, files) as stage:
        parts = stage.begin(config.overwrite)
        index, parser = open_parser(files, NO_LIMITS)
        origin = origin_of(files)
        form = form or _form_of(index)
        if parts is None:
            if parser.shape.is_packed and form.format == "hdf5":
                raise CorruptRecordError(
                    f"{files[0]} holds packed records, which HDF5 files cannot store. "
                    "Convert the unpacked records instead."
                )
            parts = _write_parts(config, files, shards(index), form, stage)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(metadata_file(config.output_dir))
            stage.publish(parts)
        elif metadata := read_metadata(config.output_dir):
            return metadata
    counts = total_counts(parts)
    made = counted_metadata(form.format, parser.shape, counts, record_shards(parts))
    made = dataclasses.replace(made, **origin)
    write_metadata(config.output_dir, made)
    return made


def _form_of(index: NumberedRecords) -> Form:
    return Form(index.format, getattr(index, "is_variable_length", False))


def _write_parts(
    config: Config,
    files: Sequence[str],
    shards: Shards,
    form: Form,
    stage: Stage,
) -> list[Part]:
    _source_of.cache_clear()  # The files may have changed since the last call.
    left = [name for name in shards if not stage.finished(name)]
    pieces = ((tuple(files), shards[n], stage.folder / n, form) for n in left)
    with ProgressReport(sum(len(shards[name]) for name in left)) as progress:
        for part in in_order(copy_shard, pieces, config.num_processes):
            stage.finish(part)
            progress.add(part.counts["records"], part.counts["records"])
    return [stage.finished(name) for name in shards]


@functools.lru_cache(maxsize=1)  # Once per worker process.
def _source_of(files: tuple[str, ...]) -> Source:
    return open_parser(files, NO_LIMITS)


def copy_shard(
    files: tuple[str, ...],
    numbers: Sequence[int] | np.ndarray,
    path: Path,
    form: Form,
) -> Part:
    """Writes some records of a set into a file: one task of a worker process.

    Args:
      files: All record files of the set.
      numbers: Global numbers of the records to write.
      path: The file to write.
      form: How they are written.

    Returns:
      The finished file, with counts of `records`, `sequences` and `tokens`.

    Raises:
      CorruptRecordError: if a record cannot be read or written, naming file and record.
    """
    source = _source_of(files)
    copy = _copy_to_hdf5 if form.format == "hdf5" else _copy_to_tfrecord
    return copy(source, np.asarray(numbers, np.int64), path, form)


def _blocks(numbers: np.ndarray) -> list[np.ndarray]:
    return [
        numbers[begin : begin + _RECORDS_AT_ONCE]
        for begin in range(0, len(numbers), _RECORDS_AT_ONCE)
    ]


def _copy_to_tfrecord(
    source: Source, numbers: np.ndarray, path: Path, form: Form
) -> Part:
    index, parser = source
    counts: Counter[str] = Counter()
    with RecordWriter(path) as writer:
        for block in _blocks(numbers):
            features = parser(block)
            counts.update(count_records(features))
            if index.format == form.format:
                examples = index.read(block)  # Byte for byte.
            else:
                examples = serialize_examples({n: features[n] for n in _FEATURES})
            for example in examples:
                writer.write(example)
    return Part(path.name, writer.num_bytes, writer.crc32c, dict(counts))


def _copy_to_hdf5(source: Source, numbers: np.ndarray, path: Path, form: Form) -> Part:
    # Loaded only by those who have HDF5 files.
    from bert_tf.data.records.hdf5 import Hdf5Writer, UnstorableRecordError

    index, parser = source
    shape = parser.shape
    counts: Counter[str] = Counter()
    with Hdf5Writer(
        path,
        len(numbers),
        shape.max_seq_length,
        shape.max_predictions,
        variable_length=form.variable_length,
        compression=form.compression,
    ) as writer:
        for block in _blocks(numbers):
            features = parser(block)
            counts.update(count_records(features))
            try:
                writer.write(features)
            except UnstorableRecordError as error:
                place = index.place(int(block[error.row]))
                raise CorruptRecordError(f"{place}: {error.reason}") from None
    return Part(path.name, writer.num_bytes, writer.crc32c, dict(counts))
