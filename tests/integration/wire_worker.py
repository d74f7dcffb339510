"""Adds up tensors with another host, and counts what goes over the network.

Arguments: the file for the results, and megabytes for --horovod_fusion_threshold.
"""

import json
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow as tf

from bert_tf.distribute import connect


def sent_bytes():
    """As the network device counts them."""
    lines = pathlib.Path("/proc/net/dev").read_text().splitlines()
    [line] = [line for line in lines if line.strip().startswith("eth0:")]
    return int(line.partition(":")[2].split()[8])


def measure(communicator, tensors):
    """Bytes and seconds of a sum, the mean of three after one more."""
    zero = tf.constant(0.0)
    for number in range(4):
        if number == 1:
            communicator.agree(None)
            before, started = sent_bytes(), time.perf_counter()
        sums = communicator.sum_gradients(tensors, zero, "gradients")
        assert float(sums[0][0]) == communicator.size
    # What is still in the queue of the device is sent before the answer to this.
    communicator.agree(None)
    seconds = time.perf_counter() - started
    return {"bytes": (sent_bytes() - before) / 3, "seconds": seconds / 3}


def main():
    path, *threshold = sys.argv[1:]
    communicator = connect(
        True, fusion_threshold=int(*threshold) if threshold else None
    )
    results = {"many": measure(communicator, [tf.ones([4])] * 500)}
    for name in ("float32", "float16"):
        communicator.sends_fp16 = name == "float16"
        results[name] = measure(communicator, [tf.ones([1 << 20])] * 2)
    if communicator.rank == 0:
        pathlib.Path(path).write_text(json.dumps(results))
    communicator.agree(None)


if __name__ == "__main__":
    main()
