"""Finished files: what they hold, and what they add up to."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import google_crc32c

from bert_tf.data.metadata import Shard

Item = TypeVar("Item")

_BYTES_AT_ONCE = 1 << 24


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished file.

    Attributes:
      name: Within the folder.
      bytes: Its size.
      crc32c: Checksum of its content, 8 hexadecimal digits.
      counts: What else is known of it, such as its number of records.
      sample: Of what it was made of, see `text_counts.merge_samples`.
    """

    name: str
    bytes: int
    crc32c: str
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sample: Sequence[int] = ()


def describe_file(path: str | Path, counts: Mapping[str, int] | None = None) -> Part:
    """Reads a file and sums it up; its name is the last part of its path."""
    crc = size = 0
    with open(path, "rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            crc = google_crc32c.extend(crc, block)
            size += len(block)
    return Part(os.path.basename(path), size, f"{crc:08x}", dict(counts or {}))


def record_shards(parts: Iterable[Part]) -> tuple[Shard, ...]:
    """Parts that count their `records`, as metadata lists them."""
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
    """The counts of all parts together, and their `bytes`."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.counts)
        total["bytes"] += part.bytes
    return total
