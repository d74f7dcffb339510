"""What a path is: which of the files of BERTs, and what lies beside it."""

import enum
import os
import re
from typing import NamedTuple

from bert_tf.interop.tf_files import INDEX


class Kind(enum.Enum):
    """Forms of weights; the value is what messages call them."""

    TENSORFLOW = "TensorFlow checkpoint"
    SAFETENSORS = "safetensors file"
    TORCH = "PyTorch file"


class Source(NamedTuple):
    """Weights and what belongs to them.

    Attributes:
      kind: Their form.
      path: The file, or a TensorFlow checkpoint without `.index`.
      config_file: The description of the architecture beside it, or empty.
      vocab_file: The vocabulary beside it, or empty.
    """

    kind: Kind
    path: str
    config_file: str
    vocab_file: str


ORIGINAL_CONFIG = "bert_config.json"
HUGGINGFACE_CONFIG = "config.json"
VOCABULARY = "vocab.txt"
SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"

_KINDS = {
    ".safetensors": Kind.SAFETENSORS,
    ".bin": Kind.TORCH,
    ".pt": Kind.TORCH,
    ".pth": Kind.TORCH,
}
_CODE = "can hold code, and is not read: save the weights as model.safetensors"
_ARCHIVE = "is an archive: unpack it, and name what is in it"
_REFUSED = {
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb", ".pkl", ".pickle"), _CODE),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"), _ARCHIVE),
}
_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")
_STEP = re.compile(r"ckpt-(\d+)\.index$")
_LATEST = re.compile(r'^model_checkpoint_path: "([^"\n]+)"', re.MULTILINE)
_MAX_STATE_BYTES = 1 << 20


def find_source(path: str | os.PathLike[str]) -> Source:
    """Finds out what a path is.

    Args:
      path: A file; a TensorFlow checkpoint, with its ending or without; or a folder
        with `model.safetensors`, `pytorch_model.bin`, or checkpoints, of which the one
        counts that the file `checkpoint` names, or else the one with the most steps.

    Returns:
      The weights' file and its neighbours.

    Raises:
      FileNotFoundError: if there is nothing, or no weights.
      ValueError: if it is a file of a kind that is not read.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        kind, path = _in_folder(path)
        return _with_neighbours(kind, path)
    prefix = _SHARD.sub("", path.removesuffix(INDEX))
    if os.path.isfile(prefix + INDEX):
        return _with_neighbours(Kind.TENSORFLOW, prefix)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"There are no weights at {path}. Name a folder, a .safetensors, .bin or "
            ".pt file, or a checkpoint without its ending, such as "
            "/dir/bert_model.ckpt."
        )
    ending = os.path.splitext(path)[1].lower()
    if ending not in _KINDS:
        reason = _REFUSED.get(ending, "is of no kind that is known to hold weights")
        raise ValueError(
            f"{path} must be a .safetensors, .bin or .pt file, or a checkpoint of "
            f"TensorFlow. Received: a file that {reason}."
        )
    return _with_neighbours(_KINDS[ending], path)


def folder_of(path: str) -> str:
    """The folder that a file is in, never empty."""
    return os.path.dirname(path) or "."


def _in_folder(folder: str) -> tuple[Kind, str]:
    for name, kind in ((SAFETENSORS, Kind.SAFETENSORS), (TORCH, Kind.TORCH)):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return kind, path
    name = _named_checkpoint(folder) or _newest_checkpoint(folder)
    if not name:
        raise FileNotFoundError(
            f"The folder {folder} holds no weights: neither {SAFETENSORS}, {TORCH} nor "
            f"a checkpoint such as bert_model.ckpt{INDEX}. Fetch them, or name the "
            "file."
        )
    return Kind.TENSORFLOW, os.path.join(folder, name)


def _named_checkpoint(folder: str) -> str:
    """What the file `checkpoint` names, if it is there; folders in it do not count."""
    state = os.path.join(folder, "checkpoint")
    if not os.path.isfile(state):
        return ""
    with open(state, encoding="utf-8", errors="replace") as file:
        found = _LATEST.search(file.read(_MAX_STATE_BYTES))
    name = os.path.basename(found[1]) if found else ""
    return name if name and os.path.isfile(os.path.join(folder, name + INDEX)) else ""


def _newest_checkpoint(folder: str) -> str:
    """The checkpoint with the highest number; one without a number comes last."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(INDEX))
    steps = {name: _STEP.search(name) for name in files}
    newest = max(files, key=lambda f: int(steps[f][1]) if steps[f] else -1, default="")
    return newest.removesuffix(INDEX)


def _with_neighbours(kind: Kind, path: str) -> Source:
    folder = os.path.dirname(path)
    configs = [HUGGINGFACE_CONFIG, ORIGINAL_CONFIG]
    if kind is Kind.TENSORFLOW:
        configs.reverse()
    paths = [os.path.join(folder, name) for name in (*configs, VOCABULARY)]
    *configs, vocabulary = [file if os.path.isfile(file) else "" for file in paths]
    return Source(kind, path, configs[0] or configs[1], vocabulary)
