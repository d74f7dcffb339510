"""Rewrites record files: in another format, in other shards, or a selection."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.data.commands.index import count_records, counted_metadata
from bert_tf.data.commands.output_folder import RECORD_FILES, OutputFolder, settings_of
from bert_tf.data.output_files import OutputFile, describe_file, total_counts
from bert_tf.data.processes import divide, in_order
from bert_tf.data.records.checking import check_content
from bert_tf.data.records.examples import serialize_examples
from bert_tf.data.records.metadata import (
    Metadata,
    read_metadata,
    record_shards,
    write_metadata,
)
from bert_tf.data.records.provenance import origin_of
from bert_tf.data.records.record_index import RecordIndex, record_files
from bert_tf.data.records.record_set import cached_input, open_input
from bert_tf.data.records.schema import FEATURES, RecordParser
from bert_tf.data.records.tfrecord import RecordWriter, shard_name
from bert_tf.errors import CorruptRecordError
from bert_tf.progress import ProgressReport

_RECORDS_AT_ONCE = 1024

Config = ConvertDataConfig | ChopDataConfig | PickEvalConfig
# File name -> numbers of the records in it.
Shards = Mapping[str, Sequence[int] | np.ndarray]


@dataclasses.dataclass(frozen=True)
class RecordForm:
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
    form = RecordForm(config.format, config.variable_length, config.compression)

    def shards(index: RecordIndex) -> Shards:
        bounds = itertools.pairwise(index.starts.tolist())
        return {
            _shard_name(number, len(files), form.format): range(begin, end)
            for number, (begin, end) in enumerate(bounds)
        }

    return _copy("convert", config, files, shards, form)


def chop_records(config: ChopDataConfig) -> Metadata:
    """Divides all records into another number of files; see `convert_records`."""
    files = record_files(config.input_dir)

    def shards(index: RecordIndex) -> Shards:
        return _even_shards(range(len(index)), config.num_shards, index.format)

    return _copy("chop", config, files, shards)


def pick_records(config: PickEvalConfig) -> Metadata:
    """Selects the records with numbers floor(i N / n) for i in 0 .. n - 1.

    See `convert_records`.
    """
    files = record_files(config.input_dir)

    def shards(index: RecordIndex) -> Shards:
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
        _shard_name(number, num_shards, file_format): own
        for number, own in enumerate(divide(numbers, num_shards))
    }


def _shard_name(number: int, num_shards: int, file_format: str) -> str:
    if file_format == "hdf5":  # The names that the PyTorch trainers' script writes.
        return f"part_{number:05d}_of_{num_shards:05d}.hdf5"
    return shard_name(number, num_shards)


def _copy(
    command: str,
    config: Config,
    files: Sequence[str],
    shards: Callable[[RecordIndex], Shards],
    form: RecordForm | None = None,
) -> Metadata:
    """Writes shards, unless earlier calls have finished them.

    Args:
      command: Its name.
      config: Its settings.
      files: The record files to read.
      shards: Index of the records -> the numbers of the records of each file to write.
      form: How they are written; None for the form of the input.
    """
    settings = settings_of(config, "input_dir")
    with OutputFolder(
        command, config.output_dir, RECORD_FILES, settings, files
    ) as output:
        written = output.begin(config.overwrite)
        is_new = written is None
        parser = open_input(files, str(output.partial_dir) if is_new else "")
        check_content(parser, output.inputs)
        index = parser.index
        origin = origin_of(files)
        if form is None:
            form = RecordForm(index.format, getattr(index, "is_variable_length", False))
        if is_new:
            if parser.shape.is_packed and form.format == "hdf5":
                raise CorruptRecordError(
                    f"{files[0]} holds packed records, which HDF5 files cannot store. "
                    "Convert the unpacked records instead."
                )
            written = _write_shards(config, files, shards(index), form, output)
        elif metadata := read_metadata(config.output_dir):
            return metadata
        counts, shards_ = total_counts(written), record_shards(written)
        metadata = counted_metadata(form.format, parser.shape, counts, shards_)
        metadata = dataclasses.replace(metadata, **origin)
        if is_new:
            output.publish_records(written, metadata)
        else:
            write_metadata(config.output_dir, metadata)
    return metadata


def _write_shards(
    config: Config,
    files: Sequence[str],
    shards: Shards,
    form: RecordForm,
    output: OutputFolder,
) -> list[OutputFile]:
    cached_input.cache_clear()  # The files may have changed since the last call.
    left = [name for name in shards if not output.finished(name)]
    tasks = ((tuple(files), shards[n], output.partial_dir / n, form) for n in left)
    with ProgressReport(sum(len(shards[name]) for name in left)) as progress:
        for file in in_order(copy_shard, tasks, config.num_processes):
            output.finish(file)
            progress.add(file.counts["records"], file.counts["records"])
    return [output.finished(name) for name in shards]


def copy_shard(
    files: tuple[str, ...],
    numbers: Sequence[int] | np.ndarray,
    path: Path,
    form: RecordForm,
) -> OutputFile:
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
    write = _write_hdf5 if form.format == "hdf5" else _write_tfrecord
    numbers = np.asarray(numbers, np.int64)
    blocks = np.split(numbers, range(_RECORDS_AT_ONCE, len(numbers), _RECORDS_AT_ONCE))
    return write(cached_input(files, str(path.parent)), blocks, path, form)


def _write_tfrecord(
    parser: RecordParser, blocks: Sequence[np.ndarray], path: Path, form: RecordForm
) -> OutputFile:
    counts: Counter[str] = Counter()
    with RecordWriter(path) as writer:
        for block in blocks:
            features = parser(block)
            counts.update(count_records(features))
            if parser.index.format == form.format:
                examples = parser.index.read(block)  # Byte for byte.
            else:
                examples = serialize_examples({n: features[n] for n in FEATURES})
            for example in examples:
                writer.write(example)
    return writer.described(counts)


def _write_hdf5(
    parser: RecordParser, blocks: Sequence[np.ndarray], path: Path, form: RecordForm
) -> OutputFile:
    # Loaded only by those who have HDF5 files.
    from bert_tf.data.records.hdf5_writer import Hdf5Writer, UnstorableRecordError

    counts: Counter[str] = Counter()
    with Hdf5Writer(
        path,
        sum(map(len, blocks)),
        parser.shape.max_seq_length,
        parser.shape.max_predictions,
        variable_length=form.variable_length,
        compression=form.compression,
    ) as writer:
        for block in blocks:
            features = parser(block)
            counts.update(count_records(features))
            try:
                writer.write(features)
            except UnstorableRecordError as error:
                location = parser.index.location(int(block[error.row]))
                raise CorruptRecordError(f"{location}: {error.reason}") from None
    return describe_file(path, counts)
