"""Kills a process, as SIGKILL does, before each of its file operations in turn."""

import os
import sys

_KILLED = 137
_OPERATIONS = (
    *("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"),
    *("tempfile.mkstemp", "tempfile.mkdtemp", "fcntl.flock"),
)


def crash_points(folder, prepare, action):
    """Runs an action in processes of their own, each killed one operation later.

    Args:
      folder: Operations on it, and on what is in it, are counted; and all locks.
      prepare: Puts the folder into its first state; called before each process.
      action: What is killed; it must not start threads.

    Yields:
      The number of the operation, from 0, when the process is dead. The last one comes
      to the end of the action, so that the operations of all are covered.
    """
    number = 0
    while True:
        prepare()
        status = _run_and_kill(str(folder), number, action)
        assert status in (0, _KILLED), f"operation {number}: exit status {status}"
        yield number
        if status == 0:
            return
        number += 1


def _run_and_kill(folder, number, action):
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    left = number

    def kill(event, arguments):
        nonlocal left
        is_counted = event in _OPERATIONS and (
            event == "fcntl.flock"
            or any(isinstance(a, str) and a.startswith(folder) for a in arguments)
            or any(str(a).startswith(folder) for a in arguments if hasattr(a, "parts"))
        )
        if is_counted:
            if left == 0:
                os._exit(_KILLED)
            left -= 1

    try:
        sys.addaudithook(kill)
        action()
        os._exit(0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
