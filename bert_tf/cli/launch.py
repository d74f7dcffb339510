"""`python -m bert_tf launch -- COMMAND`: signals that save, and restarts."""

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence

from bert_tf import recipes
from bert_tf.cli.arguments import Parser
from bert_tf.jobs.run.end_launcher import children
from bert_tf.launch import LAUNCHER_VARIABLE
from bert_tf.signals import KILLED_BY, NUMBERS, STOPPED, name_of, write_error

# Exit codes after which a restart would end in the same way, or was not wanted: an
# error in a line (1, and 2 of other programs), a training that has not reached its
# target (3), a stop, a command that cannot be run, a signal that a person or a
# scheduler sends.
_FINAL = (0, 1, 2, 3, STOPPED, 126, 127, *(KILLED_BY + number for number in NUMBERS))
_CAUSES = {
    3: "the training has not reached its --target_mlm_accuracy",
    70: "nothing happened any more, the watchdog ended it",
    71: "a worker was lost",
    KILLED_BY + signal.SIGILL: "an illegal instruction (SIGILL)",
    KILLED_BY + signal.SIGABRT: "aborted (SIGABRT), by a library or for lack of memory",
    KILLED_BY + signal.SIGBUS: "a bus error (SIGBUS), often a full disk or /dev/shm",
    KILLED_BY + signal.SIGKILL: "killed (SIGKILL), most often for lack of memory",
    KILLED_BY + signal.SIGSEGV: "a crash (SIGSEGV)",
}
_END_SECONDS = 5.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 60.0
_PR_SET_CHILD_SUBREAPER = 36

# Variables of Open MPI 4, which Kubeflow sets, and what Open MPI 5 reads instead; it
# ignores the old ones without a word, and would start all workers on one host.
_RENAMED = {
    "OMPI_MCA_orte_default_hostfile": "PRTE_MCA_prte_default_hostfile",
    "OMPI_MCA_orte_keep_fqdn_hostnames": "PRTE_MCA_prte_keep_fqdn_hostnames",
    "OMPI_MCA_plm_rsh_agent": "PRTE_MCA_plm_ssh_agent",
    "OMPI_MCA_plm_rsh_args": "PRTE_MCA_plm_ssh_args",
}
_OVERWRITE_FLAG = re.compile("--?(no)?overwrite_output_dir(=.*)?", re.IGNORECASE)
_OVERWRITES = re.compile("--?overwrite_output_dir(=(true|t|1|yes|y))?", re.IGNORECASE)


def main(arguments: Sequence[str]) -> int:
    """Runs the command.

    Args:
      arguments: What follows `launch`.

    Returns:
      The exit code of the command, of its last start.

    Raises:
      ValueError: if options are wrong, or there is no command.
    """
    parser = Parser(
        prog="python -m bert_tf launch",
        usage="python -m bert_tf launch [--restarts N] -- COMMAND ...",
        description="Run a training, under mpirun or not, so that Ctrl-C and a "
        "scheduler's SIGTERM save its last step: the command gets SIGUSR1 instead, "
        "which mpirun forwards to its workers. A second signal ends it at once.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=0,
        metavar="N",
        help="start the command again, up to N times, when it was killed, has crashed "
        "or hangs. It resumes from its last checkpoint. Default: 0.",
    )
    own, command = _split(list(arguments))
    options = parser.parse_args(own)
    if options.restarts < 0:
        raise ValueError(
            f"`restarts` must not be negative. Received: restarts={options.restarts}."
        )
    if not command:
        raise ValueError(
            "`launch` needs a command after --. Received: none. Example: python -m "
            "bert_tf launch -- mpirun -np 2 python run_pretraining.py --horovod ..."
        )
    if options.restarts and _overwrites(command):
        raise ValueError(
            "`restarts` must be 0 with --overwrite_output_dir, which would delete the "
            "checkpoints of the run itself at each restart. Received: restarts="
            f"{options.restarts}. Drop the flag, or pass another --output_dir."
        )
    _rename_variables()
    os.environ[LAUNCHER_VARIABLE] = "1"
    return Launcher(command).run(options.restarts)


