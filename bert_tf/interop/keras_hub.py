"""Presets of keras-hub, both ways: folders with Keras's configs and HDF5 weights.

No class of a file is looked up and nothing in it is executed: configs are read as JSON,
weights as arrays at known places.
"""

import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import h5py
import numpy as np

from bert_tf.config import BertConfig
from bert_tf.data.text.tokenization import TokenizerSettings
from bert_tf.interop import tensor_names
from bert_tf.interop.tensor_shapes import without_heads
from bert_tf.json_files import read_json_object

WEIGHTS = "model.weights.h5"
TASK_WEIGHTS = "task.weights.h5"
VOCABULARY = os.path.join("assets", "tokenizer", "vocabulary.txt")
# keras-hub's backbone has no setting for these.
EPSILON = 1e-12
_BACKBONE = "keras_hub>BertBackbone"
_ACTIVATION = "gelu_tanh"
_SIZES = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "hidden_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "intermediate_dim",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "dropout",
    "max_position_embeddings": "max_sequence_length",
    "type_vocab_size": "num_segments",
}
_LAYER = {
    "attention/self/query": "_self_attention_layer/query_dense",
    "attention/self/key": "_self_attention_layer/key_dense",
    "attention/self/value": "_self_attention_layer/value_dense",
    "attention/output/dense": "_self_attention_layer/output_dense",
    "attention/output/LayerNorm": "_self_attention_layer_norm",
    "intermediate/dense": "_feedforward_intermediate_dense",
    "output/dense": "_feedforward_output_dense",
    "output/LayerNorm": "_feedforward_layer_norm",
}
_HEAD = "cls/predictions"
MASKED_LM = f"{_HEAD}/output_bias"
HEAD_NOTE = (
    "warning: keras-hub's masked-LM head takes gelu exactly and adds 1e-5 to "
    "variances, where this program does as in the encoder: logits differ slightly"
)
_CLASSES = {
    "BertMaskedLM": MASKED_LM,
    "BertTextClassifier": "output_weights",
}


class Place(NamedTuple):
    """Where a preset has a tensor.

    Attributes:
      file: The file in the folder.
      path: The dataset in it.
      is_transposed: Whether it is stored transposed, as the classifier's kernel.
    """

    file: str
    path: str
    is_transposed: bool = False


def is_preset(values: Mapping[str, Any]) -> bool:
    """Whether a JSON object is one of keras-hub."""
    return str(values.get("registered_name", "")).startswith("keras_hub>")


def places(num_layers: int) -> Iterator[tuple[str, Place]]:
    """google-research/bert's name of each tensor, and where a preset has it."""

    def pair(scope: str, file: str, path: str) -> Iterator[tuple[str, Place]]:
        is_norm = scope.endswith("LayerNorm")
        names = ("gamma", "beta") if is_norm else ("kernel", "bias")
        for number, name in enumerate(names):
            yield f"{scope}/{name}", Place(file, f"{path}/vars/{number}")

    tables = {
        "word_embeddings": "reversible_embedding",
        "token_type_embeddings": "embedding",
        "position_embeddings": "position_embedding",
    }
    for name, layer in tables.items():
        yield f"bert/embeddings/{name}", Place(WEIGHTS, f"layers/{layer}/vars/0")
    yield from pair("bert/embeddings/LayerNorm", WEIGHTS, "layers/layer_normalization")
    yield from pair("bert/pooler/dense", WEIGHTS, "layers/dense")
    for number in range(num_layers):
        layer = f"layers/transformer_encoder{f'_{number}' if number else ''}"
        for scope, path in _LAYER.items():
            scope = f"bert/encoder/layer_{number}/{scope}"
            yield from pair(scope, WEIGHTS, f"{layer}/{path}")
    head = "layers/masked_lm_head"
    transform = f"{_HEAD}/transform"
    yield from pair(f"{transform}/dense", TASK_WEIGHTS, f"{head}/_intermediate_dense")
    norm = f"{head}/_intermediate_layer_norm"
    yield from pair(f"{transform}/LayerNorm", TASK_WEIGHTS, norm)
    yield f"{_HEAD}/output_bias", Place(TASK_WEIGHTS, f"{head}/vars/0")
    yield "output_weights", Place(TASK_WEIGHTS, "layers/dense/vars/0", True)
    yield "output_bias", Place(TASK_WEIGHTS, "layers/dense/vars/1")


# Reading.


