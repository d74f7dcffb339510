"""Whole runs from Python: what run_pretraining, run_squad and the others do.

Settings have the names of the scripts' flags.
"""

import contextlib
import numbers
import os
from typing import Any

import numpy as np

from bert_tf.config import PretrainingConfig
from bert_tf.config.checks import require_threads
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.options import Option
from bert_tf.config.paths import check_run
from bert_tf.config.sentences import SentencesConfig
from bert_tf.errors import did_you_mean, shown
from bert_tf.flags import aliases_of, all_options, make_config
from bert_tf.jobs import classifier, pretraining, sentences, squad
from bert_tf.launch import check_launch, require_no_fork

_TYPES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
}


def pretrain(**settings: Any) -> dict[str, float]:  # noqa: ANN401
    """Pre-trains and evaluates, as run_pretraining does.

    Args:
      **settings: Values of its flags, which `python run_pretraining.py --help` lists;
        None is the default.

    Returns:
      The results of the evaluation; empty without one.

    Raises:
      ValueError: if a setting is unknown or has a wrong value.
      RunError: if the run cannot start or continue.
    """
    return pretraining.run(_config(PretrainingConfig, settings))


def finetune_squad(**settings: Any) -> dict[str, float]:  # noqa: ANN401
    """Trains, predicts and evaluates as run_squad does; see `pretrain`."""
    return squad.run(_config(SquadConfig, settings))


def finetune_classifier(**settings: Any) -> dict[str, float]:  # noqa: ANN401
    """Trains, predicts and evaluates as run_classifier does; see `pretrain`."""
    return classifier.run(_config(ClassifierConfig, settings))


def train_sentences(**settings: Any) -> dict[str, float]:  # noqa: ANN401
    """Trains and evaluates as run_sentences does; see `pretrain`."""
    return sentences.run(_config(SentencesConfig, settings))


def _config(config_class: type, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    known, aliases = all_options(config_class), aliases_of(config_class)
    for name in settings:
        if name not in known and name not in aliases:
            raise ValueError(
                "Settings must have the names of the script's flags. Received: "
                f"{name}. {did_you_mean(name, known)}".rstrip()
            )
    settings = {name: x for name, x in settings.items() if x is not None}
    for alias, name in aliases.items():
        if alias in settings:
            value = settings.pop(alias)
            if settings.setdefault(name, value) != value:
                raise ValueError(
                    f"`{alias}` and `{name}` are the same setting. Received: {alias}="
                    f"{shown(value)}, {name}={shown(settings[name])}. Pass one of them."
                )
    given = {name: _value(known[name], x) for name, x in settings.items()}
    config = make_config(config_class, given)
    require_no_fork()
    check_launch(config.runtime.horovod)
    require_threads(config.runtime.num_threads)
    check_run(config)
    if config.runtime.chosen_precision in ("avx-fp32", "bf32"):
        raise ValueError(
            "`precision` must be fp32, bf16 or fp16 from Python: the others are set "
            "before TensorFlow is loaded. Received: precision="
            f"{config.runtime.chosen_precision}. Run the script for it."
        )
    return config


def _value(option: Option, value: object) -> object:
    """A value in the type of its flag: a path as text, a list or a text as a tuple.

    Raises:
      ValueError: if it is of another type, such as "false" for False.
    """
    kind = option.kind
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    with contextlib.suppress(OverflowError):  # Of numbers that no float can be.
        if kind is int and is_number and float(value).is_integer():
            return int(value)
        if kind is float and is_number:
            return float(value)
    if kind is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if kind is tuple and isinstance(value, str):  # As absl reads a list.
        return tuple(part.strip() for part in value.split(",")) if value else ()
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(map(str, value))
    raise ValueError(
        f"`{option.name}` must be {_TYPES[kind]}. Received: {option.name}="
        f"{shown(value)}."
    )
