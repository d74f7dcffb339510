"""Command-line options from the fields of a config class, and back again."""

import argparse
import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeVar

from bert_tf.config.documentation import field_descriptions

Config = TypeVar("Config")

_TRUE = ("true", "t", "1", "yes", "y")
_FALSE = ("false", "f", "0", "no", "n")


class Parser(argparse.ArgumentParser):
    """Raises wrong options as errors, which `bert_tf.cli.main` prints as one line."""

    def error(self, message: str) -> NoReturn:
        """Raises the error that `bert_tf.cli.main` prints as one line."""
        raise ValueError(f"{message}. See {self.prog} --help.")


def parse_bool(text: str) -> bool:
    """Reads true or false, as people write them.

    Raises:
      argparse.ArgumentTypeError: if it is neither.
    """
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")


def _parse_bool_or_none(text: str) -> bool | None:
    """As `parse_bool`; none means that the option is not given."""
    return None if text.lower() == "none" else parse_bool(text)


def parse_config(
    config_class: type[Config],
    arguments: Sequence[str],
    prog: str,
    short_options: Mapping[str, str] | None = None,
) -> Config:
    """Makes a config from command-line arguments.

    Every field is an option: `--max_seq_length=128`, `--max-seq-length 128`; a boolean
    one is also `--do_lower_case`, `--nodo_lower_case` or `--do_lower_case=false`.

    Args:
      config_class: A dataclass whose fields all have defaults, documented under
        `Attributes:`.
      arguments: The command line after the command's name.
      prog: The command's name, for help.
      short_options: Field -> a second option such as -n.

    Returns:
      The config.

    Raises:
      ValueError: if an option is unknown or a value is not allowed.
      SystemExit: after `--help`.
    """
    summary = (config_class.__doc__ or "").splitlines()[0]
    parser = Parser(prog=prog, description=summary, allow_abbrev=False)
    types = typing.get_type_hints(config_class)
    descriptions = field_descriptions(config_class)
    for field in dataclasses.fields(config_class):
        names = [f"--{field.name}", f"--{field.name.replace('_', '-')}"]
        if short_options and field.name in short_options:
            names.insert(0, short_options[field.name])
        _add_option(
            parser,
            list(dict.fromkeys(names)),
            types[field.name],
            f"{descriptions[field.name]} {_shown(field.default)}".replace("%", "%%"),
        )
    return config_class(**vars(parser.parse_args(arguments)))


def _shown(default: object) -> str:
    """The default, for the help text; an empty string means required."""
    if default is None:
        return ""  # The description states the default.
    if default == "":
        return "Required."
    return f"Default: {str(default).lower() if isinstance(default, bool) else default}."


def _add_option(
    parser: argparse.ArgumentParser, names: list[str], kind: type, description: str
) -> None:
    """Adds the option of one field; a boolean one has a negative form too."""
    dest = max(names, key=len).removeprefix("--").replace("-", "_")
    options = {"dest": dest, "help": description, "default": argparse.SUPPRESS}
    if kind not in (bool, bool | None):
        parser.add_argument(*names, type=kind, metavar=kind.__name__.upper(), **options)
        return
    parse = parse_bool if kind is bool else _parse_bool_or_none
    parser.add_argument(
        *names, type=parse, nargs="?", const=True, metavar="BOOL", **options
    )
    options["help"] = argparse.SUPPRESS
    negative = dict.fromkeys((f"--no{dest}", f"--no-{dest.replace('_', '-')}"))
    parser.add_argument(*negative, action="store_false", **options)
