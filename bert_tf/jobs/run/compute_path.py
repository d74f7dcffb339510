"""The compute path: the best one that all workers have, and a line about it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from bert_tf import fused_ops
from bert_tf.errors import counted
from bert_tf.fused_ops.build import build_at_first_use
from bert_tf.modeling.backends.choice import Backends

_NAMED = 3  # Workers that a message names; it counts the others.

# The facts about a worker, sent to all workers as JSON: see `agreement.agree`.
Worker = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ComputePath:
    """How all workers compute.

    Attributes:
      name: The best of `fused_ops.paths` that all of them have.
      reason: Why it is not a better one, if a worker has a better one or was limited
        to this one, or if the library is missing; empty otherwise.
    """

    name: str
    reason: str = ""


def worker_names(ranks: Sequence[int], workers: Sequence[Worker]) -> str:
    """Workers for a message: numbers and hosts."""
    named = [f"{rank} ({workers[rank]['host']})" for rank in ranks[:_NAMED]]
    if len(ranks) > _NAMED:
        named.append(counted(len(ranks) - _NAMED, "other"))
    listed = ", ".join(named[:-1]) + " and " * (len(named) > 1) + named[-1]
    return f"worker{'s' if len(ranks) > 1 else ''} {listed}"


def by_value(values: Sequence[Any]) -> dict[Any, list[int]]:
    """Value -> the workers that have it."""
    ranks: dict[Any, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(rank)
    return ranks


def worker_paths() -> Worker:
    """The facts about this worker that `best_path` compares.

    Returns:
      `paths`: pairs of a name and a checksum of its code, best first; the last is the
      same for all workers. `lacks`: name of another path -> why it is not among them.
      `missing`: why the first is not a better one, or empty. `library`: its file.
    """
    paths = fused_ops.paths()
    return {
        "paths": list(paths.items()),
        "lacks": {
            n: fused_ops.why_not(n) for n in fused_ops.ISA_FLAGS if n not in paths
        },
        "missing": fused_ops.why_not_better(),
        "library": str(fused_ops.library_file() or ""),
    }


def best_path(workers: Sequence[Worker]) -> ComputePath:
    """The best compute path that all workers have, and why it is not a better one.

    Args:
      workers: The facts of each: those of `worker_paths`, and `host`.
    """
    paths = [dict(worker["paths"]) for worker in workers]
    common = next(name for name in paths[0] if all(name in path for path in paths))
    if len({path[common] for path in paths}) > 1:
        return ComputePath(fused_ops.REFERENCE, _differing_libraries(workers, common))
    best = next(
        name for name in fused_ops.TITLES if any(name in path for path in paths)
    )
    reasons = by_value([w["lacks"].get(best) or w["missing"] for w in workers])
    if len(reasons) == 1:
        return ComputePath(common, next(iter(reasons)))
    listed = [f"{worker_names(r, workers)}: {why}" for why, r in reasons.items() if why]
    return ComputePath(common, "; ".join(listed))


def _differing_libraries(workers: Sequence[Worker], name: str) -> str:
    """Which workers' libraries differ, and which file to copy where."""
    ranks = by_value([dict(worker["paths"])[name] for worker in workers])
    firsts = [first for first, *_ in ranks.values()]
    complete = [fused_ops.library_name(isa) for isa in reversed(fused_ops.ISA_FLAGS)]

    def completeness(rank: int) -> int:
        name = Path(workers[rank]["library"]).name
        return complete.index(name) if name in complete else len(complete)

    source, *others = sorted(firsts, key=completeness, reverse=True)
    folders = [
        f"{Path(workers[rank]['library']).parent} of {worker_names([rank], workers)}"
        for rank in others[:_NAMED]
    ]
    return (
        f"the libraries of {worker_names(firsts, workers)} are not the same file (copy "
        f"{workers[source]['library']} of {worker_names([source], workers)} to "
        f"{', '.join(folders)})"
    )


def own_path() -> ComputePath:
    """The compute path of a process without other workers."""
    if not tf.config.get_visible_devices("GPU"):
        build_at_first_use()
    return best_path([worker_paths()])


def unpad_notes(backends: Backends) -> list[str]:
    """A line if padding is computed although it need not be.

    Args:
      backends: Of the layers of a model that is built.
    """
    if backends.fused_dtype is not None or not backends.unpads:
        return []
    return [
        "--unpad has no effect: padding is computed where operations are not fused."
    ]


def xla_notes(backends: Backends) -> list[str]:
    """A line about layers with float32 activations under --use_xla, for the lists.

    Args:
      backends: Of the layers of a model that is built.
    """
    if not backends.exempt:
        return []
    names, exempt = _exempt(backends)
    return [f"--use_xla: activations are float32 in {names}: {exempt}."]


def describe_path(
    backends: Backends, path: ComputePath, *, use_xla: bool = False
) -> str:
    """A line about the fused operations: where they are used, and why not elsewhere.

    Args:
      backends: Of the layers of a model that is built.
      path: How all workers compute.
      use_xla: Whether XLA compiles the model; it cannot use them.
    """
    if tf.config.get_visible_devices("GPU"):
        hint = "" if use_xla else ", where --use_xla takes less memory"
        return f"fused operations: not used, computing on a GPU{hint}."
    if path.name == fused_ops.REFERENCE:
        return f"fused operations: not used, {path.reason}."
    title = fused_ops.TITLES[path.name]
    names, exempt = _exempt(backends)
    if backends.fused_dtype is None:
        reason = "--use_xla" if use_xla else backends.why_not_fused or exempt
        return f"fused operations: used by the optimizer alone ({title}), {reason}."
    reason = f", not better: {path.reason}" if path.reason else ""
    if exempt:
        reason += f", not used in {names}: {exempt}"
    if backends.takes_gradients_of_tensorflow:
        reason += ", gradients of large kernels by TensorFlow, which is faster here"
    return f"fused operations: {title}{reason}."


def _exempt(backends: Backends) -> tuple[str, str]:
    """The layers that the precision list exempts, and the reason; empty if none."""
    if not backends.exempt:
        return "", ""
    layers = list(backends.exempt)
    names = ", ".join(layers[:_NAMED]) + ", ..." * (len(layers) > _NAMED)
    return names, f"the bf16 config exempts {backends.exempt[layers[0]]}"
