"""Writes weights, and the files that belong to them, for other programs."""

import enum
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from bert_tf.config import BertConfig
from bert_tf.data.text.tokenization import UNCASED, TokenizerSettings
from bert_tf.data.text.tokenizer_settings import TASK_FILE, TOKENIZER_CONFIG
from bert_tf.data.text.vocabulary import check_size, load_vocabulary
from bert_tf.errors import listed
from bert_tf.files import whole_file, write_whole
from bert_tf.interop import huggingface
from bert_tf.interop.classifier_labels import (
    ARCHITECTURES,
    CHOOSE,
    CLASSIFY,
    NO_HEAD,
    TAG,
    Head,
    default_names,
    describe_head,
)
from bert_tf.interop.model_card import BY_MODULES, MODEL_CARD, Architecture, model_card
from bert_tf.interop.sentence_files import EMBED, read_settings, sentence_files
from bert_tf.interop.tokenizer_files import tokenizer_config, tokenizer_files
from bert_tf.interop.torch_files import save_torch
from bert_tf.interop.weight_files import (
    HUGGINGFACE_CONFIG,
    ORIGINAL_CONFIG,
    SAFETENSORS,
    VOCABULARY,
)
from bert_tf.tf_checkpoint import INDEX
from bert_tf.tf_checkpoint_writer import save_tf


class Form(enum.Enum):
    """The forms that can be written; the value is the command line's name.

    The last ones are folders for another program, which `take_away` writes.
    """

    TRANSFORMERS = "transformers"
    TENSORFLOW = "tensorflow"
    SAFETENSORS = "safetensors"
    TORCH = "torch"
    MLPERF = "mlperf"
    SAVEDMODEL = "savedmodel"
    ONNX = "onnx"
    LITERT = "litert"
    OPENVINO = "openvino"
    KERAS_HUB = "keras_hub"


_FORMS = {
    ".safetensors": Form.SAFETENSORS,
    ".bin": Form.TORCH,
    ".pth": Form.TORCH,
    ".pt": Form.MLPERF,
}
# The ending of a file of some program, such as .onnx: a folder of that name would be a
# surprise. Versions (v1.5) are none.
_ENDING = re.compile(r"\.[a-z][a-z0-9_]*")
_WRITTEN = (
    f"end in {', '.join(_FORMS)}, have ckpt in its name (a TensorFlow checkpoint), or "
    "be a folder (for transformers)"
)
# What a name asks for that only --to writes, since the result is a folder of files.
_ASKED = {
    ".onnx": Form.ONNX,
    ".tflite": Form.LITERT,
    ".xml": Form.OPENVINO,
    ".pb": Form.SAVEDMODEL,
    **dict.fromkeys((".h5", ".keras"), Form.KERAS_HUB),
}
# These are written to a folder, whose name must not be that of a file.
_FOLDERS = (Form.SAVEDMODEL, Form.KERAS_HUB)
# Files that are never weights.
_TEXTS = (".json", ".txt", ".md")
# The tanh approximation, as transformers knows it.
_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh"}


# The first that fits counts: BertForPreTraining has the tensors of the two below it.
_ARCHITECTURES = (
    Architecture(ARCHITECTURES[CLASSIFY], "output_weights", "text-classification"),
    Architecture(
        "BertForQuestionAnswering", "cls/squad/output_weights", "question-answering"
    ),
    Architecture(
        "BertForPreTraining", "cls/seq_relationship/output_weights", "fill-mask"
    ),
    Architecture("BertForMaskedLM", "cls/predictions/output_bias", "fill-mask"),
)
# They have the tensors of the first one, so the head's kind tells them apart.
_BY_KIND = {
    TAG: Architecture(ARCHITECTURES[TAG], "output_weights", "token-classification"),
    CHOOSE: Architecture(ARCHITECTURES[CHOOSE], "output_weights", "multiple-choice"),
}
_ENCODER = Architecture("BertModel", "", "feature-extraction")


def find_architecture(
    tensors: Mapping[str, np.ndarray], head: Head = NO_HEAD
) -> Architecture:
    """The class of transformers that has the heads of these tensors.

    Args:
      tensors: google-research/bert's name -> values.
      head: What a classifier predicts.
    """
    if head.kind in _BY_KIND and _BY_KIND[head.kind].tensor in tensors:
        return _BY_KIND[head.kind]
    fitting = (a for a in _ARCHITECTURES if a.tensor in tensors)
    return next(fitting, _ENCODER)


