"""The functions of functions.h against float64, with the library's own flags."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bert_tf import fused_ops

# Each is inlined into a separate loop.
USES = [
    "Exp",
    "Exp_of_a_difference",
    "Exp_times_a_constant",
    "PowerOfTwo",
    "Reciprocal",
    "Tanh",  # In units of 1, to which it is added.
    "GeluTanh",  # In units of 1, or of its argument.
]


def test_two_units_in_the_last_place_wherever_it_is_inlined(isa, tmp_path):
    """The largest error of each use, found by a program that is compiled here."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if not compiler:
        pytest.fail("no C++ compiler; `make setup` needs one, too")
    program = tmp_path / "errors"
    source = Path(__file__).with_name("exponential_errors.cc")
    flags = [*fused_ops.FLAGS, *fused_ops.ISA_FLAGS[isa], f"-DBERT_TF_ISA={isa}"]
    command = [
        compiler,
        *flags,
        f"-I{fused_ops.FOLDER}",
        str(source),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    result = subprocess.run([program], check=True, capture_output=True, text=True)
    errors = dict(line.split() for line in result.stdout.splitlines())
    assert list(errors) == USES
    assert {name: e for name, e in errors.items() if not float(e) <= 2} == {}
