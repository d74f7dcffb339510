"""Hugging Face's files of a BERT: configs, tensor names, safetensors, shards."""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes  # noqa: F401  # Gives NumPy bfloat16, which files may hold.
import numpy as np
from safetensors import SafetensorError, safe_open

from bert_tf.config import BertConfig
from bert_tf.errors import listed
from bert_tf.files import placeholder
from bert_tf.interop import tensor_names
from bert_tf.interop.tensor_shapes import require_float
from bert_tf.json_files import read_json_object

# Keys that a BertConfig does not have, with the value that BERT has.
_NEUTRAL_VALUES = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}
SHARD_INDEX = ".index.json"
_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)$")
_TYPES = frozenset("F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL".split())


def bert_config_from_huggingface(values: Mapping[str, Any]) -> BertConfig:
    """Makes a config from the keys of a Hugging Face `config.json`.

    Keys that both have mean the same; `hidden_act` "gelu" uses the error function in
    both. Keys of their trainer and tokenizer are ignored.

    Args:
      values: Key -> value, as in the file.

    Returns:
      The architecture.

    Raises:
      ValueError: if the file describes another model than BERT's encoder.
    """
    for key, neutral in _NEUTRAL_VALUES.items():
        if values.get(key, neutral) != neutral:
            raise ValueError(
                f"`{key}` must be {neutral!r}: the model is BERT's encoder. "
                f"Received: {key}={values[key]!r}."
            )
    known = {field.name for field in dataclasses.fields(BertConfig)}
    return BertConfig(**{key: values[key] for key in values.keys() & known})


def read_config(path: str | os.PathLike[str]) -> BertConfig:
    """Reads a Hugging Face `config.json`.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not JSON, or see `bert_config_from_huggingface`.
    """
    values = read_json_object(path)
    try:
        return bert_config_from_huggingface(values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def to_original_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames tensors and lays out kernels as google-research/bert does.

    Args:
      tensors: Hugging Face's name -> values, of any float type.

    Returns:
      google-research/bert's name -> values, float32; then tensors of other models, as
      they are.

    Raises:
      ValueError: if no tensor is known, or the copies of a tied one differ.
    """
    kept = {name: t for name, t in tensors.items() if not tensor_names.is_ignored(name)}
    unknown = {
        n: kept.pop(n) for n in list(kept) if tensor_names.from_huggingface(n) is None
    }
    if unknown and not kept:
        raise ValueError(
            "Tensors must belong to a BERT with the heads of pre-training, "
            "classification or questions. Received unknown tensors: "
            f"{listed(sorted(unknown))}. Use the weights of such a model."
        )
    renamed: dict[str, np.ndarray] = {}
    for theirs, values in kept.items():
        name, is_transposed = tensor_names.from_huggingface(theirs)
        require_float(theirs, values)
        values = np.ascontiguousarray(values.T if is_transposed else values, np.float32)
        if name in renamed and not np.array_equal(renamed[name], values):
            raise ValueError(
                f"{theirs} must equal the tensor that it is tied to: both are {name} "
                "of this model. Received: different values. Use weights that are tied."
            )
        renamed[name] = values
    return renamed | unknown


def to_huggingface_names(
    tensors: Mapping[str, np.ndarray], *, with_tied: bool = False
) -> dict[str, np.ndarray]:
    """Renames tensors and lays out kernels as Hugging Face does.

    Args:
      tensors: google-research/bert's name -> values; kernels [I, O].
      with_tied: Whether to add the decoder's weight, which is the word table, as in a
        PyTorch model's `state_dict`.

    Returns:
      Hugging Face's name -> values; kernels [O, I]. Names of the encoder have the
      prefix `bert.` where the model has a head.

    Raises:
      ValueError: if a tensor belongs to no BERT.
    """
    prefix = "bert." if all(map(tensor_names.is_encoder, tensors)) else ""
    renamed = {}
    for name, values in tensors.items():
        theirs = tensor_names.to_huggingface(name)
        is_transposed = tensor_names.from_huggingface(theirs).is_transposed
        theirs = theirs.removeprefix(prefix)
        renamed[theirs] = np.ascontiguousarray(values.T if is_transposed else values)
    if with_tied and "cls.predictions.bias" in renamed:
        table = renamed["bert.embeddings.word_embeddings.weight"]
        renamed["cls.predictions.decoder.weight"] = table
    return renamed


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a `.safetensors` file as they are.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a safetensors file, or has tensors of another type.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            _check_types(path, {name: file.get_slice(name) for name in file.keys()})
            return {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        reason = f"it is {found}" if (found := placeholder(path)) else error
        raise ValueError(
            f"{path} must be a whole safetensors file: {reason}. Fetch it again."
        ) from error


def _check_types(path: str | os.PathLike[str], slices: Mapping[str, Any]) -> None:
    """Refuses tensors that NumPy does not know, or that are no real numbers."""
    for name, found in slices.items():
        if found.get_dtype() not in _TYPES:
            raise ValueError(
                f"{path}: {name} must be of a type among {', '.join(sorted(_TYPES))}. "
                f"Received: {found.get_dtype()}. Save the weights as F32."
            )


def index_of_part(path: str) -> str:
    """The path of a shard's index; empty if the file is not a shard."""
    found = _PART.match(path)
    return f"{found[1]}{found[3]}{SHARD_INDEX}" if found and int(found[2]) > 1 else ""


def load_sharded(
    path: str, load: Callable[[str], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Reads the tensors of all files that an index names.

    Args:
      path: The index: `model.safetensors.index.json`, `pytorch_model.bin.index.json`.
      load: Reads one file.

    Returns:
      Name -> values, as in the files.

    Raises:
      FileNotFoundError: naming the files that are missing.
      ValueError: if the index is damaged, names files elsewhere, or does not match the
        content of its files.
    """
    files = _read_index(path)
    folder = os.path.dirname(path)
    parts = sorted(set(files.values()))
    absent = [part for part in parts if not os.path.isfile(os.path.join(folder, part))]
    if absent:
        raise FileNotFoundError(
            f"{path} names {len(parts)} files, of which these are missing: "
            f"{', '.join(absent)}. Fetch all of them."
        )
    tensors: dict[str, np.ndarray] = {}
    for part in parts:
        found = load(os.path.join(folder, part))
        expected = {name for name, file in files.items() if file == part}
        if found.keys() != expected:
            name = sorted(found.keys() ^ expected)[0]
            raise ValueError(
                f"{path} and {part} do not belong together: only one of them has "
                f"{name}. Fetch both again."
            )
        tensors |= found
    return {name: tensors[name] for name in files}


def _read_index(path: str) -> dict[str, str]:
    """Tensor -> file, which is in the index's own folder."""
    values = read_json_object(path)
    try:
        files = values.get("weight_map")
        if not isinstance(files, dict) or not files:
            raise ValueError("it has no `weight_map`")
        for file in files.values():
            if not isinstance(file, str) or os.path.basename(file) != file:
                raise ValueError(f"it names {file!r}, which is not a file next to it")
    except ValueError as error:
        raise ValueError(
            f"{path} is not an index of weights: {error}. Fetch it again."
        ) from error
    return files
