"""How the workers compute: the best path that all of them have, and a line about it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from bert_tf import kernels
from bert_tf.config import BertConfig
from bert_tf.kernels.build import build_at_first_use
from bert_tf.modeling.fused import why_not
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
        missing = workers[lacking[0]]["missing"] or f"no {kernels.TITLES[better[0]]}"
        return ComputePath(common, f"{worker_names(lacking, workers)}: {missing}")
    codes = by_value([path[better[0]] for path in paths])
    differing = worker_names([ranks[0] for ranks in codes.values()], workers)
    return ComputePath(
        common,
        f"the libraries of {differing} are not the same file (build one, and copy "
        f"{kernels.library_name()} from {workers[0]['folder']}/kernels)",
    )


def own_path() -> ComputePath:
    """How a process without other workers computes."""
    if not tf.config.get_visible_devices("GPU"):
        build_at_first_use()
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
    if path.name == kernels.REFERENCE:
        return f"fused operations: not used, {path.reason}."
    title = kernels.TITLES[path.name]
    if settings.is_fused:
        reason = f", not better: {path.reason}" if path.reason else ""
        return f"fused operations: {title}{reason}."
    reason = _why_not(settings.config, policy, use_xla)
    return f"fused operations: not used but by the optimizer ({title}), {reason}."


def _why_not(config: BertConfig, policy: PrecisionPolicy, use_xla: bool) -> str:
    """Why a model does not use the operations that are there."""
    if use_xla:
        return "--use_xla"
    if exempt := policy.exempt_from_fused:
        return f"the bf16 config exempts {exempt}"
    if policy.fused_dtype is None:
        return f"precision {policy.name}"
    return why_not(config) or "the model was built without them"
