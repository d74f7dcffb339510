"""What `fit` on several workers must know of a model and its data."""

from typing import Any

import keras
import tensorflow as tf

from bert_tf.training.optimizer_base import BertOptimizer

_BATCH_STATISTICS = (
    keras.layers.BatchNormalization,
    keras.layers.SpectralNormalization,
)


def optimizers_of(model: keras.Model) -> list[keras.Optimizer]:
    """The optimizers of a model, each once, in the order of its attributes."""
    found: dict[int, keras.Optimizer] = {}
    for value in vars(model).values():
        values = value.values() if isinstance(value, dict) else value
        values = values if isinstance(value, dict | list | tuple) else [value]
        found |= {id(x): x for x in values if isinstance(x, keras.Optimizer)}
    return list(found.values())


def statistics_of(model: keras.Model) -> list[keras.Variable]:
    """Weights that no gradient changes, such as moving means; frozen ones left out."""
    layers = model._flatten_layers()
    found = {id(v): v for layer in layers for v in layer._non_trainable_variables}
    return list(found.values())


def _is_not_linear(optimizer: keras.Optimizer | None) -> bool:
    """Whether slices of a gradient may act otherwise than their sum does."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer is None or isinstance(optimizer, BertOptimizer):
        return False
    is_clipped = optimizer.clipnorm or optimizer.global_clipnorm or optimizer.clipvalue
    is_sgd = isinstance(optimizer, keras.optimizers.SGD)
    return not optimizer.gradient_accumulation_steps and (is_clipped or not is_sgd)


def _makes_mask(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)


def arrays(batch: Any) -> list[tf.Tensor]:  # noqa: ANN401
    """The dense tensors of a batch."""
    return [x for x in keras.tree.flatten(batch) if isinstance(x, tf.Tensor)]


def without_optionals(batch: Any) -> Any:  # noqa: ANN401
    """The batch as Keras gives it to a step."""
    return keras.tree.map_structure(
        lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch
    )


def count_rows(data: Any) -> tf.Tensor:  # noqa: ANN401
    """Rows of a batch, float32; 1 where its first part has no rows."""
    first = next((x for x in keras.tree.flatten(data) if hasattr(x, "shape")), None)
    if first is None or not first.shape.rank:
        return tf.constant(1.0)
    return tf.cast(tf.shape(first)[0], tf.float32)


def count_batches(settings: dict[str, Any]) -> int:
    """Batches of the training data, or TensorFlow's number for unknown or infinite."""
    x = settings.get("x")
    if isinstance(x, tf.data.Dataset):
        return int(x.cardinality())
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches or tf.data.UNKNOWN_CARDINALITY
    if rows := [len(part) for part in keras.tree.flatten(x) if hasattr(part, "shape")]:
        return -(-rows[0] // (settings.get("batch_size") or 32))
    return tf.data.UNKNOWN_CARDINALITY


def departures(model: keras.Model, settings: dict[str, Any]) -> list[str]:
    """What makes several workers differ from one process on the joined batches."""
    layers = list(model._flatten_layers())
    found = []
    if names := [x.name for x in layers if isinstance(x, _BATCH_STATISTICS)]:
        found.append(f"statistics of a batch are of one worker's rows ({names[0]})")
    if names := [x.name for x in layers if x._seed_generators]:
        found.append(f"random layers draw other numbers ({names[0]})")
    if names := [x.name for x in layers if _makes_mask(x)]:
        found.append(
            f"a masked loss is a mean over one worker's unmasked values ({names[0]})"
        )
    tables = [x.name for x in layers if isinstance(x, keras.layers.Embedding)]
    if tables and _is_not_linear(model.optimizer):
        found.append(
            "gradients of an embedding are summed over equal ids before the optimizer "
            f"squares or clips them, which Keras alone does for each id ({tables[0]})"
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        found.append("float16 may overflow in other steps, which are skipped")
    losses = [x for x in keras.tree.flatten(model.loss) if hasattr(x, "reduction")]
    usual = (None, "none", "mean", "sum_over_batch_size")
    if kinds := [x.reduction for x in losses if x.reduction not in usual]:
        found.append(
            f"gradients are the mean over workers where the loss has {kinds[0]!r}"
        )
    x, is_shuffled = settings.get("x"), settings.get("shuffle", True)
    is_array = any(hasattr(part, "shape") for part in keras.tree.flatten(x))
    if is_array and is_shuffled and not isinstance(x, tf.data.Dataset):
        found.append("each worker shuffles its own rows (pass shuffle=False)")
    return found
