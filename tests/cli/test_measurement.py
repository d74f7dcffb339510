"""Measurements on this machine: what is run, and how it ends."""

import dataclasses
import json
import os
import signal
import time

import pytest
from conftest import TINY

from bert_tf import resources
from bert_tf.cli import measurement
from bert_tf.cli.measurement import measure, read_link_file, run_workers
from bert_tf.config import PRESETS, BertConfig
from bert_tf.config.planning import PlanConfig
from bert_tf.errors import RunError

BERT = BertConfig(**TINY)


def settings(**more):
    values = dict(
        preset="tiny",
        max_seq_length=16,
        max_predictions_per_seq=4,
        train_batch_size=2,
        measure_seconds=100,
    )
    return PlanConfig(**values | more)


@pytest.fixture
def machine(monkeypatch):
    """A machine of two cores; returns the requests to its workers."""
    requests = {}
    monkeypatch.setattr(resources, "available_cores", lambda: 2)
    monkeypatch.setattr(resources, "memory_free", lambda: 8 << 30)

    def run(workers, config, bert, work):
        requests[workers] = work
        sums = [{"bytes": n, "seconds": 1e-9 * n} for n in (10**7, 10**8)]
        steps = [{"micro_batches": n, "seconds": 0.2 + 0.3 * n} for n in (1, 2)]
        return {
            "allreduces": sums if workers > 1 else [],
            "steps": steps if work["steps"] else [],
        }

    monkeypatch.setattr(measurement, "run_workers", run)
    return requests


def test_the_file_of_a_measurement_is_read_as_it_was_measured(machine, tmp_path):
    path = str(tmp_path / "link.json")
    measure(settings(link_file=path, precision="bf16"), PRESETS["tiny"])
    assert list(machine) == [1, 2, 4]
    assert not machine[1]["allreduces"] and not machine[4]["steps"]
    found = read_link_file(path)
    assert found.conditions["precision"] == "bf16"
    assert found.host.cores_per_host == 2
    written = json.loads((tmp_path / "link.json").read_text())
    assert written["step"]["micro_batch_seconds"] == pytest.approx(0.3)
    # The update is what the steps of one worker take beside their micro-batches.
    assert found.update_seconds_per_number * 4_434_490 == pytest.approx(0.2, rel=2e-3)
    assert [point["workers"] for point in written["points"]] == [2, 2, 4, 4]


def test_steps_are_not_measured_where_the_throughput_is_known(machine, tmp_path):
    config = settings(link_file=str(tmp_path / "new/link.json"), throughput=9.0)
    measure(config, PRESETS["tiny"])
    assert list(machine) == [2, 4]
    assert read_link_file(config.link_file).device_flops is None


def test_gradients_that_do_not_fit_are_left_out_with_a_line(
    machine, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(resources, "memory_free", lambda: 6 << 30)
    config = settings(link_file=str(tmp_path / "link.json"), throughput=9.0)
    measure(config, PRESETS["large"])
    sizes = [model["hidden_size"] for model in machine[4]["allreduces"]]
    assert sizes == [128, 256, 512]
    assert "too large to be summed here" in capsys.readouterr().err


def test_a_machine_without_memory_is_refused(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "memory_free", lambda: 1 << 30)
    config = settings(link_file=str(tmp_path / "link.json"))
    with pytest.raises(RunError, match="4 GiB of free memory, and there are 1.0"):
        measure(config, PRESETS["tiny"])


def test_missing_mpirun_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(measurement.shutil, "which", lambda *a, **more: None)
    with pytest.raises(RunError, match="mpirun is missing.*make setup"):
        run_workers(2, settings(), BERT, {"allreduces": [], "steps": []})


def fake_worker(monkeypatch, tmp_path, code):
    """Replaces the worker by a program; returns a file for its process number."""
    file = tmp_path / "pid"
    program = tmp_path / "fake.py"
    program.write_text(f"import os\nopen({str(file)!r}, 'w').write(str(os.getpid()))\n")
    with program.open("a") as more:
        more.write(code)
    monkeypatch.setattr(measurement, "_WORKER", "fake")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return file


STEPS_TOOK_LONGER = (
    r"Measuring 1 worker took longer than 1 s. Pass a larger --measure_seconds "
    r"\(default: 300\), a smaller --train_batch_size .*; or --throughput, so that no"
)


def test_a_slow_allreduce_is_not_told_to_measure_no_steps(monkeypatch, tmp_path):
    fake_worker(monkeypatch, tmp_path, "import time\ntime.sleep(60)\n")
    monkeypatch.setattr(measurement, "_launcher", lambda workers: [])
    work = {"allreduces": [{}], "steps": []}
    with pytest.raises(RunError, match=r"2 workers took longer than 1 s") as error:
        run_workers(2, settings(measure_seconds=1), BERT, work)
    assert "(default: 300), or a smaller model" in str(error.value)
    assert "--throughput" not in str(error.value)


@pytest.mark.parametrize(("counts", "is_told"), [("1,2", True), ("1,4", False)])
def test_more_workers_than_planned_are_measured_with_a_line(
    machine, tmp_path, capsys, counts, is_told
):
    config = settings(
        link_file=str(tmp_path / "link.json"), throughput=9.0, workers=counts
    )
    measure(config, PRESETS["tiny"])
    line = "2 and 4 workers are measured, whatever --workers is"
    assert (line in capsys.readouterr().err) == is_told


def test_a_worker_that_hangs_is_ended(monkeypatch, tmp_path):
    file = fake_worker(monkeypatch, tmp_path, "import time\ntime.sleep(60)\n")
    begin = time.monotonic()
    with pytest.raises(RunError, match=STEPS_TOOK_LONGER):
        run_workers(
            1, settings(measure_seconds=1), BERT, {"allreduces": [], "steps": (1, 2)}
        )
    assert time.monotonic() - begin < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_one_that_ignores_sigterm_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(measurement, "_END_SECONDS", 0.2)
    code = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    file = fake_worker(monkeypatch, tmp_path, code + "time.sleep(60)\n")
    with pytest.raises(RunError, match="took longer than 1 s"):
        run_workers(
            1, settings(measure_seconds=1), BERT, {"allreduces": [], "steps": (1, 2)}
        )
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


def test_the_error_of_a_worker_is_passed_on(monkeypatch, tmp_path):
    code = "import sys\nsys.exit('noise\\nerror: no more memory\\nmore noise')\n"
    fake_worker(monkeypatch, tmp_path, code)
    with pytest.raises(RunError, match="exit code 1: no more memory$"):
        run_workers(1, settings(), BERT, {"allreduces": [], "steps": (1, 2)})


@pytest.mark.slow
@pytest.mark.horovod
def test_two_real_workers_time_sums_and_steps():
    work = {"allreduces": [dataclasses.asdict(BERT)] * 2, "steps": (1, 2)}
    previous = signal.getsignal(signal.SIGALRM)
    found = run_workers(2, settings(), BERT, work)
    assert signal.getsignal(signal.SIGALRM) == previous
    # Of the tiny model: 30 words, 16 positions, 2 segments, 8 wide, 2 layers of 16.
    assert [sums["bytes"] for sums in found["allreduces"]] == [4 * 1_808] * 2
    assert [step["micro_batches"] for step in found["steps"]] == [1, 2]
    times = [each["seconds"] for each in found["allreduces"] + found["steps"]]
    assert all(0 < seconds < 20 for seconds in times)
