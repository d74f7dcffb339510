"""Whole runs from Python: what run_pretraining, run_squad and the others do.

Settings have the names of the scripts' flags.
"""

import os
from typing import Any

from bert_tf.config import PretrainingConfig
from bert_tf.config.checks import require_threads
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.options import Option
from bert_tf.config.paths import check_run
from bert_tf.config.sentences import SentencesConfig
from bert_tf.errors import did_you_mean
from bert_tf.flags import all_options, make_config
from bert_tf.jobs import classifier, pretraining, sentences, squad
from bert_tf.launch import check_launch


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


def train_sentences(**settings: Any) -> dict[str, float]:  # noqa: ANN401
    """Trains and evaluates as run_sentences does; see `pretrain`."""
    return sentences.run(_config(SentencesConfig, settings))


def _config(config_class: type, settings: dict[str, Any]) -> Any:  # noqa: ANN401
    known = all_options(config_class)
    for name in settings:
        if name not in known:
            raise ValueError(
                "Settings must have the names of the script's flags. Received: "
                f"{name}. {did_you_mean(name, known)}".rstrip()
            )
    config = make_config(
        config_class, {n: _value(known[n], value) for n, value in settings.items()}
    )
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
    """A value of the type of its flag: a path as text, a list or a text as a tuple."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if option.kind is tuple and isinstance(value, str):
        return tuple(value.split(","))
    return tuple(value) if isinstance(value, list) else value
