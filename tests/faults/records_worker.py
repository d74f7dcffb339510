"""What each process of a fault test under mpirun does.

Arguments: a JSON file with {name: command line}, and a folder for the results. Each run
leaves <name>-<rank>.npz: all weights and optimizer state, "error" and "messages".
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

from bert_tf.distribute import configure_devices, connect
from bert_tf.errors import RunError
from bert_tf.jobs import pretraining
from bert_tf.jobs.run.agreement import agree
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.training_loop import train
from bert_tf.training.runlog import RunLog


class Messages(RunLog):
    """Keeps the lines of a log."""

    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def run(arguments, communicator):
    """Trains; returns state, messages and error by name."""
    log, arrays, error = Messages(), {}, ""
    try:
        plan = pretraining.prepare(parse("pretraining", *arguments), communicator)
        communicator.broadcast(plan.variables)
        log.lines += plan.notes
        train(plan, Session(communicator, log=log))
        arrays = {v.path: v.numpy() for v in plan.task.model.trainable_variables}
        arrays |= {n: v.numpy() for n, v in plan.optimizer.slots().items()}
    except RunError as caught:
        error = str(caught)
    return arrays | {"error": np.asarray(error), "messages": np.asarray(log.lines)}


def main():
    runs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    communicator = connect(horovod=True)
    agree(communicator, threads=configure_devices(communicator, 1))
    for name, arguments in runs.items():
        arrays = run(arguments, communicator)
        np.savez(pathlib.Path(sys.argv[2], f"{name}-{communicator.rank}.npz"), **arrays)
        communicator.agree(None)


if __name__ == "__main__":
    main()
