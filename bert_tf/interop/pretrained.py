"""Python interface: models from weight files of any program, and folders of them."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from bert_tf.data.text.tokenization import UNCASED
from bert_tf.data.text.tokenizer_settings import (
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
    choose_settings,
)
from bert_tf.data.text.vocabulary import check_size
from bert_tf.errors import did_you_mean, listed, shown
from bert_tf.interop import tensor_names
from bert_tf.interop.classifier_labels import TAG, Head
from bert_tf.interop.export import Form, Model, find_form, write_model
from bert_tf.interop.sentence_files import EMBED
from bert_tf.interop.tensor_shapes import conform, require_plausible
from bert_tf.interop.weight_files import VOCABULARY, folder_of
from bert_tf.interop.weights import (
    Weights,
    assign_weights,
    read_weights,
    require_config,
)
from bert_tf.modeling.finetuning import build_classifier_model, build_span_model
from bert_tf.modeling.models import build_encoder_model, settings_of
from bert_tf.modeling.pretraining import build_pretraining_model
from bert_tf.modeling.sentences import SentenceModel, build_sentence_model

_LOGGER = logging.getLogger(__name__)

_BUILDERS: dict[str, Callable[..., keras.Model]] = {
    "encoder": build_encoder_model,
    "pretraining": build_pretraining_model,
    "classifier": build_classifier_model,
    "squad": build_span_model,
    "sentences": build_sentence_model,
}
# Weights that a task adds to an encoder.
_HEADS = {
    "encoder": ("bert/pooler/*",),
    "pretraining": ("cls/*", "bert/pooler/*"),
    "classifier": ("output_*", "bert/pooler/*"),
    "squad": ("cls/squad/*",),
    "sentences": (),
}
_TOKENIZER = (VOCABULARY, TOKENIZER_FILE, TOKENIZER_CONFIG)
# Weights that a task does not use, so that files of the task may lack them.
_UNUSED = {"squad": ("bert/pooler/*",)}


def from_pretrained(
    path: str | os.PathLike[str],
    task: str = "encoder",
    *,
    new: tuple[str, ...] = (),
    **settings: Any,  # noqa: ANN401
) -> keras.Model:
    """Builds a model with the weights of a file, whoever wrote it.

    Args:
      path: See `weight_files.find_source`; it needs a config next to it.
      task: "encoder", "pretraining", "classifier", "squad" or "sentences".
      new: Names, or patterns with * and ?, of weights that the file may lack, such as
        "cls/*" for the heads of pre-training; they are newly initialised.
      settings: For the function that builds the model, such as `max_seq_length`, or
        `num_outputs` of a classifier that is newly initialised; see `modeling.models`,
        `modeling.pretraining`, `modeling.finetuning` and `modeling.sentences`.

    Returns:
      The model. What is newly initialised or not used is logged.

    Raises:
      FileNotFoundError: if there are no weights.
      ValueError: if they cannot be read, or the task is unknown.
      RunError: listing names that are missing and shapes that differ, or if no file has
        the architecture.
    """
    if task not in _BUILDERS:
        raise ValueError(
            f"`task` must be one of {', '.join(_BUILDERS)}. Received: task={task!r}. "
            f"{did_you_mean(str(task), _BUILDERS)}".rstrip()
        )
    weights = read_weights(path)
    require_config(weights.config, weights.source)
    return build_with(weights, task, new=new, **settings)


def build_with(
    weights: Weights,
    task: str,
    *,
    new: tuple[str, ...] = (),
    **settings: Any,  # noqa: ANN401
) -> keras.Model:
    """Builds a model with weights that were read, and their config.

    Args:
      weights: The weights.
      task: See `from_pretrained`, also for the rest.
      new: Weights that may be missing.
      settings: For the function that builds the model.

    Raises:
      ValueError: if a weight is not finite, or the config cannot be theirs.
      RunError: listing names that are missing and shapes that differ.
    """
    require_plausible(weights.config, weights.tensors, weights.source)
    model = _build(task, weights, settings)
    variables = {tensor_names.of_variable(v.path): v for v in model.weights}
    new = (*new, *_UNUSED.get(task, ()))
    advice = (
        f"Pass weights of such a model, or new={_HEADS[task]} to initialise what the "
        "file lacks, or has in another shape."
    )
    for line in assign_weights(weights, variables, new=new, advice=advice).lines():
        _LOGGER.warning("%s: %s", weights.source, line)
    return model


def _build(task: str, weights: Weights, settings: dict[str, Any]) -> keras.Model:
    if task == "classifier" and "num_outputs" not in settings:
        if "output_bias" not in weights.tensors:
            raise ValueError(
                f"`num_outputs` must be given: the {weights.source} has no classifier. "
                "To predict, pass a model that was trained for classes."
            )
        settings = {**settings, "num_outputs": weights.tensors["output_bias"].size}
    return _BUILDERS[task](weights.config, **settings)


def save_pretrained(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    vocab_file: str = "",
    do_lower_case: bool | None = None,
    encoder_only: bool = False,
    label_names: Sequence[str] = (),
) -> None:
    """Writes a folder that transformers and sentence-transformers read.

    It holds config.json, model.safetensors and README.md and, with a vocabulary,
    vocab.txt, tokenizer.json and tokenizer_config.json. Files of these names are
    replaced; the last three stay where there is no vocabulary, with a warning.

    Args:
      model: A model of `bert_tf.modeling`, or one built from its layers.
      path: The folder.
      vocab_file: The model's vocabulary.
      do_lower_case: Whether the tokenizer lower-cases and strips accents; None: as the
        files next to the vocabulary say, or else if it is uncased.
      encoder_only: Leave out the heads.
      label_names: The names of a classifier's outputs.

    Raises:
      ValueError: if the names are not as many as outputs, the model has no BERT in it,
        the vocabulary is not its own, or the path is that of a file.
      OSError: if a file cannot be written.
    """
    form = None
    with contextlib.suppress(ValueError):  # Of a file that `convert` does not write.
        form = find_form(os.fspath(path))
    if form is not Form.TRANSFORMERS:
        raise ValueError(
            f"`path` must be a folder. Received: path={os.fspath(path)}, the name of a "
            "file. Pass a folder, and convert it with `python -m bert_tf convert`."
        )
    settings = settings_of(model)
    if settings is None:
        raise ValueError(
            "`model` must have layers of bert_tf.modeling. Received: layers "
            f"{listed(layer.name for layer in model.layers)}."
        )
    config = settings.config
    tensors = {
        tensor_names.of_variable(variable.path): variable.numpy()
        for variable in model.weights
        if tensor_names.is_encoder(variable.path) or not encoder_only
    }
    tensors, notes = conform(tensors, config, "The model")
    tokenizer = UNCASED
    if vocab_file:
        notes += check_size(vocab_file, config.vocab_size, may_be_small=True)
        choice = choose_settings(
            {"do_lower_case": do_lower_case}, [folder_of(vocab_file)], vocab_file
        )
        tokenizer = choice.settings
        notes += choice.notes
    elif left := [
        name for name in _TOKENIZER if os.path.exists(os.path.join(path, name))
    ]:
        notes.append(
            f"{', '.join(left)} stay as they are, since no `vocab_file` is given. Pass "
            "it, or delete them if they are another model's."
        )
    for note in notes:
        _LOGGER.warning("%s: %s", path, note)
    num_outputs = int(np.size(tensors.get("output_bias", ())))
    head = Head(num_outputs, _checked_names(label_names, num_outputs))
    if head.num_outputs and "bert/pooler/dense/kernel" not in tensors:
        head = head._replace(kind=TAG)  # Only our models of tokens have no pooler.
    if isinstance(model, SentenceModel):
        length = model.input["input_ids"].shape[1] or config.max_position_embeddings
        known = {"task": EMBED, "pooling": model.pooling, "max_seq_length": length}
        head = head._replace(description=known)
    whole = Model(tensors, config, vocab_file, tokenizer, "bert_tf", head)
    write_model(whole, os.fspath(path), Form.TRANSFORMERS, overwrite=True)


def _checked_names(names: Sequence[str], num_outputs: int) -> tuple[str, ...]:
    """The names of a classifier's outputs; see `save_pretrained`."""
    found = () if isinstance(names, str) else tuple(names)
    are_texts = all(isinstance(name, str) and name.strip() for name in found)
    if len(names) and not (are_texts and len({*found}) == len(found) == num_outputs):
        raise ValueError(
            f"`label_names` must be {num_outputs} different names, one for each output "
            f"of the model's classifier. Received: label_names={shown(names)}."
        )
    return tuple(map(str, found))
