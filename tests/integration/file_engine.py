"""Workers that meet in files of a folder: an engine for tests, without Horovod."""

import collections
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
import tensorflow as tf

from bert_tf.distribute import Communicator


class FileCommunicator(Communicator):
    """Each sum of each worker is a file, under its name and number."""

    def __init__(self, folder, rank, size):
        self.rank, self.size = self.local_rank, self.local_size = rank, size
        self._folder = pathlib.Path(folder)
        self._counts = collections.Counter()

    def sum(self, tensors, name):
        def add_up(*arrays):
            parts = self._exchange(name, arrays)
            return [sum(column[1:], column[0]) for column in zip(*parts, strict=True)]

        sums = tf.numpy_function(add_up, tensors, [x.dtype for x in tensors])
        sums = list(sums) if isinstance(sums, list | tuple) else [sums]
        for total, tensor in zip(sums, tensors, strict=True):
            total.set_shape(tensor.shape)
        return sums

    def broadcast(self, variables):
        first = self._exchange("broadcast", [v.numpy() for v in variables])[0]
        for variable, values in zip(variables, first, strict=True):
            variable.assign(values)

    def _exchange(self, name, arrays):
        """The arrays of all workers, by rank."""
        number = self._counts[name]
        self._counts[name] += 1

        def path(rank):
            return self._folder / f"{name}-{number}-{rank}.npz"

        unfinished = self._folder / f".{name}-{self.rank}.npz"
        np.savez(unfinished, *arrays)
        os.replace(unfinished, path(self.rank))
        found = []
        for rank in range(self.size):
            while not path(rank).exists():
                time.sleep(0.002)
            with np.load(path(rank)) as file:
                found.append([file[f"arr_{i}"] for i in range(len(arrays))])
        return found


def main(folder, rank, size, arguments):
    """Trains as one of several workers; leaves its weights and losses."""
    sys.modules["horovod"] = None  # An import would fail.
    from integration.worker import train_and_evaluate

    communicator = FileCommunicator(folder, int(rank), int(size))
    arrays = train_and_evaluate(arguments, communicator)
    np.savez(pathlib.Path(folder, f"result-{rank}.npz"), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
