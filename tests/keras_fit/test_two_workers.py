"""Two workers that exchange their values: equal to each other, and to one process."""

import numpy as np
import pytest
from faults.counts import full_only
from integration import keras_worker
from keras_fit.threads import run_threads

from bert_tf import launch

NOT_COMPARED = {"lines", "sums", "drawn", "error"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a case on threads, step by step without graphs; returns what each found."""

    def run_case(name, size=2):
        lines = []
        monkeypatch.setattr(launch, "report", lines.append)
        folder = tmp_path / str(size)
        folder.mkdir()

        def work(workers):
            keras_worker.note_sums(workers)
            part = keras_worker.Part(workers, folder, is_eager=True)
            return keras_worker.run(name, part) | {"lines": np.asarray(lines)}

        return run_threads(size, work)

    return run_case


def assert_same_bytes(first, second):
    assert first.keys() == second.keys()
    for name in first.keys() - NOT_COMPARED:
        assert first[name].tobytes() == second[name].tobytes(), name


def assert_close(found, expected, tolerance=2e-6):
    for name in expected.keys() - NOT_COMPARED:
        scale = max(np.abs(expected[name]).max(initial=0), 1e-3)
        np.testing.assert_allclose(
            found[name], expected[name], rtol=0, atol=tolerance * scale, err_msg=name
        )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("sgd", marks=full_only),
        pytest.param("clipnorm", marks=full_only),
        "global_clipnorm",
        pytest.param("clipvalue", marks=full_only),
        pytest.param("decay_and_averages", marks=full_only),
        pytest.param("scaled", marks=full_only),
        "lamb",
        "several_optimizers",
        "lazily_built",
        "many_steps_in_one",
        "custom_step",
        "own_loop",
        pytest.param("on_batches", marks=full_only),
        "compiled_again",
        "uneven_rows",
        "alone",
        pytest.param("generator", marks=full_only),
        "backup",
        "resumed",
    ],
)
def test_two_workers_train_as_one_with_twice_the_batch(run, name):
    first, second = run(name)
    assert_same_bytes(first, second)
    assert_close(first, *run(name, size=1))


@pytest.mark.parametrize("name", ["batch_statistics", "dropout", "embeddings"])
def test_what_differs_from_one_process_is_equal_between_workers(run, name):
    first, second = run(name)
    assert_same_bytes(first, second)
    assert "do not train exactly as one process" in str(first["lines"])


def test_a_model_that_cannot_be_traced_is_equal_from_its_second_step_on(run):
    first, second = run("untraceable")
    assert_same_bytes(first, second)
    assert "cannot be built before its first step" in str(first["lines"])


@pytest.mark.parametrize("name", ["unknown_lengths", "unequal_lengths", "runs_out"])
def test_epochs_of_unequal_lengths_end_together(run, name):
    first, second = run(name)
    assert_same_bytes(first, second)
    assert first["slot 0"] == 8  # Four batches of one, six of the other; two epochs.
    assert "no more" in str(first["lines"])


def test_decisions_of_callbacks_are_the_same(run):
    first, second = run("decisions")
    assert_same_bytes(first, second)
    # The first epoch counts as better, whatever it is; two more do not.
    assert first["epochs"] == 3


@pytest.mark.parametrize(
    "name, message",
    [
        ("other_model", "has another model and optimizer than worker 0"),
        ("other_epochs", "has another `fit` than worker 0"),
        ("change_of_one", "The weights of the workers differ"),
        ("gradient_of_one", "on some workers only"),
    ],
)
def test_what_workers_must_share_is_refused_on_both(run, name, message):
    for found in run(name):
        assert message in str(found["error"])


def test_random_layers_draw_other_numbers_on_each_worker(run):
    first, second = run("dropout")
    assert (first["drawn"] != second["drawn"]).any()
