"""Converts weights from the form of one program to that of another."""

import dataclasses
import glob
import os
import re
from typing import Any

import numpy as np

from bert_tf.config import BertConfig
from bert_tf.config.models import ConvertOptions
from bert_tf.data.text.tokenization import UNCASED
from bert_tf.data.text.tokenizer_settings import choose_settings
from bert_tf.data.text.vocabulary import check_same_words, check_size
from bert_tf.errors import RunError
from bert_tf.interop import hub, take_away, tensor_names
from bert_tf.interop.classifier_labels import Head, read_description, read_head
from bert_tf.interop.export import (
    Form,
    Model,
    find_form,
    require_free,
    weights_file,
    write_model,
)
from bert_tf.interop.sentence_files import EMBED, MODULES
from bert_tf.interop.tensor_shapes import conform
from bert_tf.interop.weight_files import NO_VOCABULARY, find_source, folder_of
from bert_tf.interop.weights import Weights, read_weights, require_config
from bert_tf.json_files import read_object


def convert(source: str, destination: str, options: ConvertOptions) -> list[str]:
    """Writes the weights of any BERT in another form.

    Args:
      source: See `weight_files.find_source`.
      destination: See `export.find_form`.
      options: The rest.

    Returns:
      Lines to print: what was read, adapted, left out, and written.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the source cannot be read, or the destination exists.
      RunError: if tensors are missing or misshapen.
      OSError: if the destination cannot be written.
    """
    form = Form(options.form) if options.form else find_form(destination)
    if os.path.realpath(source) == os.path.realpath(destination):
        raise ValueError(
            "`destination` must not be the source. Received: "
            f"{destination} for both. Name another."
        )
    _check_options(destination, form, options)
    model, notes = read_model(source, options)
    if form is Form.TRANSFORMERS and not model.vocab_file:
        notes.append(
            f"no tokenizer was written: the source has {NO_VOCABULARY} next to it"
        )
    modules = os.path.join(model.folder, MODULES)
    is_embedding = model.head.description.get("task") == EMBED
    if form is Form.TRANSFORMERS and os.path.isfile(modules) and not is_embedding:
        notes.append(
            f"warning: {modules} is not copied: sentence-transformers will take the "
            "mean of the hidden states"
        )
    files, measured = _write(model, destination, form, options)
    return [
        *notes,
        *measured,
        _written(len(model.tensors), files),
        *_pushed(files, destination, options.push),
    ]


def read_model(source: str, options: ConvertOptions) -> tuple[Model, list[str]]:
    """Reads weights, and the files next to them, as a model to be written.

    Args:
      source: See `weight_files.find_source`.
      options: Which files to use instead, and what to leave out.

    Returns:
      The model, and lines about what was read, adapted and left out.

    Raises:
      FileNotFoundError: if a file is missing.
      ValueError: if the source or a file cannot be used.
      RunError: if tensors are missing or misshapen, or there is no config.
    """
    found = find_source(source)
    weights = read_weights(source)
    config = _config(weights, options)
    notes = [f"read {len(weights.tensors)} tensors of the {weights.source}"]
    tensors = weights.tensors
    if options.encoder_only:
        tensors = {
            name: t for name, t in tensors.items() if tensor_names.is_encoder(name)
        }
    tensors, more = conform(tensors, config, weights.source)
    notes += [*weights.notes, *more]
    vocab_file = options.vocab_file or weights.vocab_file
    settings = UNCASED
    if vocab_file:
        if weights.vocab_file:
            notes += check_same_words(vocab_file, weights.vocab_file)
        notes += check_size(vocab_file, config.vocab_size, may_be_small=True)
        choice = choose_settings(
            {"do_lower_case": options.do_lower_case},
            [folder_of(found.path), folder_of(vocab_file)],
            vocab_file,
        )
        settings = choice.settings
        notes += choice.notes
    num_outputs = int(np.size(tensors.get("output_bias", ())))
    model = Model(
        tensors=tensors,
        config=config,
        vocab_file=vocab_file,
        tokenizer=settings,
        source=os.path.basename(os.path.normpath(source)),
        head=Head() if options.encoder_only else read_head(found, num_outputs),
        scores={} if options.encoder_only else read_scores(found.path),
        folder=folder_of(found.path),
    )
    return model, notes


def _check_options(destination: str, form: Form, options: ConvertOptions) -> None:
    """Before the source is read, which takes longer."""
    is_away = form in take_away.FORMS
    if options.push:
        hub.check_name("push", options.push)
        hub.require_hub()
    path = (take_away.main_file if is_away else weights_file)(destination, form)
    if is_away or options.kind or options.int8:
        take_away.check_options(form, options.kind, options.int8)
    if not options.overwrite:
        require_free(path, {})


def _write(
    model: Model, destination: str, form: Form, options: ConvertOptions
) -> tuple[list[str], list[str]]:
    """Writes the files; their names, and lines about what was measured."""
    given = {"weights_only": options.weights_only, "overwrite": options.overwrite}
    if form not in take_away.FORMS:
        return write_model(model, destination, form, **given), []
    given |= {"kind": options.kind, "int8": options.int8}
    return take_away.write_away(model, destination, form, **given)


def _written(num_tensors: int, files: list[str]) -> str:
    """A line about the files, of which the first has the tensors."""
    weights, *others = files
    names = [os.path.relpath(path, folder_of(weights)) for path in others]
    beside = f"; beside it: {', '.join(names)}" * bool(names)
    return f"wrote {num_tensors} tensors to {weights}{beside}"


def _pushed(files: list[str], destination: str, name: str) -> list[str]:
    """Uploads files to the hub, if it has a name there; a line about it."""
    if not name:
        return []
    parts = glob.glob(f"{glob.escape(destination)}.data-*")  # Of a checkpoint.
    folder = folder_of(files[0])
    try:
        address = hub.push(folder, [*files, *parts], hub.check_name("push", name))
    except RunError as error:
        raise RunError(
            f"{error} {', '.join(files)} {'is' if len(files) == 1 else 'are'} written: "
            "to try again, pass --overwrite too."
        ) from None
    return [f"uploaded to {address}"]


def read_scores(path: str) -> dict[str, Any]:
    """The results in the run's folder, if they are of these very weights.

    Args:
      path: The weights: model.ckpt-STEP in the folder.
    """
    folder, name = os.path.split(path)
    step = re.search(r"ckpt-(\d+)$", name)
    results = read_object(os.path.join(folder, "eval_results.json"))
    if not step or results.get("global_step") != int(step[1]):
        return {}
    description = read_description(folder)
    return results | {"dataset": description.get("task_name", "")}


def _config(weights: Weights, options: ConvertOptions) -> BertConfig:
    config = weights.config
    if options.bert_config_file:
        config = BertConfig.from_json_file(options.bert_config_file)
    remedy = "`python -m bert_tf convert` also takes it as --bert_config_file."
    config = require_config(config, weights.source, remedy)
    if options.vocab_size:
        config = dataclasses.replace(config, vocab_size=options.vocab_size)
    return config
