"""What a model predicts: by its task.json, or by the heads among its weights."""

import os
from collections.abc import Mapping

from bert_tf.interop.classifier_labels import CLASSIFY
from bert_tf.interop.sentence_files import EMBED
from bert_tf.interop.weights import read_weights

SQUAD = "squad"
FILL_MASK = "fill-mask"
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
