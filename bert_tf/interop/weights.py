"""Weights of a BERT from any file, and their way into the variables of a model."""

import dataclasses
import fnmatch
import os
from collections.abc import Collection, Mapping

import numpy as np
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.errors import RunError
from bert_tf.interop import huggingface, model_garden, names
from bert_tf.interop.fitting import fit
from bert_tf.interop.sources import Kind, Source, find_source
from bert_tf.interop.tf_files import load_tf
from bert_tf.interop.torch_files import load_torch


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a file, in google-research/bert's names and layout.

    Attributes:
      tensors: Name -> float32 values; kernels [I, O]. A tensor that has no name in
        google-research/bert's models keeps that of its file.
      config: The architecture that the file beside them describes, or None.
      vocab_file: The vocabulary beside them, or empty.
      source: Kind and path, for messages.
    """

    tensors: Mapping[str, np.ndarray]
    config: BertConfig | None
    vocab_file: str
    source: str


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of weights and variables.

    Attributes:
      newly_initialised: Variables that keep their initial values.
      unused: Tensors of the file that no variable takes.
      adapted: Sentences about tensors that were padded, cut or left out for their
        shape.
    """

    newly_initialised: tuple[str, ...]
    unused: tuple[str, ...]
    adapted: tuple[str, ...]

    def lines(self) -> list[str]:
        """What to tell the user; empty if every tensor went into its variable."""
        lines = list(self.adapted)
        if self.newly_initialised:
            lines.append(f"newly initialised: {names.listed(self.newly_initialised)}")
        if self.unused:
            lines.append(f"not used: {names.listed(self.unused)}")
        return lines


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads the weights of a BERT, whoever wrote them.

    TensorFlow checkpoints of google-research/bert, of this program and of Model Garden,
    safetensors and PyTorch files in the names of Hugging Face, NVIDIA and MLPerf. The
    state of optimizers is left out; nothing in the file is executed.

    Args:
      path: See `sources.find_source`.

    Returns:
      The weights.

    Raises:
      FileNotFoundError: if there are none.
      ValueError: if they are damaged, or not those of a BERT.
    """
    source = find_source(path)
    if source.kind is Kind.TENSORFLOW:
        tensors = _from_tensorflow(source.path)
    elif source.kind is Kind.SAFETENSORS:
        tensors = huggingface.load_safetensors(source.path, keeps_unknown=True)
    else:
        tensors = _from_torch(source.path)
    return Weights(
        tensors=tensors,
        config=read_config(source),
        vocab_file=source.vocab_file,
        source=f"{source.kind.value} {source.path}",
    )


def _from_tensorflow(prefix: str) -> dict[str, np.ndarray]:
    tensors = load_tf(prefix, _weight_names)
    if model_garden.is_model_garden(tensors):
        return model_garden.to_original_names(tensors)
    if not any(map(names.is_original, tensors)):
        found = names.listed(sorted(tensors)) or "none that could be weights"
        raise ValueError(f"{prefix} must hold tensors of a BERT. Received: {found}.")
    return {name: np.asarray(tensors[name], np.float32) for name in tensors}


def _weight_names(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The tensors that are neither counters nor the optimizer's.

    A counter has no dimension, and the optimizer's tensors are named after their
    variable: `bert/pooler/dense/kernel/adam_m`.
    """
    if model_garden.is_model_garden(shapes):
        return [name for name in shapes if model_garden.is_weight(name)]
    return [
        name
        for name, shape in shapes.items()
        if shape and name.rpartition("/")[0] not in shapes
    ]


def _from_torch(path: str) -> dict[str, np.ndarray]:
    tensors = load_torch(path)
    try:
        return huggingface.to_original_names(tensors, keeps_unknown=True)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_config(source: Source) -> BertConfig | None:
    """The architecture that lies beside weights, if one does."""
    path = source.config_file
    if not path:
        return None
    if os.path.basename(path) == "config.json":
        return huggingface.read_config(path)
    return BertConfig.from_json_file(path)


def assign_weights(
    weights: Weights,
    variables: Mapping[str, tf.Variable],
    *,
    new: Collection[str] = (),
) -> LoadReport:
    """Assigns weights to variables of the same names.

    Vocabularies that differ by padding to a multiple of 8 fit, and positions may grow:
    see `fitting.fit`.

    Args:
      weights: What to assign.
      variables: google-research/bert's name -> variable.
      new: Names, or patterns with * and ?, of variables that may keep their initial
        values, where the file has no tensor that fits them.

    Returns:
      What was not assigned, or not as it was in the file.

    Raises:
      RunError: listing names that are missing and shapes that differ; no variable is
        changed then.
    """
    fitted: dict[str, np.ndarray] = {}
    untouched, problems, notes = [], [], []
    for name, variable in variables.items():
        may_be_new = any(fnmatch.fnmatchcase(name, pattern) for pattern in new)
        shape = tuple(variable.shape)
        found = weights.tensors.get(name)
        result = None if found is None else fit(name, found, shape, variable.numpy)
        if result is not None:
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
        raise RunError(_misfit(weights.source, problems, unused))
    for name, values in fitted.items():
        variables[name].assign(values)
    return LoadReport(tuple(untouched), unused, tuple(notes))


def _misfit(source: str, problems: list[str], unused: tuple[str, ...]) -> str:
    message = f"{source} does not fit the model: {names.listed(problems, '; ')}."
    if unused:
        message += f" Tensors that nothing is called: {names.listed(unused)}."
    return f"{message} Check --bert_config_file or --preset, and what the model is for."
