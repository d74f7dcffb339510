"""tf-models-official on TensorFlow: mixed_bfloat16, AdamW, clipping, dropout 0.1."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

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
sequences = worker.sequences_of(work)
ids, mask = worker.padded(sequences)
inputs = {
    "input_word_ids": tf.constant(ids, tf.int32),
    "input_mask": tf.constant(mask, tf.int32),
    "input_type_ids": tf.zeros(ids.shape, tf.int32),
    "masked_lm_positions": tf.constant([s.positions for s in sequences], tf.int32),
}
labels = tf.constant([s.labels for s in sequences], tf.int32)
follows = tf.constant([s.follows for s in sequences], tf.int32)
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
