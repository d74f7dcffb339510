"""The parser of commands; options made of the fields of a config class."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from bert_tf.config.options import Option, options_of
from bert_tf.errors import did_you_mean, shown

Config = TypeVar("Config")

_TRUE = ("true", "t", "1", "yes", "y")
_FALSE = ("false", "f", "0", "no", "n")
_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: (-[^\s=]+)")


class Parser(argparse.ArgumentParser):
    """Raises wrong options as errors, which `bert_tf.cli.main` prints as one line.

    Attributes:
      times_given: How often each option was given.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        self.times_given: Counter[str] = Counter()

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> object:
        """Counts how often an option is given."""
        self.times_given[action.dest] += bool(action.option_strings)
        return super()._get_values(action, arg_strings)

    def warn_about_repeated(self) -> None:
        """Prints one line with the options whose last value replaced an earlier one."""
        names = [f"--{name}" for name, times in self.times_given.items() if times > 1]
        if names:
            print(
                "warning: given more than once, the last value counts: "
                f"{' '.join(names)}",
                file=sys.stderr,
            )

    def error(self, message: str) -> NoReturn:
        """Raises the error that `bert_tf.cli.main` prints as one line."""
        question = ""
        if unknown := _UNKNOWN_OPTION.match(message):
            question = did_you_mean(unknown[1], self._option_string_actions)
        text = message if message.endswith(("?", ".")) else f"{message}."
        parts = (text, question, f"See {self.prog} --help.")
        raise ValueError(" ".join(filter(None, parts)))

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuses a value that is not among the choices of an option."""
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            message = f"must be one of {', '.join(choices)}. Received: {shown(value)}."
            question = did_you_mean(str(value), choices)
            raise argparse.ArgumentError(action, f"{message} {question}".rstrip())


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
    """As `parse_bool`; `none` is the same as leaving the option out."""
    return None if text.lower() == "none" else parse_bool(text)


def parse_config(
    config_class: type[Config],
    arguments: Sequence[str],
    prog: str,
    other_names: Mapping[str, str] | None = None,
) -> Config:
    """Makes a config from command-line arguments.

    Every field is an option: `--max_seq_length=128`, `--max-seq-length 128`; a boolean
    one is also `--do_lower_case`, `--nodo_lower_case` or `--do_lower_case=false`.

    Args:
      config_class: A dataclass whose fields all have defaults, documented under
        `Attributes:`.
      arguments: The command line after the command's name.
      prog: The command's name, for help.
      other_names: See `add_options`.

    Returns:
      The config.

    Raises:
      ValueError: if an option is unknown or a value is not allowed.
      SystemExit: after `--help`.
    """
    summary = (config_class.__doc__ or "").splitlines()[0]
    usage = "%(prog)s [--option=value ...]"
    parser = Parser(prog=prog, usage=usage, description=summary, allow_abbrev=False)
    add_options(parser, config_class, other_names)
    config = config_class(**vars(parser.parse_args(arguments)))
    parser.warn_about_repeated()
    return config


def add_options(
    parser: Parser,
    config_class: type,
    other_names: Mapping[str, str] | None = None,
) -> None:
    """Adds an option for each field of a config class.

    Args:
      parser: To add them to.
      config_class: See `parse_config`; it may have `BARE`, the values of options that
        are given without one, and `CHOICES`, the values that options may have.
      other_names: Field -> another name of its option, such as -n.
    """
    # Before a word that is no option, true or false must not be a value that may
    # follow: it would be that word.
    has_words = any(not action.option_strings for action in parser._actions)
    for option in options_of(config_class).values():
        names = [f"--{option.name}", f"--{option.name.replace('_', '-')}"]
        if other_names and option.name in other_names:
            names.insert(0, other_names[option.name])
        default = f"Default: {option.default_text}." if option.default_text else ""
        if option.kind is bool:
            default = default.lower().capitalize()
        if option.is_required:
            default = "Required."
        help_text = " ".join(
            filter(None, (option.description, option.limit_text, default))
        )
        settings = {
            "dest": option.name,
            "default": argparse.SUPPRESS,
            "help": help_text.replace("%", "%%"),
        }
        if option.kind is bool:
            values = _bool_settings(option, has_words)
        else:
            values = _value_settings(option, config_class)
        parser.add_argument(*dict.fromkeys(names), **settings, **values)
        if option.kind is bool:
            settings["help"] = argparse.SUPPRESS
            dashed = option.name.replace("_", "-")
            negative = dict.fromkeys((f"--no{option.name}", f"--no-{dashed}"))
            parser.add_argument(*negative, action="store_false", **settings)


def _bool_settings(option: Option, has_words: bool) -> dict[str, Any]:
    """How argparse reads the value of an option that is true or false."""
    if has_words and not option.may_be_none:
        return {"action": "store_true"}
    parse = _parse_bool_or_none if option.may_be_none else parse_bool
    bare = {} if has_words else {"nargs": "?", "const": True}
    return {"type": parse, "metavar": "BOOL"} | bare


def _value_settings(option: Option, config_class: type) -> dict[str, Any]:
    """How argparse reads the value of any other option."""
    settings: dict[str, Any] = {"type": option.kind}
    if choices := getattr(config_class, "CHOICES", {}).get(option.name):
        settings["choices"] = choices
    else:
        settings["metavar"] = option.kind.__name__.upper()
    if option.name in (bare := getattr(config_class, "BARE", {})):
        settings |= {"nargs": "?", "const": bare[option.name]}
    return settings


def add_tokenizer_options(parser: Parser) -> None:
    """Adds the options of how text is read by a model with its files next to it."""
    parser.add_argument(
        "--vocab_file",
        default="",
        help="default: vocab.txt or tokenizer.json next to the weights",
    )
    parser.add_argument(
        "--do_lower_case",
        type=parse_bool,
        metavar="BOOL",
        help="default: from the files next to the weights, else true if the vocabulary "
        "is uncased",
    )
    add_cased(parser)


def add_cased(parser: Parser) -> None:
    """Adds `--cased`, next to `--do_lower_case`, which has the default of both."""
    parser.add_argument(
        "--cased",
        dest="do_lower_case",
        action="store_false",
        default=argparse.SUPPRESS,
        help="the same as --do_lower_case=false",
    )
