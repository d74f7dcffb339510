"""The time of a training on any number of workers, by arithmetic alone.

A step computes its micro-batches, adds up the gradients over the workers in one grouped
allreduce, and updates the weights. Nothing overlaps: the sum starts after the last
micro-batch, and the update after the sum.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy.optimize import nnls

from bert_tf.config.model import BertConfig
from bert_tf.config.planning import Recipe

# Bytes of memory that clipping and LAMB read and write for a weight: gradient twice,
# weight and both moments read and written, the update once each way.
UPDATE_BYTES = 36
# A step sums the counts of its predictions before the gradients: two numbers.
COUNT_BYTES = 8
# How far the sequences of a step may be from the recipe's where records are packed, and
# only whole micro-batches make a step.
PACKED_ERROR = 0.02


def encoder_shapes(bert: BertConfig) -> list[tuple[int, ...]]:
    """Shapes of all weights of an encoder, with its pooler."""
    hidden, wide = bert.hidden_size, bert.intermediate_size
    norm, square = [(hidden,), (hidden,)], [(hidden, hidden), (hidden,)]
    tables = (bert.vocab_size, bert.max_position_embeddings, bert.type_vocab_size)
    layer = 4 * square + norm + [(hidden, wide), (wide,), (wide, hidden), (hidden,)]
    embeddings = [(rows, hidden) for rows in tables] + norm
    return embeddings + bert.num_hidden_layers * (layer + norm) + square


def gradient_shapes(bert: BertConfig) -> list[tuple[int, ...]]:
    """Shapes of all weights of a pre-training, both heads included."""
    hidden, words = bert.hidden_size, bert.vocab_size
    masked_lm = [(hidden, hidden), (hidden,), (hidden,), (hidden,), (words,)]
    return encoder_shapes(bert) + masked_lm + [(2, hidden), (2,)]


def num_gradients(bert: BertConfig) -> int:
    """Numbers in all gradients of a pre-training."""
    return sum(math.prod(shape) for shape in gradient_shapes(bert))


def flops_per_sequence(
    bert: BertConfig,
    max_seq_length: int,
    max_predictions: int,
    sequences_per_record: float = 1.0,
) -> float:
    """FLOP of the forward and backward pass of one sequence, nothing recomputed.

    6 L (4 H^2 + 2 H I) S + 12 L H S^2 + 6 P (H V + H^2): three products of two
    operations each for every weight and token, attention's two products, and the
    masked-LM head on the masked tokens alone.

    Args:
      bert: The architecture.
      max_seq_length: S, tokens in a row.
      max_predictions: P, masked tokens in a sequence.
      sequences_per_record: Sequences that share a row, of equal lengths.

    Source: Kaplan et al. 2020 (arXiv:2001.08361), section 2.1, with attention.
    """
    layers, hidden = bert.num_hidden_layers, bert.hidden_size
    tokens = max_seq_length / sequences_per_record
    weights = 4 * hidden**2 + 2 * hidden * bert.intermediate_size
    head = hidden * bert.vocab_size + hidden**2
    return (
        6 * layers * weights * tokens
        + 12 * layers * hidden * tokens**2
        + 6 * max_predictions * head
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """A way between two workers.

    Attributes:
      latency_seconds: Of one message.
      seconds_per_byte: Each way.
    """

    latency_seconds: float
    seconds_per_byte: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Hosts, and what an allreduce between their workers costs.

    Attributes:
      workers_per_host: On each host but the last.
      cores_per_host: Of each host.
      local: Between workers of a host.
      network: Between hosts: all links of a host together.
      start_seconds: Until all workers know that all are ready.
      copy_seconds_per_byte: Into the buffer of an allreduce and out of it.
    """

    workers_per_host: int
    cores_per_host: float
    local: Link | None
    network: Link | None
    start_seconds: float = 0.0
    copy_seconds_per_byte: float = 0.0

    def sharing(self, workers: int, cores: float = 1.0) -> float:
        """By how much workers slow each other down on the cores of a host, >= 1.

        Args:
          workers: In all.
          cores: That one worker keeps busy.
        """
        busy = min(workers, self.workers_per_host) * cores
        return max(1.0, busy / self.cores_per_host)

    def num_hosts(self, workers: int) -> int:
        """Hosts that so many workers need."""
        return -(-workers // self.workers_per_host)

    def allreduce_seconds(self, num_bytes: float, workers: int) -> float:
        """Time of one grouped allreduce.

        A ring: 2 (N - 1) messages, one after another, of which each worker sends and
        receives 1/N of the bytes in each. Its slowest link decides. Workers of a host
        copy, add and answer all at once, and share its cores.

        Args:
          num_bytes: Of all tensors on each worker.
          workers: N.

        Source: Patarasuk and Yuan 2009 (doi:10.1016/j.jpdc.2008.09.002); the terms for
        copies and shared cores are added here.
        """
        if workers == 1:
            return 0.0
        shared, hops = self.sharing(workers), 2 * (workers - 1)
        links = []
        if min(workers, self.workers_per_host) > 1:
            links.append((self.local, shared))
        if self.num_hosts(workers) > 1:
            links.append((self.network, 1.0))  # A network is not slowed down by cores.
        latency = max(link.latency_seconds for link, _ in links) * shared
        per_byte = max(link.seconds_per_byte * slower for link, slower in links)
        return (
            self.start_seconds
            + self.copy_seconds_per_byte * num_bytes * shared
            + hops * latency
            + hops / workers * num_bytes * per_byte
        )


@dataclasses.dataclass(frozen=True)
class Point:
    """A measured allreduce between workers of one host.

    Attributes:
      workers: How many.
      num_bytes: On each.
      seconds: Until the last one had the sum.
    """

    workers: int
    num_bytes: int
    seconds: float


def fit_allreduce(points: Iterable[Point], cores: float) -> Cluster:
    """The host whose allreduces take the measured times.

    Least squares of relative errors, no coefficient below 0. Points of one worker, that
    sums nothing, do not count. The latency of a message is taken as 0: beside
    megabytes it cannot be measured, and its error grows with the number of messages.

    Args:
      points: Measured on one host, with at least two numbers of workers.
      cores: Of that host.

    Raises:
      ValueError: if there are too few points.
    """
    points = [point for point in points if point.workers > 1]
    if len({point.workers for point in points}) < 2 or len(points) < 4:
        raise ValueError(
            "An allreduce must be measured for two numbers of workers above 1, four "
            f"times in all. Received: {len(points)} of them. Measure again."
        )
    rows = []
    for point in points:
        shared, hops = max(1.0, point.workers / cores), 2 * (point.workers - 1)
        copied = point.num_bytes * shared
        rows.append((1.0, copied, hops / point.workers * copied))
    relative = np.asarray(rows) / np.asarray([[p.seconds] for p in points])
    # Columns of one size: nnls compares their gradients with an absolute tolerance.
    sizes = np.linalg.norm(relative, axis=0)
    found, _ = nnls(relative / sizes, np.ones(len(points)))
    start, copy, per_byte = map(float, found / sizes)
    return Cluster(
        workers_per_host=max(point.workers for point in points),
        cores_per_host=cores,
        local=Link(latency_seconds=0.0, seconds_per_byte=per_byte),
        network=None,
        start_seconds=start,
        copy_seconds_per_byte=copy,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """What one worker does alone.

    Attributes:
      seconds_per_sequence: Of the forward and backward pass.
      update_seconds: Of one optimizer step.
      cores: That it keeps busy.
    """

    seconds_per_sequence: float
    update_seconds: float
    cores: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """The time of one step, in seconds.

    Attributes:
      compute: Of its micro-batches.
      allreduce: Of the sums over the workers; no other work hides it.
      update: Of the optimizer.
    """

    compute: float
    allreduce: float
    update: float

    @property
    def total(self) -> float:
        """The time of the whole step."""
        return self.compute + self.allreduce + self.update


def step_time(
    device: Device,
    cluster: Cluster,
    workers: int,
    sequences: float,
    gradient_bytes: float,
    num_counts: int = 1,
) -> StepTime:
    """The time of a step.

    Args:
      device: Each worker.
      cluster: Their hosts.
      workers: How many.
      sequences: Of the step on each worker.
      gradient_bytes: Of all gradients, as they travel.
      num_counts: Sums of a few numbers.
    """
    shared = cluster.sharing(workers, device.cores)
    sums = (gradient_bytes, *[COUNT_BYTES] * num_counts)
    return StepTime(
        compute=sequences * device.seconds_per_sequence * shared,
        allreduce=sum(cluster.allreduce_seconds(size, workers) for size in sums),
        update=device.update_seconds * shared,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Division:
    """The flags with which so many workers keep a recipe.

    Attributes:
      workers: How many.
      train_batch_size: Records in a micro-batch.
      num_accumulation_steps: The flag; packed records make it fewer micro-batches.
      num_micro_batches: That a worker then computes in a step.
      learning_rate: The flag, by the number of workers of which it is multiplied.
      sequences: Of a step, on all workers.
    """

    workers: int
    train_batch_size: int
    num_accumulation_steps: int
    num_micro_batches: int
    learning_rate: float
    sequences: float


def divide_recipe(
    recipe: Recipe,
    workers: int,
    max_batch: int,
    sequences_per_record: float = 1.0,
) -> Division:
    """The flags with which `workers` keep a recipe.

    Args:
      recipe: What they keep.
      workers: How many.
      max_batch: The most records in a micro-batch.
      sequences_per_record: More than 1 where records are packed.

    Raises:
      ValueError: if they cannot keep it; the message names numbers that can.
    """
    batch = _largest_batch(recipe, workers, max_batch, sequences_per_record)
    if not batch:
        raise ValueError(_refusal(recipe, workers, max_batch, sequences_per_record))
    count = _num_micro_batches(recipe, workers, batch, sequences_per_record)
    return Division(
        workers=workers,
        train_batch_size=batch,
        # Divided by sequences_per_record and rounded, it is `count` again.
        num_accumulation_steps=round(count * sequences_per_record),
        num_micro_batches=count,
        learning_rate=recipe.learning_rate / workers,
        sequences=count * batch * workers * sequences_per_record,
    )


def _num_micro_batches(recipe: Recipe, workers: int, batch: int, average: float) -> int:
    return max(1, round(recipe.global_batch_size / (workers * batch * average)))


def _largest_batch(recipe: Recipe, workers: int, most: int, average: float) -> int:
    """The largest micro-batch that keeps the recipe; 0 if there is none."""
    size = recipe.global_batch_size
    allowed = PACKED_ERROR if average > 1 else 0.0
    for batch in range(min(most, size // workers), 0, -1):
        count = _num_micro_batches(recipe, workers, batch, average)
        if abs(count * batch * workers * average - size) <= allowed * size:
            return batch
    return 0


def _refusal(recipe: Recipe, workers: int, max_batch: int, average: float) -> str:
    size = recipe.global_batch_size
    start = min(workers, size)
    near = (n for n in range(start, 0, -1) if average > 1 or size % n == 0)
    fewer = next((n for n in near if _largest_batch(recipe, n, max_batch, average)), 0)
    packed = f" in records of {average:g} on average" if average > 1 else ""
    reason = "they do not divide them"
    if workers > size:
        reason = "there are more workers"
    elif packed:
        reason = f"no micro-batches come within {PACKED_ERROR:.0%} of them"
    remedy = f"Pass --workers={fewer}, or another" if fewer else "Pass a larger"
    return (
        f"--workers={workers} cannot keep the recipe: a step has {size:,} sequences"
        f"{packed}, and {reason}. {remedy} --global_batch_size."
    )


def efficiency(
    device: Device, sequences: float, division: Division, step: StepTime
) -> float:
    """Sequences/s of a worker, as part of those of one that trains alone.

    Args:
      device: Each worker.
      sequences: Of a step of the recipe, which the lone worker computes all by itself.
      division: How the workers divide it.
      step: Their step.
    """
    alone = sequences * device.seconds_per_sequence + device.update_seconds
    rate = division.sequences / step.total / division.workers
    return rate * alone / sequences


def fit_step(micro_batches: Sequence[int], seconds: Sequence[float]) -> list[float]:
    """Seconds of a micro-batch and of the rest of a step, both at least 0.

    Args:
      micro_batches: Of measured steps.
      seconds: Of these steps.
    """
    rows = [[count, 1.0] for count in micro_batches]
    found, _ = nnls(np.asarray(rows), np.asarray(seconds))
    return [float(value) for value in found]
