"""BERT pre-training and fine-tuning with TensorFlow, Keras 3 and Horovod."""

from typing import Any

_PRETRAINED = ("from_pretrained", "save_pretrained")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a function of `interop.pretrained`
    """Loads TensorFlow only for who asks for a model."""
    if name not in _PRETRAINED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bert_tf.interop import pretrained

    return getattr(pretrained, name)
