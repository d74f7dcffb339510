"""Lets `keras.models.load_model` find our classes after `import bert_tf` alone.

Keras finds classes of files by a table that modules fill when they are imported. Here
the table gets entries that import the module only when a file asks for the class, so
that `import bert_tf` does not load TensorFlow.
"""

import importlib
import types
from typing import Any

import wrapt

PACKAGE = "bert_tf"
# Module -> its classes with @keras.saving.register_keras_serializable.
CLASSES = {
    "modeling.encoder": ("Bert",),
    "modeling.models": ("EncoderModel",),
    "modeling.pretraining": ("PretrainingHeads", "PretrainingModel"),
    "modeling.finetuning": (
        *("ClassifierHead", "ClassifierModel"),
        *("SpanHead", "SpanModel"),
    ),
    "modeling.sentences": ("SentenceModel", "SentencePooling"),
    "training.optimizers": ("AdamW", "AdamWeightDecay", "LAMB"),
    "training.schedules": ("WarmupPolynomialDecay",),
}


class _Entry:
    """Stands for a class until its module is imported, which replaces the entry."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def from_config(self, config: dict[str, Any]) -> object:
        module = importlib.import_module(f"{PACKAGE}.{self._module}")
        return getattr(module, self._name).from_config(config)


def register_with_keras() -> None:
    """Fills the table as soon as Keras is imported, or now if it is already."""
    wrapt.register_post_import_hook(_fill_table, "keras")


def _fill_table(keras: types.ModuleType) -> None:
    table = keras.saving.get_custom_objects()
    for module, names in CLASSES.items():
        for name in names:
            table.setdefault(f"{PACKAGE}>{name}", _Entry(module, name))
