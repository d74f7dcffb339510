"""The files by which sentence-transformers knows how a folder makes vectors of texts.

Source: sentence-transformers, `modules.json` and the configs of its modules.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_tf.data.text.tokenizer_settings import TOKENIZER_CONFIG
from bert_tf.errors import listed
from bert_tf.json_files import read_json, read_object

EMBED = "embed"
MODULES = "modules.json"
_LENGTH = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_TYPE = "sentence_transformers.models."
# Ours -> theirs.
_POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
_OTHERS = (
    *("pooling_mode_max_tokens", "pooling_mode_mean_sqrt_len_tokens"),
    *("pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"),
)


class SentenceSettings(NamedTuple):
    """How a model makes vectors of texts.

    Attributes:
      pooling: mean or cls; empty: no file says.
      max_seq_length: Longer texts are cut; 0: no file says.
    """

    pooling: str = ""
    max_seq_length: int = 0


def sentence_files(settings: SentenceSettings, hidden_size: int) -> dict[str, str]:
    """Path in the folder -> content of the files to write next to the weights."""
    names = (
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Normalize", "Normalize"),
    )
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{_TYPE}{name}"}
        for i, (path, name) in enumerate(names)
    ]
    modes = {key: name == settings.pooling for name, key in _POOLINGS.items()}
    modes |= dict.fromkeys(_OTHERS, False)
    similarity = {"prompts": {}, "similarity_fn_name": "cosine"}
    length = {"max_seq_length": settings.max_seq_length, "do_lower_case": False}
    contents = {
        MODULES: modules,
        "1_Pooling/config.json": {"word_embedding_dimension": hidden_size, **modes},
        _LENGTH: length,
        _PROMPTS: similarity,
    }
    return {name: json.dumps(x, indent=2) + "\n" for name, x in contents.items()}


def read_settings(
    folder: str, description: Mapping[str, Any], *, is_pooling_given: bool = False
) -> SentenceSettings:
    """Reads how a model makes vectors of texts.

    Args:
      folder: The folder of its weights.
      description: The content of task.json there; empty without it.
      is_pooling_given: Whether the pooling of the files does not matter.

    Raises:
      ValueError: if a file cannot be used, or asks for what is not done here.
    """
    if description.get("task") == EMBED:
        path, key = os.path.join(folder, "task.json"), "max_seq_length"
        length = _checked_length(path, key, description.get(key))
        pooling = "mean" if is_pooling_given else description.get("pooling")
        return _checked(path, pooling, length)
    path = os.path.join(folder, MODULES)
    if not os.path.isfile(path):
        return SentenceSettings()
    length = _max_seq_length(folder)
    if is_pooling_given:
        return _checked(path, "mean", length)
    modules = read_json(path)
    kinds = {"Transformer": "", "Pooling": "", "Normalize": ""}
    for module in modules if isinstance(modules, list) else [modules]:
        values = module if isinstance(module, dict) else {}
        name = str(values.get("type")).rpartition(".")[2]
        if name not in kinds:
            raise ValueError(
                f"{path}: the modules must be Transformer, Pooling and Normalize. "
                f"Received: {name}. Use sentence-transformers for this model."
            )
        kinds[name] = str(values.get("path") or "")
    path = os.path.join(folder, kinds["Pooling"], "config.json")
    values = read_object(path) if kinds["Pooling"] else {}
    modes = [key for key in values if key in _OTHERS and values[key]]
    modes += [name for name, key in _POOLINGS.items() if values.get(key)]
    mode = values.get("pooling_mode") or ",".join(modes)
    return _checked(path, mode or "mean", length)


def describe_prompts(folder: str) -> list[str]:
    """A warning about the texts that a model wants before its inputs, if it has any."""
    path = os.path.join(folder, _PROMPTS)
    prompts = read_object(path).get("prompts")
    stated = [p for p in prompts.values() if p] if isinstance(prompts, dict) else []
    if not stated:
        return []
    return [
        f"warning: {path} has prompts, which are not put before texts here: "
        f"{listed(map(repr, stated))}. Put them there yourself."
    ]


def _max_seq_length(folder: str) -> int:
    """As sentence-transformers finds it; version 6 leaves it to the tokenizer."""
    path, key = os.path.join(folder, _LENGTH), "max_seq_length"
    if read_object(path).get(key) is None:
        path, key = os.path.join(folder, TOKENIZER_CONFIG), "model_max_length"
    length = read_object(path).get(key)
    # transformers writes 1e30 where there is no limit.
    if isinstance(length, float) and length.is_integer():
        length = int(length)
    return _checked_length(path, key, length or 0)


def _checked(path: str, pooling: object, length: int) -> SentenceSettings:
    if not isinstance(pooling, str) or pooling not in _POOLINGS:
        raise ValueError(
            f"{path}: the pooling must be mean or cls. Received: {pooling!r}. Use "
            "another model, or pass --pooling to `predict embed`."
        )
    return SentenceSettings(pooling, length)


def _checked_length(path: str, key: str, length: object) -> int:
    if type(length) is not int or length < 0:  # True is no number.
        raise ValueError(
            f"{path}: {key} must be a whole number. Received: {length!r}. "
            "Correct the file."
        )
    return length
