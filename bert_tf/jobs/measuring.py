"""One worker of a measurement: times what a plan of many workers is made of.

`python -m bert_tf plan --measure` starts it under mpirun:

    mpirun -np 4 python -m bert_tf.jobs.measuring REQUEST.json RESULT.json

The first worker writes its result: {"allreduces": [{"bytes", "seconds"}], "steps":
[{"micro_batches", "seconds"}]}, medians of the times until the last worker was ready.
"""

import contextlib
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_tf.config import BertConfig
from bert_tf.distribute import Communicator, configure_devices, connect
from bert_tf.errors import OtherWorkerFailed, RunError, one_line
from bert_tf.files import write_whole
from bert_tf.jobs.run.agreement import agree
from bert_tf.json_files import read_json_object
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import choose_policy
from bert_tf.scaling import gradient_shapes
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer

_LOSS_SCALE = 1024.0
_MIN_REPEATS = 3
# For all repeats of one measurement. Sums of a few milliseconds are repeated for longer
# than other work of the machine disturbs them.
_MIN_SECONDS, _MAX_SECONDS = 3.0, 30.0


def measure(request: dict[str, Any], communicator: Communicator) -> dict[str, Any]:
    """Measures what a request asks for.

    Args:
      request: {"allreduces": [architecture], "steps": [number of micro-batches],
        "bert": architecture, "rows": B, "length": S, "predictions": P, "precision",
        "repeats"}; an architecture has the keys of bert_config.json.
      communicator: The workers.

    Returns:
      See above; equal on all workers.
    """
    repeats = request["repeats"]
    allreduces = []
    for number, values in enumerate(request["allreduces"]):
        shapes = gradient_shapes(BertConfig(**values))
        add_up = _make_sum(shapes, communicator, f"measured_{number}")
        seconds = _seconds(add_up, communicator, repeats)
        num_bytes = sum(4 * int(np.prod(shape)) for shape in shapes)
        allreduces.append({"bytes": num_bytes, "seconds": seconds})
    steps = []
    for count in request["steps"]:
        step = _make_step(request, count, communicator)
        seconds = _seconds(step, communicator, repeats)
        steps.append({"micro_batches": count, "seconds": seconds})
        keras.backend.clear_session()
    return {"allreduces": allreduces, "steps": steps}


def _seconds(
    work: Callable[[], object], communicator: Communicator, repeats: int
) -> float:
    """The median time until the last worker has done some work that all begin at once.

    The workers wait for each other before, as they do in front of a step's allreduce.
    """
    work()  # Traces the graph, and lets Horovod agree on the names of tensors.
    slowest: list[float] = []
    while len(slowest) < repeats or sum(slowest) < _MIN_SECONDS:
        communicator.agree(None)
        begin = time.perf_counter()
        work()
        own = time.perf_counter() - begin
        slowest.append(float(communicator.gather([own]).max()))
        if len(slowest) >= _MIN_REPEATS and sum(slowest) > _MAX_SECONDS:
            break
    return statistics.median(slowest)


def _make_sum(
    shapes: Sequence[tuple[int, ...]], communicator: Communicator, name: str
) -> Callable[[], object]:
    """A graph that sums gradients of these shapes, as a step does."""
    tensors = [tf.ones(shape) for shape in shapes]

    @tf.function
    def add_up(tensors: list[tf.Tensor]) -> tf.Tensor:
        # What is not used is not computed: one number of each sum is.
        sums = communicator.sum(tensors, name)
        return tf.add_n([tf.reshape(each, [-1])[0] for each in sums])

    def check() -> None:
        found, expected = float(add_up(tensors)), len(shapes) * communicator.size
        if found != expected:
            raise RunError(
                f"An allreduce of ones must give {expected}. Received: {found}. "
                "Build Horovod again: make horovod."
            )

    return check


def _make_step(
    request: dict[str, Any], num_micro_batches: int, communicator: Communicator
) -> Callable[[], object]:
    """Steps of a pre-training on random tokens."""
    bert, precision = BertConfig(**request["bert"]), request["precision"]
    length, predictions = request["length"], request["predictions"]
    shape = (num_micro_batches, request["rows"])
    rng = np.random.default_rng(communicator.rank)
    batch = {
        "input_ids": rng.integers(0, bert.vocab_size, (*shape, length)),
        "input_mask": np.ones((*shape, length)),
        "segment_ids": np.zeros((*shape, length)),
        "positions": np.tile(np.arange(length), (*shape, 1)),
        "masked_lm_positions": np.tile(np.arange(predictions), (*shape, 1)),
        "masked_lm_ids": rng.integers(0, bert.vocab_size, (*shape, predictions)),
        "masked_lm_weights": np.ones((*shape, predictions)),
        "next_sentence_positions": np.zeros((*shape, 1)),
        "next_sentence_labels": np.zeros((*shape, 1)),
        "next_sentence_weights": np.ones((*shape, 1)),
    }
    batch = {
        name: values.astype(np.float32 if name.endswith("_weights") else np.int32)
        for name, values in batch.items()
    }
    model = build_pretraining_model(
        bert,
        max_seq_length=length,
        seeded_dropout=True,
        allow_fused=True,
        policy=choose_policy(precision, ""),
    )
    communicator.broadcast(model.trainable_variables)
    trainer = Trainer(
        PretrainingTask(model),
        build_optimizer("lamb", 1e-4),
        communicator,
        GradientSettings(rank=communicator.rank),
        LossScale(_LOSS_SCALE) if precision == "fp16" else None,
    )
    return lambda: trainer.train_step(batch)


def share_cores(workers: int) -> None:
    """Binds this process to a core where workers outnumber those of the launcher.

    Each core has equally many of them. Left to the system, four on two cores take a
    quarter longer for a small sum, and eight do not, which no model can predict.

    Args:
      workers: How many were started on this machine.
    """
    cores = sorted(os.sched_getaffinity(0))
    rank = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", 0))
    if workers > len(cores):
        os.sched_setaffinity(0, {cores[rank % len(cores)]})


def main(arguments: Sequence[str]) -> int:
    """Runs a worker, and ends it when its time is over.

    Args:
      arguments: The files of request and result.

    Returns:
      The exit status.
    """
    request = read_json_object(arguments[0])
    # The launcher may be gone: no worker outlives the time of a measurement.
    signal.alarm(request["seconds"])
    try:
        share_cores(request["workers"])  # Before there are threads of Horovod.
        communicator = connect(request["workers"] > 1)
        threads = configure_devices(communicator, 1)
        agree(communicator, threads=threads)
        result = measure(request, communicator)
    except OtherWorkerFailed:
        return 1
    except (RunError, ValueError, OSError, tf.errors.OpError) as error:
        print("error:", one_line(error), file=sys.stderr)
        return 1
    if communicator.rank == 0:
        write_whole(arguments[1], json.dumps(result))
    with contextlib.suppress(RunError):
        communicator.agree(None)  # mpirun ends the others when one has ended.
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
