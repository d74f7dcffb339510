"""How much memory a training needs, estimated before it starts.

A process that runs out of memory in a container is killed without a message. The
formula is fitted to measured peaks (see docs/performance.md) and right within `ERROR`.
"""

import dataclasses
import logging
import math
from collections.abc import Collection

from bert_tf import resources
from bert_tf.config import BertConfig
from bert_tf.errors import RunError, counted
from bert_tf.scaling import encoder_shapes

_LOGGER = logging.getLogger(__name__)

# An estimate of more than so many times the memory of the host is refused.
_HOPELESS = 3
ERROR = 0.25  # The largest error of the estimate that was measured, rounded up.

_GIB = 2**30
_FLOAT = 4  # Bytes.
# Python, TensorFlow and its graph, with 190 MiB of library files. A newer Linux keeps
# more of these in memory, and frees them when other programs need it.
_PROGRAM = 600 * 2**20
# Sets of tensors as large as the weights: weights, two moments, the sum of gradients,
# the gradients of a micro-batch, and two temporary sets of a step of the reference.
_SETS, _SETS_OF_FUSED = 7, 5
_SETS_OF_MOMENTS = 2  # Both moments, which are among these sets.
# Weights and two moments, copied while a checkpoint is written.
_SETS_OF_SAVE = 3
# Horovod's buffer, and the sums that it returns.
_BUFFER_OF_HOROVOD = 128 * 2**20
_SETS_OF_HOROVOD = 1


@dataclasses.dataclass(frozen=True)
class _Activations:
    """Bytes per token that a layer keeps for the backward pass.

    Attributes:
      per_hidden: Times the hidden size H.
      per_intermediate: Times the intermediate size I.
      per_score: Times the number of heads and the length of a row.
      per_logit: Bytes of each masked-LM logit, with its gradient.
    """

    per_hidden: float
    per_intermediate: float
    per_score: float
    per_logit: float


# Under XLA on a CPU too, where bfloat16 activations did not lower the measured peak.
_REFERENCE = _Activations(54, 14, 12, 8)
# By the size of the compute dtype of the fused operations.
_FUSED = {4: _Activations(36, 10, 0, 8), 2: _Activations(18, 5, 0, 4)}


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a micro-batch.

    Attributes:
      count: B.
      length: S, tokens in a row.
      predictions: P, masked tokens in a row.
    """

    count: int
    length: int
    predictions: int = 0


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes that a worker needs.

    Attributes:
      weights: The program, and every set of tensors as large as the weights.
      activations: Proportional to the micro-batch.
    """

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.activations


def num_weights(bert: BertConfig) -> int:
    """Numbers in the encoder's weights, without heads."""
    return sum(map(math.prod, encoder_shapes(bert)))


def estimate_training(
    bert: BertConfig,
    rows: Rows,
    *,
    fused_bytes: int = 0,
    exempt: Collection[str] = (),
    recompute: bool = False,
    num_workers: int = 1,
    saves: bool = False,
    has_averages: bool = False,
    shards_optimizer: bool = False,
) -> Estimate:
    """Memory of a worker that trains.

    Args:
      bert: The architecture.
      rows: Of a micro-batch.
      fused_bytes: Of a number in the encoder where the fused operations compute it;
        0 where they do not.
      exempt: Paths of layers that the reference computes all the same, see
        `Backends.exempt`.
      recompute: Whether only each layer's input is kept for the backward pass.
      num_workers: Of the run; several need buffers for the allreduce.
      saves: Whether this worker saves checkpoints, from a copy of its state.
      has_averages: Whether there are moving averages of the weights.
      shards_optimizer: Whether the moments are divided among the workers.
    """
    fused = _FUSED.get(fused_bytes, _REFERENCE)
    num_exempt = sum(path.startswith("bert/encoder/") for path in exempt)
    layers = [
        kind.per_hidden * bert.hidden_size
        + kind.per_intermediate * bert.intermediate_size
        + kind.per_score * bert.num_attention_heads * rows.length
        for kind in (
            *[fused] * (bert.num_hidden_layers - num_exempt),
            *[_REFERENCE] * num_exempt,
        )
    ]
    kept = sum(layers)
    if recompute:
        inputs = bert.num_hidden_layers * bert.hidden_size
        kept = max(layers) + inputs * (fused_bytes or _FLOAT)
    head = _REFERENCE if "cls/predictions" in exempt else fused
    logits = head.per_logit * rows.predictions * bert.vocab_size
    sets = _SETS_OF_FUSED if fused_bytes else _SETS
    program = _PROGRAM
    if saves:
        sets += _SETS_OF_SAVE
    if has_averages:
        sets += 2 if saves else 1  # They are a part of the copy.
    if num_workers > 1:
        sets, program = sets + _SETS_OF_HOROVOD, program + _BUFFER_OF_HOROVOD
    if shards_optimizer:
        sets -= _SETS_OF_MOMENTS * (1 - 1 / num_workers)
    return Estimate(
        weights=program + int(sets * _FLOAT * num_weights(bert)),
        activations=int(rows.count * (rows.length * kept + logits)),
    )


