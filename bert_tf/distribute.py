"""The workers: one process, or several through Horovod, whose only user this is."""

import importlib
import json
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from bert_tf.errors import OtherWorkerFailed, RunError
from bert_tf.resources import available_cores

# A worker that waits for another yields its core instead of busy-waiting: in each cycle
# Horovod's own thread waits for those of the others, while other threads compute.
# Two workers on two cores take 1.4 times as many steps.
_YIELD = ("OMPI_MCA_mpi_yield_when_idle", "1")
# On CPUs its cycle is 5 ms instead of 1 ms: 5% instead of 8% of the time of two cores
# that two workers share. A sum waits for the next cycle, about 2 ms longer.
_CYCLE_MILLISECONDS = ("HOROVOD_CYCLE_TIME", "5")
# UCX, a part of MPI, would take SIGHUP as a request to print its state.
_NO_DEBUG_SIGNAL = ("UCX_DEBUG_SIGNO", "0")
_FUSION_BYTES = "HOROVOD_FUSION_THRESHOLD"
# Gradients are divided by the counts of the whole batch: without a factor most of them
# would be below float16's smallest normal number, 6e-5. Sums up to 64 do not overflow.
_FP16_SCALE = 1024.0
_STOPPED = ("Horovod has been shut down", "Connection closed by peer")


