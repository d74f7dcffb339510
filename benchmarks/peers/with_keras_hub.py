"""keras-hub on TensorFlow: mixed_bfloat16, AdamW, clipping, dropout 0.1; no NSP."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import keras_hub
import numpy as np
import tensorflow as tf
import worker

work = worker.workload()
tf.config.threading.set_intra_op_parallelism_threads(work["threads"])
keras.mixed_precision.set_global_policy("mixed_bfloat16")
layers, width, heads, inner = worker.SHAPES[work["model"]]
backbone = keras_hub.models.BertBackbone(
    vocabulary_size=worker.VOCABULARY,
    num_layers=layers,
    num_heads=heads,
    hidden_dim=width,
    intermediate_dim=inner,
    max_sequence_length=512,
)
rng = np.random.default_rng(0)
batch, length, num_masked = work["batch"], work["length"], work["predictions"]
ids = rng.integers(1000, 30000, (batch, length)).astype("int32")
inputs = {
    "token_ids": ids,
    "segment_ids": np.zeros_like(ids),
    "padding_mask": np.ones_like(ids),
    "mask_positions": np.tile(np.arange(1, 1 + num_masked, dtype="int32"), (batch, 1)),
}
model = keras_hub.models.BertMaskedLM(backbone=backbone, preprocessor=None)
model.compile(
    optimizer=keras.optimizers.AdamW(1e-4, global_clipnorm=1.0),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=False,
)
labels = ids[:, 1 : 1 + num_masked]
worker.serve(lambda: model.train_on_batch(inputs, labels))