def read_config(path: str) -> BertConfig:
    """The architecture in a preset's config.json.

    Raises:
      ValueError: if it is not that of keras-hub's BERT.
    """
    values = read_json_object(path)
    sizes = values.get("config")
    if values.get("registered_name") != _BACKBONE or not isinstance(sizes, dict):
        raise ValueError(
            f"{path} must be the config of {_BACKBONE}. Received: registered_name="
            f"{values.get('registered_name')!r}. Pass a preset of a BERT."
        )
    missing = sorted({*_SIZES.values()} - sizes.keys())
    if missing:
        raise ValueError(
            f"{path} must have {', '.join(_SIZES.values())}. Received: no "
            f"{', '.join(missing)}. Fetch the preset again."
        )
    known = {name: sizes[theirs] for name, theirs in _SIZES.items()}
    return BertConfig(**known, hidden_act=_ACTIVATION, layer_norm_eps=EPSILON)


def read_tensors(path: str, num_layers: int) -> dict[str, np.ndarray]:
    """The tensors of a preset, by google-research/bert's names.

    Args:
      path: Its model.weights.h5, with a task.weights.h5 beside it or without.
      num_layers: Layers of its encoder.

    Raises:
      ValueError: if a file is damaged, or has other than plain arrays of numbers.
    """
    tensors: dict[str, np.ndarray] = {}
    head = os.path.join(os.path.dirname(path), TASK_WEIGHTS)
    for file_path, layers in ((path, num_layers), (head, 0)):
        if not os.path.isfile(file_path):
            continue
        try:
            with h5py.File(file_path, "r") as file:
                for name, place in places(layers):
                    if (place.file == TASK_WEIGHTS) != (file_path == head):
                        continue
                    values = _read(file, file_path, place.path)
                    if values is not None:
                        values = values.T if place.is_transposed else values
                        tensors[name] = without_heads(name, values)
                    elif name.startswith("bert/encoder/"):
                        break  # A wrong config may have any number of layers.
        except (OSError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{file_path} cannot be read as HDF5: {error}. Fetch it again."
            ) from None
    if "bert/embeddings/word_embeddings" not in tensors:
        raise ValueError(
            f"{path} must hold the weights of a BertBackbone of keras-hub. Received: "
            "no layers/reversible_embedding. Pass such a preset."
        )
    return tensors


def _read(file: h5py.File, path: str, name: str) -> np.ndarray | None:
    """An array of floats that lies in the file in one piece; None if missing."""
    dataset = _find(file, path, name)
    if dataset is None:
        # Earlier versions of Keras name the products of attention `_query_dense`.
        dataset = _find(file, path, name.replace("_layer/", "_layer/_"))
    if dataset is None:
        return None
    made = dataset.id.get_create_plist()
    is_contiguous = made.get_layout() == h5py.h5d.CONTIGUOUS
    # To find its shape, the library may open other files: that comes after this check.
    if not is_contiguous or made.get_external_count():
        raise _bad(path, name, "be stored in one piece", "chunks, or another file")
    if not isinstance(dataset.id.get_type(), h5py.h5t.TypeFloatID):
        raise _bad(path, name, "hold floating numbers", str(dataset.dtype))
    stored = dataset.id.get_storage_size()
    end = (dataset.id.get_offset() or 0) + stored
    if stored != dataset.nbytes or end > os.path.getsize(path):
        raise _bad(path, name, f"have {dataset.nbytes} bytes", f"{stored} bytes, cut")
    return np.asarray(dataset[...], np.float32)


def _find(file: h5py.File, path: str, name: str) -> h5py.Dataset | None:
    """Follows no link, which may lead to any file of this machine."""
    found: Any = file
    for part in name.split("/"):
        links = found.id.links if isinstance(found, h5py.Group) else None
        if links is None or not links.exists(part.encode()):
            return None
        if links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise _bad(path, name, "be in the file itself", "a link")
        found = found[part]
    if not isinstance(found, h5py.Dataset):
        raise _bad(path, name, "be an array", "another object")
    return found


def _bad(path: str, name: str, rule: str, received: str) -> ValueError:
    return ValueError(
        f"{path}: {name} must {rule}. Received: {received}. Fetch the preset again, or "
        "save it with keras-hub."
    )


# Writing.


