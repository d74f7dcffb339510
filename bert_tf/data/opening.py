"""Opens a set of records for a model, after everything that can be checked is."""

import dataclasses
import os
from collections.abc import Mapping

from bert_tf.data.features import RecordParser, RecordShape, ValueLimits, check_sample
from bert_tf.data.metadata import Metadata, metadata_file, read_metadata
from bert_tf.data.numbering import NumberedRecords
from bert_tf.data.record_index import record_files
from bert_tf.data.sources import open_parser
from bert_tf.errors import CorruptRecordError
from bert_tf.launch import report

# Enough to find a wrong vocabulary before the first step, and done within a second;
# every record is checked again when it is read.
_SAMPLE_SIZE = 2048
# Other programs' records may mask less than ours: only useless sets are pointed out.
_MAX_UNMASKED = 0.5


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """Records that can be read by number.

    Attributes:
      index: Where each record is.
      shape: Their lengths.
      parser: Reads and checks them.
      avg_seq_per_sample: Sequences per record, on average; 1 if not packed.
      sha256: Of the number of records and of the sample that was checked: other
        records have another one, in another folder or format they keep it.
      metadata: Folder -> what its metadata says; None without.
    """

    index: NumberedRecords
    shape: RecordShape
    parser: RecordParser
    avg_seq_per_sample: float = 1.0
    sha256: str = ""
    metadata: Mapping[str, Metadata | None] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.index)


def _check_lengths(
    input_files_dir: str, found: dict[str, int | None], said: dict[str, int | None]
) -> None:
    """Compares the records' lengths with what the flags say, where they say it."""
    for name, value in said.items():
        if None not in (value, found[name]) and value != found[name]:
            raise CorruptRecordError(
                f"The records of {input_files_dir} have {name}={found[name]}, but the "
                f"flag says {name}={value}. Use --{name}={found[name]}, or make "
                f"records of {value}."
            )


def _check_shards(folder: str, metadata: Metadata, index: NumberedRecords) -> None:
    """Compares the files that metadata lists with those that are there."""
    if metadata.shards is not None:
        listed = {os.path.join(folder, shard.name) for shard in metadata.shards}
        for path in index.files:
            if os.path.dirname(path) == folder and path not in listed:
                raise CorruptRecordError(
                    f"{metadata_file(folder)} does not list {path}. Move the file "
                    "away, or write what is true with `python -m bert_tf data index "
                    f"--input_dir={folder} --overwrite`."
                )
    for shard in metadata.shards or ():
        path = os.path.join(folder, shard.name)
        if path not in index.files and os.path.exists(path):
            continue  # Single files of the folder were asked for.
        if path not in index.files:
            raise CorruptRecordError(
                f"{metadata_file(folder)} names the file {shard.name}, which {folder} "
                "does not hold. Copy it there, make the records again, or go without "
                f"it: `python -m bert_tf data index --input_dir={folder} --overwrite`."
            )
        number = index.files.index(path)
        records = int(index.starts[number + 1] - index.starts[number])
        found = (records, os.path.getsize(path))
        if found != (shard.records, shard.bytes):
            raise CorruptRecordError(
                f"{path} must hold {shard.records} records in {shard.bytes} bytes, as "
                f"{metadata_file(folder)} says. Received: {found[0]} records in "
                f"{found[1]} bytes. Copy or make the file again. If it is right as it "
                "is, run `python -m bert_tf data index "
                f"--input_dir={folder} --overwrite`."
            )


def _check_metadata(
    folder: str, metadata: Metadata, file_format: str, shape: RecordShape
) -> None:
    """Compares what metadata says of the records with the records."""
    pairs = {
        "format": (metadata.format, file_format),
        "packed": (metadata.packed, shape.is_packed),
        "max_seq_length": (metadata.max_seq_length, shape.max_seq_length),
        "max_predictions_per_pack": (
            metadata.max_predictions_per_pack,
            shape.max_predictions,
        ),
        "max_sequences_per_pack": (
            metadata.max_sequences_per_pack,
            shape.max_sequences,
        ),
    }
    for name, (said, found) in pairs.items():
        if said is not None and said != found:
            raise CorruptRecordError(
                f"{metadata_file(folder)} says {name}={said}, but the records of "
                f"{folder} have {name}={found}. `python -m bert_tf data index "
                f"--input_dir={folder} --overwrite` writes what is true."
            )


def _average(
    metadata: dict[str, Metadata | None], index: NumberedRecords, shape: RecordShape
) -> float:
    """Sequences per record over all folders."""
    if not shape.is_packed:
        return 1.0
    sequences = 0.0
    for number, path in enumerate(index.files):
        folder = os.path.dirname(path)
        about = metadata[folder]
        if about is None:
            raise CorruptRecordError(
                f"{folder} holds packed records but there is no "
                f"{metadata_file(folder)}. Run `python -m bert_tf data index "
                f"--input_dir={folder}`, which counts and writes it."
            )
        records = index.starts[number + 1] - index.starts[number]
        sequences += float(records) * about.avg_seq_per_sample
    return sequences / len(index)


def open_records(
    input_files_dir: str,
    limits: ValueLimits,
    *,
    max_seq_length: int | None = None,
    max_predictions_per_seq: int | None = None,
    cache_dir: str = "",
) -> RecordSet:
    """Finds, indexes and checks a set of records.

    Args:
      input_files_dir: Folders separated by commas; * and ? work.
      limits: What the model can look up.
      max_seq_length: What the flag says, if anything.
      max_predictions_per_seq: Likewise.
      cache_dir: Where offsets are kept between runs; empty for nowhere.

    Returns:
      The records.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if a metadata file is not one.
      CorruptRecordError: if a file is empty, cut or damaged, or contradicts the flags,
        the metadata or the model.
    """
    files = record_files(input_files_dir)
    index, parser = open_parser(files, limits, cache_dir)
    unpadded = parser
    folders = sorted({os.path.dirname(path) for path in files})
    metadata = {folder: read_metadata(folder) for folder in folders}
    for folder, about in metadata.items():
        if about:
            _check_shards(folder, about, index)
            _check_metadata(folder, about, index.format, parser.shape)
    parser = parser.padded_to(max_seq_length, max_predictions_per_seq)
    shape = parser.shape
    predictions = shape.max_predictions
    if shape.is_packed:
        said = (about.max_predictions_per_seq for about in metadata.values() if about)
        predictions = next(filter(None, said), None)
    _check_lengths(
        input_files_dir,
        {
            "max_seq_length": shape.max_seq_length,
            "max_predictions_per_seq": predictions,
        },
        {
            "max_seq_length": max_seq_length,
            "max_predictions_per_seq": max_predictions_per_seq,
        },
    )
    average = _average(metadata, index, shape)
    sample = check_sample(index, unpadded, _SAMPLE_SIZE)
    if sample.unmasked > _MAX_UNMASKED:
        report(
            f"warning: {sample.unmasked:.1%} of the records of {input_files_dir} have "
            "no masked token, so they train and evaluate no masked LM. Make them again "
            "with a greater --max_predictions_per_seq or --masked_lm_prob."
        )
    return RecordSet(index, shape, parser, average, sample.sha256, metadata)
