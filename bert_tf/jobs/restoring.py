"""What a starting point says, loaded into model and optimizer."""

from collections.abc import Sequence
from typing import Any

import keras

from bert_tf.config import BertConfig
from bert_tf.interop.weight_files import Kind, find_source
from bert_tf.interop.weights import Weights, assign_weights, read_weights
from bert_tf.jobs.plan import slots_by_name, weights_by_name
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.training import checkpoints
from bert_tf.training.optimizers import BertOptimizer

_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def restore(
    start: StartingPoint,
    model: keras.Model,
    optimizer: BertOptimizer,
    bert: BertConfig,
    *,
    do_train: bool,
    new_weights: Sequence[str] = (),
    weights: Weights | None = None,
) -> list[str]:
    """Loads what the starting point says.

    Training on from weights alone counts its steps from 0; an evaluation tells the
    checkpoint's.

    Args:
      start: Which checkpoint, and how much of it.
      model: Gets its weights.
      optimizer: Gets its state and step, where they are taken.
      bert: The model's architecture.
      do_train: Whether there is training.
      new_weights: Names of weights that need not be there for training: a new
        task's head.
      weights: Those of the starting point, if they have been read.

    Returns:
      What the reader should know: a line for each thing that was not as usual.

    Raises:
      RunError: if the checkpoint does not fit the model; nothing is changed then.
    """
    if not start.prefix:
        return list(start.notes)
    variables = weights_by_name(model)
    if start.takes_state:
        step, unused = checkpoints.restore(
            start.prefix, variables, slots_by_name(optimizer)
        )
        optimizer.iterations.assign(step)
        names = ", ".join(unused)
        lines = [f"Not used of {start.prefix}: {names}."] if unused else []
        return [*start.notes, *lines]
    source = find_source(start.prefix)
    found = weights or read_weights(start.prefix)
    lines = compare_config(found.config, bert, source.config_file)
    report = assign_weights(found, variables, new=new_weights if do_train else ())
    if not do_train and source.kind is Kind.TENSORFLOW:
        optimizer.iterations.assign(checkpoints.step_of(source.path))
    return [*start.notes, *(f"{source.path}: {x}" for x in report.lines()), *lines]


def compare_config(
    beside: BertConfig | None, bert: BertConfig, config_file: str
) -> list[str]:
    """Compares what shapes do not show with the config that lies beside weights.

    Args:
      beside: That config, if there is one.
      bert: What the model computes.
      config_file: Where the first one is.

    Returns:
      A line for each difference that a user may want.

    Raises:
      ValueError: if the heads differ: the weights would mean something else.
    """
    if beside is None:
        return []
    if beside.num_attention_heads != bert.num_attention_heads:
        raise ValueError(
            f"{config_file}, beside the initial weights, says num_attention_heads="
            f"{beside.num_attention_heads}. Received: num_attention_heads="
            f"{bert.num_attention_heads}. Drop --bert_config_file and --preset to use "
            "that file; correct it if it is wrong."
        )
    return [
        f"{'warning: ' * (name not in _DROPOUTS)}{name}={getattr(bert, name)} is used; "
        f"{config_file} beside the initial weights says {getattr(beside, name)}."
        for name in ("hidden_act", "layer_norm_eps", *_DROPOUTS)
        if _usual(getattr(beside, name)) != _usual(getattr(bert, name))
    ]


def _usual(value: Any) -> Any:  # noqa: ANN401 - a value of any key of a config
    """One name for what has several."""
    return "gelu_tanh" if value in ("gelu_new", "gelu_pytorch_tanh") else value
