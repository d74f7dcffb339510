"""Checks a folder against a list of checksums."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bert_tf.config.download import VerifyConfig
from bert_tf.download.fetching import CHECKSUMS, is_valid
from bert_tf.errors import counted, listed
from bert_tf.files import check_regular
from bert_tf.progress import ProgressReport

# A list of a million files is smaller.
_MAX_BYTES = 256 << 20

_LINE = re.compile(r"\\?(?P<sum>[0-9a-fA-F]{32,64}) [ *]?(?P<name>.+)")
_BSD_LINE = re.compile(r"(MD5|SHA1|SHA256) ?\((?P<name>.+)\) ?= ?(?P<sum>[0-9a-fA-F]+)")
_MOST_NAMES = 5


def read_checksums(path: str) -> dict[str, str]:
    """Reads a list of checksums.

    Args:
      path: A file of lines as md5sum, sha1sum or sha256sum write them (also with
        --tag); empty lines and lines that begin with # are ignored.

    Returns:
      Name -> checksum, lower case; the longest where there are several kinds.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a line is something else, contradicts another, or names a path
        outside the folder.
    """
    try:
        check_regular(path, _MAX_BYTES)
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(
            "`checksum_file` must be an existing file. Received: checksum_file="
            f"{path}. Correct the path."
        ) from None
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} must be a list of checksums, as md5sum writes it. Received: a "
            "file that is not UTF-8 text. Pass another, or convert it."
        ) from None
    sums = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line) or _BSD_LINE.fullmatch(line)
        if not match or len(match["sum"]) not in CHECKSUMS:
            raise ValueError(
                f"{path}, line {number}: must be a checksum and a file name, as md5sum "
                f"writes them. Received: {line[:80]!r}."
            )
        name = PurePosixPath(match["name"])
        if name.is_absolute() or ".." in name.parts:
            raise ValueError(
                f"{path}, line {number}: the file name must be a relative path inside "
                f"the folder. Received: {name}."
            )
        found = match["sum"].lower()
        other = sums.get(str(name), "")
        if len(other) == len(found) and other != found:
            raise ValueError(
                f"{path}, line {number}: an earlier line has another checksum of "
                f"{name}. Remove the wrong one."
            )
        sums[str(name)] = max(found, other, key=len)
    if not sums:
        raise ValueError(
            f"{path} must list at least one file. Received: none. Pass another."
        )
    return sums


def verify_folder(config: VerifyConfig) -> int:
    """Compares every file of a list with its checksum.

    Args:
      config: Folder and list.

    Returns:
      The number of files, all of which have the listed checksums.

    Raises:
      FileNotFoundError: if folder or list is missing.
      ValueError: if files are missing or different, with their names.
    """
    folder = Path(config.folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"`folder` must be an existing folder. Received: folder={folder}. Correct "
            "the path."
        )
    sums = read_checksums(config.checksum_file)
    missing, different = [], []
    paths = {name: folder / name for name in sums}
    total = sum(path.stat().st_size for path in paths.values() if path.is_file())
    with ProgressReport(total, "files") as progress:
        for name, path in paths.items():
            if not path.is_file():
                missing.append(name)
                continue
            if not is_valid(path, sums[name]):
                different.append(name)
            progress.add(path.stat().st_size, 1)
    if missing or different:
        raise ValueError(
            f"{folder} does not match {config.checksum_file}: of "
            f"{counted(len(sums), 'file')}, missing: {len(missing)}{_names(missing)}, "
            f"different: {len(different)}{_names(different)}. Download or "
            "create them again."
        )
    return len(sums)


def unlisted_files(config: VerifyConfig) -> Iterator[str]:
    """Files of the folder that the list does not name."""
    sums = read_checksums(config.checksum_file)
    for parent, _, names in os.walk(config.folder):
        for name in sorted(names):
            path = os.path.relpath(os.path.join(parent, name), config.folder)
            if path not in sums:
                yield path


def _names(names: list[str]) -> str:
    return f" ({listed(names, most=_MOST_NAMES)})" if names else ""
