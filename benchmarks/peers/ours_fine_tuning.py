"""This library's fine-tuning: bfloat16, AdamW, clipping, dropout 0.1.

A step of training is an optimizer step on examples drawn from all, one of prediction
is all of them, dealt out and read as `run_squad.py` and `run_classifier.py` do.
"""

import contextlib
import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
import tensorflow as tf
import worker

from bert_tf.config import BertConfig
from bert_tf.data.batches.example_batches import (
    ExampleReader,
    LabelledSequences,
    prediction_batches,
)
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.distribute import Communicator
from bert_tf.evaluation.prediction import compiled
from bert_tf.modeling.finetuning import (
    ClassTask,
    FinetuningTask,
    SpanTask,
    build_classifier_model,
    build_span_model,
)
from bert_tf.precision import PrecisionPolicy
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer

work = worker.workload()
tf.config.threading.set_intra_op_parallelism_threads(work["threads"])
lengths, is_span = np.array(work["lengths"]), work["task"] == "squad"
rows = RowSettings(work["length"], work["packed"])


def examples() -> LabelledSequences:
    """Random tokens of the given lengths, with random answers or classes."""
    rng = np.random.default_rng(0)
    offsets = np.append(0, np.cumsum(lengths))
    ids = rng.integers(1000, 30000, offsets[-1]).astype(np.int32)
    sequences = TokenSequences(ids, np.zeros_like(ids), offsets)
    if not is_span:
        classes = rng.integers(0, 2, len(lengths)).astype(np.int32)
        return LabelledSequences(sequences, {"labels": classes})
    names = ("start_positions", "end_positions")
    places = {name: rng.integers(0, lengths).astype(np.int32) for name in names}
    return LabelledSequences(sequences, places, names)


def make_task() -> FinetuningTask:
    """The model and its loss."""
    config = BertConfig(
        **worker.architecture(work),
    )
    settings = {
        "max_seq_length": work["length"],
        "policy": PrecisionPolicy("bf16"),
        "allow_fused": True,
    }
    if is_span:
        return SpanTask(build_span_model(config, **settings))
    return ClassTask(build_classifier_model(config, 2, **settings))


def training() -> worker.Step:
    """Optimizer steps on new examples each."""
    order = RecordOrder(num_records=len(lengths), seed=0, is_shuffled=True)
    parts = work["batch"] // work["micro_batch"]
    shape = BatchShape(micro_batch_size=work["micro_batch"], num_micro_batches=parts)
    reader = ExampleReader(examples(), order, shape, rows)
    trainer = Trainer(
        make_task(),
        build_optimizer("adamw", 1e-5),
        Communicator(),
        GradientSettings(),
        rows_vary=reader.rows_vary,
    )
    batches = reader.batches(10**6)
    return lambda: trainer.train_step(next(batches))


def prediction() -> worker.Step:
    """The logits of all examples."""
    data = examples()
    graph = open_for_good.enter_context(compiled(make_task()))

    def step() -> None:
        for batch in prediction_batches(data, rows, batch_size=work["batch"]):
            features = {k: tf.convert_to_tensor(v) for k, v in batch.features.items()}
            graph(features).numpy()

    return step


with contextlib.ExitStack() as open_for_good:
    worker.serve({"train": training, "predict": prediction}[work["kind"]]())
