"""How fast a model predicts: throughput, and latency of batches."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from bert_tf.errors import counted

_PERCENTILES = (50, 95, 99)


@dataclasses.dataclass
class BatchTimes:
    """Times of a worker's calls of a model, without those that trace it.

    Attributes:
      seconds: Time of each call.
      num_sequences: Sequences that were predicted in these calls.
      num_traced: Calls that traced the model, which are left out.
    """

    seconds: list[float] = dataclasses.field(default_factory=list)
    num_sequences: int = 0
    num_traced: int = 0

    @contextlib.contextmanager
    def measured(
        self, num_sequences: int, num_traces: Callable[[], int]
    ) -> Iterator[None]:
        """Measures the call inside.

        Args:
          num_sequences: Sequences that it predicts.
          num_traces: How often the model has been traced.
        """
        before, started = num_traces(), time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        if num_traces() > before:
            self.num_traced += 1
        else:
            self.seconds.append(seconds)
            self.num_sequences += num_sequences


def speed_of(workers: Sequence[BatchTimes]) -> dict[str, float]:
    """Throughput and latency of several workers.

    Args:
      workers: The times of each.

    Returns:
      `throughput_val`, sequences/s: the sum of the workers'; `latency_mean`,
      `latency_p50`, `latency_p95` and `latency_p99` of all batches, in ms. Empty if
      every batch was left out.
    """
    seconds = np.concatenate([worker.seconds for worker in workers])
    if not seconds.size:
        return {}
    rates = [w.num_sequences / sum(w.seconds) for w in workers if w.seconds]
    percentiles = np.percentile(seconds, _PERCENTILES).tolist()
    names = [f"latency_p{level}" for level in _PERCENTILES]
    return {
        "throughput_val": float(sum(rates)),
        "latency_mean": 1e3 * float(seconds.mean()),
        **{n: 1e3 * x for n, x in zip(names, percentiles, strict=True)},
    }


def describe_speed(
    title: str, workers: Sequence[BatchTimes], batch_size: int
) -> list[str]:
    """Lines about a prediction, with figures under the names of NVIDIA's run_squad.py.

    Args:
      title: What was predicted.
      workers: The times of each worker.
      batch_size: Rows of a batch.
    """
    traced = sum(worker.num_traced for worker in workers)
    speed, number = speed_of(workers), len(workers)
    of_workers = f" on {number} workers" if number > 1 else ""
    if not speed:
        return [
            f"Speed of {title}: not measured, as none is left after "
            f"{counted(traced, 'batch')}{of_workers}, which traced the model. "
            "A smaller batch size makes more batches."
        ]
    count = sum(len(worker.seconds) for worker in workers)
    sequences = sum(worker.num_sequences for worker in workers)
    levels = [
        f"Latency Confidence Level {p} (ms) = {speed[f'latency_p{p}']:.2f}"
        for p in _PERCENTILES
    ]
    return [
        f"Speed of {title}: {counted(sequences, 'sequence')} in "
        f"{counted(count, 'batch')} of {batch_size}{of_workers}; "
        f"left out: {counted(traced, 'batch')}, which traced the model.",
        f"Throughput Average (sentences/sec) = {speed['throughput_val']:.2f}",
        f"Latency Average (ms) = {speed['latency_mean']:.2f}",
        *levels,
    ]
