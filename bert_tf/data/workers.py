"""Work done by several processes, its results in the order of the work."""

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from bert_tf.errors import RunError
from bert_tf.resources import available_cores

Result = TypeVar("Result")

# Pieces of work beyond those being worked on: results are written in order,
# so some wait for a slower one before them.
_PIECES_AHEAD = 2


def in_order(
    function: Callable[..., Result], pieces: Iterable[tuple], num_processes: int
) -> Iterator[Result]:
    """Calls a function with each piece of work, few of them at a time in memory.

    Args:
      function: At the top of a module.
      pieces: Its arguments, one call each.
      num_processes: Worker processes; 0 means one per core, 1 this process itself.

    Yields:
      What it returns, in the order of the pieces.

    Raises:
      RunError: if a worker process dies.
    """
    num_processes = num_processes or available_cores()
    if num_processes == 1:
        for piece in pieces:
            yield function(*piece)
        return
    # Forking would copy the threads' locks of a caller that has TensorFlow loaded.
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(
        num_processes, context, initializer=_depend_on, initargs=(lifeline,)
    )
    pending: collections.deque[Future[Result]] = collections.deque()
    try:
        for piece in pieces:
            pending.append(executor.submit(function, *piece))
            if len(pending) >= num_processes + _PIECES_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            "A worker process died, perhaps for want of memory. Try again with fewer "
            f"processes. Received: num_processes={num_processes}."
        ) from None
    finally:
        held.close()
        lifeline.close()
        # A signal may have come before the pool's thread was started, which cannot be
        # joined then; the workers end without the lifeline.
        with contextlib.suppress(RuntimeError):
            executor.shutdown(cancel_futures=True)


def _depend_on(lifeline: Connection) -> None:
    """Ends this worker when the parent lets go of the other end, or is killed.

    The parent alone answers Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
