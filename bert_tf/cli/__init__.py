"""`python -m bert_tf COMMAND ...`: each command is a module of this package."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from bert_tf.config.checks import require_threads
from bert_tf.errors import RunError, one_line, shown

# A module of the same name has `main(arguments)`; it is imported on demand.
COMMANDS = {
    "build": "compile the fused operations for this machine",
    "convert": "convert weights to the format of another program",
    "data": "prepare training data, from downloads and text to packed records",
    "launch": "run a training so that signals save it; restart it after a crash",
    "plan": "time, memory and flags of a pre-training on many workers",
    "predict": "fill masks, answer questions or classify, as JSON lines",
}

_INTERRUPTED = 130
_TERMINATED = 143
_PIPE_CLOSED = 141


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
      arguments: What follows `python -m bert_tf`.

    Returns:
      The exit status: 0, or 1 after a line `error: ...` on stderr; of `launch`, that of
      its command; as after a signal 130 (Ctrl-C) or 141 (what reads the output has
      ended).
    """
    signal.signal(signal.SIGTERM, _leave)
    try:
        return _run(arguments)
    except BrokenPipeError:  # What reads the output, such as `head`, has ended.
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
        print("usage: python -m bert_tf COMMAND ...\n")
        for name, description in COMMANDS.items():
            print(f"  {name:10} {description}")
        return 0
    if command not in COMMANDS:
        raise ValueError(
            f"The command must be one of {', '.join(COMMANDS)}. Received: "
            f"{shown(command)}."
        )
    require_threads()
    return importlib.import_module(f"bert_tf.cli.{command}").main(arguments[1:]) or 0
