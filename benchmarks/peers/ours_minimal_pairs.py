"""This library: pseudo-log-likelihoods of minimal pairs, see `minimal_pairs.py`."""

import os
import pathlib
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import tensorflow as tf
import worker

from bert_tf.suite.inputs import MinimalPair
from bert_tf.suite.measures import encode_pairs
from bert_tf.suite.scorer import Scorer

work = worker.workload()
tf.config.threading.set_intra_op_parallelism_threads(work["threads"])
scorer = Scorer(work["model"])


def score(pairs: list[list[str]]) -> list[list[float]]:
    """Both sums of each pair."""
    named = [MinimalPair(good, bad, "", "", "") for good, bad in pairs]
    sequences, numbers = encode_pairs(scorer, named)
    sums = scorer.pseudo_log_likelihoods(list(sequences), lambda _: None)
    return sums[numbers].tolist()


worker.serve(worker.scoring(work, score))
