"""`python -m bert_tf data all --config FILE`: all commands from raw text to records.

The file is TOML, with `work_dir` and a table for each command to run; the input of a
command is by default the output of the command before it. Input and output of create
and pack are folders with the files, or folders, of both training and test. Finished
commands are skipped, so that the same call resumes after an interruption.
"""

import argparse
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_tf.cli.arguments import Parser, parse_config
from bert_tf.config.data import CreateDataConfig, PackDataConfig
from bert_tf.config.paths import require_match
from bert_tf.config.text import ExtractConfig, SentencesConfig, ShardConfig, VocabConfig
from bert_tf.data.commands.output_folder import EarlierOutputError
from bert_tf.errors import RunError, did_you_mean, one_line, shown
from bert_tf.files import check_regular

# A file of settings is far smaller.
_MAX_BYTES = 1 << 20
_SIDES = ("training", "test")
_CONFIGS = {
    "extract": ExtractConfig,
    "sentences": SentencesConfig,
    "shard": ShardConfig,
    "vocab": VocabConfig,
    "create": CreateDataConfig,
    "pack": PackDataConfig,
}


def run(
    arguments: Sequence[str], run_command: Callable[[str, Sequence[str]], None]
) -> None:
    """Runs the commands that a file lists, in the order of the data flow.

    Args:
      arguments: `--config FILE`.
      run_command: Runs a subcommand of `python -m bert_tf data` with its options.

    Raises:
      OSError: if there is no such file, or a command would have no input.
      ValueError: if it is not TOML, or a table is not that of a command, or its
        command fails.
      EarlierOutputError: if a folder holds output of other settings or input.
    """
    parser = Parser(prog="python -m bert_tf data all", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--config", required=True, help="A TOML file.", metavar="FILE")
    path = parser.parse_args(arguments).config
    commands = [
        (command, [f"--{name}={value}" for name, value in options.items()])
        for command, options in plan(_read(path), path)
    ]
    configs = []
    for command, words in commands:  # What is wrong is found before hours of work.
        prog = f"python -m bert_tf data {command}"
        try:
            configs.append(parse_config(_CONFIGS[command], words, prog))
        except ValueError as error:
            raise ValueError(f"{path}, [{command}]: {error}") from None
    _check_inputs([command for command, _ in commands], configs, path)
    for command, words in commands:
        print(f"\n# {command} {' '.join(words)}", flush=True)
        try:
            run_command(command, words)
        except EarlierOutputError as error:
            raise EarlierOutputError(
                error.found,
                f"Write `overwrite = true` into [{command}] of {path}, or name another "
                "`output_dir` there.",
            ) from None
        except (ValueError, RunError) as error:
            names_options = " --" in str(error) and "python -m" not in str(error)
            hint = " Options are keys of this table." if names_options else ""
            raise ValueError(f"{path}, [{command}]: {error}{hint}") from error


def _check_inputs(
    commands: Sequence[str], configs: Sequence[object], path: str
) -> None:
    """Refuses inputs that neither exist nor are in the folders of earlier commands.

    Raises:
      OSError: naming the first one, and the commands that the file leaves out.
    """
    made: set[Path] = set()
    for command, config in zip(commands, configs, strict=True):
        for name in ("input", "input_dir", "vocab_file"):
            for part in map(str.strip, getattr(config, name, "").split(",")):
                whole = Path(os.path.abspath(part))
                if not part or made & {whole, *whole.parents}:
                    continue
                try:
                    require_match(name, part)
                except OSError as error:
                    others = [f"[{each}]" for each in _CONFIGS if each not in commands]
                    rest = f" The file has no {', '.join(others)}." if others else ""
                    raise OSError(f"{path}, [{command}]: {error}{rest}") from None
        made.add(Path(os.path.abspath(config.output_dir)))


def _read(path: str) -> dict[str, Any]:
    try:
        check_regular(path, _MAX_BYTES)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"`config` must be an existing TOML file. Received: config={path}. Pass "
            "another."
        ) from None
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = one_line(error).rstrip(".")
        raise ValueError(f"{path} is not TOML: {reason}. Correct the file.") from None


def plan(
    tables: Mapping[str, Any], path: str
) -> Iterator[tuple[str, dict[str, object]]]:
    """Turns the file into commands.

    Args:
      tables: Its content.
      path: The file, for messages.

    Yields:
      Names of commands with their options.

    Raises:
      ValueError: if a table is not that of a command, or `work_dir` is missing.
    """
    work = tables.get("work_dir")
    _check_tables(tables, path)
    if not isinstance(work, str) or not work:
        raise ValueError(
            f"{path}: `work_dir` must be the path of a folder. Received: "
            f"{shown(work)}. Correct the file."
        )
    folders = {
        name: tables.get(name, {}).get("output_dir", f"{work}/{name}")
        for name in _CONFIGS
    }
    defaults = {
        "extract": {},
        "sentences": {"input": folders["extract"]},
        "shard": {"input": folders["sentences"]},
        "vocab": {"input": f"{folders['shard']}/training-*.txt"},
    }
    for command, inputs in defaults.items():
        if command in tables:
            yield command, inputs | {"output_dir": folders[command]} | tables[command]
    known = {"vocab_file": f"{folders['vocab']}/vocab.txt"} if "vocab" in tables else {}
    for side in _SIDES:
        if "create" in tables:
            source = tables["create"].get("input", folders["shard"])
            paths = {
                "input": f"{source}/{side}-*.txt",
                "output_dir": f"{folders['create']}/{side}",
            }
            yield "create", known | tables["create"] | paths
        if "pack" in tables:
            source = tables["pack"].get("input_dir", folders["create"])
            paths = {
                "input_dir": f"{source}/{side}",
                "output_dir": f"{folders['pack']}/{side}",
            }
            yield "pack", tables["pack"] | paths


def _check_tables(tables: Mapping[str, Any], path: str) -> None:
    """Refuses tables of unknown commands, and values that no option can have."""
    known = tuple(_CONFIGS)
    for name, table in tables.items():
        if name != "work_dir" and (name not in known or not isinstance(table, dict)):
            raise ValueError(
                f"{path}: `{name}` must be `work_dir` or the table of a command: "
                f"{', '.join(known)}. Received: {shown(table)}. "
                f"{did_you_mean(name, ('work_dir', *known)) or 'Correct the file.'}"
            )
        for key, value in table.items() if isinstance(table, dict) else ():
            if not isinstance(value, str | int | float):
                raise ValueError(
                    f"{path}: `{key}` of [{name}] must be a string, a number, true or "
                    f"false. Received: {shown(value)}. Correct the file."
                )
    if not set(tables) & set(known):
        raise ValueError(
            f"{path} must have the table of at least one command: {', '.join(known)}. "
            "Add one."
        )
