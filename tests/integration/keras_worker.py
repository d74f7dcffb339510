"""What each process of a test of `model.fit` does; started by test_keras_fit.

Arguments: a JSON file with {name: [name of a case]}, and a folder for the results. Each
case leaves <name>-<rank>.npz: weights, optimizer state and logs of every epoch.
"""

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import bert_tf
from bert_tf import launch
from bert_tf.errors import RunError
from bert_tf.training.optimizers import LAMB

ROWS, WIDTH, CLASSES = 48, 6, 3
GLOBAL_BATCH = 8

CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


def features(rows=ROWS):
    return np.random.default_rng(1).normal(size=(rows, WIDTH)).astype("float32")


def labels(rows=ROWS):
    return np.random.default_rng(2).integers(0, CLASSES, rows)


class Part:
    """The rows of this worker, and how its models are made ready."""

    def __init__(self, workers, folder, is_eager=False):
        self.workers, self.is_eager = workers, is_eager
        self.folder = pathlib.Path(folder)
        self.batch = GLOBAL_BATCH // workers.size

    def of(self, array):
        return array[self.workers.rank :: self.workers.size]

    def dataset(self, rows=ROWS, x=None):
        x = features(rows) if x is None else x
        pairs = self.of(x), self.of(labels(rows))
        return tf.data.Dataset.from_tensor_slices(pairs).batch(self.batch)

    def prepare(self, model, optimizer, **compiled):
        usual = {
            "loss": "sparse_categorical_crossentropy",
            "run_eagerly": self.is_eager,
        }
        model.compile(optimizer, **(usual | compiled))
        bert_tf.distribute_model(model, self.workers)

    def train(self, model, optimizer="sgd", data=None, *, compiled=None, **settings):
        """Compiles, distributes and fits; returns what the test compares."""
        settings = {"epochs": 2, "verbose": 0} | settings
        self.prepare(model, optimizer, **(compiled or {}))
        history = model.fit(self.dataset() if data is None else data, **settings)
        return result(model, history)


def result(model, history=None):
    arrays = {f"weight {i}": v.numpy() for i, v in enumerate(model.weights)}
    if getattr(model, "optimizer", None) is not None:
        slots = enumerate(model.optimizer.variables)
        arrays |= {f"slot {i}": v.numpy() for i, v in slots}
    if history is not None:
        arrays |= {f"log {k}": np.asarray(v) for k, v in history.history.items()}
        arrays["epochs"] = np.asarray(len(history.epoch))
    return arrays


def initial(part):
    """Weights that differ between workers, whatever else draws random numbers."""
    return keras.initializers.GlorotUniform(seed=part.workers.rank + 1)


def dense_layer(part, units, activation=None, **settings):
    return layers.Dense(units, activation, kernel_initializer=initial(part), **settings)


def dense(part, *more):
    return keras.Sequential(
        [
            layers.Input((WIDTH,)),
            dense_layer(part, 5, "tanh"),
            *more,
            dense_layer(part, CLASSES, "softmax"),
        ]
    )


def lazy(part):
    return keras.Sequential(
        [dense_layer(part, 4), dense_layer(part, CLASSES, "softmax")]
    )


@case
def sgd(part):
    return part.train(dense(part))


@case
def arrays(part):
    model = dense(part)
    part.prepare(
        model,
        keras.optimizers.Adam(0.01),
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.SparseTopKCategoricalAccuracy(2)],
    )
    weights = np.linspace(0.5, 2.0, ROWS)
    held_out = slice(0, 22)  # Eleven rows each: the last batches are smaller.
    history = model.fit(
        *(part.of(features()), part.of(labels()), part.batch),
        epochs=2,
        verbose=0,
        shuffle=False,
        sample_weight=part.of(weights),
        validation_data=(part.of(features()[held_out]), part.of(labels()[held_out])),
    )
    return result(model, history)


@case
def clipnorm(part):
    return part.train(dense(part), keras.optimizers.SGD(0.5, clipnorm=0.05))


@case
def global_clipnorm(part):
    return part.train(dense(part), keras.optimizers.SGD(0.5, global_clipnorm=0.05))


@case
def clipvalue(part):
    return part.train(dense(part), keras.optimizers.SGD(0.5, clipvalue=0.02))


