"""`model.fit` on several workers, for any Keras 3 model; see docs/keras.md."""

from bert_tf.keras_fit.fit import connect_workers, distribute_model

__all__ = ["connect_workers", "distribute_model"]
