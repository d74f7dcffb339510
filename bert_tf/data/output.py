"""Output files and folders, which are renamed only when they are complete."""

import os
import re
from pathlib import Path
from typing import Self

import google_crc32c

# Names of the files that output folders of each kind hold, and that may be replaced.
RECORDS = re.compile(r"part[-_]\d+[-_]of[-_]\d+\.(tfrecord|hdf5)")
TEXTS = re.compile(r"part-\d+\.(txt|jsonl)")
SIDES = re.compile(r"(training|test)-\d+-of-\d+\.txt")
VOCABULARY = re.compile(r"vocab\.txt")

# Per writer: small enough for thousands of them.
_BUFFER_BYTES = 64 << 10


class FileWriter:
    """Writes a file as `<path>.tmp`, which is renamed when it is complete.

    Use it as a context manager, or call `close`. On an exception the temporary file is
    deleted. No file stays open between writes, so there may be thousands of writers.

    Attributes:
      path: The file.
      num_bytes: Bytes written.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates the temporary file.

        Args:
          path: The final path.
        """
        self.path = Path(path)
        self.num_bytes = 0
        self._crc = 0
        self._temporary = Path(f"{self.path}.tmp")
        self._temporary.write_bytes(b"")
        self._buffer = bytearray()

    @property
    def crc32c(self) -> str:
        """Checksum of the file so far, 8 hexadecimal digits."""
        return f"{self._crc:08x}"

    def append(self, data: bytes) -> None:
        """Adds bytes."""
        self._buffer += data
        if len(self._buffer) >= _BUFFER_BYTES:
            self._flush()
        self._crc = google_crc32c.extend(self._crc, data)
        self.num_bytes += len(data)

    def close(self) -> None:
        """Syncs the file to disk and renames it."""
        self._flush(to_disk=True)
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Deletes the temporary file."""
        self._buffer.clear()
        self._temporary.unlink(missing_ok=True)

    def _flush(self, to_disk: bool = False) -> None:
        with open(self._temporary, "ab") as file:
            file.write(self._buffer)
            if to_disk:
                file.flush()
                os.fsync(file.fileno())
        self._buffer.clear()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Renames the file, or deletes it after an error."""
        if error is None:
            self.close()
        else:
            self.discard()


def check_output_dir(
    name: str,
    folder: str,
    kind: re.Pattern[str],
    overwrite: bool,
    reason: str = "",
) -> None:
    """Refuses an output folder that holds anything but replaceable earlier output.

    Args:
      name: The setting, for messages.
      folder: Its value; need not exist.
      kind: `RECORDS`, `TEXTS`, ...
      overwrite: Whether files of that kind in it may be replaced.
      reason: How the earlier output differs from what is asked for, a sentence.

    Raises:
      FileExistsError: if it holds such files and `overwrite` is false, or it holds
        anything else, or is a file.
    """
    if not os.path.lexists(folder):
        return
    if not os.path.isdir(folder):
        raise FileExistsError(
            f"`{name}` must be a folder. Received: {name}={folder}, a file."
        )
    names = sorted(os.listdir(folder))
    others = [entry for entry in names if not kind.fullmatch(entry)]
    if others:
        raise FileExistsError(
            f"`{name}` must be new, empty or hold earlier output only. Received: "
            f"{name}={folder}, which holds {others[0]}. Pass another folder."
        )
    if names and not overwrite:
        raise FileExistsError(
            f"`{name}` must not hold earlier output. Received: {name}={folder}, which "
            f"holds {names[0]}. {reason} Pass another folder, or --overwrite."
        )


def move_into_place(folder: Path, output_dir: str, kind: re.Pattern[str]) -> None:
    """Renames a complete folder to its final path, and deletes earlier output there.

    Args:
      folder: The complete folder, next to `output_dir`.
      output_dir: The final path: no file, or a folder that `check_output_dir` passed.
      kind: `RECORDS`, `TEXTS`, ...

    Raises:
      OSError: if files of another kind have come into `output_dir`.
    """
    target = os.path.abspath(output_dir)
    if os.path.isdir(target):
        for name in os.listdir(target):
            if kind.fullmatch(name):
                os.unlink(os.path.join(target, name))
    os.replace(folder, target)
