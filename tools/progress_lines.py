"""Prints a line every 10 seconds while something takes long.

As a command, `progress_lines.py TITLE COMMAND...` runs a command that prints nothing.
`bert_tf.stages` does the same in a training; this runs before packages are installed.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

SECONDS = 10.0


@contextlib.contextmanager
def progress_lines(title: str, seconds: float = SECONDS) -> Iterator[None]:
    """Prints `title` and the time on stderr, until the block inside ends.

    Args:
      title: What takes long.
      seconds: Between two lines.
    """
    done, began = threading.Event(), time.monotonic()

    def show() -> None:
        while not done.wait(seconds):
            passed = time.monotonic() - began
            print(f"{title}: {passed:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main(arguments: list[str]) -> int:
    """Runs a command; returns its exit status."""
    title, *command = arguments
    with progress_lines(title):
        status = subprocess.run(command, check=False).returncode
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