class Model(NamedTuple):
    """A model to be written.

    Attributes:
      tensors: google-research/bert's name -> float32 values.
      config: The architecture.
      vocab_file: The vocabulary, or empty to write none.
      tokenizer: What is done to text first.
      source: Where the weights come from, for the reader of the model card.
      head: The classifier's outputs and the task, as far as they are known.
      scores: Results of the evaluation that the run ended with; empty if unknown.
      folder: Where the weights come from, for how vectors are pooled; empty if unknown.
    """

    tensors: Mapping[str, np.ndarray]
    config: BertConfig
    vocab_file: str = ""
    tokenizer: TokenizerSettings = UNCASED
    source: str = ""
    head: Head = NO_HEAD
    scores: Mapping[str, float] = {}
    folder: str = ""


def find_form(destination: str) -> Form:
    """The form that the name of a destination implies.

    Args:
      destination: A name in .safetensors, .bin, .pth or .pt; or with `ckpt` in its
        last part, such as bert_model.ckpt; or else a folder.

    Raises:
      ValueError: if the name is one of a file in a format that is not written.
    """
    if destination.endswith(("/", os.sep)) or os.path.isdir(destination):
        return Form.TRANSFORMERS
    name = os.path.basename(destination)
    ending = os.path.splitext(name)[1].lower()
    form = _FORMS.get(ending)
    if form:
        return form
    if is_file_name(name) and "ckpt" not in ending:
        remedy = ". Pass a name in one of these forms"
        if ending in _ASKED:
            folder = " and a folder" if _ASKED[ending] in _FOLDERS else ""
            remedy = (
                f" without --to. Pass --to={_ASKED[ending].value}{folder} to "
                "`python -m bert_tf convert`"
            )
        raise ValueError(
            f"`destination` must {_WRITTEN}. Received: {destination}, whose format is "
            f"not written{remedy}, or {destination}/ for a folder of that name."
        )
    return Form.TENSORFLOW if "ckpt" in name else Form.TRANSFORMERS


def is_file_name(name: str) -> bool:
    """Whether a name ends as that of a file of some program."""
    return bool(_ENDING.fullmatch(os.path.splitext(name)[1].lower()))


def weights_file(destination: str, form: Form) -> str:
    """The file whose existence means that a destination is in use."""
    if form is Form.TRANSFORMERS:
        return os.path.join(destination, SAFETENSORS)
    return destination + INDEX if form is Form.TENSORFLOW else destination


