"""What a model predicts: by its task.json, or by the heads among its weights."""

import os
from collections.abc import Mapping

from bert_tf.interop.classifier_labels import CLASSIFY
from bert_tf.interop.weights import read_weights

SQUAD = "squad"
FILL_MASK = "fill-mask"
# Without a head: hidden states, or their mean.
ENCODER = "encoder"
SENTENCES = "sentences"
# Kind of prediction -> a tensor of its head.
_HEADS = {
    CLASSIFY: "output_bias",
    SQUAD: "cls/squad/output_bias",
    FILL_MASK: "cls/predictions/output_bias",
}


def check_kind(
    path: str | os.PathLike[str], wanted: str, description: Mapping[str, object]
) -> None:
    """Refuses a model whose task.json names another task.

    Args:
      path: The model.
      wanted: The kind of prediction: classify, squad or fill-mask.
      description: The content of task.json; empty without it.

    Raises:
      ValueError: naming the command for it.
    """
    known = str(description.get("task", wanted))
    if known != wanted:
        raise _other_kind(
            path, wanted, known, f"with the task {known} in its task.json"
        )


def check_head(path: str | os.PathLike[str], wanted: str) -> None:
    """Refuses weights without the head for a kind of prediction; see `check_kind`."""
    tensors = read_weights(path).tensors
    kinds = [kind for kind, name in _HEADS.items() if name in tensors]
    if kinds and wanted not in kinds:
        raise _other_kind(path, wanted, kinds[0], f"with a head for {kinds[0]}")
    if not kinds:
        raise _other_kind(path, wanted, "", "without a head, an encoder")


def find_kind(tensors: Mapping[str, object], description: Mapping[str, object]) -> str:
    """What weights are for: by task.json, or by their head; else an encoder."""
    known = str(description.get("task", ""))
    if _HEADS.get(known) in tensors:
        return known
    return next((kind for kind, name in _HEADS.items() if name in tensors), ENCODER)


def require_kind(tensors: Mapping[str, object], kind: str) -> None:
    """Refuses weights that lack the head for a kind.

    Raises:
      ValueError: naming the kind that they have.
    """
    if kind in _HEADS and _HEADS[kind] not in tensors:
        known = find_kind(tensors, {})
        raise ValueError(
            f"`kind` must be one that the weights have a head for. Received: "
            f"--kind={kind}, of weights for {known}. Pass --kind={known}, or a model "
            f"that was trained for {kind}."
        )


def _other_kind(
    path: str | os.PathLike[str], wanted: str, kind: str, reason: str
) -> ValueError:
    remedy = f"Pass a model that was trained for {wanted}."
    if kind in _HEADS:
        remedy = (
            f"Use `python -m bert_tf predict {kind}` for it, or pass a model that was "
            f"trained for {wanted}."
        )
    return ValueError(
        f"`model` must be one for {wanted}. Received: {path} {reason}. {remedy}"
    )
