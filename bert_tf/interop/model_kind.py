"""What a model predicts: by its task.json, or by the heads among its weights."""

import os
from collections.abc import Mapping

import numpy as np

from bert_tf.interop.classifier_labels import CHOOSE, CLASSIFY, KINDS, TAG, Head
from bert_tf.interop.sentence_files import EMBED
from bert_tf.interop.weights import read_weights

SQUAD = "squad"
FILL_MASK = "fill-mask"
# Without a head: hidden states, or a vector of them (EMBED).
ENCODER = "encoder"
# Kind of prediction -> a tensor of its head, which those of a classifier share.
_HEADS = {
    **dict.fromkeys(KINDS, "output_bias"),
    SQUAD: "cls/squad/output_bias",
    FILL_MASK: "cls/predictions/output_bias",
}


def check_kind(path: str | os.PathLike[str], wanted: str, known: str) -> None:
    """Refuses a model of another task.

    Args:
      path: The model.
      wanted: The kind of prediction: classify, tag, choose, squad or fill-mask.
      known: That of the model, by the files next to it; empty if they do not say.

    Raises:
      ValueError: naming the command for it.
    """
    if known not in ("", wanted):
        raise _other_kind(path, wanted, known, f"with the task {known} in its files")


def check_head(path: str | os.PathLike[str], wanted: str) -> None:
    """Refuses weights without the head for a kind of prediction; see `check_kind`."""
    tensors = read_weights(path).tensors
    kinds = [kind for kind, name in _HEADS.items() if name in tensors]
    if kinds and _HEADS.get(wanted) not in tensors:
        raise _other_kind(path, wanted, kinds[0], f"with a head for {kinds[0]}")
    if not kinds:
        raise _other_kind(path, wanted, "", "without a head, an encoder")


def has_head(path: str | os.PathLike[str], kind: str) -> bool:
    """Whether weights have the head for a kind of prediction; see `check_kind`."""
    return _HEADS[kind] in read_weights(path).tensors


def find_kind(tensors: Mapping[str, object], head: Head) -> str:
    """What weights are for: by the files next to them, or by their head."""
    known = head.description.get("task") or head.kind
    if known == EMBED or _HEADS.get(known) in tensors:
        return known
    return next((kind for kind, name in _HEADS.items() if name in tensors), ENCODER)


def require_kind(tensors: Mapping[str, object], head: Head, kind: str) -> None:
    """Refuses weights that lack the head for a kind.

    Raises:
      ValueError: naming the kind that they have.
    """
    known = find_kind(tensors, head)
    # Without a file that names its kind, a classifier may be one of any.
    stated = head.description.get("task") or head.kind
    is_other_classifier = kind in KINDS and stated in KINDS and kind != stated
    if is_other_classifier or (kind in _HEADS and _HEADS[kind] not in tensors):
        raise ValueError(
            f"`kind` must be one that the weights have a head for. Received: "
            f"--kind={kind}, of weights for {known}. Pass --kind={known}, or a model "
            f"that was trained for {kind}."
        )
    if kind == CHOOSE and np.size(tensors[_HEADS[CHOOSE]]) != 1:
        raise ValueError(
            "`kind` must not be choose unless the classifier has one output. Received: "
            f"--kind=choose, of weights with {np.size(tensors[_HEADS[CHOOSE]])}. Pass "
            f"--kind={CLASSIFY} or {TAG}."
        )


def _other_kind(
    path: str | os.PathLike[str], wanted: str, kind: str, reason: str
) -> ValueError:
    remedy = f"Pass a model that was trained for {wanted}."
    if kind in (*_HEADS, EMBED):
        remedy = (
            f"Use `python -m bert_tf predict {kind}` for it, or pass a model that was "
            f"trained for {wanted}."
        )
    return ValueError(
        f"`model` must be one for {wanted}. Received: {path} {reason}. {remedy}"
    )
