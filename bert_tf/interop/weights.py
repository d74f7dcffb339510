"""Weights of a BERT from any file, and their way into the variables of a model."""

import collections
import dataclasses
import fnmatch
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from bert_tf.config import BertConfig
from bert_tf.errors import RunError, listed
from bert_tf.interop import huggingface, keras_hub, model_garden, tensor_names
from bert_tf.interop.huggingface import load_sharded
from bert_tf.interop.tensor_shapes import Fitted, fit, require_finite, require_float
from bert_tf.interop.torch_files import load_torch
from bert_tf.interop.weight_files import HUGGINGFACE_CONFIG, Kind, Source, find_source
from bert_tf.tf_checkpoint import load_tf
from bert_tf.training.manifest import AVERAGE

if TYPE_CHECKING:
    import tensorflow as tf

# State of the optimizer in every checkpoint of this program and google-research/bert.
# No line is logged about it: a run that starts from weights never takes it.
_OWN_SLOTS = ("adam_m", "adam_v")


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a file, in google-research/bert's names and layout.

    Attributes:
      tensors: Name -> float32 values; kernels [I, O]. A tensor that has no name in
        google-research/bert's models keeps that of its file.
      config: The architecture of the file next to them, or None.
      vocab_file: The vocabulary next to them, or empty.
      source: Kind and path, for messages.
      notes: Lines about what was guessed or left out in reading.
    """

    tensors: Mapping[str, np.ndarray]
    config: BertConfig | None
    vocab_file: str
    source: str
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """How weights and variables were matched.

    Attributes:
      newly_initialised: Variables that keep their initial values.
      unused: Tensors of the file that no variable takes.
      adapted: Lines about tensors that were padded, cut or left out because of their
        shape.
    """

    newly_initialised: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: tuple[str, ...]

    def lines(self) -> list[str]:
        """Lines for the log; empty if every tensor was assigned to its variable."""
        lines = list(self.adapted)
        if self.newly_initialised:
            lines.append(f"newly initialised: {listed(self.newly_initialised)}")
        if self.unused:
            lines.append(f"not used: {listed(self.unused)}")
        return lines


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads the weights of a BERT, whoever wrote them.

    TensorFlow checkpoints of google-research/bert, of this program and of Model Garden,
    safetensors and PyTorch files in the names of Hugging Face, NVIDIA and MLPerf. The
    state of optimizers is left out; nothing in the file is executed.

    Args:
      path: See `weight_files.find_source`.

    Returns:
      The weights.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if they are damaged, or not those of a BERT.
    """
    source = find_source(path)
    config = read_config(source)
    if source.kind is Kind.TENSORFLOW:
        tensors, notes = _from_tensorflow(source.path)
    elif source.kind is Kind.KERAS_HUB:
        layers = config.num_hidden_layers if config else 0
        tensors, notes = keras_hub.read_tensors(source.path, layers), []
        is_own = os.path.basename(source.config_file) != HUGGINGFACE_CONFIG
        if keras_hub.MASKED_LM in tensors and not is_own:
            notes = [keras_hub.HEAD_NOTE]
    else:
        tensors, notes = _from_huggingface(source)
    _check_layers(source, tensors, config)
    return Weights(
        tensors=tensors,
        config=config,
        vocab_file=source.vocab_file,
        source=describe(source),
        notes=(*source.notes, *notes),
    )


