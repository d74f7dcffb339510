"""The manifest of a checkpoint: the position of a run, and checksums of its files."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from bert_tf.errors import RunError
from bert_tf.files import file_sha256
from bert_tf.tf_checkpoint import DATA, INDEX, load_tf

FORMAT_VERSION = 2  # 1 is without a checksum of the manifest.
STEP_NAME = "global_step"
# What follows the name of a weight, as TensorFlow 1 calls its moving averages.
AVERAGE = "/ExponentialMovingAverage"
# What follows the name of a checkpoint.
TENSOR_FILE = r"(index|data-[0-9]{5}-of-[0-9]{5})"
_PREFIX = re.compile(r"model\.ckpt-(0|[1-9][0-9]*)")
_CHECKSUM = '"sha256": "{}"'
_MAX_INT = 2**63
_SETTLED_NS = 10 * 10**9


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPosition:
    """The position of a run, which a manifest keeps next to the tensors.

    Attributes:
      step: Steps taken.
      records: Records read, over all workers, from the start of the run.
      global_batch_size: Records of one step.
      learning_rate: Peak learning rate in effect, scaled by the workers already.
      seed: Decides order and dropout.
      num_records: Records of the training set.
      loss_scale: Of float16; None without one.
      num_finite_steps: Steps since the loss scale was last changed.
      data_sha256: Of the training set; None in manifests of earlier versions.
      is_packed: Whether its records are packed; None if it has none, or in manifests
        of earlier versions.
      config: The settings of the run.
      fingerprint: What a resumed run must have too, see `jobs.run.fingerprint`; None in
        manifests of earlier versions.
      elapsed_seconds: Spent by a training that has a time; None without one.

    Raises:
      ValueError: if a value is of another type, or out of its range.
    """

    step: int
    records: int
    global_batch_size: int
    learning_rate: float
    seed: int
    num_records: int
    loss_scale: float | None = None
    num_finite_steps: int = 0
    data_sha256: str | None = None
    is_packed: bool | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    fingerprint: dict[str, Any] | None = None
    elapsed_seconds: float | None = None

    def __post_init__(self) -> None:
        """Checks what was read from a file, which anybody may have edited."""
        for name in ("step", "records", "num_records", "num_finite_steps"):
            self._require(name, int, at_least=0)
        self._require("global_batch_size", int, at_least=1)
        self._require("seed", int, at_least=0)
        self._require("learning_rate", float, at_least=0)
        self._require("loss_scale", float, at_least=0, may_lack=True)
        self._require("data_sha256", str, may_lack=True)
        self._require("is_packed", bool, may_lack=True)
        self._require("config", dict)
        self._require("fingerprint", dict, may_lack=True)
        self._require("elapsed_seconds", float, at_least=0, may_lack=True)

    def _require(
        self,
        name: str,
        kind: type,
        *,
        at_least: float | None = None,
        may_lack: bool = False,
    ) -> None:
        value = getattr(self, name)
        if value is None and may_lack:
            return
        kinds = (int, float) if kind is float else (kind,)
        is_right = type(value) in kinds
        if is_right and at_least is not None:
            is_right = at_least <= value < _MAX_INT and math.isfinite(value)
        if not is_right:
            limit = "" if at_least is None else f" of at least {at_least}"
            raise ValueError(
                f"{name} must be {kind.__name__}{limit}. Received: {name}={value!r}"
            )


def manifest_text(position: RunPosition, files: Mapping[str, str]) -> str:
    """The content of a manifest.

    Args:
      position: That of the run.
      files: Name of each tensor file -> its sha256.
    """
    values = {"sha256": "", "format": FORMAT_VERSION, **dataclasses.asdict(position)}
    text = json.dumps(values | {"files": dict(files)}, indent=2) + "\n"
    checksum = _CHECKSUM.format(hashlib.sha256(text.encode()).hexdigest())
    return text.replace(_CHECKSUM.format(""), checksum, 1)


def read_manifest(prefix: str) -> RunPosition | None:
    """Reads a manifest, and checks that the checkpoint is whole.

    Args:
      prefix: The checkpoint, without .index.

    Returns:
      The position, or None if there is no manifest (a checkpoint of another program).

    Raises:
      RunError: if manifest or tensor files are damaged, or contradict each other.
    """
    if not os.path.lexists(f"{prefix}.json"):
        return None
    try:
        return verify(prefix)
    except ValueError as error:
        raise RunError(
            f"The checkpoint {prefix} is damaged: {error}. Restore the file, or pass "
            "another checkpoint."
        ) from error


def verify(prefix: str, *, hashes: bool = True) -> RunPosition:
    """Reads a manifest, and compares all that it says with the checkpoint's files.

    Args:
      prefix: The checkpoint, without .index.
      hashes: Whether to compare the sha256 of tensor files, too.

    Returns:
      The position.

    Raises:
      ValueError: if something is missing, damaged or contradicts itself.
    """
    path = f"{prefix}.json"
    try:
        _require_regular(path)
        position, files = _parse(path)
        _check_files(prefix, files, hashes=hashes)
        found = {position.step, step_of(prefix)}
        if match := _PREFIX.fullmatch(os.path.basename(prefix)):
            found.add(int(match[1]))
        if len(found) > 1:
            raise ValueError(
                f"name, manifest and tensor {STEP_NAME} must have one step. Received: "
                f"{', '.join(map(str, sorted(found)))}"
            )
    except OSError as error:
        raise ValueError(
            f"{error.filename}: {error.strerror}" if error.filename else str(error)
        ) from error
    return position


def _check_files(prefix: str, files: Mapping[str, str], *, hashes: bool) -> None:
    """Compares tensor files with those that the manifest lists."""
    folder, own = os.path.split(prefix)
    listed = os.listdir(folder or ".")
    tensor_file = re.compile(re.escape(own) + rf"\.{TENSOR_FILE}")
    there = set(filter(tensor_file.fullmatch, listed))
    expected = {own + INDEX, own + DATA}
    for what, names in {"it has": there, "its manifest lists": {*files}}.items():
        if names != expected:
            raise ValueError(
                f"its files must be {', '.join(sorted(expected))}; {what} "
                f"{', '.join(sorted(names)) or 'none'}"
            )
    for name, checksum in files.items():
        path = os.path.join(folder, name)
        _require_regular(path)
        if hashes and (found := _sha256(path)) != checksum:
            raise ValueError(
                f"{path} must have sha256 {checksum}, as the manifest states. "
                f"Received: {found}"
            )


def _sha256(path: str) -> str:
    """The sha256 of a file, computed once for each state of it.

    A file that was written in the last seconds may still change unnoticed: its times
    are those of the system's clock ticks.
    """
    state = os.stat(path)
    changed = max(state.st_mtime_ns, state.st_ctime_ns)
    if time.time_ns() - changed < _SETTLED_NS:
        return file_sha256(path)
    identity = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, changed)
    return _known_sha256(os.path.abspath(path), identity)


@functools.lru_cache(maxsize=16)
def _known_sha256(path: str, identity: tuple[int, ...]) -> str:
    return file_sha256(path)


def _require_regular(path: str) -> None:
    """Refuses what cannot be read, or would be waited for, as a pipe is."""
    if not os.path.isfile(path):
        is_there = os.path.lexists(path)
        raise ValueError(f"{path} is {'not a file' if is_there else 'missing'}")


def _parse(path: str) -> tuple[RunPosition, dict[str, str]]:
    """The position, and the sha256 of each file.

    Raises:
      ValueError: if the manifest is damaged.
      OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        # Not `parse_json`: folders may have names that are not UTF-8.
        values = json.loads(content)
        if not isinstance(values, dict):
            raise ValueError("it is no JSON object")
        version = values.pop("format", None)
        if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
            raise ValueError(f"it is of another format, {version!r}")
        if version > 1:
            _check_own_sha256(content.decode(), values.pop("sha256", None))
        files = values.pop("files", None)
        is_right = isinstance(files, dict) and len(files) > 0
        if not is_right or not all(isinstance(x, str) for x in files.values()):
            raise ValueError("`files` must be names with their sha256")
        fields = dataclasses.fields(RunPosition)
        names = {each.name: each.default is dataclasses.MISSING for each in fields}
        needed = {name for name, is_needed in names.items() if is_needed} - {"config"}
        if version > 1:
            needed.add("fingerprint")
        if wrong := sorted((needed - values.keys()) | (values.keys() - names.keys())):
            raise ValueError(f"these values are missing, or unknown: {wrong}")
        return RunPosition(**values), files
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a checkpoint manifest: {error}") from error


def _check_own_sha256(text: str, expected: object) -> None:
    """Compares the manifest with its own checksum, of the text without it."""
    plain = text.replace(_CHECKSUM.format(expected), _CHECKSUM.format(""), 1)
    if expected != hashlib.sha256(plain.encode()).hexdigest():
        raise ValueError("its own sha256 differs: it has been changed")


def step_of(prefix: str) -> int:
    """The step of a checkpoint, 0 if it does not have one.

    Raises:
      FileNotFoundError, ValueError: see `load_tf`.
    """
    found = load_tf(prefix, lambda shapes: {STEP_NAME} & shapes.keys())
    step = found.get(STEP_NAME, np.zeros((), np.int64))
    if step.shape or step.dtype.kind != "i":
        raise ValueError(f"{prefix} has a {STEP_NAME} that is not one whole number")
    return int(step)