@case
def accumulation(part):
    optimizer = keras.optimizers.Adam(
        0.01, gradient_accumulation_steps=3, global_clipnorm=0.05
    )
    return part.train(dense(part), optimizer)


@case
def decay_and_averages(part):
    optimizer = keras.optimizers.AdamW(
        0.01, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=4
    )
    return part.train(dense(part), optimizer)


@case
def scaled(part):
    optimizer = keras.optimizers.Adam(0.01, loss_scale_factor=1024.0)
    return part.train(dense(part), optimizer)


@case
def lamb(part):
    schedule = keras.optimizers.schedules.CosineDecay(0.05, 12, warmup_steps=4)
    return part.train(dense(part), LAMB(schedule))


@case
def several_optimizers(part):
    chosen = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    chosen["dense.*/kernel"] = keras.optimizers.Adam(0.01)
    return part.train(dense(part), keras.optimizers.MultiOptimizer(chosen))


@case
def mixed_float16(part):
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        # Low enough for float16: where it overflows depends on the rows of a worker.
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(0.01), initial_scale=64.0
        )
        return part.train(dense(part), optimizer)
    finally:
        keras.mixed_precision.set_dtype_policy(policy)


@case
def overflow_on_one(part):
    """The loss scale falls on all workers where one of them alone overflows."""
    x = features()
    x[1] = 1e38  # Of the last worker.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
    model = keras.Sequential([layers.Input((WIDTH,)), dense_layer(part, 1)])
    part.prepare(model, optimizer, loss="mse")
    return result(model, model.fit(part.dataset(x=x), verbose=0))


@case
def bfloat16_weights(part):
    model = keras.Sequential(
        [
            layers.Input((WIDTH,)),
            dense_layer(part, 4, dtype="bfloat16"),
            dense_layer(part, CLASSES, "softmax"),
        ]
    )
    found = part.train(model)
    return {k: v.astype("float32") for k, v in found.items()}


class Tied(keras.Model):
    """Embeddings, a shared and a frozen layer, one without gradient; built late."""

    def __init__(self, part):
        super().__init__()
        self.table = layers.Embedding(11, 4, embeddings_initializer=initial(part))
        self.shared = dense_layer(part, 4, "tanh")
        self.frozen = dense_layer(part, 4, trainable=False)
        self.unused = dense_layer(part, 2)
        self.head = dense_layer(part, CLASSES, "softmax")

    def call(self, ids):
        x = self.shared(self.shared(self.table(ids)))
        x = keras.ops.mean(self.frozen(x), axis=1)
        self.unused(x)
        return self.head(x)


def tokens():
    return np.random.default_rng(3).integers(0, 11, (ROWS, 5))


@case
def embeddings(part):
    return part.train(Tied(part), "adam", part.dataset(x=tokens()))


@case
def embeddings_accumulated(part):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    return part.train(Tied(part), optimizer, part.dataset(x=tokens()))


@case
def embeddings_clipped(part):
    optimizer = keras.optimizers.SGD(0.1, clipnorm=0.01)
    return part.train(Tied(part), optimizer, part.dataset(x=tokens()))


@case
def lazily_built(part):
    return part.train(lazy(part), "adam")


@case
def eagerly(part):
    return part.train(lazy(part), "adam", compiled={"run_eagerly": True})


@case
def many_steps_in_one(part):
    return part.train(dense(part), "adam", compiled={"steps_per_execution": 4})


class Pair(keras.Model):
    """Two networks, two optimizers, logs of its own."""

    def __init__(self, part):
        super().__init__()
        self.first = keras.Sequential([dense_layer(part, 4)])
        self.second = keras.Sequential([dense_layer(part, 1)])
        self.optimizers = [keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.01)]

    def train_step(self, data):
        x, _ = data
        losses = []
        for optimizer, trained in zip(
            self.optimizers, (self.first, self.second), strict=True
        ):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self.second(self.first(x)) - 1.0))
            gradients = tape.gradient(loss, trained.trainable_variables)
            optimizer.apply_gradients(
                zip(gradients, trained.trainable_variables, strict=True)
            )
            losses.append(loss)
        return {"first": losses[0], "second": losses[1]}


@case
def custom_step(part):
    model = Pair(part)
    model.compile(run_eagerly=part.is_eager)
    bert_tf.distribute_model(model, part.workers)
    history = model.fit(part.dataset(), epochs=2, verbose=0)
    found = result(model, history)
    slots = [v for o in model.optimizers for v in o.variables]
    return found | {f"slot {i}": v.numpy() for i, v in enumerate(slots)}