def require_memory(bert: BertConfig, workers: int) -> None:
    """Refuses, before it is built, a model whose weights alone cannot fit.

    Args:
      bert: The architecture.
      workers: How many share the memory of this host.

    Raises:
      RunError: if weights and moments need more than there is.
    """
    total = resources.memory_total()
    needed = 3 * _FLOAT * num_weights(bert) * workers
    if total is None or needed <= total or _on_gpu():
        return
    raise RunError(
        f"The weights and both moments of {num_weights(bert):,} weights take "
        f"{needed / workers / _GIB:.1f} GiB for each worker, and there are "
        f"{total / _GIB:.1f} GiB for {counted(workers, 'worker')} ({_source()}). Train "
        "a smaller model, with fewer workers on a host, or on a host with more memory."
    )


def memory_warnings(
    estimate: Estimate, rows: Rows, workers: int, *, recompute: bool
) -> list[str]:
    """A line if a training probably needs more memory than there is.

    Args:
      estimate: The memory of this worker.
      rows: The rows of its micro-batch.
      workers: How many share the memory of this host.
      recompute: See `estimate_training`.

    Raises:
      RunError: if it needs several times the memory of the whole host.
    """
    _LOGGER.debug("Memory of a worker: %s, %s.", rows, estimate)
    limit = _available(workers)
    # The estimate is of the host's memory, not a GPU's.
    if _on_gpu() or limit is None or estimate.total <= limit:
        return []
    found = (
        f"a worker needs about {estimate.total / _GIB:.1f} GiB to train "
        f"({estimate.weights / _GIB:.1f} for weights, moments, their copy for a "
        f"checkpoint, gradients and the program, "
        f"{estimate.activations / _GIB:.1f} for activations of {rows.count} rows of "
        f"{rows.length} tokens; within {ERROR:.0%}), and there are "
        f"{limit / _GIB:.1f} GiB for each of {counted(workers, 'worker')} "
        f"({_source()})."
    )
    remedy = "" if recompute else ", or --recompute"
    advice = f"a smaller --train_batch_size with more --num_accumulation_steps{remedy}."
    if estimate.total * workers > _HOPELESS * resources.memory_total():
        raise RunError(f"{found[0].upper()}{found[1:]} Pass {advice}")
    return [f"warning: {found} It may be killed: use {advice}"]


def _on_gpu() -> bool:
    import tensorflow as tf  # A plan estimates memory without it.

    return bool(tf.config.get_visible_devices("GPU"))


def _available(workers: int) -> int | None:
    """Bytes for each worker of this host: within the limit, and not used by others."""
    total, free = resources.memory_total(), resources.memory_free()
    if total is None:
        return None
    if free is None:
        return total // workers
    return min(total // workers, free // workers + resources.own_memory())


def _source() -> str:
    """What limits the memory, for messages."""
    limited = resources.memory_limit() is not None
    return "the container's limit" if limited else "this machine's memory"
