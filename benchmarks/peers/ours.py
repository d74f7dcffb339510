"""This library: bfloat16, LAMB, clipping, dropout 0.1."""

import contextlib
import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
import tensorflow as tf
import worker

from bert_tf import fused_ops
from bert_tf.config import BertConfig
from bert_tf.distribute import Communicator
from bert_tf.modeling.backends.fused_products import prepack
from bert_tf.modeling.models import build_encoder_model, step_scope
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer

work = worker.workload()
tf.config.threading.set_intra_op_parallelism_threads(work["threads"])
layers, width, heads, inner = worker.SHAPES[work["model"]]
rate = work.get("dropout", 0.1)
config = BertConfig(
    vocab_size=worker.VOCABULARY,
    hidden_size=width,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    intermediate_size=inner,
    hidden_dropout_prob=rate,
    attention_probs_dropout_prob=rate,
)
policy = PrecisionPolicy(work.get("precision", "bf16"))
rng = np.random.default_rng(0)
# Rows of one or more sequences, by their lengths.
rows = work.get("rows") or [[work["length"]]] * work["batch"]
batch, length, num_masked = len(rows), work["length"], work["predictions"]
most = max(map(len, rows))


def features() -> dict[str, np.ndarray]:
    """One batch of packed rows: [B, ...]."""
    result = {
        "input_ids": rng.integers(1000, 30000, (batch, length)),
        "input_mask": np.zeros((batch, length)),
        "segment_ids": np.zeros((batch, length)),
        "positions": np.zeros((batch, length)),
        "masked_lm_positions": np.zeros((batch, num_masked)),
        "masked_lm_ids": rng.integers(1000, 30000, (batch, num_masked)),
        "masked_lm_weights": np.zeros((batch, num_masked)),
        "next_sentence_positions": np.zeros((batch, most)),
        "next_sentence_labels": np.zeros((batch, most)),
        "next_sentence_weights": np.zeros((batch, most)),
    }
    for i, lengths in enumerate(rows):
        start = 0
        for number, n in enumerate(lengths):
            result["input_mask"][i, start : start + n] = number + 1
            result["positions"][i, start : start + n] = np.arange(n)
            result["next_sentence_positions"][i, number] = start
            result["next_sentence_weights"][i, number] = 1
            start += n
        masked = min(num_masked, max(1, round(0.15 * start)))
        result["masked_lm_positions"][i, :masked] = np.arange(masked)
        result["masked_lm_weights"][i, :masked] = 1
    floats = ("masked_lm_weights", "next_sentence_weights")
    return {k: v.astype("f4" if k in floats else "i4") for k, v in result.items()}


def training() -> worker.Step:
    """Steps of pre-training, each of `accumulation` micro-batches."""
    model = build_pretraining_model(
        config,
        max_seq_length=length,
        policy=policy,
        seeded_dropout=True,
        allow_fused=True,
        recompute=work.get("recompute", False),
    )
    optimizer = build_optimizer("lamb", 1e-4)
    task = PretrainingTask(model)
    trainer = Trainer(task, optimizer, Communicator(), GradientSettings())
    parts = work.get("accumulation", 1)
    data = {k: np.repeat(v[None], parts, axis=0) for k, v in features().items()}
    return lambda: trainer.train_step(data)


def prediction() -> worker.Step:
    """Batches of questions and contexts, to the hidden states and two logits."""
    encoder = build_encoder_model(
        config, max_seq_length=length, policy=policy, allow_fused=True
    )
    data = {t.name: tf.constant(features()[t.name]) for t in encoder.inputs}
    kernel = tf.random.normal([width, 2])

    @tf.function
    def predict() -> tf.Tensor:
        return encoder(data, training=False)["sequence_output"] @ kernel

    open_for_good.enter_context(step_scope(encoder))
    return lambda: predict().numpy()


def products() -> worker.Step:
    """The dense layers' products of a step alone, with both gradients; no attention."""
    library = fused_ops.library()

    @tf.function
    def multiply(
        x: tf.Tensor, dy: tf.Tensor, w: tf.Tensor, w_backward: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        if library is None:
            gradients = (
                tf.matmul(dy, w, transpose_b=True),
                tf.matmul(x, dy, transpose_a=True),
            )
            return tf.matmul(x, w), *gradients
        depth, wide = x.shape[1], dy.shape[1]
        return (
            library.bert_product(x=x, panels=w, added=[], width=wide),
            library.bert_product(x=dy, panels=w_backward, added=[], width=depth),
            *library.bert_kernel_gradients(x=x, dy=dy, sums=[], count=1, height=depth),
        )

    def bfloats(*shape: int) -> tf.Tensor:
        return tf.cast(tf.random.normal(shape), tf.bfloat16)

    calls = []
    for m, k, n, count in worker.products_of(work):
        matrix = tf.random.normal([k, n])
        w = w_backward = tf.cast(matrix, tf.bfloat16)
        if library is not None:
            w, w_backward = prepack([matrix])
        calls.append((count, (bfloats(m, k), bfloats(m, n), w, w_backward)))

    def step() -> None:
        for count, inputs in calls:
            for _ in range(count):
                multiply(*inputs)

    return step


kinds = {"train": training, "predict": prediction, "products": products}
with contextlib.ExitStack() as open_for_good:
    worker.serve(kinds[work["kind"]]())
