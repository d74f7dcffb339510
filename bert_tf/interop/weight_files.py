"""Finds the weights at a path, and the config and vocabulary next to them."""

import enum
import glob
import os
import re
from typing import NamedTuple

from bert_tf.data.text.tokenizer_settings import TOKENIZER_FILE
from bert_tf.data.text.vocabulary import has_wordpiece
from bert_tf.errors import similar_path
from bert_tf.interop import huggingface, keras_hub
from bert_tf.interop.hub import local_folder
from bert_tf.interop.torch_files import is_torch
from bert_tf.tf_checkpoint import INDEX


class Kind(enum.Enum):
    """Forms of weights; the value is the name in messages."""

    TENSORFLOW = "TensorFlow checkpoint"
    SAFETENSORS = "safetensors file"
    TORCH = "PyTorch file"
    KERAS_HUB = "keras-hub preset"


class Source(NamedTuple):
    """Weights and the files next to them.

    Attributes:
      kind: Their form.
      path: The file, or a TensorFlow checkpoint without `.index`.
      config_file: The architecture in a file next to it, or empty.
      vocab_file: The vocabulary next to it, vocab.txt or tokenizer.json; or empty.
      notes: Remarks for the user: which of several files of a folder was chosen.
    """

    kind: Kind
    path: str
    config_file: str
    vocab_file: str
    notes: tuple[str, ...] = ()


ORIGINAL_CONFIG = "bert_config.json"
HUGGINGFACE_CONFIG = "config.json"
VOCABULARY = "vocab.txt"
NO_VOCABULARY = f"neither {VOCABULARY} nor {TOKENIZER_FILE} of WordPiece"
SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"

# Of a run that evaluates and keeps its best weights.
BEST_DIR = "best"
BEST_NOTE = "best.json"

_KINDS = {
    ".safetensors": Kind.SAFETENSORS,
    ".bin": Kind.TORCH,
    ".pt": Kind.TORCH,
    ".pth": Kind.TORCH,
    ".ckpt": Kind.TORCH,  # PyTorch trainers write it; TensorFlow's have an index.
    keras_hub.WEIGHTS: Kind.KERAS_HUB,
    f".safetensors{huggingface.SHARD_INDEX}": Kind.SAFETENSORS,
    f".bin{huggingface.SHARD_INDEX}": Kind.TORCH,
}
_FILES = (
    SAFETENSORS,
    f"{SAFETENSORS}{huggingface.SHARD_INDEX}",
    TORCH,
    f"{TORCH}{huggingface.SHARD_INDEX}",
    keras_hub.WEIGHTS,
)
_CODE = "can contain code and is not read: save the weights as model.safetensors"
_ARCHIVE = "is an archive: unpack it, and pass a file in it"
_REFUSED = {
    **dict.fromkeys((".h5", ".hdf5", ".keras", ".pb", ".pkl", ".pickle"), _CODE),
    **dict.fromkeys((".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz"), _ARCHIVE),
}
_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")
_STEP = re.compile(r"ckpt-(\d+)\.index$")
_LATEST = re.compile(r'^model_checkpoint_path: "([^"\n]+)"', re.MULTILINE)
_MAX_STATE_BYTES = 1 << 20
_STATE = "checkpoint"


def find_source(path: str | os.PathLike[str]) -> Source:
    """Finds the weights at a path.

    Args:
      path: hf://owner/name of the hub, which is fetched; a file; a TensorFlow
        checkpoint, with its ending or without; or a folder with `model.safetensors`,
        `pytorch_model.bin`, the index of shards of either, a preset of keras-hub, or
        checkpoints: the one that the file `checkpoint` names, or else the one with the
        most steps.

    Returns:
      The weights' file and its neighbours.

    Raises:
      FileNotFoundError: if there is nothing, or no weights.
      ValueError: if it is a file of a kind that is not read.
    """
    path = local_folder(os.fspath(path))
    if os.path.basename(path) == _STATE and os.path.isfile(path):
        path = folder_of(path)
    if os.path.isdir(path):
        kind, path, notes = _in_folder(path)
        return _with_neighbours(kind, path, notes)
    prefix = _SHARD.sub("", path.removesuffix(INDEX)).removesuffix(".meta")
    if os.path.isfile(prefix + INDEX):
        return _with_neighbours(Kind.TENSORFLOW, prefix)
    if not os.path.isfile(path) or path != prefix:
        reason = _broken_link(path)
        data = glob.glob(f"{glob.escape(prefix)}.data-*")
        if data:
            reason = f" There is {data[0]}, but no {prefix}{INDEX}: fetch it too."
        elif not reason:
            reason = f" There is no such file or folder. {similar_path(path, INDEX)}"
            reason = reason.rstrip()
        raise FileNotFoundError(
            f"There are no weights at {path}.{reason} Pass a folder, a .safetensors, "
            ".bin or .pt file, or a checkpoint without its ending, such as "
            "/dir/bert_model.ckpt."
        )
    index = huggingface.index_of_part(path)
    if index:
        raise ValueError(
            f"{path} is one of several files of a model. Pass the folder, or {index}, "
            "which lists their tensors."
        )
    if path.endswith(".ckpt") and not is_torch(path):
        raise ValueError(
            f"{path} is not a PyTorch file, and a TensorFlow checkpoint consists of "
            f"{path}.index and {path}.data-00000-of-00001. Fetch those files."
        )
    kind = next((kind for end, kind in _KINDS.items() if path.lower().endswith(end)), 0)
    if not kind:
        ending = os.path.splitext(path)[1].lower()
        reason = _REFUSED.get(ending, "is of an unknown kind")
        raise ValueError(
            f"{path} must be a .safetensors, .bin or .pt file, or a checkpoint of "
            f"TensorFlow. Received: a file that {reason}."
        )
    return _with_neighbours(kind, path)


