"""BERT pre-training and fine-tuning with TensorFlow, Keras 3 and Horovod."""

import importlib
from collections.abc import Callable

_MODULES = {
    "from_pretrained": "bert_tf.interop.pretrained",
    "save_pretrained": "bert_tf.interop.pretrained",
    "connect_workers": "bert_tf.keras_fit",
    "distribute_model": "bert_tf.keras_fit",
}


def __getattr__(name: str) -> Callable[..., object]:
    """Loads TensorFlow only for who asks for a model."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
