"""The log of a run: DLLogger lines in a file, plain lines, and a bar on a terminal."""

import contextlib
import datetime
import errno
import importlib
import json
import os
import stat
import sys
import time
from typing import Any

import rich.console
import rich.progress

from bert_tf.stages import print_line, terminal_of, width_of
from bert_tf.training.trackers import Trackers

# Lines are those of NVIDIA's DLLogger (JSON backend): "DLLL " and an object.
_PREFIX = "DLLL "
# A step; "PARAMETER" for parameters, [] for the whole run.
Step = int | list[int] | str
# Units, and how numbers are printed.
_METADATA = {
    **dict.fromkeys(
        ("throughput_train", "throughput_val"),
        {"unit": "sequences/s", "format": ":.3f"},
    ),
    **dict.fromkeys(
        ("latency_mean", "latency_p50", "latency_p95", "latency_p99"),
        {"unit": "ms", "format": ":.3f"},
    ),
    **dict.fromkeys(
        ("mlm_loss", "nsp_loss", "eval_loss", "loss", "total_loss", "avg_loss_step"),
        {"format": ":.4f"},
    ),
    **dict.fromkeys(("learning_rate", "gradient_norm"), {"format": ":.5g"}),
}
# Results of an evaluation; the bar shows the first one that there is.
_SCORES = ("masked_lm_accuracy", "accuracy", "f1", "matthews_correlation", "pearson")


class RunLog:
    """The log of a job; this one, of all workers but the first, writes nothing."""

    def message(self, text: str) -> None:
        """Prints a line."""

    def parameters(self, values: dict[str, float]) -> None:
        """Logs values that hold for the lines that follow."""

    def step(self, step: int, values: dict[str, float]) -> None:
        """Logs and prints values of one step."""

    def progress(self, step: int, values: dict[str, float]) -> None:
        """Updates the progress bar after a step."""

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """Logs the results of an evaluation after some step, its loss as `eval_loss`.

        The log has the step's own line too, of the training.
        """

    def saved(self, step: int, values: dict[str, float]) -> None:
        """Logs that the checkpoint of some step was saved."""

    def summary(self, values: dict[str, float]) -> None:
        """Logs values of the whole run."""

    def close(self, *, is_stopped: bool = False) -> None:
        """Closes the log, soon if a signal has stopped the run."""


class LineFile:
    """A file to which lines are appended.

    A line that cannot be written is lost, with one warning: a full disk must not end a
    training. A file that is deleted meanwhile is made again.
    """

    def __init__(self, path: str) -> None:
        """Opens the file, making its folder.

        Raises:
          OSError: if it cannot be opened; also if it is a pipe that nobody reads.
        """
        self._path = path
        self._warnings: set[str] = set()
        self._file: int | None = self._open()

    def flush(self) -> None:
        """Does nothing: lines are not buffered."""

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
        self._file = None

    def _open(self) -> int:
        """Opens the file for appending, after the last whole line."""
        path = self._path
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            if os.path.exists(path) and stat.S_ISFIFO(os.stat(path).st_mode):
                # Otherwise this would wait until somebody reads it. Nor must a line
                # wait later: one that does not fit into the pipe is lost.
                flags |= os.O_NONBLOCK
            file = os.open(path, flags, 0o666)
        except OSError as error:
            is_unread = error.errno == errno.ENXIO
            reason = "nobody reads this pipe" if is_unread else error.strerror
            raise OSError(
                f"The log {path} cannot be written: {reason}. Pass another "
                "--dllog_path."
            ) from error
        if not _ends_with_a_line(path):
            self._append(file, b"\n")
        return file

    def write(self, line: str) -> None:
        """Writes a line with its end."""
        if self._file is None:
            return
        try:
            if not os.fstat(self._file).st_nlink:
                os.close(self._file)
                self._file = None
                self._file = self._open()
                self._warn("was deleted, and is made again")
        except OSError as error:
            self._warn(f"was deleted ({error}); the rest of it is lost")
            return
        self._append(self._file, line.encode())

    def _append(self, file: int, line: bytes) -> None:
        try:
            written = os.write(file, line)
            while written < len(line):
                written += os.write(file, line[written:])
        except OSError as error:
            self._warn(f"cannot be written ({error.strerror}): lines of it are lost")

    def _warn(self, problem: str) -> None:
        """Prints what is wrong with the file, once each."""
        if problem not in self._warnings:
            self._warnings.add(problem)
            print_line(f"warning: the log {self._path} {problem}.", sys.stderr)


class DLLoggerFile:
    """Writes DLLogger's JSON lines: by NVIDIA's package where there is one, or as it.

    Attributes:
      writer: Who formats the lines; empty if that needs no line.
    """

    def __init__(self, path: str) -> None:
        """Opens the file; see `LineFile`."""
        self._file = LineFile(path)
        self._logger, self.writer = _find_dllogger(self._file)
        self._started = time.time()
        for metric, metadata in _METADATA.items():
            if self._logger is not None:
                self._logger.metadata(metric, metadata)
            else:
                self._write("METADATA", metric=metric, metadata=metadata)

    def log(self, step: Step, data: dict[str, float]) -> None:
        """Writes a line; `step` is [] for the whole run, "PARAMETER" for parameters."""
        if self._logger is not None:
            self._logger.log(step, data)
        else:
            self._write("LOG", step=step, data=data)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, kind: str, **content: object) -> None:
        now = time.time()
        moment = datetime.datetime.fromtimestamp(now).astimezone()
        line = {
            "timestamp": f"{now:.6f}",
            "datetime": str(moment),
            "elapsedtime": f"{now - self._started:.6f}",
            "type": kind,
            **content,
        }
        self._file.write(f"{_PREFIX}{json.dumps(line)}\n")


