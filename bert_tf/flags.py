"""One absl flag per config field, and a config from the flags that were passed."""

import dataclasses
import functools
import itertools
import math
import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeVar

from absl import flags

from bert_tf import recipes
from bert_tf.config.flag_names import ALIASES, OFTEN_USED, WITHOUT_EFFECT
from bert_tf.config.options import Option, options_of
from bert_tf.errors import did_you_mean, shown

Config = TypeVar("Config")

_HELP = ({"--help", "-h", "-help", "--helpshort"}, {"--helpfull"})
_ALL_FLAGS = "--helpfull lists all flags."
_MAX_NAME = 100
_MAX_FLOAT = 2**53  # Larger ones may not be what is written.
_WIDTH, _COLUMN = 88, 32
# Dashes, a name, and a value if there is one.
_FLAG = re.compile("(--?)([^-=][^=]*)(.*)", re.DOTALL)


class FlagError(ValueError):
    """A command line that cannot be parsed."""


class HelpRequest(Exception):  # noqa: N818 - not an error
    """The command line asks for help; the text is the message."""


class _WholeNumberParser(flags.IntegerParser):
    """Reads 100.0 too, as other systems' scripts write it, and keeps it in `text`."""

    text = ""

    def convert(self, argument: str) -> int:
        """The number.

        Raises:
          ValueError: if it is not whole, or too large to be written so.
        """
        try:
            return super().convert(argument)
        except ValueError:
            self.text = argument
        try:
            number = float(argument)
        except ValueError:
            number = math.nan
        if not number.is_integer() or abs(number) > _MAX_FLOAT:
            raise ValueError("must be a whole number")
        return int(number)


def _define(values: flags.FlagValues, name: str, kind: type, help_text: str) -> None:
    """Defines a flag with default None: the config alone holds the defaults."""
    define = {
        bool: flags.DEFINE_boolean,
        # With a keyword: without any, absl has one parser for all flags.
        int: functools.partial(flags.DEFINE, _WholeNumberParser(lower_bound=None)),
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }[kind]
    define(name, None, help_text, flag_values=values)


def _groups(config_class: type) -> dict[str, type]:
    """The config classes within a run's config, by field."""
    return {field.name: field.type for field in dataclasses.fields(config_class)}


def all_options(config_class: type) -> dict[str, Option]:
    """The options of all groups, by flag."""
    groups = _groups(config_class).values()
    return {name: x for group in groups for name, x in options_of(group).items()}


def aliases_of(config_class: type) -> dict[str, str]:
    """Alias -> flag, of the flags that a script has."""
    options = all_options(config_class)
    return {name: target for name, target in ALIASES.items() if target in options}


def make_flags(config_class: type) -> flags.FlagValues:
    """Defines every flag of a run.

    Args:
      config_class: A dataclass whose fields are config dataclasses.

    Returns:
      A separate set of flags, not absl's global one.
    """
    values = flags.FlagValues()
    options = all_options(config_class)
    for option in options.values():
        _define(values, option.name, option.kind, option.description)
    for name, target in aliases_of(config_class).items():
        _define(values, name, options[target].kind, f"The same as --{target}.")
    for name, kind in WITHOUT_EFFECT.items():
        _define(values, name, kind, "Accepted, without effect.")
    return values


def help_text(config_class: type, program: str = "", *, full: bool = True) -> str:
    """Flags with their defaults, by group.

    Args:
      config_class: A dataclass whose fields are config dataclasses.
      program: What a command line begins with, for the first line.
      full: All flags, instead of those that most runs use.
    """
    aliases = aliases_of(config_class)
    count = len(all_options(config_class)) + len(aliases) + len(WITHOUT_EFFECT)
    shown_flags = "All flags" if full else "Flags that most runs use"
    lines = [f"usage: {program} --flag=value ...", ""] if program else []
    lines += _wrapped(
        f"{shown_flags}; (*) marks what must be given, [] a default. N is a whole "
        "number, X a number, LIST has commas; a boolean is --flag, --noflag or "
        "--flag=true."
        + ("" if full else f" --helpfull lists all {count}.")
        + " --flagfile=FILE reads flags from a file, or from a recipe of `python -m "
        "bert_tf recipes`; later flags replace its own."
    )
    for group in _groups(config_class).values():
        options = options_of(group).values()
        options = [x for x in options if full or x.name in OFTEN_USED]
        if options:
            lines += ["", (group.__doc__ or "").splitlines()[0].rstrip(".") + ":"]
        for option in options:
            lines += _described(option, option.limit_text if full else "")
    if full:
        lines += ["", "Accepted for older scripts, without effect:"]
        lines += _wrapped(" ".join(f"--{name}" for name in WITHOUT_EFFECT), "  ")
        lines += ["", "The same as another flag:"]
        lines += [f"  --{name}: --{target}" for name, target in aliases.items()]
    return "\n".join(lines)


