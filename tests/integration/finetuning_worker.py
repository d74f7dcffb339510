"""What each process of a test under mpirun does; see test_finetuning_workers.

Arguments: a JSON file with {name: [job, command line]}, and a folder for the results.
RANK in a command line is the worker's number. Each run leaves <name>-<rank>.npz: the
weights, and the scores as `score <name>`.
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
from runs import run

from bert_tf.jobs import finetuning
from bert_tf.jobs.run.resume import weights_by_name


def run_job(job, arguments):
    """Runs one command line; returns what this worker ended with, by name."""
    plans = []
    describe = finetuning.describe

    def remember(plan, *more):
        plans.append(plan)
        describe(plan, *more)

    finetuning.describe = remember
    try:
        scores = run(job, *arguments)
    finally:
        finetuning.describe = describe
    [plan] = plans
    arrays = {n: v.numpy() for n, v in weights_by_name(plan.task.model).items()}
    return arrays | {f"score {name}": np.asarray(x) for name, x in scores.items()}


def main():
    runs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    rank = os.environ["OMPI_COMM_WORLD_RANK"]
    for name, (job, arguments) in runs.items():
        own = [word.replace("RANK", rank) for word in arguments]
        arrays = run_job(job, [*own, "--horovod"])
        np.savez(pathlib.Path(sys.argv[2], f"{name}-{rank}.npz"), **arrays)


if __name__ == "__main__":
    main()
