"""Expands a setting into files (paths, folders, patterns), and checks their content.

What is skipped in a folder, and what is named twice, is reported on stderr.
"""

import fnmatch
import functools
import glob
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator, Sequence

from bert_tf.errors import listed, similar_path
from bert_tf.files import content_size, is_gzip_name, opened, without_gz
from bert_tf.launch import report

TEXT_SUFFIXES = (".txt",)

_COMPRESSED = {
    ".gz": "gunzip",
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd",
    ".zip": "unzip",
    ".7z": "7z x",
}
# Read as text, a model would learn their syntax.
_OTHER_KINDS = (
    *(".json", ".jsonl", ".xml", ".csv", ".tsv", ".parquet", ".tfrecord", ".hdf5"),
    *_COMPRESSED,
)
# Larger ones take long: each part of a .gz is found by unpacking it from its beginning.
_LARGE_GZIP_BYTES = 256 << 20
# The number of a shard is not an extension: part-00000-of-00500, train.txt.00, wiki_00.
_SHARD_NUMBER = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?\Z")
_EVALUATION = re.compile(r"(eval|evaluation|test|dev|valid|validation)(?![a-z])", re.I)
_MOST_NAMES = 5

HEAD_BYTES = 4096
# What a file holds, and the program that makes text of it.
_SIGNATURES = {
    b"\x1f\x8b": ("compressed (gzip)", "gunzip"),
    b"BZh": ("compressed (bzip2)", "bunzip2"),
    b"\xfd7zXZ\x00": ("compressed (xz)", "unxz"),
    b"\x28\xb5\x2f\xfd": ("compressed (zstd)", "unzstd"),
    b"PK\x03\x04": ("a zip archive", "funzip"),
    b"\xff\xfe\x00\x00": ("UTF-32", "iconv -f UTF-32 -t UTF-8"),
    b"\x00\x00\xfe\xff": ("UTF-32", "iconv -f UTF-32 -t UTF-8"),
    b"\xff\xfe": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
    b"\xfe\xff": ("UTF-16", "iconv -f UTF-16 -t UTF-8"),
}
# In UTF-16 without a byte order mark every other byte is 0 for blanks and line ends at
# least, and never the ones between.
_FEWEST_ZEROS = 4
_SHARE_OF_ZEROS = 0.1
_PARQUET = b"PAR1"
_FORMAT_NAMES = {"json": "JSON", "mediawiki": "a dump of MediaWiki"}
_JSON = re.compile(rb'\[?\s*\{\s*"[^"\n]*"\s*:')


def expand_paths(
    input_paths: str, suffixes: tuple[str, ...] = TEXT_SUFFIXES, name: str = "input"
) -> list[str]:
    """Finds the files of a comma-separated setting.

    Args:
      input_paths: Files, folders and patterns with * and ?, separated by commas. A
        file or pattern is read with any extension but those of other kinds of files.
      suffixes: Extensions of the files to read in a folder, also with .gz after them;
        with .txt also files without an extension. Files that begin with . or _ and
        subfolders are skipped.
      name: The setting, for messages.

    Returns:
      Paths, sorted within each part of the setting. A file occurs once, under its first
      path: links to it, also hard ones, are the same file.

    Raises:
      FileNotFoundError: if a part matches no file.
      ValueError: if a file is of another kind; the message says what to do.
    """
    kinds = _kinds(suffixes)
    files: dict[object, str] = {}
    repeated: list[str] = []
    for part, matches in named_paths(input_paths):
        found = [file for match in matches for file in _files(match, suffixes, name)]
        if not found:
            what = f"holds no {kinds}" if matches else "does not exist"
            raise FileNotFoundError(
                f"`{name}` must name files, or folders of {kinds}, but {part} {what}. "
                f"{_inner_folders(matches, name)}Received: {name}={input_paths}. "
                f"{'' if matches else similar_path(part)}".rstrip()
            )
        for file in found:
            _check_kind(file, suffixes, name)
            first = files.setdefault(file_identity(file), file)
            if first is not file:
                repeated.append(f"{file} is the same file as {first}")
    if not files:
        raise FileNotFoundError(
            f"`{name}` must name files. Received: {name}={input_paths!r}."
        )
    if repeated:
        report(f"{listed(repeated, most=_MOST_NAMES)}: read once.")
    for file in files.values():
        check_content(file, is_text=suffixes == TEXT_SUFFIXES)
        if suffixes == TEXT_SUFFIXES and is_gzip_name(file):
            _report_large(file)
    if len(files) > 1:
        size = sum(map(os.path.getsize, files.values()))
        names = listed(map(os.path.basename, files.values()), most=_MOST_NAMES)
        report(f"{name}: {len(files):,} files, {size:,} bytes: {names}")
    return list(files.values())


