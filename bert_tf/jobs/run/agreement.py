"""What must be equal on all workers: code, settings, compute path, data and model.

Each worker updates its own copy of the weights by the sum of all gradients. The copies
stay equal only if all workers round in the same way; nothing would report a drift.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

import bert_tf
from bert_tf import fused_ops
from bert_tf.config.precision_file import ENVIRONMENT_VARIABLE
from bert_tf.config.run import RunConfig
from bert_tf.distribute import Communicator
from bert_tf.errors import OtherWorkerFailed, RunError, one_line
from bert_tf.fused_ops.build import build_at_first_use
from bert_tf.jobs.run.compute_path import (
    ComputePath,
    Worker,
    best_path,
    by_value,
    worker_names,
    worker_paths,
)
from bert_tf.precision import choose_policy

_PACKAGES = ("tensorflow", "keras", "numpy", "tokenizers", "horovod")
# Groups of settings that may differ between hosts; of the others, these may: paths,
# and the number of processes, which changes no result.
_GROUPS_NOT_COMPARED = ("files", "runtime")
_NOT_COMPARED = ("_dir", "_file", "num_processes")
# Settings of the group `runtime` that change the weights all the same.
_RUNTIME = (
    *("use_xla", "recompute", "unpad", "init_loss_scale"),
    *("horovod_compression", "horovod_fusion_threshold", "shard_optimizer"),
)
# Variables by which TensorFlow and its libraries compute otherwise; and those of them
# that change no weight, as TF_CONFIG, by which schedulers tell each host its place for
# tf.distribute, or are compared by their effect, or are Terraform's.
_VARIABLES = ("TF_", "ONEDNN_", "DNNL_", "XLA_", "MKL_", "CUBLAS_", "NVIDIA_TF32")
_WITHOUT_EFFECT = (
    "TF_CPP_",
    "TF_NUM_",
    "TF_GPU_",
    "TF_FORCE_GPU",
    "TF_CONFIG",
    ENVIRONMENT_VARIABLE,
    *("TF_CLI_", "TF_VAR_", "TF_LOG", "TF_DATA_DIR", "TF_PLUGIN_", "TF_WORKSPACE"),
    *("TF_INPUT", "TF_IN_AUTOMATION", "TF_REGISTRY_", "TF_IGNORE", "TF_TOKEN_"),
)
_MAX_SHOWN = 60  # Characters of a value.


@functools.cache
def _hash_of_package() -> str:
    """A hash of all Python files of bert_tf."""
    folder, digest = Path(bert_tf.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def versions() -> dict[str, str]:
    """The versions that a log and a manifest name."""
    names = ("bert_tf", "tensorflow", "keras")
    return {name: _version(name) for name in names}


def code() -> dict[str, str]:
    """The code that this worker runs: what -> version or hash."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "bert_tf's source": _hash_of_package(),
        "the fused operations' source": fused_ops.recipe()["source"][:12],
        "TensorFlow's build": fused_ops.recipe()["tensorflow"],
        **{package: _version(package) for package in _PACKAGES},
    }


def settings(config: RunConfig) -> dict[str, str]:
    """Settings that change the weights: flag, or another name -> value."""
    found = {
        f"--{name}": str(value)
        for group, values in dataclasses.asdict(config).items()
        if group not in _GROUPS_NOT_COMPARED
        for name, value in values.items()
        if not name.endswith(_NOT_COMPARED)
    }
    runtime = config.runtime
    found |= {f"--{name}": str(getattr(runtime, name)) for name in _RUNTIME}
    found |= {
        f"the variable {name}": value
        for name, value in os.environ.items()
        if name.startswith(_VARIABLES) and not name.startswith(_WITHOUT_EFFECT)
    }
    try:
        policy = choose_policy(runtime.chosen_precision, runtime.bf16_config_path)
    except (ValueError, OSError) as error:
        # If it is the same on all workers, it is refused later with this message.
        return found | {"precision": str(error)}
    rules = hashlib.sha256(repr(policy.rules).encode()).hexdigest()[:12]
    precision = f"{policy.name} (lists {rules})" if policy.rules else policy.name
    return found | {"precision": precision}


def _device() -> str:
    return "GPU" if tf.config.get_visible_devices("GPU") else "CPU"


