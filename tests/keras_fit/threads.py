"""Two workers as threads of one process, which add up over each other's tensors."""

import concurrent.futures
import threading

import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator


class Meeting:
    """Where threads leave their arrays, and wait for those of the others."""

    def __init__(self, size):
        self.size, self._left = size, {}
        self._condition = threading.Condition()

    def exchange(self, key, rank, arrays):
        """Returns the arrays of all threads, by rank."""
        with self._condition:
            found = self._left.setdefault(key, {})
            found[rank] = arrays
            self._condition.notify_all()
            if not self._condition.wait_for(lambda: len(found) == self.size, 60):
                raise TimeoutError(f"Thread {rank} waits alone for {key}.")
        return [found[rank] for rank in range(self.size)]


class ThreadCommunicator(Communicator):
    """One of the threads that meet; each makes the same calls of a name in order."""

    def __init__(self, meeting, rank):
        self.rank, self.size = rank, meeting.size
        self._meeting, self._calls = meeting, {}

    def _exchange(self, name, arrays):
        number = self._calls[name] = self._calls.get(name, 0) + 1
        return self._meeting.exchange((name, number), self.rank, arrays)

    def sum(self, tensors, name):
        if not tensors:
            return []

        def add_up(*values):
            of_all = self._exchange(name, [value.numpy() for value in values])
            return [sum(parts[1:], parts[0]) for parts in zip(*of_all, strict=True)]

        if tf.executing_eagerly():
            return [tf.constant(total) for total in add_up(*tensors)]
        sums = tf.py_function(add_up, tensors, [t.dtype for t in tensors])
        for total, tensor in zip(sums, tensors, strict=True):
            total.set_shape(tensor.shape)
        return sums

    def broadcast(self, variables):
        values = self._exchange("broadcast", [v.numpy() for v in variables])
        for variable, value in zip(variables, values[0], strict=True):
            variable.assign(np.asarray(value))


def run_threads(size, function):
    """Calls a function with the communicator of each thread; returns the results."""
    meeting = Meeting(size)
    with concurrent.futures.ThreadPoolExecutor(size) as pool:
        calls = [
            pool.submit(function, ThreadCommunicator(meeting, rank))
            for rank in range(size)
        ]
        return [call.result() for call in calls]
