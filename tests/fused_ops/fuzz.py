"""Calls the compiled operations at random; a program, since a bad read is its end.

    python tests/fused_ops/fuzz.py LOG SEED CALLS

LOG holds the call that is being made, for whoever finds the program dead. Each input
ends at a protected page. A right call must succeed, a spoiled one may be refused.
"""

import collections
import ctypes
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import tensorflow as tf
from fused_ops.calls import OPERATIONS, Draw, spoil
from fused_ops.guarded import GuardedMemory, address

from bert_tf import fused_ops

REFUSALS = (
    tf.errors.InvalidArgumentError,
    tf.errors.ResourceExhaustedError,
    ValueError,  # TensorFlow's own, before the operation is reached.
    TypeError,
)


class Caller:
    """Makes calls of inputs in guarded memory."""

    def __init__(self):
        self.memory = [GuardedMemory() for _ in range(12)]

    def call(self, name, tensors, attributes):
        rooms = iter(self.memory)

        def place(value):
            if isinstance(value, list):
                return [place(one) for one in value]
            return next(rooms).tensor(value)

        inputs = {argument: place(value) for argument, value in tensors.items()}
        if name == "adam_step":
            # A variable is a handle; one twice where a spoiled value is NaN.
            variables = {}
            for argument in ("weights", "first_moment", "second_moment"):
                values = inputs[argument]
                is_twice = variables and not np.isfinite(tensors[argument]).all()
                made = [*variables.values()][0] if is_twice else tf.Variable(values)
                variables[argument] = made
                inputs[argument] = made.handle
        return getattr(fused_ops.library(), f"bert_{name}")(**inputs, **attributes)


def describe(name, tensors, attributes):
    def text(value):
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return f"{value.dtype}{list(value.shape)}"

    inputs = ", ".join(f"{key}={text(value)}" for key, value in tensors.items())
    return f"{name}({inputs}, {attributes})"


def main(log, seed, calls):
    caller, outcomes = Caller(), collections.Counter()
    with open(log, "w") as file:
        for number in range(calls):
            draw = Draw(np.random.default_rng([seed, number]))
            operation = OPERATIONS[number % len(OPERATIONS)]
            tensors, attributes = operation(draw)
            times = draw.one((0, 1, 1, 2))
            for _ in range(times):
                spoil(draw, tensors, attributes)
            file.seek(0)
            file.write(f"{number}: {describe(operation.__name__, tensors, attributes)}")
            file.truncate()
            file.flush()
            try:
                caller.call(operation.__name__, tensors, attributes)
                outcomes["accepted"] += 1
            except REFUSALS:
                if times == 0:
                    raise
                outcomes["refused"] += 1
    print(outcomes["accepted"], outcomes["refused"])


def read_past_the_end():
    """What the protected page is for: must end the process."""
    values = np.arange(33, dtype=np.uint16)
    tensor = GuardedMemory().tensor(values)
    assert tensor.dtype == tf.bfloat16
    ctypes.string_at(address(tensor), values.nbytes)
    print("all of it is there", flush=True)
    ctypes.string_at(address(tensor), values.nbytes + 1)


if __name__ == "__main__":
    if sys.argv[1:] == ["read-past-the-end"]:
        read_past_the_end()
    else:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
