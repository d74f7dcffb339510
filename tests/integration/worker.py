"""What each process of a test under mpirun does; started by test_workers and others.

Arguments: a JSON file with {name: command line}, and a folder for the results. Each run
leaves <name>-<rank>.npz: all weights and optimizer state, losses, the gradients of its
first step but for a factor, the line about its compute path, evaluation results. The
first worker alone takes part in a run whose name ends with "alone".
"""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
from runs import parse

from bert_tf.distribute import Communicator, configure_devices, connect
from bert_tf.jobs import pretraining
from bert_tf.jobs.run import stopping
from bert_tf.jobs.run.agreement import agree
from bert_tf.jobs.run.compute_path import describe_path, own_path
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.training_loop import train
from bert_tf.modeling.models import backends_of
from bert_tf.training.runlog import RunLog


class StepLog(RunLog):
    """Keeps the losses of every step, and the first moments after the first one."""

    def __init__(self, optimizer):
        self.losses, self.gradients, self.messages = [], {}, []
        self._optimizer = optimizer

    def message(self, text):
        self.messages.append(text)

    def progress(self, step, values):
        if not self.losses:  # They were zero before: a part of the gradient.
            slots = self._optimizer.slots().items()
            moments = {n: v.numpy() for n, v in slots if n.endswith("adam_m")}
            self.gradients = {f"gradient {n}": x for n, x in moments.items()}
        self.losses.append(values["loss"])


def train_and_evaluate(arguments, communicator, path=None):
    """Runs one command line; returns state, losses and results by name."""
    config = parse("pretraining", *arguments)
    communicator.sends_fp16 = config.runtime.horovod_compression == "fp16"
    plan = pretraining.prepare(config, communicator)
    if communicator.rank and not plan.start.prefix:
        for variable in plan.task.model.trainable_variables:
            variable.assign(variable + 1.0)  # The broadcast must undo this.
    communicator.broadcast(plan.variables)
    log = StepLog(plan.optimizer)
    session = Session(communicator, log=log)
    train(plan, session)
    arrays = {v.path: v.numpy() for v in plan.task.model.trainable_variables}
    arrays |= {n: v.numpy() for n, v in plan.optimizer.slots().items()}
    arrays |= log.gradients | {"losses": np.asarray(log.losses)}
    arrays["result messages"] = np.asarray(log.messages)
    path = path or own_path()
    arrays["result path"] = np.asarray(
        describe_path(backends_of(plan.task.model), path)
    )
    if config.training.do_eval:
        results = pretraining.evaluate(plan, session)
        arrays |= {f"result {n}": np.asarray(x) for n, x in results.items()}
    return arrays


def main():
    runs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    communicator = connect(horovod=True)
    path, _ = agree(communicator, threads=configure_devices(communicator, 1))
    for name, arguments in runs.items():
        arrays, is_alone = {}, name.endswith("alone")
        if communicator.rank == 0 or not is_alone:
            workers = Communicator() if is_alone else communicator
            arrays = train_and_evaluate(arguments, workers, path)
        else:
            next(stopping._NUMBERS)  # As the first worker's heartbeat takes one.
        file = pathlib.Path(sys.argv[2], f"{name}-{communicator.rank}.npz")
        np.savez(file, **arrays)
        communicator.agree(None)  # The next run may start from the first one's files.


if __name__ == "__main__":
    main()
