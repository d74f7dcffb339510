"""Hugging Face's files of a BERT, read without running code from them."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import ml_dtypes  # noqa: F401  # Gives NumPy bfloat16, which files may hold.
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bert_tf.config import BertConfig
from bert_tf.interop import names

# What a BertConfig cannot say, and the value at which it makes no difference.
_NEUTRAL_VALUES = {
    "model_type": "bert",
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": {},
}


def bert_config_from_huggingface(values: Mapping[str, Any]) -> BertConfig:
    """Makes a config from the keys of a Hugging Face `config.json`.

    The keys that both know have the same meaning; `hidden_act` "gelu" is the error
    function in both. What only their trainer and tokenizer use is passed over.

    Args:
      values: Key -> value, as in the file.

    Returns:
      The architecture.

    Raises:
      ValueError: if the file describes something else than BERT's encoder.
    """
    for key, neutral in _NEUTRAL_VALUES.items():
        if values.get(key, neutral) != neutral:
            raise ValueError(
                f"`{key}` must be {neutral!r}: the model is BERT's encoder. "
                f"Received: {key}={values[key]!r}."
            )
    known = {field.name for field in dataclasses.fields(BertConfig)}
    return BertConfig(**{key: values[key] for key in values.keys() & known})


def to_original_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames tensors and lays out kernels as google-research/bert does.

    Args:
      tensors: Hugging Face's name -> values, of any float type.

    Returns:
      google-research/bert's name -> values, float32.

    Raises:
      ValueError: if a tensor is unknown, or a tied one is there twice and differs.
    """
    kept = {name: t for name, t in tensors.items() if not names.is_ignored(name)}
    unknown = [name for name in kept if names.from_huggingface(name) is None]
    if unknown:
        raise ValueError(
            "Every tensor must belong to a BERT with the heads of pre-training. "
            f"Received unknown tensors: {', '.join(sorted(unknown))}."
        )
    renamed: dict[str, np.ndarray] = {}
    for theirs, values in kept.items():
        name, is_transposed = names.from_huggingface(theirs)
        values = np.ascontiguousarray(values.T if is_transposed else values, np.float32)
        if name in renamed and not np.array_equal(renamed[name], values):
            raise ValueError(
                f"{theirs} must equal the other tensor that is {name}: the model has "
                "one for both. Received: two different ones."
            )
        renamed[name] = values
    return renamed


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the weights of a BERT from a `.safetensors` file.

    Args:
      path: The file.

    Returns:
      google-research/bert's name -> values, float32; kernels [I, O].

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if it is not a safetensors file, or see `to_original_names`.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"`path` must be a file. Received: path={path}.")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} must be a whole safetensors file: {error}. Fetch it again."
        ) from error
    try:
        return to_original_names(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
