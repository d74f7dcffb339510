"""Writes a model for a runtime or for keras-hub: a folder, in place at once."""

import contextlib
import errno
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from bert_tf.errors import RunError
from bert_tf.files import temporary_folder, write_whole, written
from bert_tf.interop import keras_hub
from bert_tf.interop.classifier_labels import TAG, read_description
from bert_tf.interop.export import (
    Form,
    Model,
    config_text,
    describing_texts,
    is_file_name,
    require_free,
    require_own_companions,
)
from bert_tf.interop.model_card import MODEL_CARD
from bert_tf.interop.model_kind import FILL_MASK, SQUAD, find_kind, require_kind
from bert_tf.interop.runtimes import RUNTIMES, Runtime, probe, quiet
from bert_tf.interop.sentence_files import EMBED, read_settings
from bert_tf.interop.weight_files import ORIGINAL_CONFIG
from bert_tf.interop.weights import Weights
from bert_tf.launch import report
from bert_tf.stages import loading_tensorflow, stage

FORMS = (*RUNTIMES, Form.KERAS_HUB)
# Largest difference, as a fraction of the largest output or of 1; with int8 there is
# no limit, the difference is only reported.
_TOLERANCE = 1e-4


def main_file(destination: str, form: Form) -> str:
    """The file whose existence means that a destination is in use.

    Args:
      destination: A folder; or a file with the ending of the form, if it has one.
      form: One of `FORMS`.

    Raises:
      ValueError: if the name is one of a file in another format.
    """
    ending = RUNTIMES[form].ending if form in RUNTIMES else ""
    if ending and destination.lower().endswith(ending):
        return destination
    is_folder = destination.endswith(("/", os.sep)) or os.path.isdir(destination)
    if not is_folder and is_file_name(os.path.basename(destination)):
        theirs = f"a folder, or a file in {ending}" if ending else "a folder"
        raise ValueError(
            f"`destination` must be {theirs} for --to={form.value}. Received: "
            f"{destination}. Name another, or {destination}/ for a folder of that name."
        )
    if os.path.exists(destination) and not os.path.isdir(destination):
        raise ValueError(
            f"`destination` must be a folder for --to={form.value}. Received: "
            f"{destination}, which is a file. Name another."
        )
    name = RUNTIMES[form].file if form in RUNTIMES else keras_hub.WEIGHTS
    return os.path.join(destination, name)