@case
def own_loop(part):
    model = dense(part)
    part.prepare(model, "adam")
    loss = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x))
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(value, variables), variables)

    model.optimizer.build(model.trainable_variables)
    for x, y in part.dataset():
        step(x, y)
    return result(model)


@case
def on_batches(part):
    model = dense(part)
    part.prepare(model, "adam")
    for x, y in part.dataset():
        model.train_on_batch(x, y)
    return result(model)


@case
def compiled_again(part):
    model = dense(part)
    part.train(model, "adam")
    model.layers[0].trainable = False
    return part.train(model, keras.optimizers.SGD(0.1))


@case
def uneven_rows(part):
    """23 rows: the last batch has four rows on one worker, three on the other."""
    return part.train(
        dense(part), "adam", part.dataset(23), compiled={"metrics": ["accuracy"]}
    )


@case
def batch_statistics(part):
    return part.train(dense(part, layers.BatchNormalization()), "adam")


@case
def dropout(part):
    model = dense(part, layers.Dropout(0.5))
    part.train(model, "adam")
    drawn = model.layers[1](tf.ones((1, 64)), training=True)
    return result(model) | {"drawn": drawn.numpy()}


def batches(part, rows):
    def generate():
        for _ in range(10):
            yield from part.dataset(rows).as_numpy_iterator()

    return generate


@case
def unknown_lengths(part):
    """Datasets that do not know their length, of 6 and of 4 batches."""
    rows = 48 if part.workers.rank == 0 else 32
    data = tf.data.Dataset.from_generator(
        lambda: part.dataset(rows).as_numpy_iterator(),
        output_signature=part.dataset().element_spec,
    )
    return part.train(dense(part), "adam", data)


@case
def unequal_lengths(part):
    rows = 32 if part.workers.rank == 0 else 48
    return part.train(dense(part), "adam", part.dataset(rows))


@case
def unequal_lengths_in_one(part):
    rows = 24 if part.workers.rank == 0 else 48
    return part.train(
        dense(part), "adam", part.dataset(rows), compiled={"steps_per_execution": 2}
    )


@case
def generator(part):
    return part.train(
        dense(part), "adam", batches(part, 48)(), steps_per_epoch=4, epochs=3
    )


@case
def runs_out(part):
    """More steps asked for than one of the workers has."""
    rows = 48 if part.workers.rank == 0 else 32
    return part.train(dense(part), "adam", part.dataset(rows), steps_per_epoch=5)


@case
def decisions(part):
    """Callbacks that decide by logs, which each worker alone would decide otherwise."""
    folder = part.folder
    found = part.train(
        dense(part),
        keras.optimizers.SGD(1.0),
        epochs=8,
        validation_data=part.dataset(16),
        callbacks=[
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1),
            keras.callbacks.EarlyStopping(
                "val_loss", 1.0, patience=2, restore_best_weights=True
            ),
            keras.callbacks.ModelCheckpoint(
                folder / "best.keras", "val_loss", save_best_only=True
            ),
        ],
    )
    return found


class StopOne(keras.callbacks.Callback):
    def __init__(self, part):
        self.part = part

    def on_train_batch_end(self, batch, logs=None):
        if self.part.workers.rank == self.part.workers.size - 1 and batch == 2:
            self.model.stop_training = True


@case
def stop_of_one(part):
    model = dense(part)
    found = part.train(model, callbacks=[StopOne(part)])
    return found | {"steps": model.optimizer.iterations.numpy()}


class ChangeOne(StopOne):
    def on_epoch_end(self, epoch, logs=None):
        if self.part.workers.rank:
            self.model.layers[0].bias.assign_add([1.0] * 5)


def error_of(function, *kinds):
    try:
        function()
    except kinds as error:
        return {"error": np.asarray(str(error))}
    return {"error": np.asarray("")}


@case
def change_of_one(part):
    return error_of(
        lambda: part.train(dense(part), callbacks=[ChangeOne(part)]), RunError
    )


