"""All settings of the library: frozen dataclasses that check their own values."""

from bert_tf.config.data import CreateDataConfig
from bert_tf.config.model import PRESETS, BertConfig
from bert_tf.config.pretraining import (
    BatchConfig,
    FilesConfig,
    PretrainingConfig,
    TrainingConfig,
)
from bert_tf.config.run import OptimizerConfig
from bert_tf.config.runtime import RuntimeConfig

__all__ = [
    "PRESETS",
    "BatchConfig",
    "BertConfig",
    "CreateDataConfig",
    "FilesConfig",
    "OptimizerConfig",
    "PretrainingConfig",
    "RuntimeConfig",
    "TrainingConfig",
]
