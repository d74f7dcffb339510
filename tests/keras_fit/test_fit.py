"""`fit` of a model whose other worker has the same rows, and so the same gradients."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from keras import layers

import bert_tf
from bert_tf import launch
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError, WorkerLost

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


class Twins(Communicator):
    """Two workers that do the same; counts the sums that run."""

    size = 2

    def __init__(self, rank=0):
        self.rank, self.runs, self.sizes = rank, {}, {}

    def sum(self, tensors, name):
        self.sizes[name] = len(tensors)

        def note():
            self.runs[name] = self.runs.get(name, 0) + 1

        if tf.executing_eagerly():
            note()
        else:
            tf.py_function(note, [], [])
        return [tensor + tensor for tensor in tensors]

    def gather(self, values):
        return np.asarray([values, values], np.float64)


@pytest.fixture
def lines(monkeypatch):
    said = []
    monkeypatch.setattr(launch, "report", said.append)
    return said


def small(*more, optimizer="sgd", communicator=None, **compiled):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((3,)), *more, layers.Dense(1)])
    compiled = {"loss": "mse", "run_eagerly": True} | compiled
    model.compile(optimizer, **compiled)
    if communicator is not None:
        bert_tf.distribute_model(model, communicator)
    return model


def fit(model, **settings):
    settings = {"batch_size": 4, "shuffle": False, "verbose": 0} | settings
    return model.fit(X, Y, **settings)


def weights(model):
    return [v.numpy() for v in model.weights]


def assert_trains_alike(make, communicator, **settings):
    alone, together = make(), make()
    bert_tf.distribute_model(together, communicator)
    logs, others = (fit(m, epochs=2, **settings).history for m in (alone, together))
    for own, other in zip(weights(alone), weights(together), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-6)
    assert logs.keys() == others.keys()
    for name in logs:
        np.testing.assert_allclose(logs[name], others[name], rtol=1e-6)


def test_one_process_keeps_the_model_as_it_is():
    model = small(communicator=Communicator())
    assert model.fit.__func__ is keras.Model.fit
    assert not {"fit", "train_step", "evaluate"} & vars(model).keys()


def test_a_single_process_needs_no_horovod(monkeypatch):
    monkeypatch.setattr(launch, "launched_size", lambda: 1)
    workers = bert_tf.connect_workers()
    assert (workers.rank, workers.size) == (0, 1)


def test_the_example_of_the_docs_runs_without_mpirun(tmp_path, monkeypatch):
    page = (ROOT / "docs/keras.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/keras.md", "exec"), {})
    assert (tmp_path / "model.keras").exists() and (tmp_path / "last.keras").exists()


def test_a_step_has_one_sum():
    twins = Twins()
    assert_trains_alike(small, twins)
    # Two epochs of two batches.
    assert twins.runs.pop("keras.gradients.0.float32") == 4
    assert set(twins.runs) == {"keras.metrics.float32"}


def test_accumulated_gradients_are_summed_when_they_are_applied():
    twins = Twins()

    def make():
        optimizer = keras.optimizers.Adam(0.1, gradient_accumulation_steps=2)
        return small(optimizer=optimizer, run_eagerly=False)

    assert_trains_alike(make, twins)
    assert twins.runs["keras.gradients.0.float32"] == 2


def test_an_optimizer_within_another_sums_once():
    twins = Twins()

    def make():
        inner = keras.optimizers.SGD(0.1)
        model = small(optimizer=keras.optimizers.LossScaleOptimizer(inner, 8.0))
        model.kept = inner
        return model

    assert_trains_alike(make, twins)
    assert sum(n for name, n in twins.runs.items() if "grad" in name) == 4


def test_a_model_that_is_compiled_again_still_sums():
    twins = Twins()
    model = small(communicator=twins)
    model.compile("adam", "mse", run_eagerly=True)
    fit(model)
    assert twins.runs["keras.gradients.0.float32"] == 2


def test_distributing_a_model_twice_sums_once():
    twins = Twins()
    model = small(communicator=twins)
    bert_tf.distribute_model(model, twins)
    fit(model)
    assert twins.runs["keras.gradients.0.float32"] == 2


def test_moving_means_are_shared_once_a_step_and_frozen_weights_are_not():
    twins = Twins()
    model = small(layers.BatchNormalization(), communicator=twins)
    model.layers[-1].trainable = False
    fit(model)
    assert twins.runs["keras.statistics.float32"] == 2
    # Mean and variance, and the weight of the worker.
    assert twins.sizes["keras.statistics.float32"] == 3


def test_xla_is_refused_with_the_remedy():
    with pytest.raises(RunError, match="jit_compile=False"):
        small(communicator=Twins(), run_eagerly=False, jit_compile=True)


def test_xla_of_a_later_compile_is_refused():
    model = small(communicator=Twins())
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(RunError, match="jit_compile=False"):
        fit(model)


def test_a_strategy_of_tensorflow_is_refused(monkeypatch):
    model = small()
    strategy = type("Strategy", (), {"num_replicas_in_sync": 2})
    monkeypatch.setattr(type(model), "distribute_strategy", strategy)
    with pytest.raises(RunError, match=r"tf\.distribute"):
        bert_tf.distribute_model(model, Twins())


@pytest.mark.parametrize("rank, is_written", [(0, True), (1, False)])
def test_files_are_written_by_the_first_worker(rank, is_written, tmp_path):
    saved = tmp_path / "best.keras"
    callbacks = [[keras.callbacks.ModelCheckpoint(saved)]]
    fit(small(communicator=Twins(rank)), callbacks=callbacks)
    assert saved.exists() == is_written


def test_only_the_first_worker_shows_progress(capsys):
    for rank in (0, 1):
        fit(small(communicator=Twins(rank)), verbose="auto")
        assert ("loss" in capsys.readouterr().out) == (rank == 0)


def test_a_callback_list_is_taken_too():
    history = keras.callbacks.History()
    model = small(communicator=Twins())
    fit(model, callbacks=keras.callbacks.CallbackList([history], model=model))
    assert len(history.history["loss"]) == 1


def test_evaluation_outside_of_fit_is_this_workers_own():
    twins = Twins()
    model = small(communicator=twins)
    model.evaluate(X, Y, verbose=0)
    assert not twins.runs


def test_the_saved_file_knows_nothing_of_workers(tmp_path):
    model = small(optimizer=keras.optimizers.Adam(0.1), communicator=Twins())
    fit(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.fit.__func__ is keras.Model.fit
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for own, other in zip(weights(model), weights(loaded), strict=True):
        assert own.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "more, line",
    [
        (layers.BatchNormalization(name="norm"), "one worker's rows (norm)"),
        (layers.Dropout(0.1, name="drop"), "other numbers (drop)"),
        (layers.Masking(name="mask"), "unmasked values (mask)"),
    ],
)
def test_layers_that_see_one_workers_rows_are_named(more, line, lines):
    fit(small(more, communicator=Twins()))
    assert any(line in said for said in lines)


def test_a_summed_loss_is_named(lines):
    loss = keras.losses.MeanSquaredError(reduction="sum")
    fit(small(communicator=Twins(), loss=loss))
    assert any("the loss has 'sum'" in said for said in lines)


def test_shuffled_arrays_are_named(lines):
    fit(small(communicator=Twins()), shuffle=True)
    assert any("pass shuffle=False" in said for said in lines)


def test_rows_that_all_workers_have_are_reported(lines):
    fit(small(communicator=Twins()))
    [line] = lines
    assert "same first batch" in line and "dataset.shard" in line


def test_a_worker_that_is_gone_is_said_to_be(lines):
    class Gone(Twins):
        def sum(self, tensors, name):
            raise tf.errors.UnknownError(None, None, "Horovod has been shut down")

    with pytest.raises(WorkerLost, match="Another worker has stopped"):
        fit(small(communicator=Gone()))