def _report_large(path: str) -> None:
    """Reports a .gz whose parts take long to find."""
    size = content_size(path)
    if size > _LARGE_GZIP_BYTES:
        report(
            f"{path} holds {size:,} bytes, and each of its parts is found by unpacking "
            f"it from its beginning: `gunzip {shlex.quote(path)}` first is faster."
        )


def matching_paths(pattern: str) -> list[str]:
    """The paths of a part of a setting; what exists as written is not expanded."""
    for path in (pattern, pattern.strip()):
        if os.path.exists(path):
            return [path]
    pattern = pattern.strip()
    found = glob.glob(pattern) or glob.glob(pattern.replace("[", "[[]"))
    return sorted(found)


def named_paths(
    input_paths: str, find: Callable[[str], list[str]] = matching_paths
) -> Iterator[tuple[str, list[str]]]:
    """The parts of a comma-separated setting, each with the paths that it matches.

    Names may contain commas, brackets and spaces at either end: a part that exists as
    written is not expanded.

    Args:
      input_paths: The setting.
      find: Part -> paths, none if it is not a whole part.
    """
    parts = input_paths.split(",")
    begin = 0
    while begin < len(parts):
        end = begin + 1
        part = parts[begin]
        matches = find(part)
        while part.strip() and not matches and end < len(parts):
            end += 1
            matches = find(",".join(parts[begin:end]))
        if not matches:
            end = begin + 1
        name = ",".join(parts[begin:end]).strip()
        if name:
            yield name, matches
        begin = end


def file_identity(path: str) -> object:
    """A value that is equal for all paths and links of a file."""
    status = os.stat(path)
    # File systems without inode numbers report 0.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def report_skipped(folder: str, names: Sequence[str]) -> None:
    """Reports the entries of a folder that are not read, if any."""
    if names:
        are = "entry is" if len(names) == 1 else "entries are"
        found = listed(names, most=_MOST_NAMES)
        _report_once(f"{folder}: {len(names):,} {are} not read: {found}")


@functools.cache
def _report_once(line: str) -> None:
    """Reports what is found again each time that a folder is listed."""
    report(line)


def _kinds(suffixes: tuple[str, ...]) -> str:
    kinds = ", ".join(f"*{suffix}" for suffix in suffixes)
    return f"{kinds} files" + (" or files without an extension" * (".txt" in suffixes))