def _find_dllogger(file: LineFile) -> tuple[Any, str]:
    """A logger of NVIDIA's package that writes to a file, or None; and who writes."""
    try:
        package = importlib.import_module("dllogger")
        # Its own file is buffered, and a full disk would end the run: ours takes the
        # place of the one that it opens.
        backend = package.JSONStreamBackend(package.Verbosity.VERBOSE, os.devnull)
        backend.file.close()
        backend.file = file
        logger = package.Logger([backend])
    except ImportError:
        return None, ""
    except Exception as error:  # Whatever another package of that name does.
        return None, f"bert_tf; the package dllogger here is not NVIDIA's ({error})"
    return logger, f"NVIDIA's dllogger {getattr(package, '__version__', '')}".rstrip()


def dll_line(step: Step, values: dict[str, float], moment: datetime.datetime) -> str:
    """The line that DLLogger prints, with steps as the published trainers print them.

    Args:
      step: See `DLLoggerFile.log`.
      values: By name.
      moment: When.
    """
    if isinstance(step, str):
        name = step
    else:
        name = f"Iteration: {step} " if isinstance(step, int) else ""
    metrics = []
    for key, value in values.items():
        about = _METADATA.get(key, {})
        form = about.get("format", "") if value is not None else ""
        text = f"{{{form}}}".format(value)
        metrics.append(f"{key} : {text} {about.get('unit', '')}")
    return f"DLL {moment} - {name} {' '.join(metrics)}"


def _ends_with_a_line(path: str) -> bool:
    """Whether a file is empty, ends with a line end, or is a device or a pipe.

    The last line of a killed run may be cut off.
    """
    if not os.path.isfile(path) or not os.path.getsize(path):
        return True
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"


def _rounded(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.5g}" for name, value in values.items())


class ConsoleLog(RunLog):
    """The first worker's log: a file, and a bar on a terminal or plain lines."""

    def __init__(
        self,
        dllog_path: str,
        num_train_steps: int,
        trackers: Trackers | None = None,
    ) -> None:
        """Opens the file.

        Args:
          dllog_path: Where DLLogger lines go.
          num_train_steps: The length of the bar.
          trackers: What else gets the values of steps and evaluations; it is closed
            with the log.

        Raises:
          OSError: if the file cannot be written.
        """
        self._file = DLLoggerFile(dllog_path)
        self.notes = []
        if self._file.writer:
            self.notes = [f"Log {dllog_path}: written by {self._file.writer}."]
        self._num_train_steps = num_train_steps
        self._trackers = trackers or Trackers()
        self._terminal = terminal_of(2)
        if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
            self._terminal = ""  # It cannot redraw a line.
        # Lines on its own terminal are printed by the bar, which stays below them.
        self._is_above_bar = self._terminal == terminal_of(1)
        self._bar: rich.progress.Progress | None = None
        self._score: dict[str, float] = {}

    def message(self, text: str) -> None:
        """See `RunLog`."""
        if self._bar and self._is_above_bar:
            with contextlib.suppress(OSError, ValueError):
                self._bar.console.print(text, soft_wrap=True, markup=False)
        else:
            print_line(text)

    def parameters(self, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._log("PARAMETER", values)

    def step(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._log(step, values)
        self._track("train", step, values)

    def progress(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        if not self._terminal:
            return
        if self._bar is None:
            console = rich.console.Console(
                file=sys.stderr,
                force_terminal=True,
                width=width_of(self._terminal),
                highlight=False,
            )
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.description}"),
                console=console,
                redirect_stdout=False,
            )
            self._bar.add_task("", total=self._num_train_steps)
            with contextlib.suppress(OSError, ValueError):
                self._bar.start()
        task = self._bar.task_ids[0]
        with contextlib.suppress(OSError, ValueError):
            shown = _rounded(values | self._score)
            self._bar.update(task, completed=step, description=shown)

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        names = {"loss": "eval_loss"}
        self._log(step, {names.get(name, name): x for name, x in values.items()})
        self._track("eval", step, values)
        found = [n for n in values if n.removeprefix("eval_") in _SCORES]
        self._score = {name: values[name] for name in found[:1]}

    def saved(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._file.log(step, values)

    def summary(self, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._log([], values)
        # The results of the last step; other values are of no step.
        if "global_step" in values and "first_step" not in values:
            self._track("eval", int(values["global_step"]), values)

    def _track(self, kind: str, step: int, values: dict[str, float]) -> None:
        for line in self._trackers.log(kind, step, values):
            self.message(line)

    def close(self, *, is_stopped: bool = False) -> None:
        """See `RunLog`."""
        for line in self._trackers.close(is_stopped=is_stopped):
            self.message(line)
        if self._bar:
            with contextlib.suppress(OSError, ValueError):
                self._bar.stop()
            self._bar = None
        self._file.close()

    def _log(self, step: Step, values: dict[str, float]) -> None:
        """Writes to the file, and prints the line that DLLogger prints."""
        self._file.log(step, values)
        self.message(dll_line(step, values, datetime.datetime.now()))