class Communicator:
    """What the workers of a run do together; this one is alone in its run.

    An engine for several workers derives from it, and defines `sum`, `broadcast` and
    the numbers. All other collectives are made of these.

    Attributes:
      rank: Number of this worker, from 0.
      size: Number of workers.
      local_rank: Number of this worker on its host.
      local_size: Number of workers on this host.
      sends_fp16: Whether gradients are summed in float16, half as many bytes.
      notes: Lines for the log: settings that have no effect.
    """

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    sends_fp16 = False
    notes: Sequence[str] = ()

    def sum(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        """Adds up each tensor over the workers, in one grouped operation.

        Sums in graphs may be under way at once with others, in different threads.

        Args:
          tensors: The same shapes and types on every worker; dense.
          name: Of this call; the same on every worker, and unique in a graph.

        Returns:
          The sums, equal on every worker to the last bit.
        """
        del name
        return list(tensors)

    def sum_gradients(
        self, gradients: Sequence[tf.Tensor], exact: tf.Tensor, name: str
    ) -> list[tf.Tensor]:
        """Adds up gradients, as `sends_fp16` says, and a tensor that is never rounded.

        Args:
          gradients: float32.
          exact: Another float32 tensor.
          name: See `sum`.

        Returns:
          The sums of the gradients, and of the other tensor.
        """
        if not self.sends_fp16 or self.size == 1:
            return self.sum([*gradients, exact], name)
        halves = [tf.cast(x * _FP16_SCALE, tf.float16) for x in gradients]
        [exact] = self.sum([exact], f"{name}_exact")
        sums = self.sum(halves, name)
        return [*(tf.cast(x, tf.float32) / _FP16_SCALE for x in sums), exact]

    def scatter_sum(self, values: tf.Tensor, name: str) -> tf.Tensor:
        """Adds up a vector of gradients, and returns this worker's part of the sum.

        Args:
          values: [size * n] float32; rounded as `sends_fp16` says.
          name: See `sum`.

        Returns:
          [n]: the numbers from rank * n on.
        """
        if not self.sends_fp16:
            return self._scatter_sum(values, name)
        halves = tf.cast(values * _FP16_SCALE, tf.float16)
        return tf.cast(self._scatter_sum(halves, name), tf.float32) / _FP16_SCALE

    def _scatter_sum(self, values: tf.Tensor, name: str) -> tf.Tensor:
        """The part of this worker; see `scatter_sum`."""
        [sums] = self.sum([values], name)
        return tf.split(sums, self.size)[self.rank]

    def collect(self, part: tf.Tensor, name: str) -> tf.Tensor:
        """Puts the vectors of all workers behind one another.

        Args:
          part: [n] float32; n is the same on every worker.
          name: See `sum`.

        Returns:
          [size * n], by rank; equal on every worker to the last bit.
        """
        before = self.rank * tf.size(part)
        after = (self.size - self.rank - 1) * tf.size(part)
        [collected] = self.sum([tf.pad(part, [[before, after]])], name)
        return collected

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Overwrites Keras variables by the first worker's values."""
        del variables

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Collects a few numbers of every worker.

        Args:
          values: n numbers.

        Returns:
          [size, n] float64, equal on every worker.
        """
        table = np.zeros((self.size, len(values)))
        table[self.rank] = values
        [gathered] = self.sum([tf.constant(table)], "gather")
        return gathered.numpy()

    def gather_values(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Collects a value of every worker, by rank.

        Args:
          value: A dictionary, a list or a text that JSON can hold.

        Raises:
          RunError: if a worker's code is of a version that does not send one.
        """
        own = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = self.gather([len(own)])[:, 0].astype(int)
        # Code of a version without values starts with `agree`: no error, or one.
        if (old := np.flatnonzero(sizes < len("{}"))).size:
            raise RunError(
                f"Worker {old[0]} runs other code than worker {self.rank}: it did not "
                "send its version, as an early one does not. Start the same checkout "
                "on all hosts."
            )
        table = self.gather(np.pad(own, (0, sizes.max() - len(own))))
        rows = zip(table.astype(np.uint8), sizes, strict=True)
        return [json.loads(row[:size].tobytes()) for row, size in rows]

    def agree(self, error: Exception | None) -> None:
        """Fails on every worker if any worker failed.

        Args:
          error: What went wrong on this worker, if anything.

        Raises:
          RunError: on the first worker that failed, with its message.
          OtherWorkerFailed: on the others.
        """
        # The end of an agreement inside: the worker that failed there has the message.
        is_of_another = isinstance(error, OtherWorkerFailed)
        has_failed = self.gather([float(error is not None and not is_of_another)])[:, 0]
        first = int(np.argmax(has_failed))
        if error is not None and not is_of_another and first == self.rank:
            raise RunError(str(error)) from error
        if has_failed.any():
            raise OtherWorkerFailed(f"Worker {first} failed.")
        if error is not None:
            raise error


class HorovodCommunicator(Communicator):
    """Several workers, summed by Horovod's raw operations.

    Horovod's optimizer wrappers are not used: under Keras 3 they reduce nothing.
    """

    def __init__(self, hvd: ModuleType) -> None:
        self._hvd = hvd
        hvd.init()
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()

    def sum(self, tensors: Sequence[tf.Tensor], name: str) -> list[tf.Tensor]:
        """See `Communicator.sum`."""
        if self.size == 1:
            return list(tensors)
        return self._hvd.grouped_allreduce(
            list(tensors), op=self._hvd.Sum, name=f"bert_tf.{name}"
        )

    def _scatter_sum(self, values: tf.Tensor, name: str) -> tf.Tensor:
        """See `Communicator.scatter_sum`."""
        return self._hvd.reducescatter(values, op=self._hvd.Sum, name=f"bert_tf.{name}")

    def collect(self, part: tf.Tensor, name: str) -> tf.Tensor:
        """See `Communicator.collect`."""
        return self._hvd.allgather(part, name=f"bert_tf.{name}")

    def broadcast(self, variables: Sequence[Any]) -> None:
        """See `Communicator.broadcast`."""
        values = [v if isinstance(v, tf.Variable) else v.value for v in variables]

        def send() -> None:
            for number, value in enumerate(values):
                name = f"bert_tf.broadcast.{number}"
                value.assign(self._hvd.broadcast(value, root_rank=0, name=name))

        # Horovod's own function runs through autograph, whose code is a temporary file.
        tf.function(send, autograph=False)()


def connect(
    horovod: bool,
    hierarchical_allreduce: bool = False,
    fusion_threshold: int | None = None,
    compression: str = "none",
) -> Communicator:
    """Joins the other workers.

    Args:
      horovod: Whether there may be others.
      hierarchical_allreduce: Reduce within each host first.
      fusion_threshold: Megabytes of tensors that are summed in one operation; None: as
        the environment says, or Horovod's 128.
      compression: Of gradients between the workers: none or fp16.

    Returns:
      The communicator of this worker.

    Raises:
      RunError: if Horovod is asked for and not installed.
    """
    if not horovod:
        return Communicator()
    os.environ.setdefault(*_YIELD)
    os.environ.setdefault(*_NO_DEBUG_SIGNAL)
    if not tf.config.list_physical_devices("GPU"):
        os.environ.setdefault(*_CYCLE_MILLISECONDS)
    if hierarchical_allreduce:
        os.environ["HOROVOD_HIERARCHICAL_ALLREDUCE"] = "1"
    if fusion_threshold is not None:
        os.environ[_FUSION_BYTES] = str(fusion_threshold << 20)
    try:
        hvd = importlib.import_module("horovod.tensorflow")
    except ImportError as error:
        raise RunError(
            f"`horovod` was asked for but cannot be loaded ({error}). Build and "
            "install it in the checkout of bert_tf, by `make horovod` or, for another "
            "environment, `python tools/build_horovod.py`; or drop --horovod."
        ) from error
    communicator = HorovodCommunicator(hvd)
    communicator.sends_fp16 = compression == "fp16"
    # Horovod turns it off where it was built without NCCL: `operations.cc`.
    if hierarchical_allreduce and not hvd.nccl_built():
        communicator.notes = (
            "--horovod_hierarchical_allreduce has no effect: this Horovod was built "
            "without NCCL, which alone reduces within a host first.",
        )
    return communicator


def is_worker_loss(error: Exception) -> bool:
    """Whether an operation failed because another worker is gone."""
    return isinstance(error, tf.errors.OpError) and any(
        text in str(error) for text in _STOPPED
    )


# Read by TensorFlow where nothing is set.
_INTRA_OP, _INTER_OP = "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"


def configure_devices(communicator: Communicator, num_threads: int | None) -> int:
    """Pins this worker to its GPU, and shares the host's cores out.

    Args:
      communicator: Says which worker of this host this is.
      num_threads: Threads of this worker; None: as TF_NUM_INTRAOP_THREADS says, or an
        even share of the cores.

    Returns:
      The number of threads.
    """
    if num_threads is None:
        asked = os.environ.get(_INTRA_OP, "")
        share = available_cores(communicator.local_size)
        num_threads = int(asked) if asked.isdigit() and asked != "0" else share
    try:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        if _INTER_OP not in os.environ:
            tf.config.threading.set_inter_op_parallelism_threads(num_threads)
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
        if gpus:
            own = gpus[communicator.local_rank % len(gpus)]
            tf.config.set_visible_devices(own, "GPU")
            # By default products of float32 keep 10 bits of the factors, as TF32.
            tf.config.experimental.enable_tensor_float_32_execution(False)
    except RuntimeError:
        # TensorFlow is running already: this is not the process's first job, and the
        # devices stay as they are.
        known = tf.config.threading.get_intra_op_parallelism_threads()
        return known or len(os.sched_getaffinity(0))
    return num_threads
