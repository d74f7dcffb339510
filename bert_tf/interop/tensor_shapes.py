"""Shapes of a BERT's tensors: which a config asks for, and which nearly fit."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from bert_tf.config import BertConfig
from bert_tf.data.text.vocabulary import is_padding
from bert_tf.errors import RunError, listed
from bert_tf.interop import tensor_names

_POOLER = "bert/pooler/dense/kernel"
_OF_VOCABULARY = ("bert/embeddings/word_embeddings", "cls/predictions/output_bias")
_POSITIONS = "bert/embeddings/position_embeddings"


class Fitted(NamedTuple):
    """A tensor of the expected shape.

    Attributes:
      values: The tensor.
      note: How it was adapted, or empty.
    """

    values: np.ndarray
    note: str = ""


def require_float(name: str, values: np.ndarray) -> None:
    """Refuses integers as weights: quantised files keep their scales elsewhere.

    Raises:
      ValueError: naming the tensor.
    """
    if np.issubdtype(values.dtype, np.integer) or values.dtype == np.bool_:
        raise ValueError(
            f"{name} must be of a floating type. Received: {values.dtype}, as in "
            "quantised models. Save the weights as float32, float16 or bfloat16."
        )


def require_finite(name: str, values: np.ndarray, source: str) -> None:
    """Refuses weights with NaN or infinity, as of a training that diverged.

    Raises:
      ValueError: naming the tensor.
    """
    count = values.size - np.count_nonzero(np.isfinite(values))
    if count:
        raise ValueError(
            f"{source}: {count} of the {values.size} values of {name} are not finite "
            "numbers: the training that wrote them diverged. Use an earlier checkpoint."
        )


def fit(
    name: str,
    values: np.ndarray,
    shape: tuple[int, ...],
    initial: Callable[[], np.ndarray] | None = None,
) -> Fitted | None:
    """Changes the number of a tensor's rows, where that has a meaning.

    A vocabulary is padded to a multiple of 8 or a higher power of 2 with rows of 0,
    which no text uses, or such padding is cut off. Positions that the file lacks keep
    their initial values.

    Args:
      name: The tensor, as google-research/bert names it.
      values: The tensor of the file, [R, ...].
      shape: The shape it should have.
      initial: Gives the initial values of that shape; without them positions do not
        grow.

    Returns:
      The tensor, or None if it does not fit.
    """
    if values.shape == shape:
        return Fitted(values)
    if not shape or values.ndim != len(shape) or values.shape[1:] != shape[1:]:
        return None
    have, want = values.shape[0], shape[0]
    if name in _OF_VOCABULARY and is_padding(want, have):
        padding = np.zeros((want - have, *shape[1:]), np.float32)
        return Fitted(
            np.concatenate([values, padding]),
            f"{name}: {have} rows padded to {want} with 0",
        )
    if name in _OF_VOCABULARY and is_padding(have, want):
        note = f"{name}: {have} rows cut to {want}, without padding"
        return Fitted(values[:want], note)
    if name == _POSITIONS and want > have and initial:
        return Fitted(
            np.concatenate([values, initial()[have:]]),
            f"{name}: {have} positions grown to {want}, the new ones untrained",
        )
    return None


def without_heads(name: str, values: np.ndarray) -> np.ndarray:
    """Attention without its axis of heads: [H, N, D] or [N, D, H] -> [H, H]."""
    if "/attention/self/" in name:
        rows = values.shape[:1] if name.endswith("/kernel") else ()
        return values.reshape(*rows, math.prod(values.shape[len(rows) :]))
    if name.endswith("/attention/output/dense/kernel") and values.ndim == 3:
        return values.reshape(math.prod(values.shape[:2]), values.shape[2])
    return values


def expected_shapes(
    config: BertConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]]:
    """Shapes of the encoder, and of those heads of which there is a tensor.

    Args:
      config: The architecture.
      tensors: google-research/bert's name -> values; of a head with any tensor, all are
        expected. The pooler, which models for questions lack, counts as a head.

    Returns:
      google-research/bert's name -> shape.
    """
    wide, narrow = config.intermediate_size, config.hidden_size
    shapes = {
        "bert/embeddings/word_embeddings": (config.vocab_size, narrow),
        "bert/embeddings/token_type_embeddings": (config.type_vocab_size, narrow),
        "bert/embeddings/position_embeddings": (config.max_position_embeddings, narrow),
        **_layer_norm("bert/embeddings", narrow),
    }
    for number in range(config.num_hidden_layers):
        layer = f"bert/encoder/layer_{number}"
        for part in ("query", "key", "value"):
            shapes |= _dense(f"{layer}/attention/self/{part}", narrow, narrow)
        shapes |= _dense(f"{layer}/attention/output/dense", narrow, narrow)
        shapes |= _layer_norm(f"{layer}/attention/output", narrow)
        shapes |= _dense(f"{layer}/intermediate/dense", narrow, wide)
        shapes |= _dense(f"{layer}/output/dense", wide, narrow)
        shapes |= _layer_norm(f"{layer}/output", narrow)
    for head in _heads(config, tensors):
        if any(name in tensors for name in head):
            shapes |= head
    return shapes


def _heads(
    config: BertConfig, tensors: Mapping[str, np.ndarray]
) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of each head."""
    width = config.hidden_size
    transform = "cls/predictions/transform"
    num_classes = np.size(tensors.get("output_bias", ()))
    return [
        _dense("bert/pooler/dense", width, width),
        {
            **_dense(f"{transform}/dense", width, width),
            **_layer_norm(transform, width),
            "cls/predictions/output_bias": (config.vocab_size,),
        },
        _classifier("cls/seq_relationship/", 2, width),
        _classifier("cls/squad/", 2, width),
        _classifier("", num_classes, width),
    ]


