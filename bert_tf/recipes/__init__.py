"""Files of flags with published settings, and `--flagfile`, which reads such files."""

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bert_tf.errors import did_you_mean, shown
from bert_tf.files import check_regular

FOLDER = Path(__file__).parent
_ENDING = ".flags"
_MAX_BYTES = 1 << 20
# What a shell would remove from a value, and this file does not.
_QUOTED_OR_REMARK = re.compile(r"""(["']).*\1|.*\s#.*""")
# How messages about a flag begin: those of a config, and of the command line.
_ABOUT_A_FLAG = re.compile(r"(?:`|flag --|Unknown flag --)([\w-]+)")


def names() -> list[str]:
    """The recipes of this package."""
    return sorted(path.stem for path in FOLDER.glob(f"*{_ENDING}"))


def summary(name: str) -> str:
    """The first comment of a recipe: its command, and what it is for."""
    return _find(name, "").read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def expand(arguments: Sequence[str]) -> list[str]:
    """A command line with the lines of each file in the place of its `--flagfile`.

    Raises:
      FileNotFoundError: if there is no such file or recipe.
      ValueError: if a line is no flag, or a file names itself.
    """
    return [argument for argument, _ in numbered(arguments)]


def numbered(arguments: Sequence[str]) -> list[tuple[str, int]]:
    """As `expand`, each argument with the number of the file that it is from.

    Files are numbered from 1 in the order in which they begin; 0 is the command line.
    """
    return [(word, number) for word, number, _ in _lines(arguments)]


def line_of(arguments: Sequence[str], message: str, aliases: Mapping[str, str]) -> str:
    """`FILE, line N: ` of the flag that an error is about; empty if no file has it.

    Args:
      arguments: The command line.
      message: The error, which begins with the flag.
      aliases: Other names of flags.
    """
    about = _ABOUT_A_FLAG.match(message)
    if not about or about[1] == "flagfile":  # Its own error has the line.
        return ""
    found = []
    for word, _, line in _lines(arguments):
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and about[1] in (
            *(name, name.removeprefix("no")),
            *(aliases.get(name), aliases.get(name.removeprefix("no"))),
        ):
            found.append((f"{name}={value}" in message, len(found), line))
    # Of several values the one that is named, else the one that counts: the last.
    line = max(found)[-1] if found else ""
    return f"{line}: " if line else ""


def _lines(arguments: Sequence[str]) -> list[tuple[str, int, str]]:
    """Each argument, the number of its file, and that file and the line in it."""
    numbers = itertools.count(1)
    return [
        item
        for argument, file in _split(arguments)
        for item in ([(argument, 0, "")] if file is None else _read(file, numbers, ()))
    ]


def _split(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each argument, with the file that it names if it is a `--flagfile`."""
    words = iter(arguments)
    for argument in words:
        name, has_value, value = argument.partition("=")
        is_file = name in ("--flagfile", "-flagfile")
        yield argument, ((value if has_value else next(words, "")) if is_file else None)


def _find(name: str, where: str) -> Path:
    """The file of that name, else, for a name without a folder, the recipe.

    Args:
      name: The value of `--flagfile`.
      where: What the message of an error begins with.
    """
    stem = Path(name).name.removesuffix(_ENDING)
    path, recipe = Path(os.path.expanduser(name)), FOLDER / f"{stem}{_ENDING}"
    if name and path.is_file():
        return path
    if name in (stem, recipe.name) and recipe.is_file():
        return recipe
    raise FileNotFoundError(
        f"{where}`flagfile` must be a file with a flag on each line, or one of the "
        f"recipes {', '.join(names())}. Received: flagfile={shown(name)}. "
        f"{did_you_mean(stem, names()) or 'Pass another.'}"
    )


def _read(
    name: str, numbers: Iterator[int], outer: tuple[Path, ...], where: str = ""
) -> Iterator[tuple[str, int, str]]:
    """The flags in a file, and in those that it names, as `_lines` has them.

    Args:
      name: The value of `--flagfile`.
      numbers: Numbers for this file and those that it names.
      outer: The files that are being read.
      where: File and line that name it, for messages.
    """
    path, own = _find(name, where), next(numbers)
    if path in outer:
        raise ValueError(f"{path} names itself in --flagfile. Remove that line.")
    check_regular(path, _MAX_BYTES)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8. Store the file as UTF-8.") from None
    for number, line in enumerate(map(str.strip, lines), start=1):
        flag, _, value = line.partition("=")
        if not line or line.startswith(("#", "//")):
            continue
        if not line.startswith("-") or " " in flag:
            raise ValueError(
                f"{path}, line {number}: must be a flag, --name=value, or a comment, "
                f"# and text. Received: {shown(line)}. Correct the line."
            )
        if _QUOTED_OR_REMARK.fullmatch(value):
            raise ValueError(
                f"{path}, line {number}: the value must have no quotes around it and "
                f"no comment after it. Received: {shown(line)}. Remove the quotes, and "
                "put the comment on a separate line."
            )
        if flag.lstrip("-") == "flagfile":
            where = f"{path}, line {number}: "
            yield from _read(value, numbers, (*outer, path), where)
        else:
            yield line, own, f"{path}, line {number}"
