"""Which worker reports an error, and which one ends first."""

import types

import pytest

from bert_tf import entry
from bert_tf.config import PretrainingConfig
from bert_tf.errors import NonFiniteError, OtherWorkerFailed, RunError

COMMAND = ["run", "--output_dir=/o", "--preset=tiny", "--do_train", "--horovod"]
COMMAND += ["--input_files_dir=/i"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs a script whose job fails, as a worker of two."""

    def make(error, rank):
        slept = []

        def job(config):
            raise error

        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        modules = types.SimpleNamespace(
            import_module=lambda name: types.SimpleNamespace(run=job)
        )
        monkeypatch.setattr(entry, "importlib", modules)
        monkeypatch.setattr(entry.time, "sleep", slept.append)
        assert entry.run_script(PretrainingConfig, "pretraining", COMMAND) == 1
        return capsys.readouterr().err, bool(slept)

    return make


@pytest.mark.parametrize("rank", [0, 1])
def test_the_worker_that_failed_reports_and_ends_first(run, rank):
    assert run(RunError("no such file"), rank) == ("error: no such file\n", False)


@pytest.mark.parametrize("rank", [0, 1])
def test_other_workers_wait_for_its_report(run, rank):
    assert run(OtherWorkerFailed("Worker 1 failed."), rank) == ("", True)


def test_an_error_of_all_workers_is_reported_by_the_first(run):
    error = NonFiniteError("the gradient is not finite")
    assert run(error, 0) == ("error: the gradient is not finite\n", False)
    assert run(error, 1) == ("", True)
