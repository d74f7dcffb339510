"""`bert-tf COMMAND ...`, also `python -m bert_tf`: each is a module of this package."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from bert_tf.config.checks import require_threads
from bert_tf.errors import RunError, did_you_mean, one_line, shown

# Title of --help -> commands. A module of a command's name has `main(arguments)`; it is
# imported on demand. All trainings are run by `train`.
_GROUPS = {
    "Prepare data": {
        "data": "prepare training data, from downloads and text to packed records",
    },
    "Train (on several processes: mpirun -np N bert-tf pretrain --horovod ...)": {
        "pretrain": "pre-train on records; the same as run_pretraining.py",
        "squad": "fine-tune and score question answering; the same as run_squad.py",
        "classify": "fine-tune and score classification; the same as run_classifier.py",
        "sentences": "train and score sentence vectors; the same as run_sentences.py",
        "recipes": "list the files of published settings, for --flagfile of a training",
    },
    "Use and compare what was trained": {
        "predict": "fill masks, answer questions, classify, tag, choose or embed, as "
        "JSON lines",
        "evaluate": "measure how good a model is: minimal pairs, loss, similarity, "
        "probes",
        "convert": "convert weights to the format of another program",
        "vocab": "give a model the words of a domain",
        "report": "a page about a run, or one that compares several",
    },
    "Operate": {
        "plan": "time, memory and flags of a pre-training on many workers",
        "launch": "run a training so that signals save it; restart it after a crash",
        "build": "compile the fused operations for this machine",
    },
}
COMMANDS = [name for commands in _GROUPS.values() for name in commands]
_TRAINING = ("pretrain", "squad", "classify", "sentences")

_INTERRUPTED = 130
_TERMINATED = 143
_PIPE_CLOSED = 141


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
      arguments: What follows `bert-tf`.

    Returns:
      The exit status: 0, or 1 after a line `error: ...` on stderr; of `launch`, that of
      its command; of a training, that of its script; 130 after Ctrl-C, 141 if the
      reader of the output has ended, such as `head`.
    """
    # What the package logs looks like other lines.
    logging.basicConfig(format="%(message)s")
    # Commands that load TensorFlow would print its notes on missing GPUs and more.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if arguments and arguments[0] in _TRAINING:  # It catches signals and errors itself.
        importlib.import_module("bert_tf.cli.train").main(arguments)
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _run(arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except (RunError, ValueError, OSError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return _INTERRUPTED


def _leave(number: int, frame: FrameType | None) -> None:
    """Turns SIGTERM into an exception, so that temporary files are deleted."""
    sys.exit(_TERMINATED)


def _run(arguments: Sequence[str]) -> int:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_help())
        return 0
    if command == "--version":
        command = "version"
    elif command not in COMMANDS:
        raise ValueError(
            f"The command must be one of {', '.join(COMMANDS)}. Received: "
            f"{shown(command)}. {did_you_mean(command, COMMANDS)}".rstrip()
        )
    require_threads()
    return importlib.import_module(f"bert_tf.cli.{command}").main(arguments[1:]) or 0


def _help() -> str:
    """All commands, by what they are for."""
    lines = ["usage: bert-tf COMMAND ...", "   or: python -m bert_tf COMMAND ..."]
    for title, commands in _GROUPS.items():
        lines += ["", title, *(f"  {n:10} {text}" for n, text in commands.items())]
    lines += [
        "",
        "COMMAND --help lists the options of a command, --helpfull all flags of a "
        "training.",
        "--version: of the package, TensorFlow and Horovod, and how this machine "
        "computes.",
    ]
    return "\n".join(lines)