class Sometimes(keras.Model):
    """A layer that has a gradient on the last worker only."""

    def __init__(self, part):
        super().__init__()
        self.part = part
        self.always = dense_layer(part, CLASSES, "softmax")
        self.sometimes = dense_layer(part, WIDTH)

    def call(self, x):
        other = self.sometimes(x)
        return self.always(other if self.part.workers.rank else x)


@case
def gradient_of_one(part):
    return error_of(lambda: part.train(Sometimes(part)), tf.errors.InvalidArgumentError)


class Untraceable(keras.Model):
    """A model that runs step by step only, and is built by its first batch."""

    def __init__(self, part):
        super().__init__()
        self.head = dense_layer(part, CLASSES, "softmax")

    def call(self, x):
        return self.head(x / max(1.0, float(x.numpy().max())))


@case
def untraceable(part):
    return part.train(Untraceable(part), "adam", compiled={"run_eagerly": True})


@case
def other_model(part):
    """Another model on one worker."""
    more = [dense_layer(part, 5)] * bool(part.workers.rank)
    return error_of(lambda: part.train(dense(part, *more)), RunError)


@case
def other_epochs(part):
    return error_of(
        lambda: part.train(dense(part), epochs=2 + part.workers.rank), RunError
    )


@case
def xla(part):
    return error_of(
        lambda: part.train(dense(part), compiled={"jit_compile": True}), RunError
    )


@case
def alone(part):
    """The first worker evaluates and predicts by itself, within `fit` too."""

    class Evaluate(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if part.workers.rank == 0:
                self.model.evaluate(part.dataset(), verbose=0)

    model = dense(part)
    part.train(model, "adam", callbacks=[Evaluate()])
    if part.workers.rank == 0:
        model.evaluate(part.dataset(), verbose=0)
        model.predict(features(4), verbose=0)
    return result(model)


@case
def saved(part):
    """The first worker saves; a plain process loads it, see the test."""
    folder = part.folder
    model = dense(part)
    found = part.train(model, "adam", compiled={"metrics": ["accuracy"]})
    if part.workers.rank == 0:
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        model.export(folder / "exported", verbose=False)
    return found | {"predicted": model.predict(features(4), verbose=0)}


@case
def backup(part):
    """A run that a backup continues, which the first worker alone has."""
    folder = part.folder
    model = dense(part)
    kept = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
    part.train(model, "adam", callbacks=[kept])
    again = dense(part)
    kept = keras.callbacks.BackupAndRestore(folder / "backup")
    return part.train(again, "adam", callbacks=[kept], epochs=3)


@case
def resumed(part):
    """The first worker alone loads a saved model, with the state of its optimizer."""
    folder = part.folder
    model = dense(part)
    part.train(model, "adam")
    if part.workers.rank == 0:
        model.save(folder / "state.keras")
        model = keras.models.load_model(folder / "state.keras")
        model.compile(model.optimizer, model.loss, run_eagerly=part.is_eager)
    else:
        model = dense(part)
        loss = "sparse_categorical_crossentropy"
        model.compile("adam", loss, run_eagerly=part.is_eager)
    bert_tf.distribute_model(model, part.workers)
    history = model.fit(part.dataset(), epochs=1, verbose=0)
    return result(model, history)


@case
def unfed(part):
    """Every worker gets the same rows."""
    model = dense(part)
    part.prepare(model, "sgd", loss="mse")
    same = tf.data.Dataset.from_tensors((features(8), np.zeros((8, CLASSES))))
    return result(model, model.fit(same, verbose=0))


def run(name, part):
    """Runs a case from weights that the first worker does not share."""
    keras.utils.set_random_seed(part.workers.rank)
    names = part.workers.names = []
    return CASES[name](part) | {"sums": np.asarray("\n".join(names))}


def note_sums(workers):
    """Keeps the names of sums, one for each place in a graph."""
    workers.names, own = [], workers.sum

    def sum_and_note(tensors, name):
        if tensors:
            workers.names.append(f"{name} {len(tensors)}")
        return own(tensors, name)

    workers.sum = sum_and_note


def main(runs_file, folder):
    workers = bert_tf.connect_workers()
    note_sums(workers)
    for name in json.loads(pathlib.Path(runs_file).read_text()):
        lines = []
        launch.report = lines.append
        found = run(name, Part(workers, folder))
        found["lines"] = np.asarray("\n".join(lines))
        np.savez(pathlib.Path(folder) / f"{name}-{workers.rank}.npz", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