def _overwrites(command: Sequence[str]) -> bool:
    """Whether a command, or a file of flags that it names, deletes earlier output."""
    # Another program's --flagfile may be no file of flags.
    with contextlib.suppress(ValueError, OSError):
        command = recipes.expand(command)
    given = [word for word in command if _OVERWRITE_FLAG.fullmatch(word)]
    return any(map(_OVERWRITES.fullmatch, given[-1:]))  # The last one counts.


def _rename_variables() -> None:
    """Sets what Open MPI 5 reads, where what Open MPI 4 reads is set alone."""
    for old, new in _RENAMED.items():
        if old in os.environ and new not in os.environ:
            os.environ[new] = os.environ[old]
            write_error(f"{new}={os.environ[new]} is set for Open MPI 5, from {old}.")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Own options, and the command after --."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:end], arguments[end + 1 :]


class Launcher:
    """Starts a command, passes signals on to it, and starts it again."""

    def __init__(self, command: Sequence[str]) -> None:
        """Starts nothing yet.

        Args:
          command: A program and its arguments.
        """
        self._command = command
        self._process: subprocess.Popen | None = None
        self._received: list[str] = []  # Names of signals.
        self._end_by: float | None = None

    def run(self, restarts: int) -> int:
        """Runs the command to its end, with up to so many restarts.

        Returns:
          Its exit code; 128 and a signal's number if a signal ended it.
        """
        _adopt_orphans()
        for number in NUMBERS:
            signal.signal(number, self._pass_on)
        pause = _FIRST_PAUSE_SECONDS
        for number in range(restarts + 1):
            code = self._run_once()
            if self._received or code in _FINAL or number == restarts:
                break
            write_error(
                f"Exit code {code}: {describe(code)}. Restart {number + 1} of "
                f"{restarts} in {pause:.0f} s."
            )
            self._sleep(pause)
            if self._received:
                return STOPPED
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        if code == STOPPED and self._received:
            write_error(f"Exit code {code}: ended by {self._received[0]}.")
        if code not in (0, STOPPED):
            used = f" after {restarts} restarts" if number and restarts else ""
            write_error(f"Exit code {code}{used}: {describe(code)}.")
        return code

    def _run_once(self) -> int:
        # In a new session, so that Ctrl-C on the terminal reaches the launcher alone.
        try:
            self._process = subprocess.Popen(self._command, start_new_session=True)
        except OSError as error:
            write_error(
                f"error: {self._command[0]} cannot be started: {error.strerror}."
            )
            return 127 if isinstance(error, FileNotFoundError) else 126
        if self._received:  # While it was being started.
            self._process.send_signal(signal.SIGUSR1)
        try:
            return self._wait()
        finally:
            self._process = None
            _kill_all(_END_SECONDS)

    def _wait(self) -> int:
        while True:
            left = None
            if self._end_by is not None:
                left = max(0.0, self._end_by - time.monotonic())
            try:
                # Short waits: a signal may set the time at which it must have ended.
                code = self._process.wait(min(0.2, left) if left is not None else 0.2)
            except subprocess.TimeoutExpired:
                if left == 0.0:
                    self._process.kill()
                continue
            return code if code >= 0 else KILLED_BY - code

    def _pass_on(self, number: int, frame: object) -> None:
        """In the main thread."""
        process, name = self._process, name_of(number)
        self._received.append(name)
        if process is None:
            write_error(f"{name}: the command is not running; nothing to stop.")
        elif len(self._received) == 1:
            write_error(
                f"{name}: passed on to {self._command[0]} (process {process.pid}) as "
                "SIGUSR1; a training saves its last step. A second signal ends it at "
                "once."
            )
            process.send_signal(signal.SIGUSR1)
        else:
            write_error(f"{name}: ending {self._command[0]} at once.")
            if self._end_by is None:
                self._end_by = time.monotonic() + _END_SECONDS
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._received and time.monotonic() < until:
            time.sleep(0.1)


def describe(code: int) -> str:
    """The likely cause of an exit code."""
    if code == 1:
        return "an error, printed above"
    if code in _CAUSES:
        return _CAUSES[code]
    with contextlib.suppress(ValueError):
        return f"ended by {name_of(code - KILLED_BY)}"
    return "see what the command has printed"


def _adopt_orphans() -> None:
    """Makes processes whose parents end children of this one: none can be lost."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_all(seconds: float) -> None:
    """Kills what the command has left behind: the next start needs its memory."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left = [pid for pid in children(os.getpid()) if not _has_ended(pid)]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it is then forgotten."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
