"""Encoder checkpoints of TensorFlow's Model Garden (`official.nlp`), by our names.

A tensor's name is its path among the objects of a model. The newer encoder names its
parts; the older one numbers those with weights: 0 to 2 are the tables of words,
positions and segments, 3 is their normalisation, the encoder's layers follow, and the
pooler is the last. Kernels have separate axes for heads: [H, N, D] instead of [H, H].
"""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from bert_tf.interop.tensor_shapes import without_heads

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT = "/.OPTIMIZER_SLOT/"
_COUNTERS = re.compile(r"(^|/)(save_counter|optimizer|_optimizer)(/|$)")
_NUMBERED = re.compile(r"(?:^|.*/)layer_with_weights-(\d+)/(.+)")
_TABLE_LEAVES = ("embeddings", "position_embeddings")

_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
_NUMBER_OF_LAYER_NORM = 3
_FIRST_LAYER = 4

_LAYER_PARTS = {
    "_attention_layer/_query_dense": "attention/self/query",
    "_attention_layer/_key_dense": "attention/self/key",
    "_attention_layer/_value_dense": "attention/self/value",
    "_attention_layer/_output_dense": "attention/output/dense",
    "_attention_layer_norm": "attention/output/LayerNorm",
    "_intermediate_dense": "intermediate/dense",
    "_output_dense": "output/dense",
    "_output_layer_norm": "output/LayerNorm",
}
_PARTS = {
    "_embedding_layer/embeddings": "bert/embeddings/word_embeddings",
    "_position_embedding_layer/embeddings": "bert/embeddings/position_embeddings",
    "_type_embedding_layer/embeddings": "bert/embeddings/token_type_embeddings",
    "_embedding_norm_layer/gamma": "bert/embeddings/LayerNorm/gamma",
    "_embedding_norm_layer/beta": "bert/embeddings/LayerNorm/beta",
    "_pooler_layer/kernel": "bert/pooler/dense/kernel",
    "_pooler_layer/bias": "bert/pooler/dense/bias",
    "masked_lm/embedding_table": "bert/embeddings/word_embeddings",
    "masked_lm/dense/kernel": "cls/predictions/transform/dense/kernel",
    "masked_lm/dense/bias": "cls/predictions/transform/dense/bias",
    "masked_lm/layer_norm/gamma": "cls/predictions/transform/LayerNorm/gamma",
    "masked_lm/layer_norm/beta": "cls/predictions/transform/LayerNorm/beta",
    "masked_lm/output_bias.Sbias": "cls/predictions/output_bias",
}
# Pre-training trains this one in place of the encoder's own pooler.
_TRAINED_POOLER = "next_sentence..pooler_dense/"


def is_weight(name: str) -> bool:
    """Whether a tensor of an object checkpoint may be a weight of the model."""
    is_variable = name.endswith(_SUFFIX) and _SLOT not in name
    return is_variable and not _COUNTERS.search(name)


def is_model_garden(names: Iterable[str]) -> bool:
    """Whether the tensors of a checkpoint are called as Model Garden's encoder."""
    return any("/_attention_layer/_query_dense/kernel" in name for name in names)


def to_original_names(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames tensors and joins the heads of kernels as google-research/bert does.

    Args:
      tensors: Model Garden's name -> values.

    Returns:
      google-research/bert's name -> values, float32; kernels [I, O]. A tensor that has
      no counterpart there, such as a classification head, keeps its name.
    """
    last = max((_number(name) for name in tensors), default=-1)
    renamed: dict[str, np.ndarray] = {}
    for theirs in sorted(tensors, key=lambda name: _TRAINED_POOLER in name):
        name = _renamed(theirs.removesuffix(_SUFFIX), last) or theirs
        values = np.asarray(tensors[theirs], np.float32)
        renamed[name] = without_heads(name, values)
    return renamed


def _number(name: str) -> int:
    found = _NUMBERED.match(name)
    return int(found[1]) if found else -1


def _renamed(path: str, last: int) -> str | None:
    """The original's name of one tensor; `last` is the highest number of any part."""
    if _TRAINED_POOLER in path:
        return f"bert/pooler/dense/{path.rsplit('/', 1)[1]}"
    for ending, name in _PARTS.items():
        if path == ending or path.endswith(f"/{ending}"):
            return name
    layer = re.match(r"(?:^|.*/)_transformer_layers/(\d+)/(.+)", path)
    if layer:
        return _in_layer(int(layer[1]), layer[2])
    numbered = _NUMBERED.match(path)
    return _by_number(int(numbered[1]), numbered[2], last) if numbered else None


def _in_layer(number: int, path: str) -> str | None:
    part, _, leaf = path.rpartition("/")
    if part not in _LAYER_PARTS:
        return None
    return f"bert/encoder/layer_{number}/{_LAYER_PARTS[part]}/{leaf}"


def _by_number(number: int, path: str, last: int) -> str | None:
    if number < len(_TABLES) and path in _TABLE_LEAVES:
        return f"bert/embeddings/{_TABLES[number]}"
    if number == _NUMBER_OF_LAYER_NORM and path in ("gamma", "beta"):
        return f"bert/embeddings/LayerNorm/{path}"
    if number == last and path in ("kernel", "bias"):
        return f"bert/pooler/dense/{path}"
    return _in_layer(number - _FIRST_LAYER, path) if number >= _FIRST_LAYER else None
