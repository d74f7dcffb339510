"""Operations that use the same threads at once: all end, and none is mixed up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bert_tf import fused_ops

PROGRAM = Path(__file__).with_name("parallel_loops.py")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_operations_at_once_compute_what_each_computes_alone(threads):
    if reason := fused_ops.why_missing():
        pytest.skip(reason)
    settings = {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": "3"}
    result = subprocess.run(
        [sys.executable, PROGRAM],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | settings | {"PYTHONPATH": str(PROGRAM.parents[2])},
    )
    assert result.stdout == "equal\n", result.stderr
