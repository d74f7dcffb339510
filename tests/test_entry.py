"""Which worker reports an error, and which one ends first."""

import os
import signal
import socket
import time
import types

import pytest

from bert_tf import entry
from bert_tf.config import PretrainingConfig
from bert_tf.errors import (
    NonFiniteError,
    NotConverged,
    OtherWorkerFailed,
    RunError,
    Stopped,
    WorkerLost,
)

FOLDER = os.path.dirname(__file__)  # Any that exists: no job is run.
COMMAND = ["run", f"--output_dir={FOLDER}", "--preset=tiny", "--do_train", "--horovod"]
RECORDS = os.path.dirname(FOLDER)
COMMAND += [f"--input_files_dir={RECORDS}"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script whose job fails, as a worker of two."""

    def make(error, rank, code=1):
        slept = []

        def job(config, stop):
            raise error

        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        modules = types.SimpleNamespace(
            import_module=lambda name: types.SimpleNamespace(run=job)
        )
        monkeypatch.setattr(entry, "importlib", modules)
        monkeypatch.setattr(entry.time, "sleep", slept.append)
        assert entry.run_script(PretrainingConfig, "pretraining", COMMAND) == code
        return capsys.readouterr().err, bool(slept)

    return make


@pytest.mark.parametrize("rank", [0, 1])
def test_the_worker_that_failed_reports_and_ends_first(run, rank):
    assert run(RunError("no such file"), rank) == ("error: no such file\n", False)


@pytest.mark.parametrize("rank", [0, 1])
def test_other_workers_wait_for_its_report(run, rank):
    assert run(OtherWorkerFailed("Worker 1 failed."), rank) == ("", True)


@pytest.mark.parametrize(
    "rank, printed, waits", [(0, "Not converged.\n", False), (1, "", True)]
)
def test_a_missed_target_has_its_own_code(run, rank, printed, waits):
    assert run(NotConverged("Not converged."), rank, code=3) == (printed, waits)


def test_an_error_of_all_workers_is_reported_by_the_first(run):
    error = NonFiniteError("the gradient is not finite")
    assert run(error, 0) == ("error: the gradient is not finite\n", False)
    assert run(error, 1) == ("", True)


def test_a_survivor_names_itself_where_nobody_else_has_reported(run):
    error = WorkerLost("another worker is lost")
    line = f"error: worker 1 on {socket.gethostname()}: another worker is lost\n"
    assert run(error, 1, code=71) == (line, True)


@pytest.mark.parametrize(
    "error, words",
    [
        (ZeroDivisionError("a mistake"), "ZeroDivisionError: a mistake"),
        (SystemExit(0), "the program was left in the middle of a run (SystemExit: 0)"),
    ],
)
def test_an_unexpected_end_of_a_worker_is_an_error_with_a_traceback(run, error, words):
    text, slept = run(error, 1)
    lines = text.splitlines()
    assert lines[0].startswith("Traceback") and not slept
    assert lines[-1] == f"error: worker 1 on {socket.gethostname()}: {words}"


@pytest.fixture
def run_alone(monkeypatch, capfd):
    """Runs a script whose job is a function; returns code and errors."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Ignored under nohup.
    monkeypatch.setattr("bert_tf.jobs.early_check.check", lambda config: None)

    def make(job, *more):
        modules = types.SimpleNamespace(
            import_module=lambda name: types.SimpleNamespace(run=job)
        )
        monkeypatch.setattr(entry, "importlib", modules)
        command = [*(part for part in COMMAND if part != "--horovod"), *more]
        code = entry.run_script(PretrainingConfig, "pretraining", command)
        return code, capfd.readouterr().err

    yield make
    signal.signal(signal.SIGHUP, before)


def signalled(number):
    def job(config, stop):
        os.kill(os.getpid(), number)
        time.sleep(5.0)

    return job


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]
)
def test_a_signal_before_the_first_step_says_that_there_is_nothing_to_save(
    run_alone, number
):
    before = signal.getsignal(number)
    code, text = run_alone(signalled(number))
    assert code == 75
    assert text == (
        f"Stopped by {number.name}: no step was taken, so there is nothing to save. "
        "The same command resumes. Exit code 75.\n"
    )
    assert signal.getsignal(number) == before


def test_an_error_that_takes_the_place_of_a_stop_is_a_stop(run_alone):
    """TensorFlow's gradients, interrupted in their C code, raise a TypeError."""

    def job(config, stop):
        try:
            signalled(signal.SIGUSR1)(config, stop)
        finally:
            raise TypeError

    code, text = run_alone(job)
    assert code == 75
    assert text.startswith("Stopped by SIGUSR1: no step was taken")


def test_an_error_without_a_signal_is_raised(run_alone):
    with pytest.raises(ZeroDivisionError):
        run_alone(lambda config, stop: 1 / 0)


def test_a_stopped_overwriting_run_without_a_checkpoint_starts_again(run_alone):
    code, text = run_alone(signalled(signal.SIGTERM), "--overwrite_output_dir")
    assert code == 75
    assert "there is nothing to save. The same command starts again." in text


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_without_a_training_keeps_the_code_of_shells(run_alone, number, code):
    evaluation = (
        "--nodo_train",
        "--do_eval",
        f"--eval_files_dir={RECORDS}",
    )
    assert run_alone(signalled(number), *evaluation)[0] == code


def test_a_signal_in_a_training_is_left_to_it(run_alone):
    reactions = []

    def job(config, stop):
        with stop.reacting(lambda: reactions.append(stop.number)):
            os.kill(os.getpid(), signal.SIGTERM)
            deadline = time.monotonic() + 5.0
            while not reactions and time.monotonic() < deadline:
                time.sleep(0.01)
            stop.state = "step 7 is saved"
            raise Stopped

    code, text = run_alone(job)
    assert reactions == [signal.SIGTERM] and code == 75
    assert text.startswith("Stopped by SIGTERM: step 7 is saved. ")


def test_leaving_a_program_that_exits_early_is_an_error(run_alone):
    def job(config, stop):
        raise SystemExit(0)

    code, text = run_alone(job)
    assert code == 1 and "left in the middle of a run" in text
