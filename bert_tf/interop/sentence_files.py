"""The files by which sentence-transformers knows how a folder makes vectors of texts.

Source: sentence-transformers, `modules.json` and the configs of its modules.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_tf.json_files import read_json, read_object

EMBED = "embed"
MODULES = "modules.json"
_LENGTH = "sentence_bert_config.json"
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
        "config_sentence_transformers.json": similarity,
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
        return _checked(
            os.path.join(folder, "task.json"),
            "mean" if is_pooling_given else description.get("pooling"),
            description.get("max_seq_length"),
        )
    path = os.path.join(folder, MODULES)
    if not os.path.isfile(path):
        return SentenceSettings()
    length = read_object(os.path.join(folder, _LENGTH)).get("max_seq_length")
    if is_pooling_given:
        return _checked(path, "mean", length or 0)
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
    return _checked(path, mode or "mean", length or 0)


def _checked(path: str, pooling: object, length: object) -> SentenceSettings:
    if not isinstance(pooling, str) or pooling not in _POOLINGS:
        raise ValueError(
            f"{path}: the pooling must be mean or cls. Received: {pooling!r}. Use "
            "another model, or pass --pooling to `predict embed`."
        )
    if type(length) is not int or length < 0:  # True is no number.
        raise ValueError(
            f"{path}: max_seq_length must be a whole number. Received: {length!r}. "
            "Correct the file."
        )
    return SentenceSettings(pooling, length)