def _from_tensorflow(prefix: str) -> tuple[dict[str, np.ndarray], list[str]]:
    notes: list[str] = []
    tensors = load_tf(prefix, lambda shapes: averages_or_weights(shapes, notes))
    tensors = {name.removesuffix(AVERAGE): t for name, t in tensors.items()}
    if model_garden.is_model_garden(tensors):
        return model_garden.to_original_names(tensors), notes
    try:
        renamed, more = _without_wrapper(tensors)
    except ValueError as error:
        raise ValueError(f"{prefix}: {error}") from error
    usual = {tensor_names.usual_scopes(name): name for name in renamed}
    if len(usual) < len(renamed):
        raise ValueError(f"{prefix} has two layer normalisations in one scope.")
    if not any(map(tensor_names.is_original, usual)):
        found = listed(sorted(tensors)) or "none that could be weights"
        raise ValueError(f"{prefix} must hold tensors of a BERT. Received: {found}.")
    for name, theirs in usual.items():
        if tensor_names.is_original(name):
            require_float(f"{prefix}: {theirs}", renamed[theirs])
    floats = {n: np.asarray(renamed[theirs], np.float32) for n, theirs in usual.items()}
    return floats, notes + more


def averages_or_weights(
    shapes: Mapping[str, tuple[int, ...]], notes: list[str]
) -> list[str]:
    """The weights, or their moving averages where each of them has one."""
    others = {name: s for name, s in shapes.items() if not name.endswith(AVERAGE)}
    averages = [name + AVERAGE for name in weight_names(others, [])]
    if not averages or not shapes.keys() >= {*averages}:
        return weight_names(shapes, notes)
    weight_names(others, notes)
    notes.append("its moving averages (--ema_decay) are used as the weights")
    return averages


def _without_wrapper(
    tensors: Mapping[str, np.ndarray],
) -> tuple[Mapping[str, np.ndarray], list[str]]:
    """The tensors without the prefix of all names of the BERT, and a line about it."""
    wrapper = tensor_names.wrapper_of(tensors)
    if not wrapper:
        return tensors, []
    renamed = {name.removeprefix(wrapper): t for name, t in tensors.items()}
    if len(renamed) < len(tensors):
        raise ValueError(f"it has tensors both with and without {wrapper!r}.")
    return renamed, [f"its names begin with {wrapper}, which is left out"]


def weight_names(shapes: Mapping[str, tuple[int, ...]], notes: list[str]) -> list[str]:
    """The tensors that are neither counters nor the optimizer's.

    A counter has no dimension, and the optimizer's tensors are named after their
    variable: `bert/pooler/dense/kernel/adam_m`. Other slots are noted.
    """
    if model_garden.is_model_garden(shapes):
        return [name for name in shapes if model_garden.is_weight(name)]
    chosen, left_out = [], collections.Counter()
    for name, shape in shapes.items():
        if slot := _slot(name, shapes):
            left_out[slot] += slot not in _OWN_SLOTS
        elif shape:
            chosen.append(name)
    if left_out := +left_out:
        slots = ", ".join(f"{number} x {slot}" for slot, number in left_out.items())
        notes.append(f"state of its training, not used: {slots}")
    return chosen


