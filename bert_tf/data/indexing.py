"""Metadata for records that have none: everything is read and counted."""

import os

import google_crc32c
import numpy as np

from bert_tf.config.data import IndexDataConfig
from bert_tf.data.metadata import Metadata, Shard, metadata_file, write_metadata
from bert_tf.data.pack import open_parser
from bert_tf.data.record_index import RecordIndex, record_files

_RECORDS_AT_ONCE = 4096
_BYTES_AT_ONCE = 1 << 24


def _file_crc(path: str) -> str:
    crc = 0
    with open(path, "rb") as file:
        while part := file.read(_BYTES_AT_ONCE):
            crc = google_crc32c.extend(crc, part)
    return f"{crc:08x}"


def _shards(index: RecordIndex) -> tuple[Shard, ...]:
    """What each file holds."""
    counts = np.diff(index.starts)
    return tuple(
        Shard(
            name=os.path.basename(path),
            records=int(count),
            bytes=os.path.getsize(path),
            crc32c=_file_crc(path),
        )
        for path, count in zip(index.files, counts, strict=True)
    )


def index_records(config: IndexDataConfig) -> Metadata:
    """Counts a folder of records, packed or not, and writes its metadata.

    Args:
      config: Which folder.

    Returns:
      The metadata that was written.

    Raises:
      FileExistsError: if there is metadata and `overwrite` is false.
      FileNotFoundError: if there are no records.
      CorruptRecordError: if a record cannot be read.
    """
    folder = os.path.normpath(config.input_dir)
    path = metadata_file(folder)
    if os.path.exists(path) and not config.overwrite:
        raise FileExistsError(
            f"`input_dir` must have no metadata yet. Received: input_dir={folder} "
            f"beside {path}. Say --overwrite to replace it."
        )
    index, parser = open_parser(tuple(record_files(folder)))
    sequences = tokens = 0
    for begin in range(0, len(index), _RECORDS_AT_ONCE):
        end = min(begin + _RECORDS_AT_ONCE, len(index))
        arrays = parser(np.arange(begin, end))
        sequences += int((arrays["next_sentence_weights"] > 0).sum())
        tokens += int((arrays["input_mask"] > 0).sum())
    shape, records = parser.shape, len(index)
    metadata = Metadata(
        packed=shape.is_packed,
        max_seq_length=shape.max_seq_length,
        # How many each sequence of a pack may have had is not in the records.
        max_predictions_per_seq=None if shape.is_packed else shape.max_predictions,
        max_predictions_per_pack=shape.max_predictions,
        max_sequences_per_pack=shape.max_sequences,
        original_number_of_samples=sequences,
        new_number_of_samples=records,
        avg_seq_per_sample=sequences / records,
        packing_efficiency=tokens / (records * shape.max_seq_length),
        padding_tokens_original_dataset=sequences * shape.max_seq_length - tokens,
        shards=_shards(index),
    )
    write_metadata(folder, metadata)
    return metadata
