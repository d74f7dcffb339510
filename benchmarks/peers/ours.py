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
from bert_tf.interop.weights import assign_weights, read_weights
from bert_tf.modeling.backends.fused_products import prepack
from bert_tf.modeling.models import build_encoder_model, step_scope
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer

work = worker.workload()
tf.config.threading.set_intra_op_parallelism_threads(work["threads"])
rate = work.get("dropout", 0.1)
config = BertConfig(
    **worker.architecture(work),
    hidden_dropout_prob=rate,
    attention_probs_dropout_prob=rate,
)
policy = PrecisionPolicy(work.get("precision", "bf16"))
length = work["length"]
uses_xla = work.get("use_xla", False)


def features(
    rows: list[list[worker.Sequence]], length: int | None = length
) -> dict[str, np.ndarray]:
    """One batch of packed rows: [B, ...]."""
    widths = [sum(len(s.ids) for s in row) for row in rows]
    most = max(map(len, rows))
    most_masked = max(sum(len(s.labels) for s in row) for row in rows)
    sizes = {
        **dict.fromkeys(("input_ids", "input_mask", "segment_ids", "positions"), None),
        **dict.fromkeys(("masked_lm_positions", "masked_lm_ids"), most_masked),
        "masked_lm_weights": most_masked,
        "next_sentence_positions": most,
        "next_sentence_labels": most,
        "next_sentence_weights": most,
    }
    result = {
        name: np.zeros(
            (len(rows), size or length or max(widths)),
            "f4" if name.endswith("weights") else "i4",
        )
        for name, size in sizes.items()
    }
    for i, row in enumerate(rows):
        start = masked = 0
        for number, sequence in enumerate(row):
            tokens = slice(start, start + len(sequence.ids))
            chosen = slice(masked, masked + len(sequence.labels))
            result["input_ids"][i, tokens] = sequence.ids
            result["input_mask"][i, tokens] = number + 1
            result["positions"][i, tokens] = np.arange(len(sequence.ids))
            result["masked_lm_positions"][i, chosen] = start + sequence.positions
            result["masked_lm_ids"][i, chosen] = sequence.labels
            result["masked_lm_weights"][i, chosen] = 1
            result["next_sentence_positions"][i, number] = start
            result["next_sentence_labels"][i, number] = sequence.follows
            result["next_sentence_weights"][i, number] = 1
            start, masked = tokens.stop, chosen.stop
    return result


def packed_rows() -> list[list[worker.Sequence]]:
    """The sequences in their rows."""
    sequences = iter(worker.sequences_of(work))
    return [[next(sequences) for _ in row] for row in worker.rows_of(work)]


def training() -> worker.Step:
    """Steps of pre-training, each of `accumulation` micro-batches."""
    model = build_pretraining_model(
        config,
        max_seq_length=length,
        policy=policy,
        seeded_dropout=True,
        allow_fused=not uses_xla,
        recompute=work.get("recompute", False),
    )
    if "weights" in work:
        variables = {variable.path: variable for variable in model.trainable_variables}
        assign_weights(read_weights(work["weights"]), variables)
    optimizer = build_optimizer("lamb", 1e-4)
    task = PretrainingTask(model)
    settings = GradientSettings(use_xla=uses_xla)
    trainer = Trainer(task, optimizer, Communicator(), settings)
    parts = work.get("accumulation", 1)
    data = {
        name: np.repeat(values[None], parts, axis=0)
        for name, values in features(packed_rows()).items()
    }
    return lambda: sum(trainer.train_step(data).losses.values())


def prediction() -> worker.Step:
    """Batches of questions and contexts, to the hidden states and two logits."""
    encoder = build_encoder_model(config, policy=policy, allow_fused=True)
    rows = packed_rows()
    size = work.get("at_once") or len(rows)
    batches = []
    for first in range(0, len(rows), size):
        # A row is as long as the batch needs it.
        found = features(rows[first : first + size], None)
        batches.append({t.name: tf.constant(found[t.name]) for t in encoder.inputs})
    kernel = tf.random.normal([config.hidden_size, 2])

    @tf.function(reduce_retracing=True)
    def predict(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return encoder(batch, training=False)["sequence_output"] @ kernel

    def step() -> None:
        for batch in batches:
            predict(batch).numpy()

    open_for_good.enter_context(step_scope(encoder))
    return step


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


def peak_mb() -> float:
    """Most memory that tensors had on the GPU."""
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


kinds = {"train": training, "predict": prediction, "products": products}
with contextlib.ExitStack() as open_for_good:
    gpu = {"peak_memory": peak_mb} if work.get("device") == "cuda" else {}
    worker.serve(kinds[work["kind"]](), **gpu)
