"""Whole runs from Python: what run_pretraining, run_squad and run_classifier do.

Settings have the names of the scripts' flags.
"""

import dataclasses
import difflib
import os
from typing import Any

from bert_tf.config import PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.paths import check_run
from bert_tf.flags import make_config
from bert_tf.jobs import classifier, pretraining, squad


def pretrain(**settings: Any) -> dict[str, float]:  # noqa: ANN401
    """Pre-trains and evaluates, as run_pretraining does.

    Args:
      **settings: Values of its flags, which `python run_pretraining.py --help` lists.

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


def _config(config_class: type, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    known = [
        field.name
        for group in dataclasses.fields(config_class)
        for field in dataclasses.fields(group.type)
    ]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise ValueError(
                "Settings must have the names of the script's flags. Received: "
                f"{name}.{hint}"
            )
    values = {
        name: tuple(value)
        if isinstance(value, list)
        else os.fspath(value)
        if isinstance(value, os.PathLike)
        else value
        for name, value in settings.items()
    }
    config = make_config(config_class, values)
    check_run(config)
    return config
