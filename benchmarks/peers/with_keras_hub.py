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
sequences = worker.sequences_of(work)
ids, mask = worker.padded(sequences)
inputs = {
    "token_ids": ids.astype("int32"),
    "segment_ids": np.zeros_like(ids, "int32"),
    "padding_mask": mask.astype("int32"),
    "mask_positions": np.array([s.positions for s in sequences], "int32"),
}
model = keras_hub.models.BertMaskedLM(backbone=backbone, preprocessor=None)
model.compile(
    optimizer=keras.optimizers.AdamW(1e-4, global_clipnorm=1.0),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=False,
)
labels = np.array([s.labels for s in sequences], "int32")
worker.serve(lambda: float(np.ravel(model.train_on_batch(inputs, labels))[0]))
