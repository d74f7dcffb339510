"""Checks of a set of records: against its metadata, and the records themselves."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bert_tf.data.output_files import OutputFile
from bert_tf.data.processes import blocks
from bert_tf.data.records.metadata import (
    Metadata,
    metadata_file,
    read_metadata,
    rewriting,
)
from bert_tf.data.records.record_index import RecordIndex
from bert_tf.data.records.schema import RecordParser, RecordShape
from bert_tf.data.records.skipping import SkippingParser, name_records
from bert_tf.errors import CorruptRecordError
from bert_tf.progress import ProgressReport

if TYPE_CHECKING:
    from bert_tf.distribute import Communicator

_RECORDS_AT_ONCE = 1024
# How many corrupt records a message lists with their reasons.
_MAX_LISTED = 5


def check_shards(
    folder: str, metadata: Metadata, index: RecordIndex, files: Mapping[str, int]
) -> None:
    """Compares the files that metadata lists with those that it describes.

    Args:
      folder: What has the metadata: a folder, or one file.
      metadata: Its metadata.
      index: The records of the set.
      files: File -> its number in the index, of those that the metadata describes.

    Raises:
      CorruptRecordError: if a file is missing, not listed, or of another size.
    """
    parent = folder if os.path.isdir(folder) else os.path.dirname(folder)
    if metadata.shards is not None:
        listed = {os.path.join(parent, shard.name) for shard in metadata.shards}
        for path in files:
            if path not in listed:
                raise CorruptRecordError(
                    f"{metadata_file(folder)} does not list {path}. Move the file "
                    f"away, or update the metadata with {rewriting(folder)}."
                )
    for shard in metadata.shards or ():
        path = os.path.join(parent, shard.name)
        if path not in files and os.path.exists(path):
            continue  # The setting names single files of the folder.
        if path not in files:
            raise CorruptRecordError(
                f"{metadata_file(folder)} lists the file {shard.name}, which is "
                f"missing in {parent}. Copy it there, make the records again, or "
                f"leave it out of the metadata with {rewriting(folder)}."
            )
        number = files[path]
        records = int(index.starts[number + 1] - index.starts[number])
        found = (records, os.path.getsize(path))
        if found != (shard.records, shard.bytes):
            raise CorruptRecordError(
                f"{path} must hold {shard.records} records in {shard.bytes} bytes, as "
                f"{metadata_file(folder)} states. Received: {found[0]} records in "
                f"{found[1]} bytes. Copy or make the file again. If the file is "
                f"correct, update the metadata with {rewriting(folder)}."
            )


def check_metadata(
    folder: str, metadata: Metadata, file_format: str, shape: RecordShape
) -> None:
    """Compares metadata with the records that it describes."""
    values = {
        "format": file_format,
        "packed": shape.is_packed,
        "max_seq_length": shape.max_seq_length,
        "max_predictions_per_pack": shape.max_predictions,
        "max_sequences_per_pack": shape.max_sequences,
    }
    for name, found in values.items():
        stated = getattr(metadata, name)
        if stated is not None and stated != found:
            raise CorruptRecordError(
                f"{metadata_file(folder)} states {name}={stated}, but the records of "
                f"{folder} have {name}={found}. Update the metadata with "
                f"{rewriting(folder)}."
            )


def check_content(parser: RecordParser, files: Mapping[str, OutputFile]) -> None:
    """Compares the checksums of files with those in metadata.

    Args:
      parser: Reads the set.
      files: Path -> what is in the file, of the files of the set to compare.

    Raises:
      ValueError: if a metadata file is not valid.
      CorruptRecordError: naming a record that is damaged; or the file, if it has other
        content than when its metadata was written.
    """
    described = parser.index.described
    metadata = {x: read_metadata(x) for x in {described[path] for path in files}}
    for path, found in files.items():
        folder, name = described[path], os.path.basename(path)
        about = metadata[folder]
        for shard in (about.shards or ()) if about else ():
            if shard.name != name or shard.crc32c == found.crc32c:
                continue
            _read_all(parser, parser.index.files.index(path))
            raise CorruptRecordError(
                f"{path} must have the checksum (CRC32C) {shard.crc32c}, as "
                f"{metadata_file(folder)} states. Received: {found.crc32c}. Copy or "
                "make the file again. If the file is correct, update the metadata with "
                f"{rewriting(folder)}."
            )


def _read_all(parser: RecordParser, shard: int) -> None:
    """Reads all records of a file; the first damaged one raises an error."""
    records = range(*parser.index.starts[shard : shard + 2].tolist())
    for numbers in blocks(records, _RECORDS_AT_ONCE):
        parser(np.asarray(numbers))


def corrupt_among(parser: RecordParser, numbers: np.ndarray) -> dict[int, str]:
    """The records of some that cannot be read: number -> message."""
    found: dict[int, str] = {}
    while numbers.size:
        try:
            parser(numbers)
            break
        except CorruptRecordError as error:
            if error.number is None:
                raise
            found[error.number] = str(error)
            numbers = numbers[numbers > error.number]
    return found


def find_corrupt_records(
    parser: RecordParser,
    skipped: Collection[int],
    max_corrupt_records: int,
    communicator: "Communicator",
) -> dict[int, str]:
    """Reads all records, each worker its share, and finds those that are corrupt.

    So the limit holds for the whole set, and does not depend on the number of workers,
    nor on how far a run gets; and all workers skip the same records.

    Args:
      parser: Reads the set.
      skipped: Numbers of records that do not count: they are skipped anyway.
      max_corrupt_records: How many there may be.
      communicator: The workers.

    Returns:
      Number -> message, equal on all workers.

    Raises:
      CorruptRecordError: if there are more.
    """
    bounds = np.linspace(0, len(parser.index), communicator.size + 1).astype(np.int64)
    records = range(*bounds[communicator.rank : communicator.rank + 2].tolist())
    error, own = None, {}
    try:
        with ProgressReport(len(records), "records checked") as progress:
            for numbers in map(np.asarray, blocks(records, _RECORDS_AT_ONCE)):
                is_read = ~np.isin(numbers, skipped)
                own |= corrupt_among(parser, numbers[is_read])
                progress.add(len(numbers), len(numbers))
                if len(own) > max_corrupt_records:
                    break  # A set in another format may have millions.
    except (CorruptRecordError, OSError) as caught:
        error = caught
    communicator.agree(error)
    of_workers = communicator.gather_values([*own.items()])
    found = dict(pair for pairs in of_workers for pair in pairs)
    if len(found) > max_corrupt_records:
        listed = "\n  ".join([*found.values()][:_MAX_LISTED])
        names = ",".join(name_records(parser.index, np.asarray([*found]))[:_MAX_LISTED])
        raise CorruptRecordError(
            f"More than max_corrupt_records={max_corrupt_records} records are corrupt: "
            f"{names}{',...' if len(found) > _MAX_LISTED else ''}. Make or copy the "
            "files again, or pass a greater --max_corrupt_records.\n  " + listed
        )
    return found


class Sample(NamedTuple):
    """Statistics of records that are spread evenly over a set.

    Attributes:
      sha256: Of their features and of the number of records: equal for equal sets.
      num_records: How many were parsed.
      faults: How many train nothing, or nothing of use: `unmasked`, without a masked
        token; `masked_cls`, where [CLS] is one; `unattended`, whose mask is 0.
      has_pairs: Whether any of them has a second segment.
      random_next: Share of random next segments, in [0, 1].
    """

    sha256: str
    num_records: int
    faults: Counter[str]
    has_pairs: bool
    random_next: float


def check_sample(
    parser: RecordParser, sample_size: int, skipped: Collection[int] = ()
) -> Sample:
    """Parses and checks records spread evenly over the set, before any training.

    Args:
      parser: Reads the set.
      sample_size: How many to check.
      skipped: Numbers of records that may be corrupt. The others of these count like
        any record, so that the checksum does not depend on what a run skips.

    Raises:
      CorruptRecordError: naming file and record.
    """
    total = len(parser.index)
    count = min(sample_size, total)
    numbers = np.unique(np.linspace(0, total - 1, count).astype(np.int64))
    corrupt = [*corrupt_among(parser, numbers[np.isin(numbers, skipped)])]
    reader = SkippingParser(parser, np.asarray(corrupt, np.int64))
    digest, has_pairs = hashlib.sha256(str(total).encode()), False
    faults, labels = Counter[str](), []
    for part in np.array_split(numbers, -(-len(numbers) // 256)):
        features = reader(part)
        masked = features["masked_lm_weights"] > 0
        at_cls = masked & (features["masked_lm_positions"] == 0)
        is_masked, is_attended = masked.any(axis=1), features["input_mask"].any(axis=1)
        faults["unmasked"] += int((~is_masked).sum())
        faults["masked_cls"] += int(at_cls.any(axis=1).sum())
        faults["unattended"] += int((is_masked & ~is_attended).sum())
        labels.append(features["next_sentence_labels"][:, 0])  # Of a pack's first.
        has_pairs = has_pairs or bool(features["segment_ids"].any())
        for name, values in sorted(features.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(values))
    random_next = float(np.concatenate(labels).mean())
    return Sample(digest.hexdigest(), len(numbers), faults, has_pairs, random_next)
