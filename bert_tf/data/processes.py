"""Runs tasks in several processes, with results in the order of the tasks."""

import collections
import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from bert_tf.errors import RunError
from bert_tf.resources import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks beyond those that are running: results are needed in order, so some of them wait
# for a slower one before them.
_TASKS_AHEAD = 2


def divide(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """Cuts a sequence into `count` contiguous parts of equal size, up to one item."""
    size = len(items)
    bounds = [size * number // max(count, 1) for number in range(count + 1)]
    return [items[begin:end] for begin, end in itertools.pairwise(bounds)]


def blocks(numbers: range, size: int) -> list[range]:
    """Cuts consecutive numbers into contiguous parts of at most `size`."""
    return [numbers[first : first + size] for first in range(0, len(numbers), size)]


def in_order(
    function: Callable[..., Result], tasks: Iterable[tuple], num_processes: int
) -> Iterator[Result]:
    """Calls a function once per task, with only a few tasks in memory at a time.

    Args:
      function: A function at the top level of a module.
      tasks: The arguments of each call.
      num_processes: Worker processes; 0 means one per core, 1 this process itself.

    Yields:
      The results, in the order of `tasks`.

    Raises:
      RunError: if a worker process dies.
    """
    num_processes = num_processes or available_cores()
    if num_processes == 1:
        for task in tasks:
            yield function(*task)
        return
    # A fork would copy locks that threads hold, if the caller has loaded TensorFlow.
    context = multiprocessing.get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(
        num_processes, context, initializer=_depend_on, initargs=(lifeline,)
    )
    pending: collections.deque[Future[Result]] = collections.deque()
    try:
        for task in tasks:
            pending.append(executor.submit(function, *task))
            if len(pending) >= num_processes + _TASKS_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise RunError(
            "A worker process died, perhaps because memory ran out. Received: "
            f"num_processes={num_processes}. Pass a smaller --num_processes."
        ) from None
    finally:
        held.close()
        lifeline.close()
        # After a signal before the start of the pool's thread, that cannot be joined;
        # the workers end because the lifeline is closed.
        with contextlib.suppress(RuntimeError):
            executor.shutdown(cancel_futures=True)


def _depend_on(lifeline: Connection) -> None:
    """Ends this worker when the parent closes the other end of a pipe, or is killed.

    Only the parent handles Ctrl-C.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            lifeline.recv_bytes()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