def write_model(
    model: Model,
    destination: str,
    form: Form,
    *,
    weights_only: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Writes a model.

    Args:
      model: What to write.
      destination: The folder, file, or checkpoint without `.index`.
      form: The form of the files.
      weights_only: Write the weights alone.
      overwrite: Replace files of the same names; in a folder that is the destination
        they may be another model's.

    Returns:
      The files, the weights' first.

    Raises:
      ValueError: if the vocabulary does not belong to the model, or a file exists.
      OSError: if a file cannot be written.
    """
    folder = destination if form is Form.TRANSFORMERS else os.path.dirname(destination)
    named = {} if weights_only else describing_texts(model, form)
    texts = {os.path.join(folder, name): text for name, text in named.items()}
    weights = weights_file(destination, form)
    if form is not Form.TRANSFORMERS:
        require_own_companions(weights, texts, overwrite=overwrite)
    elif not overwrite:
        require_free(weights, texts)
    os.makedirs(folder or ".", exist_ok=True)
    _write_weights(model, destination, form)
    for path, text in texts.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        write_whole(path, text)
    return [weights, *texts]


def require_free(weights: str, texts: Mapping[str, str]) -> None:
    """Refuses to overwrite weights, or other files with another content.

    Args:
      weights: The file of the weights.
      texts: Path -> content of other files.

    Raises:
      ValueError: naming the file that exists.
    """
    paths = [weights, *(path for path, text in texts.items() if _differs(path, text))]
    taken = next(filter(os.path.exists, paths), None)
    if taken:
        raise ValueError(
            f"{taken} exists already. Name another destination, or pass --overwrite to "
            "replace it."
        )


def require_own_companions(
    weights: str,
    texts: Mapping[str, str],
    *,
    overwrite: bool,
    parts: Collection[str] = (),
    is_complete: bool = False,
) -> None:
    """Refuses to write a single file where its companions are another model's.

    Args:
      weights: The file of the weights.
      texts: Path -> content of its companions.
      overwrite: Whether files may be replaced: companions only if no other file is in
        the folder that they may belong to.
      parts: Other files of the same weights.
      is_complete: Whether the file can be used without companions.

    Raises:
      ValueError: naming the files that exist.
    """
    if not overwrite:
        require_free(weights, {})
    taken = [path for path, text in texts.items() if _differs(path, text)]
    if not taken:
        return
    folder, name = os.path.split(weights)
    stem = name.removesuffix(INDEX)
    others = [
        os.path.join(folder, other)
        for other in sorted(os.listdir(folder or "."))
        if not other.startswith((".", f"{stem}.data-")) and other not in (name, *parts)
        if not other.endswith(_TEXTS) and not os.path.isdir(os.path.join(folder, other))
    ]
    if overwrite and not others:
        return
    example = os.path.join(folder, stem.partition(".")[0], stem)
    advice = "" if others else ", or pass --overwrite to replace them"
    advice += ", or pass --weights_only, which writes the one file" * is_complete
    raise ValueError(
        "`destination` must be in a folder without the config and vocabulary of "
        f"another model. Received: {os.path.join(folder, stem)}, but these differ from "
        f"the model's: {', '.join(taken)}"
        f"{f'; other files there: {listed(others)}' * bool(others)}. Give the model "
        f"its own folder, such as {example}{advice}."
    )


def _differs(path: str, text: str) -> bool:
    """Whether there is a file with another content."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(text.encode()) + 1) != text.encode()


def _write_weights(model: Model, destination: str, form: Form) -> None:
    path = weights_file(destination, form)
    if form is Form.TENSORFLOW:
        save_tf(destination, model.tensors)
    elif form in (Form.TORCH, Form.MLPERF):
        tensors = huggingface.to_huggingface_names(model.tensors, with_tied=True)
        save_torch(path, tensors, under="model" if form is Form.MLPERF else "")
    else:
        tensors = huggingface.to_huggingface_names(model.tensors)
        # Without this, transformers refuses the file.
        with whole_file(path) as file:
            file.write(save(tensors, metadata={"format": "pt"}))


def describing_texts(model: Model, form: Form) -> dict[str, str]:
    """File name -> content of all files next to the weights."""
    texts = {}
    if model.vocab_file:
        check_size(model.vocab_file, model.config.vocab_size, may_be_small=True)
        tokens = load_vocabulary(model.vocab_file)
        texts[VOCABULARY] = "".join(f"{token}\n" for token in tokens)
        max_positions = model.config.max_position_embeddings
        texts[TOKENIZER_CONFIG] = tokenizer_config(model.tokenizer, max_positions)
    if form in (Form.TENSORFLOW, Form.MLPERF):
        texts = {ORIGINAL_CONFIG: config_text(model.config), **texts}
        description = describe_head(model.head)
        if model.vocab_file and "do_lower_case" in description:
            description["do_lower_case"] = model.tokenizer.do_lower_case
        return texts | ({TASK_FILE: _json(description)} if description else {})
    architecture = find_architecture(model.tensors, model.head)
    config = _json(
        huggingface_config(model.config, architecture, model.tensors, model.head)
    )
    texts = {HUGGINGFACE_CONFIG: config, **texts}
    if form not in (Form.SAFETENSORS, Form.TORCH):
        known = model.head.description
        is_embedding = architecture is _ENCODER and known.get("task") == EMBED
        more = {"pooling": BY_MODULES} if is_embedding else {}
        texts[MODEL_CARD] = model_card(
            *(architecture, model.config, model.source, form.value, model.scores),
            **more,
            has_tokenizer=bool(model.vocab_file),
        )
        if is_embedding and form is Form.TRANSFORMERS:
            settings = read_settings(model.folder, known)
            texts |= sentence_files(settings, model.config.hidden_size)
        if model.vocab_file:
            texts |= tokenizer_files(model.vocab_file, model.tokenizer, max_positions)
    return texts


def huggingface_config(
    config: BertConfig,
    architecture: Architecture,
    tensors: Mapping[str, np.ndarray],
    head: Head = NO_HEAD,
) -> dict[str, Any]:
    """The keys and values of a `config.json` that transformers reads.

    Args:
      config: The architecture's sizes.
      architecture: The class.
      tensors: google-research/bert's name -> values, for the number of classes.
      head: The names of the classes; without names they are LABEL_0, LABEL_1, ...
    """
    values = {"architectures": [architecture.name], "model_type": "bert"}
    values |= config.to_dict()
    values["hidden_act"] = _ACTIVATIONS.get(config.hidden_act, config.hidden_act)
    if architecture.name in (ARCHITECTURES[CLASSIFY], ARCHITECTURES[TAG]):
        names = head.names or default_names(len(tensors["output_bias"]))
        values["id2label"] = {str(number): name for number, name in enumerate(names)}
        values["label2id"] = {name: number for number, name in enumerate(names)}
        if head.problem_type:
            values["problem_type"] = head.problem_type
    return values | {"pad_token_id": 0, "dtype": "float32"}


def config_text(config: BertConfig) -> str:
    """The text of a bert_config.json."""
    return _json(config.to_dict())


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
