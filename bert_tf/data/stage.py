"""A step of data preparation: a folder made part by part, which survives a stop.

Finished parts are kept in `<output_dir>.partial`, each with a note of what it holds,
until all are there; then the folder gets its name. `<output_dir>_manifest.json` says
from which input and with which settings it was made. A step that is called again goes
on where it stopped, and does nothing where its output is there and intact.
"""

import dataclasses
import fcntl
import functools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c

from bert_tf.data import output
from bert_tf.data.metadata import Shard
from bert_tf.errors import RunError

Item = TypeVar("Item")

# Raised by one when the same input and settings begin to give other bytes.
_VERSION = 1
_BYTES_AT_ONCE = 1 << 24
_SETTINGS_FILE = "stage.json"
_NOTE_SUFFIX = ".done"
# Keys of the manifest that decide the bytes of the output.
_RECIPE = ("version", "step", "settings", "inputs")


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished file.

    Attributes:
      name: Within the folder.
      bytes: Its size.
      crc32c: Checksum of its content, 8 hexadecimal digits.
      counts: What else is known of it, such as its number of records.
    """

    name: str
    bytes: int
    crc32c: str
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


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


def settings_of(config: object, *left_out: str) -> dict[str, Any]:
    """The settings that decide what a step writes.

    Args:
      config: A config of the step.
      *left_out: Fields that do not, besides those that say where and how fast.
    """
    values = dataclasses.asdict(config)
    for name in (*left_out, "output_dir", "num_processes", "overwrite", "horovod"):
        values.pop(name, None)
    return values


class Stage:
    """The output of one step; a context manager between `begin` and `publish`.

    Attributes:
      folder: Where parts are written.
    """

    def __init__(
        self,
        step: str,
        output_dir: str,
        kind: re.Pattern[str],
        settings: Mapping[str, Any],
        inputs: Iterable[str | Path],
    ) -> None:
        """Names the input; nothing is read or written yet.

        Args:
          step: Name of the step.
          output_dir: The folder to be.
          kind: Names of the files it will hold, see `output`.
          settings: Of `settings_of`.
          inputs: All files that are read.
        """
        self._output_dir = os.path.abspath(output_dir)
        self._kind = kind
        self.folder = Path(f"{self._output_dir}.partial")
        self._lock: int | None = None
        self._step = step
        self._settings = dict(settings)
        self._inputs = list(inputs)

    @functools.cached_property
    def _recipe(self) -> dict[str, Any]:
        """What decides the output, in the form in which JSON gives it back."""
        inputs = [dataclasses.asdict(describe_file(path)) for path in self._inputs]
        values = (_VERSION, self._step, self._settings, inputs)
        return json.loads(json.dumps(dict(zip(_RECIPE, values, strict=True))))

    @property
    def manifest_file(self) -> Path:
        """Where the manifest is, beside the folder."""
        return Path(f"{self._output_dir}_manifest.json")

    def begin(self, overwrite: bool) -> Sequence[Part] | None:
        """Finds out what is there, and prepares for the rest.

        Args:
          overwrite: Whether other output in the folder may be replaced in the end.

        Returns:
          The parts, if the step is done already; else None, and `folder` is there.

        Raises:
          FileExistsError: if the folder holds other output, or anything else.
          RunError: if another process is at this step.
        """
        manifest = _read_json(self.manifest_file)
        if manifest and all(manifest.get(key) == self._recipe[key] for key in _RECIPE):
            parts = _parts(manifest.get("files"))
            if parts and self._are_intact(parts):
                return parts
        output.check_output_dir("output_dir", self._output_dir, self._kind, overwrite)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        settings = self.folder / _SETTINGS_FILE
        if _read_json(settings) != self._recipe:
            for entry in self.folder.iterdir():
                entry.unlink()
            output.write_text(settings, _to_json(self._recipe))
        return None

    def _are_intact(self, parts: Sequence[Part]) -> bool:
        folder = Path(self._output_dir)
        if not folder.is_dir() or {p.name for p in folder.iterdir()} != {
            part.name for part in parts
        }:
            return False
        return all(
            (folder / part.name).stat().st_size == part.bytes
            and describe_file(folder / part.name).crc32c == part.crc32c
            for part in parts
        )

    def finished(self, name: str) -> Part | None:
        """The part of that name, if it is done: a note is written after its file."""
        note = _read_json(self.folder / f"{name}{_NOTE_SUFFIX}")
        if not note or not (self.folder / name).exists():
            return None
        part = Part(**note)
        is_whole = (self.folder / name).stat().st_size == part.bytes
        return part if is_whole else None

    def finish(self, part: Part) -> None:
        """Notes that a part is done, which a later call will rely on."""
        note = self.folder / f"{part.name}{_NOTE_SUFFIX}"
        output.write_text(note, _to_json(dataclasses.asdict(part)))

    def publish(self, parts: Sequence[Part]) -> None:
        """Gives the folder its name, and writes the manifest.

        Args:
          parts: All files of the folder, in their order.
        """
        names = {part.name for part in parts}
        for entry in self.folder.iterdir():
            if entry.name not in names:
                entry.unlink()
        files = [dataclasses.asdict(part) for part in parts]
        output.write_text(self.manifest_file, _to_json(self._recipe | {"files": files}))
        output.move_into_place(self.folder, self._output_dir, self._kind)

    def __enter__(self) -> "Stage":
        """The stage itself."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Lets go of the folder; without any finished part it is removed."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        if self.folder.is_dir() and not any(self.folder.glob(f"*{_NOTE_SUFFIX}")):
            shutil.rmtree(self.folder)


def _lock(folder: Path) -> int:
    """An open, locked descriptor of a folder.

    Raises:
      RunError: if another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunError(
            f"Another process is writing {folder}. Wait for it, or end it."
        ) from None
    except OSError:
        pass  # A file system without locks.
    return descriptor


def _parts(values: object) -> list[Part]:
    try:
        return [Part(**value) for value in values or ()]
    except TypeError:
        return []


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is none, or it was cut by a crash."""
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
