"""Output files: written atomically, and their size, checksum and counts."""

import abc
import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

import google_crc32c

from bert_tf.files import written

# Per writer: small enough for thousands of them.
_BUFFER_BYTES = 64 << 10
_BYTES_AT_ONCE = 1 << 24
# Ending of the file that says that another one is finished.
DONE_SUFFIX = ".done"


@dataclasses.dataclass(frozen=True)
class OutputFile:
    """A finished file.

    Attributes:
      name: File name within the folder.
      bytes: Its size.
      crc32c: Checksum of its content, 8 hexadecimal digits.
      counts: Other counts, such as its number of records.
      sample: Hashes of its input, see `pretraining.statistics.merge_samples`.
    """

    name: str
    bytes: int
    crc32c: str
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    sample: Sequence[int] = ()


def describe_file(
    path: str | Path, counts: Mapping[str, int] | None = None
) -> OutputFile:
    """Reads a file for its size and checksum; its name is without the folder."""
    crc = size = 0
    with open(path, "rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            crc = google_crc32c.extend(crc, block)
            size += len(block)
    return OutputFile(os.path.basename(path), size, f"{crc:08x}", dict(counts or {}))


def total_counts(files: Iterable[OutputFile]) -> Counter[str]:
    """Sums of the counts of all files, and of their `bytes`."""
    total: Counter[str] = Counter()
    for file in files:
        total.update(file.counts)
        total["bytes"] += file.bytes
    return total


def require_documents(files: Sequence[OutputFile], folder: Path, received: str) -> None:
    """Refuses output without a document; its files are then not finished.

    Args:
      files: All files of the output.
      folder: Where they are.
      received: The setting `input`.

    Raises:
      ValueError: if there is no document in them.
    """
    if total_counts(files)["documents"]:
        return
    for done in folder.glob(f"*{DONE_SUFFIX}"):
        done.unlink()
    raise no_text_error(received)


def no_text_error(received: str) -> ValueError:
    """The error about a setting `input` without a document."""
    return ValueError(
        f"`input` must hold text. Received: input={received}, which holds no document "
        "with text. Pass other files."
    )


class WholeFileWriter(abc.ABC):
    """Writes a file as `<path>.tmp`, which is renamed when it is complete.

    Use it as a context manager, or call `close`. On an exception the temporary file is
    deleted.

    Attributes:
      path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates no file yet.

        Args:
          path: The final path.
        """
        self.path = Path(path)
        self._temporary = Path(f"{self.path}.tmp")

    @abc.abstractmethod
    def close(self) -> None:
        """Syncs the file to disk and renames it."""

    def discard(self) -> None:
        """Deletes the temporary file."""
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Renames the file, or deletes it after an error."""
        try:
            if error is None:
                self.close()
        finally:
            self.discard()


class FileWriter(WholeFileWriter):
    """Writes bytes to `<path>.tmp`, which is renamed when it is complete.

    No file stays open between writes, so there may be thousands of writers.

    Attributes:
      num_bytes: Bytes written.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates the temporary file.

        Args:
          path: The final path.
        """
        super().__init__(path)
        self.num_bytes = 0
        self._crc = 0
        self._temporary.write_bytes(b"")
        self._buffer = bytearray()

    def described(
        self, counts: Mapping[str, int], sample: Sequence[int] = ()
    ) -> OutputFile:
        """What was written.

        Args:
          counts: See `OutputFile`.
          sample: See `OutputFile`.
        """
        crc = f"{self._crc:08x}"
        return OutputFile(self.path.name, self.num_bytes, crc, dict(counts), sample)

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

    def _flush(self, to_disk: bool = False) -> None:
        with written(self.path), open(self._temporary, "ab") as file:
            file.write(self._buffer)
            if to_disk:
                file.flush()
                os.fsync(file.fileno())
        self._buffer.clear()
