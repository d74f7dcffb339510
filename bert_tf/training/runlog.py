"""The log of a run: DLLogger lines in a file, and a bar or plain lines on screen."""

import datetime
import json
import os
import sys
import time
from typing import TextIO

import rich.console
import rich.progress

# Lines are those of NVIDIA's DLLogger (JSON backend): "DLLL " and an object.
_PREFIX = "DLLL "
_UNITS = {"throughput_train": "sequences/s", "throughput_val": "sequences/s"}


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
        """Logs the results of an evaluation after some step."""

    def saved(self, step: int, values: dict[str, float]) -> None:
        """Logs that the checkpoint of some step was saved."""

    def summary(self, values: dict[str, float]) -> None:
        """Logs values of the whole run."""

    def close(self) -> None:
        """Closes the log."""


class DLLoggerFile:
    """Writes DLLogger's JSON lines; appends to an existing file."""

    def __init__(self, path: str) -> None:
        """Opens the file, making its folder.

        Raises:
          OSError: if it cannot be written.
        """
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        _end_last_line(path)
        self._file: TextIO = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._started = time.time()
        for metric, unit in _UNITS.items():
            self._write("METADATA", metric=metric, metadata={"unit": unit})

    def log(self, step: int | list[int] | str, data: dict[str, float]) -> None:
        """Writes a line; `step` is [] for the whole run, "PARAMETER" for parameters."""
        self._write("LOG", step=step, data=data)

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
        self._file.write(_PREFIX + json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _end_last_line(path: str) -> None:
    """Ends the unfinished last line of a killed run."""
    if not os.path.isfile(path):
        return  # A new file, or a device such as /dev/stdout.
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")


def _rounded(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.5g}" for name, value in values.items())


class ConsoleLog(RunLog):
    """The first worker's log: a file, and a bar on a terminal or plain lines."""

    def __init__(
        self, dllog_path: str, num_train_steps: int, *, may_show_bar: bool = True
    ) -> None:
        """Opens the file.

        Args:
          dllog_path: Where DLLogger lines go.
          num_train_steps: The length of the bar.
          may_show_bar: Whether a terminal gets a bar. mpirun gives its workers a pseudo
            terminal, also where its own output is a file.

        Raises:
          OSError: if the file cannot be written.
        """
        self._file = DLLoggerFile(dllog_path)
        self._num_train_steps = num_train_steps
        self._console = rich.console.Console(file=sys.stdout, highlight=False)
        self._shows_bar = may_show_bar and self._console.is_terminal
        self._bar: rich.progress.Progress | None = None

    def message(self, text: str) -> None:
        """See `RunLog`."""
        if self._bar:
            self._bar.console.print(text, soft_wrap=True, markup=False)
        else:
            print(text, flush=True)

    def parameters(self, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._file.log("PARAMETER", values)

    def step(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._file.log(step, values)
        self.message(f"step {step}/{self._num_train_steps}  {_rounded(values)}")

    def progress(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        if not self._shows_bar:
            return
        if self._bar is None:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.description}"),
                console=self._console,
            )
            self._bar.start()
            self._bar.add_task("", total=self._num_train_steps)
        task = self._bar.task_ids[0]
        self._bar.update(task, completed=step, description=_rounded(values))

    def evaluation(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._file.log(step, values)

    def saved(self, step: int, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._file.log(step, values)

    def summary(self, values: dict[str, float]) -> None:
        """See `RunLog`."""
        self._file.log([], values)

    def close(self) -> None:
        """See `RunLog`."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        self._file.close()