def write_away(
    model: Model,
    destination: str,
    form: Form,
    *,
    kind: str = "",
    int8: bool = False,
    weights_only: bool = False,
    overwrite: bool = False,
) -> tuple[list[str], list[str]]:
    """Writes a model in one of `FORMS`.

    Args:
      model: What to write.
      destination: See `main_file`.
      form: For which program.
      kind: What the outputs are, see `serving_model`; empty: by the model's head.
      int8: Store weights in 8 bits.
      weights_only: Leave out config, vocabulary and model card.
      overwrite: Replace files that are there.

    Returns:
      The files, and lines about what was measured.

    Raises:
      ValueError: if a file exists, or the program has no such model.
      RunError: if a package is missing, or the program computes something else.
      OSError: if a file cannot be written.
    """
    path = main_file(destination, form)
    folder, name = os.path.split(path)
    check_options(form, kind, int8)
    if int8:
        model = model._replace(source=f"{model.source}, int8")
    notes: list[str] = []
    if form is Form.KERAS_HUB:
        kind = find_kind(model.tensors, model.head)
        notes = keras_hub.notes(model.config, model.tensors, kind)
    texts = {} if weights_only else describing_texts(model, form)
    if path == destination:
        texts.pop(MODEL_CARD, None)  # It describes a folder.
    if form is Form.KERAS_HUB:
        texts = _preset_texts(model, texts)
    companions = {os.path.join(folder, n): t for n, t in texts.items()}
    if path == destination:
        parts = [f"{os.path.splitext(name)[0]}.bin"] * (form is Form.OPENVINO)
        require_own_companions(
            *(path, companions), overwrite=overwrite, parts=parts, is_complete=True
        )
    elif not overwrite:
        require_free(path, companions)
    # Next to what is replaced, so that a rename is enough.
    beside = path if os.path.isdir(folder or ".") else folder
    with written(path), _no_empty_folders(beside), temporary_folder(beside) as made:
        if form is Form.KERAS_HUB:
            keras_hub.write_weights(made, model.tensors, model.config)
        else:
            runtime = RUNTIMES[form]
            with stage(f"Exporting for {runtime.name}", report):
                notes += _export(model, runtime, str(made / name), kind, int8)
        for text_name, text in texts.items():
            (made / text_name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(made / text_name, text)
        others = sorted(f.name for f in made.iterdir() if f.name != name)
        new = () if overwrite else {*others, name} - texts.keys()
        _move(made, folder or ".", [*others, name], new)
    return [path, *(os.path.join(folder, each) for each in others)], notes


@contextlib.contextmanager
def _no_empty_folders(path: str) -> Iterator[None]:
    """Removes folders above a path that are made meanwhile and stay empty."""
    new = [p for p in Path(os.path.abspath(path)).parents if not p.exists()]
    try:
        yield
    finally:
        for folder in new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def check_options(form: Form, kind: str, int8: bool) -> None:
    """Refuses options that a form does not have; see `write_away`."""
    if form in RUNTIMES:
        RUNTIMES[form].require_modules(int8)
    elif kind or int8:
        given = " ".join([f"--kind={kind}"] * bool(kind) + ["--int8"] * int8)
        raise ValueError(
            f"`kind` and `int8` must be left out for --to={form.value}, which stores "
            f"weights, not outputs. Received: {given}. Leave them out, or pass --to="
            f"{', '.join(runtime.value for runtime in RUNTIMES)}."
        )


def _preset_texts(model: Model, texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a preset: its configs in place of transformers', and our own."""
    if not texts:
        return keras_hub.preset_texts(model.tensors, model.config, None)
    tokenizer = model.tokenizer if model.vocab_file else None
    configs = keras_hub.preset_texts(model.tensors, model.config, tokenizer)
    kept = {n: t for n, t in texts.items() if n not in ("config.json", "vocab.txt")}
    if model.vocab_file:
        kept[keras_hub.VOCABULARY] = texts["vocab.txt"]
    # It says whether gelu is exact, which keras-hub's config cannot.
    return {**kept, **configs, ORIGINAL_CONFIG: config_text(model.config)}


def _export(
    model: Model, runtime: Runtime, path: str, kind: str, int8: bool
) -> list[str]:
    """Writes the file, and compares what it computes with the model."""
    kind = kind or find_kind(model.tensors, model.head)
    require_kind(model.tensors, model.head, kind)
    with loading_tensorflow():
        from bert_tf.interop.serving_models import serving_model

    weights = Weights(model.tensors, model.config, "", model.source)
    pooling = "mean"
    if kind == EMBED:
        description = read_description(model.folder)
        pooling = read_settings(model.folder, description).pooling or pooling
    served = serving_model(weights, kind, runtime.dtype, pooling)
    config = model.config
    inputs = probe(config, runtime.dtype)
    expected = {name: x.numpy() for name, x in served(inputs).items()}
    try:
        with quiet():
            runtime.export(served, path, int8)
            found = runtime.run(path, inputs)
    except Exception as error:  # Other programs', of any kind.
        if (full := os.strerror(errno.ENOSPC)) in str(error):
            raise OSError(errno.ENOSPC, full) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RunError(
            f"{runtime.name} must take the model. Received: {reason}. Choose another "
            f"--to, or another version of {' and '.join(runtime.modules) or 'it'}."
        ) from error
    seen = inputs["attention_mask"].astype(bool)
    lines, worst = [], 0.0
    for name, wanted in expected.items():
        # Nobody reads the outputs of padding.
        is_of_tokens = kind in (SQUAD, FILL_MASK, TAG) or name == "last_hidden_state"
        a, b = (x[seen] if is_of_tokens else x for x in (wanted, found[name]))
        off, size = np.abs(a - b), np.abs(a)
        worst = np.maximum(worst, off.max() / max(1.0, size.max()))  # NaN stays.
        lines.append(
            f"{name} in {runtime.name} off by at most {off.max():.2g}, on average by "
            f"{off.mean() / max(size.mean(), 1e-30):.2%} of its size"
        )
    if not int8 and not worst <= _TOLERANCE:
        raise RunError(
            f"{runtime.name} must compute what the model does within {_TOLERANCE:g}. "
            f"Received: {'; '.join(lines)}. Nothing was written: choose another --to, "
            f"or another version of {' and '.join(runtime.modules) or 'it'}."
        )
    return [
        f"for {kind}{f', {pooling} pooling' * (kind == EMBED)}, on 8 rows of random "
        f"words: {'; '.join(lines)}",
        f"{runtime.name} gets one sequence a row: packed rows, with numbers above 1 in "
        "attention_mask, give NaN",
    ]


def _move(made: Path, folder: str, names: list[str], new: Collection[str]) -> None:
    """Moves files to their place, the last one when the others are there.

    Raises:
      ValueError: if one of those that must be `new` is there.
    """
    if not os.path.lexists(folder):
        os.rename(made, folder)
        return
    for name in names:
        if name in new:
            require_free(os.path.join(folder, name), {})
    for name in names:
        target = os.path.join(folder, name)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        os.replace(made / name, target)
