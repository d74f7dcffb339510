"""tf-models-official on TensorFlow: mixed_bfloat16, AdamW, clipping, dropout 0.1."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tf_keras
import worker
from official.nlp import optimization
from official.nlp.modeling import layers as official_layers
from official.nlp.modeling import models, networks

work = worker.workload()
tf.config.threading.set_intra_op_parallelism_threads(work["threads"])
tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
num_layers, width, heads, inner = worker.SHAPES[work["model"]]
encoder = networks.BertEncoder(
    vocab_size=worker.VOCABULARY,
    hidden_size=width,
    num_layers=num_layers,
    num_attention_heads=heads,
    inner_dim=inner,
    return_all_encoder_outputs=False,
)
head = official_layers.ClassificationHead(width, 2, name="next_sentence")
model = models.BertPretrainerV2(encoder, classification_heads=[head])
optimizer = optimization.create_optimizer(1e-4, 10**6, 100)
rng = np.random.default_rng(0)
batch, length, num_masked = work["batch"], work["length"], work["predictions"]
ids = tf.constant(rng.integers(1000, 30000, (batch, length)), tf.int32)
places = tf.tile(tf.range(1, 1 + num_masked)[None], [batch, 1])
inputs = {
    "input_word_ids": ids,
    "input_mask": tf.ones_like(ids),
    "input_type_ids": tf.zeros_like(ids),
    "masked_lm_positions": places,
}
labels, follows = ids[:, 1 : 1 + num_masked], tf.zeros([batch], tf.int32)
loss_of = tf.nn.sparse_softmax_cross_entropy_with_logits


@tf.function
def step() -> tf.Tensor:
    """A step of pre-training."""
    with tf.GradientTape() as tape:
        outputs = model(inputs, training=True)
        words = tf.cast(outputs["mlm_logits"], tf.float32)
        follow = tf.cast(outputs["next_sentence"], tf.float32)
        loss = tf.reduce_mean(loss_of(labels, words))
        loss += tf.reduce_mean(loss_of(follows, follow))
    variables = model.trainable_variables
    gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 1.0)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return loss


worker.serve(lambda: step().numpy())