def _slot(name: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The slot of a variable that a tensor is, such as adam_m; empty if it is none."""
    variable, _, slot = name.rpartition("/")
    while variable:
        if variable in shapes:
            return slot
        variable, _, part = variable.rpartition("/")
        slot = f"{part}/{slot}"
    return ""


def _from_huggingface(source: Source) -> tuple[dict[str, np.ndarray], list[str]]:
    is_safetensors = source.kind is Kind.SAFETENSORS
    load = huggingface.read_safetensors if is_safetensors else load_torch
    is_sharded = source.path.endswith(huggingface.SHARD_INDEX)
    tensors = load_sharded(source.path, load) if is_sharded else load(source.path)
    try:
        tensors, notes = _without_wrapper(tensors)
        return huggingface.to_original_names(tensors), notes
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error


def _check_layers(
    source: Source, tensors: Mapping[str, np.ndarray], config: BertConfig | None
) -> None:
    """Refuses a config that would make a model of a part of the layers."""
    found = tensor_names.num_layers(tensors)
    if config and found > config.num_hidden_layers:
        raise ValueError(
            f"{source.path} has {found} layers, but {source.config_file} next to "
            f"it has num_hidden_layers={config.num_hidden_layers}: it belongs to other "
            "weights. Put the right one there."
        )


def read_config(source: Source) -> BertConfig | None:
    """The architecture in a file next to the weights; None without one."""
    path = source.config_file
    if not path:
        return None
    if os.path.basename(path) == HUGGINGFACE_CONFIG:
        if source.kind is Kind.KERAS_HUB:
            return keras_hub.read_config(path)
        return huggingface.read_config(path)
    return BertConfig.from_json_file(path)


def describe(source: Source) -> str:
    """Kind and path of weights, for messages."""
    return f"{source.kind.value} {source.path}"


def require_config(
    config: BertConfig | None, source: str, remedy: str = ""
) -> BertConfig:
    """The architecture of weights.

    Args:
      config: The result of `read_config`.
      source: The weights, for messages.
      remedy: What else the user may do where there is none, a sentence; optional.

    Raises:
      RunError: if there is none.
    """
    if config is None:
        message = (
            f"There is no bert_config.json or config.json next to the {source}. Put "
            "that of the model there."
        )
        raise RunError(f"{message} {remedy}".rstrip())
    return config


def assign_weights(
    weights: Weights,
    variables: "Mapping[str, tf.Variable]",
    *,
    new: Collection[str] = (),
    exact: bool = False,
    advice: str = "Check --bert_config_file or --preset, and what the model is for.",
) -> LoadReport:
    """Assigns weights to variables of the same names.

    Vocabularies that differ by padding to a multiple of 8 fit, and positions may grow,
    unless `exact`: see `tensor_shapes.fit`.

    Args:
      weights: What to assign.
      variables: google-research/bert's name -> variable.
      new: Names, or patterns with * and ?, of variables that may keep their initial
        values, where the file has no tensor that fits them.
      exact: Whether all shapes must be equal, as those of a resumed run are.
      advice: What to do if they do not fit.

    Returns:
      What was not assigned, or not as it was in the file.

    Raises:
      ValueError: if a value is not a finite number.
      RunError: listing names that are missing and shapes that differ; no variable is
        changed in either case.
    """
    fitted: dict[str, np.ndarray] = {}
    untouched, problems, notes = [], [], list(weights.notes)
    for name, variable in variables.items():
        may_be_new = any(fnmatch.fnmatchcase(name, pattern) for pattern in new)
        shape = tuple(variable.shape)
        found = weights.tensors.get(name)
        result = None
        if found is not None and exact:
            result = Fitted(found) if found.shape == shape else None
        elif found is not None:
            result = fit(name, found, shape, variable.numpy)
        if result is not None:
            require_finite(name, result.values, weights.source)
            fitted[name] = result.values
            notes += [result.note] if result.note else []
        elif may_be_new:
            untouched.append(name)
            if found is not None:
                notes.append(f"{name}: {found.shape} in the file is not {shape}")
        elif found is None:
            problems.append(f"{name} {shape} is missing")
        else:
            problems.append(f"{name} must have shape {shape}, found {found.shape}")
    unused = tuple(sorted(weights.tensors.keys() - variables.keys()))
    if problems:
        raise RunError(_misfit(weights.source, problems, unused, advice))
    for name, values in fitted.items():
        variables[name].assign(values)
    have, want = (
        tensor_names.num_layers(weights.tensors),
        tensor_names.num_layers(variables),
    )
    if want and have > want:
        notes.append(
            f"warning: it has {have} layers, of which the model has the first {want}"
        )
        layers = tuple(f"bert/encoder/layer_{n}/" for n in range(want, have))
        unused = tuple(name for name in unused if not name.startswith(layers))
    return LoadReport(tuple(untouched), unused, tuple(notes))


def _misfit(
    source: str, problems: list[str], unused: tuple[str, ...], advice: str
) -> str:
    message = f"{source} does not fit the model: {listed(problems, '; ', most=8)}. "
    message += advice
    if unused:
        message += f" Tensors that the model does not use: {listed(unused, most=8)}."
    return message
