"""How the workers compute: the best path that all of them have, and a line about it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_tf import kernels
from bert_tf.modeling.fused import GELUS
from bert_tf.precision import PrecisionPolicy

_NAMED = 3  # Workers that a message names; of others it says how many.

# What a worker says of itself; see `agreement.agree`.
Worker = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ComputePath:
    """How all workers compute.

    Attributes:
      name: The best of `kernels.paths` that all of them have.
      reason: Why it is not a better one, where a worker has that or the library is
        missing; empty otherwise.
    """

    name: str
    reason: str = ""


def worker_names(ranks: Sequence[int], workers: Sequence[Worker]) -> str:
    """Workers for a message: numbers and hosts."""
    named = [f"{rank} ({workers[rank]['host']})" for rank in ranks[:_NAMED]]
    if len(ranks) > _NAMED:
        named.append(f"{len(ranks) - _NAMED} others")
    listed = ", ".join(named[:-1]) + " and " * (len(named) > 1) + named[-1]
    return f"worker{'s' if len(ranks) > 1 else ''} {listed}"


def by_value(values: Sequence[Any]) -> dict[Any, list[int]]:
    """Value -> the workers that have it."""
    ranks: dict[Any, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(rank)
    return ranks


def best_path(workers: Sequence[Worker]) -> ComputePath:
    """The best compute path that all workers have, and why not a better one.

    Args:
      workers: What each says of itself: `host`; `paths`, pairs of a name and of what
        tells its code from other code of that name, best first, the last the same for
        all; and `missing`, why it has no better ones.
    """
    paths = [dict(worker["paths"]) for worker in workers]
    common = next(
        name
        for name, code in paths[0].items()
        if all(other.get(name) == code for other in paths)
    )
    better = [name for path in paths for name in list(path)[: list(path).index(common)]]
    if not better:
        return ComputePath(common, workers[0]["missing"])
    lacking = [rank for rank, path in enumerate(paths) if better[0] not in path]
    if lacking:
        missing = workers[lacking[0]]["missing"] or f"no {better[0]}"
        return ComputePath(common, f"{worker_names(lacking, workers)}: {missing}")
    codes = by_value([path[better[0]] for path in paths])
    differing = worker_names([ranks[0] for ranks in codes.values()], workers)
    return ComputePath(
        common,
        f"the libraries of {differing} are not the same file (build one, and copy "
        f"library.so and library.json from {workers[0]['folder']}/kernels)",
    )


def own_path() -> ComputePath:
    """How a process without other workers computes."""
    worker = {"paths": list(kernels.paths().items()), "missing": kernels.why_missing()}
    return best_path([worker])


def describe_path(
    model: keras.Model,
    policy: PrecisionPolicy,
    path: ComputePath,
    *,
    use_xla: bool = False,
) -> str:
    """One line about the fused operations: whether they are used, and why not.

    Args:
      model: One with a layer called bert.
      policy: Its compute types.
      path: How all workers compute.
      use_xla: Whether XLA compiles the model, which knows none of them.
    """
    settings = model.get_layer("bert").settings
    if tf.config.get_visible_devices("GPU"):
        return "fused operations: not used, computing on a GPU."
    if path.name == kernels.PLAIN:
        return f"fused operations: not used, {path.reason}."
    if settings.is_fused and path.name == kernels.TILES and not settings.uses_tiles:
        return (
            f"fused operations: used without {path.name}, the model's widths are not "
            "multiples of 32."
        )
    if settings.is_fused:
        reason = f", not better: {path.reason}" if path.reason else ""
        return f"fused operations: {path.name}{reason}."
    reason = _why_not(settings.config.hidden_act, policy, use_xla)
    return f"fused operations: not used but by the optimizer ({path.name}), {reason}."


def _why_not(hidden_act: str, policy: PrecisionPolicy, use_xla: bool) -> str:
    """Why a model does not use the operations that are there."""
    if use_xla:
        return "--use_xla"
    if policy.name != "bf16":
        return f"precision {policy.name}"
    if exempt := policy.exempt_from_fused:
        return f"the bf16 config exempts {exempt}"
    if hidden_act not in GELUS:
        return f"hidden_act is {hidden_act} (they have {', '.join(GELUS)})"
    return "the model was built without them"
