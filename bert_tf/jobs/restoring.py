"""What a starting point says, loaded into model and optimizer."""

from collections.abc import Sequence

import keras

from bert_tf.interop.sources import Kind, find_source
from bert_tf.interop.weights import Weights, assign_weights, read_weights
from bert_tf.jobs.plan import slots_by_name, weights_by_name
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.training import checkpoints
from bert_tf.training.optimizers import BertOptimizer


def restore(
    start: StartingPoint,
    model: keras.Model,
    optimizer: BertOptimizer,
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
        return []
    variables = weights_by_name(model)
    if start.takes_state:
        step, unused = checkpoints.restore(
            start.prefix, variables, slots_by_name(optimizer)
        )
        optimizer.iterations.assign(step)
        names = ", ".join(unused)
        return [f"Not used of {start.prefix}: {names}."] if unused else []
    report = assign_weights(
        weights or read_weights(start.prefix),
        variables,
        new=new_weights if do_train else (),
    )
    source = find_source(start.prefix)
    if not do_train and source.kind is Kind.TENSORFLOW:
        optimizer.iterations.assign(checkpoints.step_of(source.path))
    return [f"{source.path}: {line}" for line in report.lines()]
