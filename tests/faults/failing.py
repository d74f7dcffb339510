"""Pre-trains, with a worker that ends badly: failing.py KIND RANK STEP FLAGS..."""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import run_pretraining
from bert_tf.launch import launched_rank, leave
from bert_tf.training.trainer import Trainer

kind, rank, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
take_step = Trainer.train_step


def fail():
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "raise":
        raise ZeroDivisionError("a mistake in the code")
    elif kind == "exit":
        sys.exit(0)
    elif kind == "_exit":
        os._exit(0)
    elif kind == "hang":
        time.sleep(1000)


def train_step(self, batch):
    if self.step + 1 == step and launched_rank() == rank:
        print("FAILING", flush=True)
        fail()
    return take_step(self, batch)


Trainer.train_step = train_step
leave(run_pretraining.main([sys.argv[0], *sys.argv[4:]]))
