"""Random calls of every compiled operation, in a process that a bad one ends.

BERT_TF_FUZZ_CALLS: how many, 4,000 if it is not set; of them every fourth is right, and
the others have one or two arguments spoiled.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bert_tf import fused_ops

PROGRAM = Path(__file__).with_name("fuzz.py")
pytestmark = pytest.mark.slow
CALLS = int(os.environ.get("BERT_TF_FUZZ_CALLS", "4000"))


def run(*arguments, timeout, isa=""):
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {fused_ops.ENVIRONMENT_VARIABLE: isa},
    )


def test_reading_past_the_end_of_an_input_ends_the_process():
    """What the other test rests on: TensorFlow does not copy the guarded memory."""
    result = run("read-past-the-end", timeout=120)
    assert result.stdout.strip() == "all of it is there"
    # AddressSanitizer reports the signal, and exits by itself.
    sanitized = "AddressSanitizer" in result.stderr
    assert result.returncode == (1 if sanitized else -signal.SIGSEGV)


@pytest.mark.parametrize("seed", range(max(1, CALLS // 4000)))
def test_no_call_crashes_hangs_or_reads_elsewhere(isa, seed, tmp_path):
    log = tmp_path / "call"
    try:
        result = run(log, seed, min(CALLS, 4000), timeout=600, isa=isa)
    except subprocess.TimeoutExpired:
        pytest.fail(f"hangs, seed {seed}, call {log.read_text()}")
    if result.returncode:
        pytest.fail(
            f"exit code {result.returncode}, seed {seed}, call {log.read_text()}\n"
            f"{result.stderr[-3000:]}"
        )
    accepted, refused = map(int, result.stdout.split())
    assert accepted + refused == min(CALLS, 4000)
    assert refused > accepted / 4  # It does try bad ones.
