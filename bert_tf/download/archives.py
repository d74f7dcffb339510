"""Unpacks zip and tar archives: only plain files, bounded in number and size.

The data filter of `tarfile` allows links, names that differ only in case, and any
number of bytes, and `zipfile` has no filter: one set of rules is for both.
"""

import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from bert_tf.errors import RunError
from bert_tf.files import temporary_folder

# Far above any published model or data set.
MAX_BYTES = 64 << 30
MAX_MEMBERS = 100_000
# Text compresses to a tenth; a small archive that grows more than this is a bomb.
MAX_RATIO = 200
_SMALL_BYTES = 64 << 20
_BYTES_AT_ONCE = 1 << 20
_DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # A compression method that zipfile does not support.
)


class _Member(NamedTuple):
    """A file in an archive: its name, its size, and what opens it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, flatten: bool = True) -> None:
    """Unpacks a zip or tar archive into a new folder, completely or not at all.

    Args:
      archive: The file.
      folder: Must not exist, or be empty.
      flatten: Whether to drop the top folder, if everything is inside one.

    Raises:
      FileExistsError: if the folder holds anything.
      RunError: if the archive is damaged or may do harm: it holds links, devices, paths
        outside the folder, duplicate names, too many or too large files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} must be new or empty to unpack {archive} into it. Move or "
            "delete what it holds."
        )
    with temporary_folder(folder) as work:
        inner = work / "files"
        inner.mkdir()
        try:
            _extract(archive, inner)
        except _DAMAGES as error:
            raise RunError(
                f"{archive} is damaged: {error}. Delete it, with {archive.name}.sha256 "
                "if that exists, and download it again."
            ) from None
        only = list(inner.iterdir())
        if flatten and len(only) == 1 and only[0].is_dir():
            inner = only[0]
        os.replace(inner, folder)


def _extract(archive: Path, folder: Path) -> None:
    if zipfile.is_zipfile(archive):
        opened = zipfile.ZipFile(archive)
        members = _zip_members
    elif tarfile.is_tarfile(archive):
        opened = tarfile.open(archive)
        members = _tar_members
    else:
        raise RunError(
            f"{archive} is neither a zip nor a tar archive. Delete it, and check its "
            "URL."
        )
    limit = min(MAX_BYTES, max(_SMALL_BYTES, MAX_RATIO * archive.stat().st_size))
    seen: set[str] = set()
    with closing(opened):
        for member in members(archive, opened):
            target = folder / _safe_name(archive, member.name)
            if str(target).lower() in seen:
                _refuse(archive, member.name, "occurs twice")
            seen.add(str(target).lower())
            limit -= member.size
            if limit < 0 or len(seen) > MAX_MEMBERS:
                _refuse(archive, member.name, "exceeds the limit of size or of files")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                file = open(target, "xb")
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                _refuse(archive, member.name, "is both a file and a folder")
            with file, member.open() as source:
                _copy(archive, member, source, file)


def _copy(archive: Path, member: _Member, source: IO[bytes], file: IO[bytes]) -> None:
    """Copies at most the stated size: a bomb may state less than it holds."""
    left = member.size
    while block := _read(source):
        left -= len(block)
        if left < 0:
            _refuse(archive, member.name, "is larger than the archive states")
        file.write(block)
    if left:
        raise EOFError(f"{member.name} is truncated")


def _read(source: IO[bytes]) -> bytes:
    """The next bytes; damage, which gzip and bzip2 raise as OSError, is an EOFError."""
    try:
        return source.read(_BYTES_AT_ONCE)
    except OSError as error:
        if error.errno is not None:
            raise
        raise EOFError(str(error)) from None


def _zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[_Member]:
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(archive, info.orig_filename, "is a link or a device")
        if info.flag_bits & 1:
            _refuse(archive, info.orig_filename, "is encrypted")
        if not info.is_dir():
            name = info.orig_filename
            yield _Member(name, info.file_size, lambda info=info: opened.open(info))


def _tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[_Member]:
    for info in opened:
        if info.isreg():
            yield _Member(
                info.name, info.size, lambda info=info: opened.extractfile(info)
            )
        elif not info.isdir():
            _refuse(archive, info.name, "is a link or a device")
    while _read(opened.fileobj):  # The checksum of the archive is at its end.
        pass


def _safe_name(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    is_odd = {"\\", "\0", ":"} & set(name) or ".." in path.parts
    if is_odd or path.is_absolute() or not path.parts:
        _refuse(archive, name, "is not a relative path inside the folder")
    return path


def _refuse(archive: Path, name: str, reason: str) -> None:
    raise RunError(
        f"{archive} was not unpacked: its member {name!r} {reason}. Do not use the "
        "archive unless you trust its source, and then unpack it yourself."
    )