def folder_of(path: str) -> str:
    """The folder that a file is in, never empty."""
    return os.path.dirname(path) or "."


def _broken_link(path: str) -> str:
    if os.path.islink(path) and not os.path.exists(path):
        return f" {path} is a link to {os.readlink(path)}, which does not exist."
    return ""


def _in_folder(folder: str) -> tuple[Kind, str, tuple[str, ...]]:
    """The weights of a folder: form, path, and notes about the choice."""
    there = [name for name in _FILES if os.path.isfile(os.path.join(folder, name))]
    named, newest = _named_checkpoint(folder), _newest_checkpoint(folder)
    if there:
        kind = Kind.SAFETENSORS if SAFETENSORS in there[0] else Kind.TORCH
        kind = Kind.KERAS_HUB if there[0] == keras_hub.WEIGHTS else kind
        others = [*there[1:], *([newest] if newest else [])]
        note = f"{', '.join(others)} next to it: not read"
        return kind, os.path.join(folder, there[0]), (note,) if others else ()
    if named and os.path.isfile(os.path.join(folder, named + INDEX)):
        return (
            Kind.TENSORFLOW,
            os.path.join(folder, named),
            _note_on_best(folder, named),
        )
    if not newest:
        links = "".join(_broken_link(os.path.join(folder, name)) for name in _FILES)
        names = sorted(os.listdir(folder))
        found = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
        raise FileNotFoundError(
            f"The folder {folder} holds no weights: neither {', '.join(_FILES)} nor a "
            f"checkpoint such as bert_model.ckpt{INDEX}.{links} Fetch them, or pass "
            f"the file. Received: {found or 'an empty folder'}."
        )
    notes = ()
    if named:
        notes = (f"the file {_STATE} names {named}, which does not exist",)
    elif sum(name.endswith(INDEX) for name in os.listdir(folder)) > 1:
        notes = (
            f"there is no file {_STATE}: this is the checkpoint with the most steps",
        )
    return Kind.TENSORFLOW, os.path.join(folder, newest), notes


def _note_on_best(folder: str, chosen: str) -> tuple[str, ...]:
    """A note if the evaluations of a run have kept other weights as the best ones."""
    best = os.path.join(folder, BEST_DIR)
    kept = _named_checkpoint(best)
    if kept in ("", chosen) or not os.path.isfile(os.path.join(best, BEST_NOTE)):
        return ()
    return (
        f"{chosen} is the newest checkpoint. {best} holds {kept}, which has the best "
        "evaluation of the run: pass that folder to use it",
    )


def _named_checkpoint(folder: str) -> str:
    """The checkpoint that the file `checkpoint` names, without its folder; or empty."""
    state = os.path.join(folder, _STATE)
    if not os.path.isfile(state):
        return ""
    with open(state, encoding="utf-8", errors="replace") as file:
        found = _LATEST.search(file.read(_MAX_STATE_BYTES))
    return os.path.basename(found[1]) if found else ""


def _newest_checkpoint(folder: str) -> str:
    """The checkpoint with the highest number; one without a number comes last."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(INDEX))
    steps = {name: _STEP.search(name) for name in files}
    newest = max(files, key=lambda f: int(steps[f][1]) if steps[f] else -1, default="")
    return newest.removesuffix(INDEX)


def _with_neighbours(kind: Kind, path: str, notes: tuple[str, ...] = ()) -> Source:
    folder = os.path.dirname(path)
    configs = [HUGGINGFACE_CONFIG, ORIGINAL_CONFIG]
    if kind in (Kind.TENSORFLOW, Kind.KERAS_HUB):
        configs.reverse()
    words = keras_hub.VOCABULARY if kind is Kind.KERAS_HUB else VOCABULARY
    paths = [os.path.join(folder, name) for name in (*configs, words)]
    *configs, vocabulary = [file if os.path.isfile(file) else "" for file in paths]
    if not vocabulary:  # transformers 5 writes tokenizer.json alone.
        tokenizer = os.path.join(folder, TOKENIZER_FILE)
        vocabulary = tokenizer if has_wordpiece(tokenizer) else ""
    return Source(kind, path, configs[0] or configs[1], vocabulary, notes)
