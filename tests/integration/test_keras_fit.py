"""`model.fit` under mpirun: workers equal to the last bit, and to one process."""

import json

import keras
import numpy as np
import pytest
from integration.launching import run_python, run_workers

pytestmark = [pytest.mark.slow, pytest.mark.horovod]

AS_ONE = ["arrays", "accumulation", "embeddings_accumulated", "many_steps_in_one"]
ROUNDED = ["mixed_float16"]
OTHERS = ["batch_statistics", "unknown_lengths", "stop_of_one", "saved"]
REFUSED = ["gradient_of_one"]
NOT_COMPARED = {"lines", "sums", "error"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    """All cases on two workers, in one launch."""
    names = AS_ONE + ROUNDED + OTHERS + REFUSED
    runs = {name: name for name in names}
    return run_workers("keras_worker.py", runs, folder, ["-np", "2"])


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same in one process, without Horovod, on the joined batches."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "runs.json").write_text(json.dumps(AS_ONE + ROUNDED))
    script = "tests/integration/keras_worker.py"
    result = run_python(script, folder / "runs.json", folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return {name: dict(np.load(folder / f"{name}-0.npz")) for name in AS_ONE + ROUNDED}


@pytest.mark.parametrize("name", AS_ONE + ROUNDED + OTHERS)
def test_the_workers_end_with_the_same_bytes(two, name):
    first, second = two[name]
    for key in first.keys() - NOT_COMPARED:
        assert first[key].tobytes() == second[key].tobytes(), key


@pytest.mark.parametrize("name", AS_ONE + ROUNDED)
def test_two_workers_train_as_one_with_twice_the_batch(two, one, name):
    # Half precision rounds sums of eight rows and of two times four otherwise.
    tolerance = 2e-3 if name in ROUNDED else 2e-6
    for key, expected in one[name].items():
        if key not in NOT_COMPARED:
            scale = max(np.abs(expected).max(initial=0), 1e-3)
            np.testing.assert_allclose(
                two[name][0][key], expected, rtol=0, atol=tolerance * scale, err_msg=key
            )


def test_a_step_has_one_grouped_sum(two):
    names = str(two["arrays"][0]["sums"]).split("\n")
    # Four gradients, which of them exist, the flag to stop, the weight of the worker.
    assert {n for n in names if "gradients" in n} == {"keras.gradients.0.float32 7"}


def test_an_epoch_ends_where_the_first_worker_has_no_more(two):
    found = two["unknown_lengths"][0]
    # Four batches of one worker, six of the other; two epochs.
    assert found["slot 0"] == 8
    assert "worker 1 has no more batches" in str(found["lines"])


def test_all_stop_where_a_callback_stops_one(two):
    # Asked for after the third step, agreed with the gradients of the fourth.
    assert [rank["steps"] for rank in two["stop_of_one"]] == [4, 4]


def test_the_first_worker_saves_what_a_plain_process_loads(two, folder):
    model = keras.models.load_model(folder / "model.keras", safe_mode=True)
    for number, own in enumerate(model.weights):
        saved = two["saved"][0][f"weight {number}"]
        assert own.numpy().tobytes() == saved.tobytes()
    assert model.fit.__func__ is keras.Model.fit


def test_a_gradient_of_one_worker_ends_all(two):
    for rank in two["gradient_of_one"]:
        assert "on some workers only" in str(rank["error"])