def _described(option: Option, limit: str) -> list[str]:
    """An option and its description, in two columns."""
    value = {bool: "", int: "=N", float: "=X", tuple: "=LIST"}.get(option.kind)
    if value is None:
        endings = {"dir": "=DIR", "file": "=FILE", "path": "=FILE"}
        value = endings.get(option.name.rpartition("_")[2], "=TEXT")
    default = f" [{option.default_text}]" if option.default_text else ""
    head = f"  --{option.name}{value}{default}{' (*)' * option.is_required}"
    text = f"{option.description} {limit}".rstrip()
    first, *rest = _wrapped(text, " " * _COLUMN)
    if len(head) < _COLUMN - 1:
        return [head.ljust(_COLUMN) + first.strip(), *rest]
    return [head, first, *rest]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def parse(config_class: type[Config], arguments: Sequence[str]) -> Config:
    """Makes a run's config from a command line.

    Args:
      config_class: A dataclass whose fields are config dataclasses.
      arguments: The command line, its program name first.

    Returns:
      An instance of `config_class`.

    Raises:
      HelpRequest: if the command line asks for help.
      FlagError: if a flag is unknown or its value is not of its type.
      ValueError, OSError: if a value, a combination, or a file of flags is refused.
    """
    for full, names in enumerate(_HELP):
        if names & set(arguments[1:]):
            program = arguments[0]
            if program.endswith(".py"):
                program = f"python {os.path.basename(program)}"
            raise HelpRequest(help_text(config_class, program, full=bool(full)))
    words = recipes.numbered(arguments)
    # First as they are written, for errors, then with each setting under one name, so
    # that the last word of several counts, whichever file and name it has.
    everything = [word for word, _ in words]
    _values(config_class, everything)
    own = [word for word, number in words if number == 0]
    _refuse_contradictions(_values(config_class, own), aliases_of(config_class))
    return make_config(config_class, _last_values(config_class, everything))


def _values(config_class: type, arguments: Sequence[str]) -> flags.FlagValues:
    """The flags, set by a command line without files.

    Raises:
      FlagError: see `parse`.
    """
    names = [argument.partition("=")[0] for argument in arguments[1:]]
    for name in names:
        if len(name) > _MAX_NAME:  # Comparing it with all flags takes long.
            raise FlagError(f"Unknown flag {shown(name)}. {_ALL_FLAGS}")
    values = make_flags(config_class)
    try:
        rest = values(arguments)
    except flags.UnrecognizedFlagError as error:
        question = did_you_mean(f"--{error.flagname}", [f"--{n}" for n in values])
        text = f"Unknown flag --{shown(error.flagname)[1:-1]}. {question}".rstrip()
        known = {error.flagname, *values, *(f"no{name}" for name in values)}
        others = {n for n in names if n.startswith("--") and n[2:] not in known}
        text += f" Also unknown: {', '.join(sorted(others))}." if others else ""
        raise FlagError(f"{text} {_ALL_FLAGS}") from error
    except flags.Error as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise FlagError(f"{text}. {_ALL_FLAGS}") from error
    if len(rest) > 1:
        text = "Every argument must be a flag, --name=value."
        for word, value in itertools.pairwise(arguments):
            name = word.lstrip("-")
            if value == rest[1] and name in values and values[name].boolean:
                text += f" A value of {word} follows =, as in {word}=true."
        raise FlagError(f"{text} Received: {shown(rest[1])}. {_ALL_FLAGS}")
    return values


