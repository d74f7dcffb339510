"""The functions of arithmetic.h against float64, with the library's own flags."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bert_tf.kernels import FLAGS, FOLDER

# Each is inlined into a loop of its own.
USES = [
    "Exp_alone",
    "Exp_of_one_number",
    "Exp_of_a_difference",
    "Exp_times_a_constant",
    "Exp_of_a_product",
    "Exp_of_a_logit",
    "Tanh",  # In units of 1, to which it is added.
    "GeluTanh",  # In units of 1, or of its argument.
]


@pytest.fixture(scope="module")
def errors(tmp_path_factory):
    """The largest error of each use, found by a program that is compiled here."""
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if not compiler:
        pytest.fail("no C++ compiler; `make setup` needs one, too")
    program = tmp_path_factory.mktemp("errors") / "errors"
    source = Path(__file__).with_name("exponential_errors.cc")
    subprocess.run(
        [compiler, *FLAGS, f"-I{FOLDER}", str(source), "-o", str(program)],
        check=True,
    )
    result = subprocess.run([program], check=True, capture_output=True, text=True)
    lines = [line.split() for line in result.stdout.splitlines()]
    return {name: float(error) for name, error in lines}


@pytest.mark.parametrize("name", USES)
def test_two_units_in_the_last_place_wherever_it_is_inlined(errors, name):
    assert errors[name] <= 2


def test_powers_of_two_where_there_are_tiles(errors):
    if "PowerOfTwo" not in errors:
        pytest.skip("this processor has no tiles (AMX)")
    assert errors["PowerOfTwo"] <= 2
