"""Names of BERT's tensors: google-research/bert's, which are ours, and Hugging Face's.

Hugging Face names the same modules with dots. Its linear layers have `weight` [O, I],
the original's have `kernel` [I, O]. Layer normalisation has gamma and beta in its older
files, weight and bias in newer ones.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_LAYER = "encoder.layer.*"
_DENSE = (
    f"{_LAYER}.attention.self.query",
    f"{_LAYER}.attention.self.key",
    f"{_LAYER}.attention.self.value",
    f"{_LAYER}.attention.output.dense",
    f"{_LAYER}.intermediate.dense",
    f"{_LAYER}.output.dense",
    "pooler.dense",
    "cls.predictions.transform.dense",
)
_LAYER_NORMS = (
    "embeddings.LayerNorm",
    f"{_LAYER}.attention.output.LayerNorm",
    f"{_LAYER}.output.LayerNorm",
    "cls.predictions.transform.LayerNorm",
)
_TABLES = ("word_embeddings", "token_type_embeddings", "position_embeddings")
# The decoder is tied: where a file holds its weight too, it is the word table again.
_HEADS = {
    "cls.predictions.bias": "cls/predictions/output_bias",
    "cls.predictions.decoder.bias": "cls/predictions/output_bias",
    "cls.predictions.decoder.weight": "bert/embeddings/word_embeddings",
    "cls.seq_relationship.weight": "cls/seq_relationship/output_weights",
    "cls.seq_relationship.bias": "cls/seq_relationship/output_bias",
    "classifier.weight": "output_weights",
    "classifier.bias": "output_bias",
    "qa_outputs.weight": "cls/squad/output_weights",
    "qa_outputs.bias": "cls/squad/output_bias",
}
_HEAD_PREFIXES = ("cls.", "classifier.", "qa_outputs.")
# The names of the same modules in the PyTorch trainers of MLPerf and NVIDIA.
_SPELLINGS = (
    (r"^(bert_model_segment|heads_only_segment)\.", ""),
    (r"\.dense_act\.", ".dense."),
    (r"\.attention\.layer_norm\.", ".attention.output.LayerNorm."),
    (r"\.multi_head_attention\.out_proj_(weight|bias)$", r".output.dense.\1"),
    (r"\.multi_head_attention\.q_(weight|bias)$", r".self.query.\1"),
    (r"\.multi_head_attention\.k_(weight|bias)$", r".self.key.\1"),
    (r"\.multi_head_attention\.v_(weight|bias)$", r".self.value.\1"),
)
# Prefixes of models in PyTorch's wrappers: devices, compilers, trainers, encoders.
_WRAPPER = r"((?:module|_orig_mod|model|auto_model|\d+)\.)+"
_INSIDE_WRAPPER = re.compile(rf"({_WRAPPER})embeddings\.word_embeddings\.weight")
_INSIDE_ANY = re.compile(r"(.+\.)bert\.embeddings\.word_embeddings\.weight")
_INSIDE_SCOPE = re.compile(r"(.+/)bert/embeddings/word_embeddings")
# TensorFlow's own layer gives such names; there is one in each scope.
_NUMBERED_LAYER_NORM = re.compile(r"/layer_normalization(_\d+)?/")
_LAYER_NUMBER = re.compile(r"bert/encoder/layer_(\d+)/")
# The numbers 0, 1, 2, ...: no weight, but a part of some files.
_WITHOUT_MEANING = "embeddings.position_ids"

_CLASSIFIER = "classifier/"


class TensorName(NamedTuple):
    """A tensor in the original's naming.

    Attributes:
      name: google-research/bert's name, which is the variable's path in our models.
      is_transposed: Whether its axes are in the reverse order of Hugging Face's.
    """

    name: str
    is_transposed: bool = False


def _scope(module: str) -> str:
    """The original's scope of a module named in Hugging Face's way."""
    scope = module.replace(".layer.*", ".layer_*").replace(".", "/")
    return scope if scope.startswith("cls/") else f"bert/{scope}"


def _make_table() -> dict[str, TensorName]:
    """Every name of Hugging Face's, `*` for a layer's number; the usual one first."""
    table = {}
    for name in _TABLES:
        module = f"embeddings.{name}"
        table[f"{module}.weight"] = TensorName(_scope(module))
    for module in _DENSE:
        table[f"{module}.weight"] = TensorName(f"{_scope(module)}/kernel", True)
        table[f"{module}.bias"] = TensorName(f"{_scope(module)}/bias")
    for module in _LAYER_NORMS:
        for leaf, ours in (("weight", "gamma"), ("bias", "beta")):
            table[f"{module}.{leaf}"] = TensorName(f"{_scope(module)}/{ours}")
            table[f"{module}.{ours}"] = TensorName(f"{_scope(module)}/{ours}")
    table.update((name, TensorName(ours)) for name, ours in _HEADS.items())
    return table


_FROM_HUGGINGFACE = _make_table()
_TO_HUGGINGFACE = {
    tensor.name: name for name, tensor in reversed(_FROM_HUGGINGFACE.items())
}


def usual_spelling(name: str) -> str:
    """The name that Hugging Face gives to a tensor of another PyTorch trainer."""
    for pattern, replacement in _SPELLINGS:
        name = re.sub(pattern, replacement, name)
    return name


def wrapper_of(names: Iterable[str]) -> str:
    """The prefix that a wrapper has added to all names of a BERT.

    `module.`, `model.` or the like of PyTorch's wrappers, or a scope of TensorFlow's.

    Args:
      names: Names of all tensors of a file, Hugging Face's or google-research/bert's.

    Returns:
      The prefix; empty if there is none.

    Raises:
      ValueError: if there are several, as of a query's and a context's encoder.
    """
    found = set()
    for name in names:
        for pattern in (_INSIDE_WRAPPER, _INSIDE_ANY, _INSIDE_SCOPE):
            if match := pattern.fullmatch(name):
                found.add(match[1])
    if len(found) > 1:
        raise ValueError(
            f"it must hold one BERT. Received: {len(found)}, whose names begin with "
            f"{', '.join(sorted(found))}. Save one of them in a separate file."
        )
    return found.pop() if found else ""


def usual_scopes(name: str) -> str:
    """A name in google-research/bert's way, of one as TensorFlow 2's layers give it."""
    return _NUMBERED_LAYER_NORM.sub("/LayerNorm/", name)


def num_layers(names: Iterable[str]) -> int:
    """Layers of the encoder that has tensors of these names, the original's."""
    found = (_LAYER_NUMBER.match(name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def is_ignored(huggingface_name: str) -> bool:
    """Whether a tensor of a Hugging Face file carries nothing that a BERT needs."""
    name = usual_spelling(huggingface_name)
    return name.removeprefix("bert.") == _WITHOUT_MEANING


def from_huggingface(huggingface_name: str) -> TensorName | None:
    """The original's name of a Hugging Face tensor.

    Args:
      huggingface_name: With the prefix `bert.` or without it, either spelling of
        layer normalisation, or as MLPerf's and NVIDIA's trainers spell it.

    Returns:
      Name and layout, or None if no BERT has such a tensor: neither the encoder nor
      the heads of pre-training, classification and questions. Two names give the same
      one where Hugging Face stores a tied tensor twice.
    """
    usual = usual_spelling(huggingface_name)
    name = usual.removeprefix("bert.")
    if name != usual and name.startswith(_HEAD_PREFIXES):  # Heads have no prefix.
        return None
    found = re.search(r"\.layer\.(0|[1-9][0-9]*)\.", name)
    number = found[1] if found else ""
    tensor = _FROM_HUGGINGFACE.get(
        name.replace(found[0], ".layer.*.", 1) if found else name
    )
    if tensor is None or (found is None and "*" in tensor.name):
        return None
    return tensor._replace(name=tensor.name.replace("*", number))


def to_huggingface(name: str) -> str:
    """The Hugging Face name, prefix included, of a tensor in the original's naming.

    Raises:
      ValueError: if no BERT has such a tensor.
    """
    found = re.search(r"/layer_(0|[1-9][0-9]*)/", name)
    template = name.replace(found[0], "/layer_*/", 1) if found else name
    other = _TO_HUGGINGFACE.get(template)
    if other is None or "*" in name:
        raise ValueError(
            "`name` must be a tensor of google-research/bert's models. "
            f"Received: name={name}."
        )
    if found:
        other = other.replace("*", found[1])
    return other if other.startswith(_HEAD_PREFIXES) else f"bert.{other}"


def of_variable(path: str) -> str:
    """The original's name of a variable of our models, by its path.

    It is the path, except that the original's classifier has no scope.
    """
    return path.removeprefix(_CLASSIFIER)


def is_original(name: str) -> bool:
    """Whether one of google-research/bert's models has a tensor of that name."""
    try:
        to_huggingface(name)
    except ValueError:
        return False
    return True


def is_encoder(name: str) -> bool:
    """Whether a tensor in the original's naming belongs to the encoder, not a head."""
    return name.startswith("bert/")
