"""BERT pre-training and fine-tuning with TensorFlow, Keras 3 and Horovod."""

from collections.abc import Callable

_PRETRAINED = ("from_pretrained", "save_pretrained")


def __getattr__(name: str) -> Callable[..., object]:
    """Loads TensorFlow only for who asks for a model."""
    if name not in _PRETRAINED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bert_tf.interop import pretrained

    return getattr(pretrained, name)
