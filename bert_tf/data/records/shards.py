"""Finished output files: size, checksum and counts of each, and totals."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import google_crc32c

from bert_tf.data.records.metadata import Shard

Item = TypeVar("Item")

_BYTES_AT_ONCE = 1 << 24


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished file.

    Attributes:
      name: File name within the folder.
      bytes: Its size.
      crc32c: Checksum of its content, 8 hexadecimal digits.
      counts: Other counts, such as its number of records.
      sample: Hashes of its input, see `text_counts.merge_samples`.
    """

    name: str
    bytes: int
    crc32c: str
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sample: Sequence[int] = ()


def describe_file(path: str | Path, counts: Mapping[str, int] | None = None) -> Part:
    """Reads a file for its size and checksum; its name is without the folder."""
    crc = size = 0
    with open(path, "rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            crc = google_crc32c.extend(crc, block)
            size += len(block)
    return Part(os.path.basename(path), size, f"{crc:08x}", dict(counts or {}))


def record_shards(parts: Iterable[Part]) -> tuple[Shard, ...]:
    """Turns parts with a count of `records` into the shards of metadata."""
    return tuple(
        Shard(
            name=part.name,
            records=part.counts["records"],
            bytes=part.bytes,
            crc32c=part.crc32c,
        )
        for part in parts
    )


def share(items: Sequence[Item], number: int, count: int) -> Sequence[Item]:
    """Part `number` of `count` even, contiguous parts of a sequence."""
    return items[len(items) * number // count : len(items) * (number + 1) // count]


def total_counts(parts: Iterable[Part]) -> Counter[str]:
    """Sums of the counts of all parts, and of their `bytes`."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.counts)
        total["bytes"] += part.bytes
    return total