def agree(
    communicator: Communicator,
    config: RunConfig | None = None,
    threads: int = 1,
) -> tuple[ComputePath, list[str]]:
    """Compares the workers, and limits `fused_ops` to what all of them have.

    To be called before a model is built.

    Args:
      communicator: The workers.
      config: The settings; None if there are no weights.
      threads: Of this worker.

    Returns:
      How all workers compute, and warnings.

    Raises:
      RunError: if the variable for the instruction set is wrong; on the first worker,
        if their code, settings or devices differ.
      OtherWorkerFailed: then on the others.
    """
    with agreement(communicator):
        fused_ops.allowed_isa()
    if config and _device() == "CPU" and communicator.local_rank == 0:
        build_at_first_use()
    communicator.agree(None)  # The library is built before the others load it.
    own = {
        "host": socket.gethostname(),
        "folder": str(Path(bert_tf.__file__).parent),
        "code": code() if communicator.size > 1 else {},
        "settings": settings(config) | {"device": _device()} if config else {},
        "threads": threads,
        **worker_paths(),
    }
    workers = _compared(communicator, own)
    path = best_path(workers)
    fused_ops.limit(path.name)
    return path, _warnings(workers, path)


@contextlib.contextmanager
def agreement(communicator: Communicator) -> Iterator[None]:
    """Makes all workers fail if one does in the lines inside."""
    error = None
    try:
        yield
    except (ValueError, OSError, RunError, tf.errors.OpError) as caught:
        error = RunError(one_line(caught)) if isinstance(caught, OSError) else caught
    communicator.agree(error)


_ADVICE = {
    "code": "Start the same checkout in the same environment on all hosts",
    "settings": "Give all workers the same flags, variables and kind of device",
    "plan": "Start all with the same command, and with files and folders that all of "
    "them can read and share",
}


def agree_on_plan(communicator: Communicator, facts: dict[str, Any]) -> None:
    """Compares what the workers have read and prepared, before the first step.

    Args:
      communicator: The workers.
      facts: Name -> value, as JSON can hold it.

    Raises:
      RunError: on the first worker, if they differ.
      OtherWorkerFailed: then on the others.
    """
    shown = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
    _compared(communicator, {"host": socket.gethostname(), "plan": shown})


def _compared(communicator: Communicator, own: Worker) -> list[Worker]:
    """The facts about all workers, of which none differ that must be equal."""
    workers = communicator.gather_values(own)
    if message := difference(workers):
        if communicator.rank:
            raise OtherWorkerFailed("The workers differ; the first one reports how.")
        raise RunError(message)
    return workers


def difference(workers: Sequence[Worker]) -> str:
    """What differs between workers although it must not, and the remedy; or empty.

    Args:
      workers: The facts about each of them.
    """
    lines = []
    for part, advice in _ADVICE.items():
        parts = [worker.get(part, {}) for worker in workers]
        names = dict.fromkeys(name for each in parts for name in each)
        columns = {n: [each.get(n, "none") for each in parts] for n in names}
        found = [_listed(n, c, workers) for n, c in columns.items() if len({*c}) > 1]
        if found and part == "code":
            folders = [worker["folder"] for worker in workers]
            named = by_value(folders).items()  # In full: a folder to go to.
            parts = [f"{f} on {worker_names(r, workers)}" for f, r in named]
            found.append(f"bert_tf's folder: {'; '.join(parts)}.")
        lines += [*found, f"{advice}."] if found else []
    if not lines:
        return ""
    return "\n  ".join(["The workers must not differ, but they do:", *lines])


def _listed(name: str, values: Sequence[Any], workers: Sequence[Worker]) -> str:
    """The values by worker, for a message; of long ones, what differs first."""
    ranks = by_value(values)
    same = len(os.path.commonprefix([str(value) for value in ranks]))
    first = max(0, same - _MAX_SHOWN // 3)
    parts = [
        f"{_part(v, first)} on {worker_names(r, workers)}" for v, r in ranks.items()
    ]
    return f"{name}: {'; '.join(parts)}."


def _part(value: Any, first: int) -> str:  # noqa: ANN401
    text = str(value)
    if len(text) <= _MAX_SHOWN:
        return text
    end = first + _MAX_SHOWN
    return "..." * bool(first) + text[first:end] + "..." * (end < len(text))


def _warnings(workers: Sequence[Worker], path: ComputePath) -> list[str]:
    """What may make weights drift apart, or workers wait for each other."""
    threads = [worker["threads"] for worker in workers]
    if len({*threads}) == 1:
        return []
    line = f"warning: {_listed('threads differ', threads, workers)}"
    if path.name != fused_ops.REFERENCE or _device() == "GPU":
        return [f"{line} The others wait for the slowest; --num_threads sets it."]
    return [
        f"{line} TensorFlow adds up norms in another order with another number, so "
        f"that weights drift apart. Give all workers --num_threads={min(threads)}."
    ]
