"""Workers that could not compute the same: they agree, or none of them trains."""

import json
import shutil
import sys

import pytest
from conftest import TINY, WIDE
from integration.launching import ROOT, mpirun_apart, run_workers
from runs import assert_same_bytes, pretraining_flags

from bert_tf import fused_ops

pytestmark = [pytest.mark.slow, pytest.mark.horovod]
REFERENCE = f"{fused_ops.ENVIRONMENT_VARIABLE}={fused_ops.REFERENCE}"
ONE = ["-np", "1"]


@pytest.fixture
def arguments(tiny_records, tmp_path):
    """Of three steps of pre-training, from a folder to write to."""
    (tmp_path / "config.json").write_text(json.dumps(TINY))

    def make(name, *more):
        files = (tmp_path / "config.json", tiny_records, tmp_path / name)
        return pretraining_flags(*files, *more, accumulation=1, steps=3)

    return make


@pytest.fixture
def script(arguments):
    """Makes a command of a worker: a script of that folder."""

    def make(folder=ROOT, *more):
        path = folder / "run_pretraining.py"
        return [sys.executable, path, "--horovod", *arguments("run", *more)]

    return make


@pytest.mark.skipif(fused_ops.why_missing() != "", reason="the library is not built")
@pytest.mark.parametrize("without", [0, 1])
def test_workers_with_and_without_the_library_end_with_the_same_bytes(
    arguments, tmp_path, without
):
    runs = {
        "lamb": arguments("lamb", "--precision=bf16", "--num_train_steps=20"),
        "adamw": arguments("adamw", "--optimizer_type=adamw", "--num_train_steps=20"),
    }
    programs = [ONE, ONE]
    programs[without] = [*ONE, "env", REFERENCE]  # -x of the first is for all.
    for ranks in run_workers("worker.py", runs, tmp_path, *programs).values():
        assert_same_bytes(*ranks)


@pytest.mark.skipif(len(fused_ops.paths()) < 3, reason="there is one instruction set")
def test_workers_with_other_instruction_sets_take_the_best_that_all_have(
    arguments, tmp_path
):
    """As where processors differ: the second one is not allowed the better ones."""
    names = list(fused_ops.paths())[:-1]
    allowed = [
        f"{fused_ops.ENVIRONMENT_VARIABLE}={name}" for name in (names[0], names[-1])
    ]
    (tmp_path / "config.json").write_text(json.dumps(WIDE))
    runs = {"run": arguments("run", "--precision=bf16", "--num_train_steps=20")}
    programs = [[*ONE, "env", each] for each in allowed]
    first, second = run_workers("worker.py", runs, tmp_path, *programs)["run"]
    assert_same_bytes(first, second)
    line = str(first["result path"])
    start = f"fused operations: {fused_ops.TITLES[names[-1]]}, not better: worker 1 ("
    assert line.startswith(start)
    assert line.endswith(f"): {allowed[1]}.")


@pytest.mark.skipif(fused_ops.why_missing() != "", reason="the library is not built")
def test_the_start_names_the_common_path_and_the_worker_that_lacks_a_better(script):
    command = script(ROOT, "--precision=bf16")
    result = mpirun_apart([[*ONE, *command], [*ONE, "env", REFERENCE, *command]])
    assert result.returncode == 0, result.stderr[-3000:]
    [line] = [x for x in result.stdout.splitlines() if "fused operations" in x]
    assert line.startswith("fused operations: not used, worker 1 (")
    assert line.endswith(f"): {REFERENCE}.")


def test_workers_of_another_source_are_refused(script, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "bert_tf", copy / "bert_tf")
    shutil.copy(ROOT / "run_pretraining.py", copy)
    with (copy / "bert_tf" / "errors.py").open("a") as file:
        file.write("\n# Changed.\n")
    programs = [[*ONE, *script()], [*ONE, *script(copy)]]
    result = mpirun_apart(programs, timeout=90)
    assert result.returncode == 1, result.stderr[-3000:]
    [line] = [x for x in result.stderr.splitlines() if "bert_tf's source: " in x]
    assert "on worker 0 (" in line and "on worker 1 (" in line
    assert str(copy / "bert_tf") in result.stderr
    assert str(ROOT / "bert_tf") in result.stderr
    assert result.stderr.count("error: ") == 1


def test_workers_with_other_flags_are_refused(script):
    programs = [[*ONE, *script()], [*ONE, *script(ROOT, "--weight_decay_rate=0.5")]]
    result = mpirun_apart(programs, timeout=90)
    assert result.returncode == 1, result.stderr[-3000:]
    [line] = [x for x in result.stderr.splitlines() if "--weight_decay_rate: " in x]
    assert line.split(": ", 1)[1].startswith("0.01 on worker 0 (")
    assert "; 0.5 on worker 1 (" in line
