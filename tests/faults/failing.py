"""Pre-trains, with a worker that ends badly: failing.py KIND RANK PLACE FLAGS...

PLACE is a step; or "join", before it joins the others, or "prepare", afterwards.
"""

import os
import pathlib
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import run_pretraining
from bert_tf.jobs import pretraining
from bert_tf.jobs.run import session, watchdog
from bert_tf.launch import launched_rank, leave
from bert_tf.training.trainer import Trainer

kind, rank, place = sys.argv[1], int(sys.argv[2]), sys.argv[3]
watchdog._LEAST_JOIN_SECONDS = 20.0
take_step = Trainer.train_step


def fail_first(module, name):
    """Makes the worker fail before it calls a function."""
    call = getattr(module, name)

    def failing(*arguments):
        if launched_rank() == rank:
            fail()
        return call(*arguments)

    setattr(module, name, failing)


def fail():
    print("FAILING", flush=True)
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


def train_step(self, batch, **more):
    if str(self.step + 1) == place and launched_rank() == rank:
        fail()
    return take_step(self, batch, **more)


Trainer.train_step = train_step
if place == "join":
    fail_first(session, "connect")
elif place == "prepare":
    fail_first(pretraining, "prepare")
leave(run_pretraining.main([sys.argv[0], *sys.argv[4:]]))
