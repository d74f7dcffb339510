"""What each process of a test under mpirun does; started by test_workers.

Arguments: a JSON file with {name: command line}, and a folder for the results. Each run
leaves <name>-<rank>.npz: all weights and optimizer state, losses, evaluation results.
"""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np

from bert_tf import flags
from bert_tf.config import PretrainingConfig
from bert_tf.distribute import configure_devices, connect
from bert_tf.jobs import pretraining
from bert_tf.jobs.agreement import agree
from bert_tf.jobs.preparation import prepare
from bert_tf.training.runlog import RunLog


class LossLog(RunLog):
    """Keeps the losses of every step."""

    def __init__(self):
        self.losses = []

    def progress(self, step, values):
        self.losses.append(values["loss"])


def train_and_evaluate(arguments, communicator):
    """Runs one command line; returns state, losses and results by name."""
    config = flags.parse(PretrainingConfig, ["run", *arguments])
    plan = prepare(config, communicator)
    if communicator.rank and not plan.start.prefix:
        for variable in plan.task.model.trainable_variables:
            variable.assign(variable + 1.0)  # The broadcast must put this right.
    communicator.broadcast(pretraining.shared_state(plan))
    log = LossLog()
    pretraining.train(plan, communicator, log)
    arrays = {v.path: v.numpy() for v in plan.task.model.trainable_variables}
    arrays |= {n: v.numpy() for n, v in plan.optimizer.slots().items()}
    arrays["losses"] = np.asarray(log.losses)
    if config.training.do_eval:
        results = pretraining.evaluate(plan, communicator, log)
        arrays |= {f"result {n}": np.asarray(x) for n, x in results.items()}
    return arrays


def main():
    runs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    communicator = connect(horovod=True)
    agree(communicator, threads=configure_devices(communicator, 1))
    for name, arguments in runs.items():
        arrays = train_and_evaluate(arguments, communicator)
        path = pathlib.Path(sys.argv[2], f"{name}-{communicator.rank}.npz")
        np.savez(path, **arrays)


if __name__ == "__main__":
    main()