def _dense(scope: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{scope}/kernel": (inputs, outputs), f"{scope}/bias": (outputs,)}


def _layer_norm(scope: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{scope}/LayerNorm/{leaf}": (width,) for leaf in ("gamma", "beta")}


def _classifier(scope: str, classes: int, width: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{scope}output_weights": (classes, width),
        f"{scope}output_bias": (classes,),
    }


def require_plausible(
    config: BertConfig, tensors: Mapping[str, np.ndarray], source: str
) -> None:
    """Refuses a config that is far from the tensors, before memory is allocated for it.

    Args:
      config: The architecture.
      tensors: google-research/bert's name -> values.
      source: Where the tensors come from, for messages.

    Raises:
      RunError: if the width differs, or there are not so many layers.
    """
    table = tensors.get("bert/embeddings/word_embeddings")
    width = table.shape[-1] if table is not None and table.ndim else config.hidden_size
    if config.hidden_size != width or config.num_hidden_layers > len(tensors):
        raise RunError(
            f"{source} does not fit its config with hidden_size="
            f"{config.hidden_size}, num_hidden_layers={config.num_hidden_layers}. "
            f"Received: {len(tensors)} tensors, the word embeddings of width {width}. "
            "Use the config file that belongs to these weights."
        )


def conform(
    tensors: Mapping[str, np.ndarray], config: BertConfig, source: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors of a BERT with this config, without those of other models.

    Args:
      tensors: Name -> values, float32.
      config: The architecture; vocabularies may differ by padding.
      source: Where the tensors come from, for messages.

    Returns:
      google-research/bert's name -> values, in the order of the layers, and sentences
      about what was adapted, is missing, or was left out.

    Raises:
      ValueError: if a value is not a finite number.
      RunError: listing names that are missing and shapes that differ.
    """
    require_plausible(config, tensors, source)
    kept: dict[str, np.ndarray] = {}
    notes, problems = [], []
    for name, shape in expected_shapes(config, tensors).items():
        found = tensors.get(name)
        if found is None:
            problems.append(f"{name} {shape} is missing")
        elif (fitted := fit(name, found, shape)) is None:
            problems.append(f"{name} must have shape {shape}, found {found.shape}")
        else:
            require_finite(name, fitted.values, source)
            kept[name] = fitted.values
            notes += [fitted.note] if fitted.note else []
    if problems:
        raise RunError(
            f"{source} does not fit its config: "
            f"{listed(problems, '; ')}. Use the config file that belongs to these "
            "weights."
        )
    left_out = sorted(tensors.keys() - kept.keys())
    if (found := tensor_names.num_layers(tensors)) > config.num_hidden_layers:
        notes.append(
            f"warning: there are {found} layers, of which the first "
            f"{config.num_hidden_layers} are kept"
        )
    if left_out:
        notes.append(f"left out: {listed(left_out)}")
    if _POOLER not in kept:
        notes.append("no pooler in the file: fine-tuning that uses it must train it")
    return kept, notes