def _inner_folders(matches: Sequence[str], name: str) -> str:
    """The remedy for folders that hold only folders."""
    for match in matches:
        if any(entry.is_dir() for entry in os.scandir(match)):
            return f"To read its subfolders, pass --{name}='{match}/*/'. "
    return ""


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file in a folder is of a kind, by its name alone."""
    if name.startswith((".", "_")):
        return False
    name = without_gz(name)
    base = name if name.lower().endswith(suffixes) else _SHARD_NUMBER.sub("", name)
    is_plain = ".txt" in suffixes and not os.path.splitext(base)[1]
    return base.lower().endswith(suffixes) or is_plain


def _files(path: str, suffixes: tuple[str, ...], name: str) -> list[str]:
    """The file itself, or the files of a folder that are of the kind."""
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"`{name}` must name files that exist. Received: {path}, a link to "
            f"{os.readlink(path)}, which does not exist."
        )
    if not os.path.isdir(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError(
                f"`{name}` must name regular files or folders. Received: {path}, which "
                "is neither. Write its content to a file first."
            )
        return [path]
    names, skipped = [], []
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        # For a link to itself, `entry.is_file` would raise an error.
        is_meant = os.path.isfile(entry.path) and has_suffix(entry.name, suffixes)
        # The same text twice, as after `gunzip -k`.
        unpacked = without_gz(entry.path)
        is_meant &= unpacked == entry.path or not os.path.exists(unpacked)
        label = f"{entry.name}/" if os.path.isdir(entry.path) else entry.name
        (names if is_meant else skipped).append(label)
    report_skipped(path, skipped)
    if names:
        _warn_about_evaluation(path, names, name)
    return [os.path.join(path, name) for name in names]


def _warn_about_evaluation(folder: str, names: Sequence[str], option: str) -> None:
    """Warns that files whose names say evaluation are read like the others."""
    chosen = [name for name in names if _EVALUATION.match(name)]
    others = [name for name in names if not _EVALUATION.match(name)]
    if not chosen or not others:
        return
    pattern = os.path.commonprefix(others) + "*"
    matched = fnmatch.filter(os.listdir(folder), pattern)
    if sorted(matched) != others or not glob.escape(pattern[:-1]) == pattern[:-1]:
        pattern = ""
    remedy = f"--{option}='{folder}/{pattern}'" if pattern else "patterns of the others"
    found = listed(chosen, most=_MOST_NAMES)
    report(
        f"warning: {folder} holds {found} next to {len(others):,} other "
        "files. The name is one of evaluation text, but it is read like the others. "
        f"To leave it out, pass {remedy}."
    )


def _check_kind(path: str, suffixes: tuple[str, ...], option: str) -> None:
    """Refuses a file with the extension of another kind."""
    name = without_gz(path.lower())
    if not name.endswith(_OTHER_KINDS) or name.endswith(suffixes):
        return
    kinds = ", ".join(f"*{suffix}" for suffix in suffixes)
    ending = os.path.splitext(name)[1]
    remedy = (
        "`python -m bert_tf data extract` reads dumps, JSON, CSV and Parquet, `data "
        "sentences` the output of extract."
    )
    if ending == ".tsv":
        remedy = (
            "It is a table. Store it as CSV (commas, a header line), which `python -m "
            "bert_tf data extract` reads."
        )
    elif ending in (".tfrecord", ".hdf5"):
        remedy = "It holds records, which training and `data pack` read."
    elif ending in _COMPRESSED:
        command = f"{_COMPRESSED[ending]} {shlex.quote(path)}"
        remedy = f"Unpack it first, for example with `{command}`."
    if ending == ".bz2":
        remedy += " A dump of MediaWiki is read by `python -m bert_tf data extract`."
    raise ValueError(f"`{option}` must name {kinds} files. Received: {path}. {remedy}")


def check_content(path: str, is_text: bool) -> None:
    """Refuses a file whose content is certainly of another kind.

    Args:
      path: The file.
      is_text: Whether it must be plain text; otherwise XML, JSON and bzip2 are allowed.

    Raises:
      ValueError: if it is compressed, not UTF-8 or, for plain text, JSON or an XML
        dump; the message says what to do.
    """
    with opened(path) as file:
        head = file.read(HEAD_BYTES)
    for signature, (kind, program) in _SIGNATURES.items():
        if head.startswith(signature) and (is_text or signature != b"BZh"):
            raise ValueError(
                f"{path} is {kind}, not text in UTF-8. Convert it with "
                f"{_conversion(program, path)}."
            )
    if head.startswith(b"BZh") or (head.startswith(_PARQUET) and not is_text):
        return
    if head.startswith(_PARQUET):
        raise ValueError(
            f"{path} is Parquet, not text in UTF-8. `python -m bert_tf data extract "
            "--input_format=parquet` reads it."
        )
    refuse_zeros(path, head)
    if is_text:
        _check_is_plain(path, head)


def refuse_zeros(path: str, head: bytes) -> None:
    """Raises a ValueError if a file's first `HEAD_BYTES` are UTF-16, or all 0."""
    if head and not head.strip(b"\0"):
        raise ValueError(
            f"{path} is not text in UTF-8: its first {len(head)} bytes are 0, as after "
            "a failed download or copy. Fetch it again."
        )
    first, second = head[::2].count(0), head[1::2].count(0)
    zeros = max(first, second)
    if not min(first, second) and zeros >= max(
        _FEWEST_ZEROS, _SHARE_OF_ZEROS * len(head) / 2
    ):
        order = "LE" if second else "BE"
        raise ValueError(
            f"{path} is not text in UTF-8: {zeros} of its first {len(head)} bytes are "
            "0. If it is UTF-16, convert it with "
            f"{_conversion(f'iconv -f UTF-16{order} -t UTF-8', path)}."
        )


def _conversion(program: str, path: str) -> str:
    """The command that converts a file; one that is compressed stays so.

    Some programs read a file of any name only from their standard input.
    """
    name = shlex.quote(path) if path else "FILE"
    if is_gzip_name(path):
        return f"`gunzip < {name} | {program} | gzip > NEW`"
    return f"`{program} < {name} > NEW`"


def utf8_remedy(path: str = "") -> str:
    """How to convert text in another encoding, for messages.

    Args:
      path: The file; empty for one without a name, such as standard input.
    """
    return (
        "Convert text in another encoding, for example with "
        f"{_conversion('iconv -f WINDOWS-1252 -t UTF-8', path)}. To drop damaged "
        f"bytes, use {_conversion('iconv -c -f UTF-8 -t UTF-8', path)}. Then replace "
        "the file by NEW: in a folder, both would be read."
    )


def _check_is_plain(path: str, head: bytes) -> None:
    """Refuses JSON and XML, whose syntax a model would learn if read as text."""
    begin = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    option = ""
    if begin.startswith(b"<mediawiki"):
        option = "mediawiki"
    elif _JSON.match(begin):
        option = "json"
    elif begin.startswith(b"<doc id="):
        raise ValueError(
            f"{path} holds WikiExtractor's markup, not plain text. Run WikiExtractor "
            "with --json, and read its output with `python -m bert_tf data extract "
            "--input_format=json`."
        )
    if option:
        raise ValueError(
            f"{path} holds {_FORMAT_NAMES[option]}, not plain text. Extract its text "
            f"with `python -m bert_tf data extract --input_format={option}`."
        )
