"""Writes metadata of records by reading and counting all of them."""

import dataclasses
import logging
import os
from collections import Counter
from collections.abc import Mapping

import numpy as np

from bert_tf.config.data import IndexDataConfig
from bert_tf.data.output_files import describe_file
from bert_tf.data.processes import blocks
from bert_tf.data.records.metadata import (
    Metadata,
    Shard,
    metadata_file,
    read_metadata,
    record_shards,
    write_metadata,
)
from bert_tf.data.records.provenance import origin_of
from bert_tf.data.records.record_index import record_files
from bert_tf.data.records.record_set import NO_LIMITS, open_parser
from bert_tf.data.records.schema import RecordShape

_LOGGER = logging.getLogger(__name__)
_RECORDS_AT_ONCE = 4096


def count_records(arrays: Mapping[str, np.ndarray]) -> Counter[str]:
    """Counts `records`, `sequences` and `tokens` in the features of some records."""
    return Counter(
        records=len(arrays["input_mask"]),
        sequences=int((arrays["next_sentence_weights"] > 0).sum()),
        tokens=int((arrays["input_mask"] > 0).sum()),
    )


def counted_metadata(
    file_format: str,
    shape: RecordShape,
    counts: Mapping[str, int],
    shards: tuple[Shard, ...],
) -> Metadata:
    """Makes metadata from counts of records.

    Args:
      file_format: tfrecord or hdf5.
      shape: The lengths of all records.
      counts: Sums of `count_records` over all records.
      shards: The files that hold them.
    """
    return Metadata.of_counts(
        counts,
        shape.max_seq_length,
        format=file_format,
        packed=shape.is_packed,
        # Packed records do not hold the maximum of a single sequence.
        max_predictions_per_seq=None if shape.is_packed else shape.max_predictions,
        max_predictions_per_pack=shape.max_predictions,
        max_sequences_per_pack=shape.max_sequences,
        shards=shards,
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
            f"`input_dir` must have no metadata yet. Received: input_dir={folder}, "
            f"which has {path}. Pass --overwrite to replace it."
        )
    parser = open_parser(record_files(folder), NO_LIMITS)
    index = parser.index
    counts: Counter[str] = Counter()
    for numbers in blocks(range(len(index)), _RECORDS_AT_ONCE):
        counts.update(count_records(parser(np.asarray(numbers))))
    shards = record_shards(
        describe_file(path, {"records": count})
        for path, count in zip(index.files, np.diff(index.starts).tolist(), strict=True)
    )
    metadata = counted_metadata(index.format, parser.shape, counts, shards)
    try:
        metadata = dataclasses.replace(metadata, **origin_of(index.files))
        before = read_metadata(folder)
        # No packed record holds it; other records may have been here before.
        same = ("packed", "max_seq_length")
        if before and all(getattr(before, n) == getattr(metadata, n) for n in same):
            known = metadata.max_predictions_per_seq or before.max_predictions_per_seq
            metadata = dataclasses.replace(metadata, max_predictions_per_seq=known)
    except ValueError:
        _LOGGER.warning(
            "%s was not valid: the new one names neither the vocabulary nor the case "
            "that the records were made with.",
            path,
        )
    write_metadata(folder, metadata)
    return metadata
