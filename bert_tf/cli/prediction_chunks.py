"""Inputs of `predict` in lists that are predicted at once."""

import queue
import threading
from collections.abc import Iterator

from bert_tf.cli.prediction_input import Example

# Seconds to wait for a further line before those that are there are predicted.
_PAUSE = 0.01


def in_chunks(
    examples: Iterator[Example], most: int, *, at_once: bool = False
) -> Iterator[list[Example]]:
    """Examples in lists, the last of which comes before the error that ends them.

    Args:
      examples: May raise a ValueError.
      most: Longest list.
      at_once: Whether a list does not wait until it is full, but has those examples
        that are there.
    """
    take = _as_they_come(examples, most) if at_once else examples
    chunk: list[Example] = []
    try:
        for example in take:
            if example is not None:
                chunk.append(example)
            if chunk and (example is None or len(chunk) == most):
                yield chunk
                chunk = []
    except ValueError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _as_they_come(examples: Iterator[Example], most: int) -> Iterator[Example | None]:
    """The examples, and None where the next one is not there yet."""
    ready: queue.Queue[object] = queue.Queue(most)
    end = object()

    def read() -> None:
        try:
            for example in examples:
                ready.put(example)
            ready.put(end)
        except Exception as error:  # noqa: BLE001 - raised by the other thread
            ready.put(error)

    # A daemon: the read of a line cannot be interrupted.
    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            found = ready.get(timeout=_PAUSE)
        except queue.Empty:
            yield None
            found = ready.get()
        if found is end:
            return
        if isinstance(found, Exception):
            raise found
        yield found