def _last_values(config_class: type, words: Sequence[str]) -> dict[str, object]:
    """The value of each flag that is given; the last one counts, also of an alias."""
    names = aliases_of(config_class)
    names |= {f"no{alias}": f"no{target}" for alias, target in names.items()}
    known = make_flags(config_class)
    arguments: list[str] = []
    is_value = False  # Of the flag before it, whatever it looks like.
    for word in words:
        found = None if is_value else _FLAG.fullmatch(word)
        name = found[2] if found else ""
        is_value = name in known and not (found[3] or known[name].boolean)
        if name in names:
            word = f"{found[1]}{names[name]}{found[3]}"
        arguments.append(word)
    values = _values(config_class, arguments)
    passed = {name: values[name].value for name in values if values[name].present}
    return {n: tuple(x) if isinstance(x, list) else x for n, x in passed.items()}


def make_config(config_class: type[Config], passed: Mapping[str, object]) -> Config:
    """Makes a run's config from some of its settings, by the names of their flags.

    Raises:
      ValueError: if a value, or a combination, is refused by the config.
    """
    return config_class(
        **{
            name: group(
                **{
                    field.name: passed[field.name]
                    for field in dataclasses.fields(group)
                    if field.name in passed
                }
            )
            for name, group in _groups(config_class).items()
        }
    )


def _refuse_contradictions(values: flags.FlagValues, aliases: dict[str, str]) -> None:
    """Refuses two names of a flag that the command line itself gives other values."""
    given: dict[str, str] = {}
    for name in (x for x in [*aliases.values(), *aliases] if values[x].present):
        other = given.setdefault(aliases.get(name, name), name)
        own, first = values[name].value, values[other].value
        if own != first:
            raise FlagError(
                f"`{name}` and `{other}` are the same flag. Received: "
                f"{name}={own}, {other}={first}. Pass one of them."
            )


def ignored_flags(arguments: Sequence[str]) -> list[str]:
    """Names of flags without effect that the command line sets to a true value."""
    values = flags.FlagValues()
    for name, kind in WITHOUT_EFFECT.items():
        _define(values, name, kind, "")
    values(recipes.expand(arguments), known_only=True)
    return [name for name in WITHOUT_EFFECT if values[name].value]


def repeated_flags(config_class: type, arguments: Sequence[str]) -> list[str]:
    """The flags that a valid command line gives more than once, with their values.

    One that replaces a line of a file of flags is meant to.
    """
    words = recipes.numbered(arguments)
    values = _values(config_class, [word for word, number in words if number == 0])
    return [
        f"--{name}={shown(values[name].value)}"
        for name in values
        if values[name].present > 1
    ]


def replaced_flags(config_class: type, arguments: Sequence[str]) -> list[str]:
    """The flags that a file replaces which begins after them, with their new values.

    Those that replace the lines of a file before them are meant to.
    """
    words = recipes.numbered(arguments)
    before: dict[str, object] = {}
    replaced: dict[str, object] = {}
    for last in range(max(number for _, number in words) + 1):
        read = [word for word, number in words if number <= last]
        after = _last_values(config_class, read)
        replaced |= {n: after[n] for n in before if after[n] != before[n]}
        before = after
    return [f"--{name}={shown(value)}" for name, value in replaced.items()]


def fractional_flags(config_class: type, arguments: Sequence[str]) -> list[str]:
    """The flags of whole numbers that a valid command line has as 100.0."""
    values = _values(config_class, recipes.expand(arguments))
    texts = {name: getattr(values[name].parser, "text", "") for name in values}
    return [f"--{name}={text}" for name, text in texts.items() if text]


def warn_about_values(config_class: type, arguments: Sequence[str]) -> None:
    """Prints lines with flags whose values are replaced, or read as whole numbers."""
    for what, names in (
        ("given more than once, the last value counts", repeated_flags),
        ("a later --flagfile has replaced earlier flags", replaced_flags),
        ("read as whole numbers", fractional_flags),
    ):
        if found := names(config_class, arguments):
            print(f"warning: {what}: {' '.join(found)}")


def warn_about_ignored_flags(arguments: Sequence[str]) -> None:
    """Prints one line with the passed flags that have no effect, if any."""
    names = ignored_flags(arguments)
    if names:
        listed = " ".join(f"--{name}" for name in names)
        print(f"warning: these flags have no effect here: {listed}", file=sys.stderr)