def notes(
    config: BertConfig, tensors: Mapping[str, np.ndarray], kind: str
) -> list[str]:
    """Warnings about what keras-hub will compute otherwise.

    Args:
      config: The architecture.
      tensors: The weights.
      kind: What they are for, see `model_kind.find_kind`.

    Raises:
      ValueError: if keras-hub has no such model.
    """
    if config.hidden_act not in ("gelu", "gelu_tanh", "gelu_new", "gelu_pytorch_tanh"):
        raise ValueError(
            "keras-hub's BERT must have gelu. Received: "
            f"hidden_act={config.hidden_act}. Pass another --to."
        )
    if kind in ("squad", "tag", "choose"):
        raise ValueError(
            "A preset of keras-hub must be an encoder, a masked LM or a text "
            f"classifier. Received: a model for {kind}. Pass --encoder_only, or "
            "another --to."
        )
    found = []
    is_exact = config.hidden_act == "gelu"
    if is_exact:
        found.append(
            "warning: keras-hub always approximates the encoder's gelu, and this "
            "model's is exact: outputs differ by about 0.004"
        )
    if MASKED_LM in tensors:
        head = "" if is_exact else "takes gelu exactly, this model's by tanh, and "
        found.append(
            f"warning: keras-hub's masked-LM head {head}adds 1e-5 to variances, this "
            f"model {config.layer_norm_eps:g}: logits differ slightly"
        )
    if "cls/seq_relationship/output_bias" in tensors:
        found.append("keras-hub has no next-sentence head: it is left out")
    if config.layer_norm_eps != EPSILON:
        found.append(
            f"warning: keras-hub adds {EPSILON:g} to variances, this model "
            f"{config.layer_norm_eps:g}: outputs differ"
        )
    if config.hidden_dropout_prob != config.attention_probs_dropout_prob:
        found.append(
            f"warning: keras-hub has one dropout rate, {config.hidden_dropout_prob}; "
            f"that of attention is {config.attention_probs_dropout_prob} here"
        )
    if "bert/pooler/dense/kernel" not in tensors:
        found.append("the model has no pooler: the preset's is 0")
    return found


def write_weights(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
) -> None:
    """Writes model.weights.h5 and, for a head, task.weights.h5 into a folder."""
    width = config.hidden_size
    pooler = {
        "bert/pooler/dense/kernel": np.zeros((width, width), np.float32),
        "bert/pooler/dense/bias": np.zeros(width, np.float32),
    }
    tensors = pooler | dict(tensors)
    names = [n for n, p in places(config.num_hidden_layers) if p.file == TASK_WEIGHTS]
    files = [WEIGHTS, *([TASK_WEIGHTS] if any(n in tensors for n in names) else [])]
    for file_name in files:
        with h5py.File(os.path.join(folder, file_name), "w") as file:
            for name, place in places(config.num_hidden_layers):
                if place.file == file_name and name in tensors:
                    values = tensors[name].T if place.is_transposed else tensors[name]
                    values = _with_heads(name, values, config)
                    file.create_dataset(place.path, data=values)


def _with_heads(name: str, values: np.ndarray, config: BertConfig) -> np.ndarray:
    """The reverse of `without_heads`."""
    heads = (config.num_attention_heads, config.head_size)
    if "/attention/self/" in name:
        return values.reshape(*values.shape[:-1], *heads)
    if name.endswith("attention/output/dense/kernel"):
        return values.reshape(*heads, values.shape[-1])
    return values


def preset_texts(
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    tokenizer: TokenizerSettings | None,
) -> dict[str, str]:
    """File name -> content of a preset's configs.

    Args:
      tensors: The weights, for the class of the head.
      config: The architecture.
      tokenizer: Its settings; None if the preset has no vocabulary.
    """
    sizes = {theirs: getattr(config, name) for name, theirs in reversed(_SIZES.items())}
    backbone = _object("models.bert.bert_backbone", "BertBackbone", sizes)
    objects = {"config": backbone}
    objects["metadata"] = {
        "keras_version": importlib.metadata.version("keras"),
        "keras_hub_version": "0.32.0",
        "parameter_count": sum(
            t.size for n, t in tensors.items() if tensor_names.is_encoder(n)
        ),
    }
    words = None
    if tokenizer:
        values = {
            "config_file": "tokenizer.json",
            "vocabulary": None,
            "lowercase": tokenizer.do_lower_case,
            "strip_accents": tokenizer.strip_accents,
        }
        words = _object("models.bert.bert_tokenizer", "BertTokenizer", values, "int32")
        objects["tokenizer"] = words
    task = next((c for c, name in _CLASSES.items() if name in tensors), "")
    if task:
        module = "masked_lm" if task == "BertMaskedLM" else "text_classifier"
        values = {"backbone": backbone, "preprocessor": None}
        if words:
            objects["preprocessor"] = values["preprocessor"] = _object(
                f"models.bert.bert_{module}_preprocessor",
                f"{task}Preprocessor",
                {
                    "tokenizer": words,
                    "config_file": "preprocessor.json",
                    "sequence_length": config.max_position_embeddings,
                },
            )
        if task == "BertTextClassifier":
            values["num_classes"] = len(tensors["output_bias"])
        objects["task"] = _object(f"models.bert.bert_{module}", task, values, "")
    return {f"{n}.json": json.dumps(o, indent=4) + "\n" for n, o in objects.items()}


def _object(
    module: str, name: str, values: Mapping[str, Any], dtype: str = "float32"
) -> dict[str, Any]:
    """What Keras's `serialize_keras_object` returns for an object of keras-hub."""
    policy = {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype},
        "registered_name": None,
    }
    return {
        "module": f"keras_hub.src.{module}",
        "class_name": name,
        "config": {**({"dtype": policy} if dtype else {}), **values},
        "registered_name": f"keras_hub>{name}",
    }
