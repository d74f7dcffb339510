"""`model.fit` on several workers, for any Keras 3 model; see docs/keras.md."""

import inspect
import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bert_tf import launch
from bert_tf.distribute import (
    Communicator,
    configure_devices,
    connect,
    is_worker_loss,
)
from bert_tf.errors import RunError, WorkerLost
from bert_tf.keras_fit.inspection import (
    arrays,
    count_batches,
    count_rows,
    departures,
    optimizers_of,
    statistics_of,
    without_optionals,
)
from bert_tf.keras_fit.sums import KerasSums

# They write files, or restore from them: the first worker's work.
_FILE_CALLBACKS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)
_POSITIONS = list(inspect.signature(keras.Model.fit).parameters)[1:]


def connect_workers() -> Communicator:
    """Joins the workers that mpirun has started, and gives each its GPU and cores.

    Call it before TensorFlow computes anything.

    Returns:
      The communicator, with `rank` and `size`; a single process is rank 0 of 1.

    Raises:
      RunError: if there are several processes and Horovod is not installed.
    """
    communicator = connect(launch.launched_size() > 1)
    if communicator.size > 1:
        configure_devices(communicator, None)
    return communicator


def distribute_model(model: keras.Model, communicator: Communicator) -> None:
    """Makes `fit` of a model train on all workers, each with its own part of the data.

    Of one worker the model stays as it is. What is saved of the model is what is saved
    without this call.

    Args:
      model: Compiled or not, built or not.
      communicator: From `connect_workers`.

    Raises:
      RunError: if the model is compiled by XLA, or made under a `tf.distribute`
        strategy.
    """
    if communicator.size == 1:
        return
    if not isinstance(getattr(model.fit, "__self__", None), _DistributedFit):
        _DistributedFit(model, communicator)
    if model.compiled:
        model.fit.__self__.prepare()
    if model.built:
        model.fit.__self__.synchronize()


class _DistributedFit:
    """Takes the place of some methods of one model."""

    def __init__(self, model: keras.Model, communicator: Communicator) -> None:
        self._model, self._communicator = model, communicator
        self._sums = KerasSums(communicator)
        self._optimizers: list[keras.Optimizer] = []
        self._is_reducing = False
        self._settings: dict[str, Any] = {}
        self._is_in_fit = self._is_evaluating = False
        self._is_synchronized = self._agrees_each_step = self._has_ended = False
        self._train_function: Callable[[Iterator[Any]], Any] | None = None
        names = ("fit", "evaluate", "train_step", "make_train_function")
        self._own = {name: getattr(model, name) for name in names}
        self._results = model._get_metrics_result_or_logs
        model.fit, model.evaluate = self.fit, self.evaluate
        model.train_step = self.train_step
        model.make_train_function = self.make_train_function
        model._get_metrics_result_or_logs = self.results_or_logs

    # What is called by the user.

    def fit(self, *arguments: Any, **settings: Any) -> keras.callbacks.History:  # noqa: ANN401
        """`model.fit` with callbacks for agreement; files are the first worker's."""
        settings |= zip(_POSITIONS, arguments, strict=False)
        callbacks = settings.get("callbacks") or []
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        callbacks = keras.tree.flatten(callbacks)
        if self._communicator.rank:
            callbacks = [c for c in callbacks if not isinstance(c, _FILE_CALLBACKS)]
            if settings.get("verbose", "auto") == "auto":
                settings["verbose"] = 0
        self._settings = settings | {"callbacks": [*callbacks, _Agreement(self)]}
        self._is_synchronized = False
        self._is_in_fit = True
        try:
            return self._own["fit"](**self._settings)
        except tf.errors.OpError as error:
            if is_worker_loss(error):
                raise WorkerLost(
                    "Another worker has stopped; its own output states the cause."
                ) from error
            raise
        finally:
            self._is_in_fit = self._agrees_each_step = False
            self._settings = {}

    def evaluate(self, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        """`model.evaluate`: of `fit` over all workers, called by itself on one."""
        before = self._is_in_fit, self._is_evaluating
        self._is_in_fit = settings.get("_use_cached_eval_dataset", False)
        self._is_evaluating = True
        try:
            return self._own["evaluate"](*arguments, **settings)
        finally:
            self._is_in_fit, self._is_evaluating = before

    # What Keras calls in `fit`.

    def make_train_function(self, force: bool = False) -> None:
        """Keras's train function, between what the workers agree on."""
        self.prepare()
        self._own["make_train_function"](force)
        if self._model.train_function != self._train:
            self._train_function = self._model.train_function
            self._model.train_function = self._train

    def train_step(self, data: Any) -> Any:  # noqa: ANN401
        """The model's step, after which the workers share what is not trained."""
        self._sums.rows = count_rows(data)
        statistics = statistics_of(self._model)
        before = [tf.identity(v.value) for v in statistics]
        logs = self._own["train_step"](data)
        if statistics:
            self._sums.share_statistics(statistics, before)
        self._sums.rows = None
        return logs

    def results_or_logs(self, logs: dict[str, Any]) -> dict[str, Any]:
        """The metrics over all workers, of an epoch or of its validation."""
        if not self._is_in_fit:
            return self._results(logs)
        if self._agrees_each_step and not (self._has_ended or self._is_evaluating):
            # Others may have batches left, and ask for those of this worker.
            self._count_common(0)
        metrics = {id(v): v for m in self._model.metrics for v in m.variables}
        self._sums.sum_metrics(list(metrics.values()))
        results = self._results(logs)
        if results is not logs:
            return results
        # A step of the user's own, whose logs are no metrics of the model.
        scalars = {n: float(v) for n, v in logs.items() if np.size(v) == 1}
        self._sums.require_same("logs", list(scalars))
        means = self._communicator.gather(list(scalars.values())).mean(0)
        return logs | dict(zip(scalars, means, strict=True))

    # What the workers agree on.

    def prepare(self) -> None:
        """Refuses XLA, and makes all optimizers of the model reduce."""
        model = self._model
        if model.jit_compile:
            raise RunError(
                "A model that XLA compiles cannot exchange gradients with other "
                'workers. Received: jit_compile=True, which "auto" is on GPUs. Pass '
                "jit_compile=False to `compile`."
            )
        if model.distribute_strategy.num_replicas_in_sync > 1:
            raise RunError(
                "The model was made under a `tf.distribute` strategy. Make it outside "
                "of one: each worker has one device."
            )
        known, self._optimizers = self._optimizers, optimizers_of(model)
        for number, optimizer in enumerate(self._optimizers):
            if all(optimizer is not other for other in known):
                self._reduce_in(optimizer, f"gradients.{number}")

    def _reduce_in(self, optimizer: keras.Optimizer, name: str) -> None:
        """Makes an optimizer work with the mean gradients, before it clips them."""
        if optimizer.gradient_accumulation_steps:
            # Called with the means of accumulated gradients, when they are applied.
            clip = optimizer._clip_gradients

            def clip_means(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
                if not self._is_reducing:
                    gradients = self._sums.mean_gradients(gradients, None, name)
                return clip(gradients)

            optimizer._clip_gradients = clip_means
            return
        apply = optimizer.apply

        def apply_means(
            grads: Sequence[tf.Tensor | tf.IndexedSlices | None],
            trainable_variables: Sequence[keras.Variable] | None = None,
        ) -> None:
            # An optimizer may hold others, such as that of loss scaling.
            if self._is_reducing or not len(grads):
                return apply(grads, trainable_variables)
            variables = trainable_variables or optimizer._trainable_variables
            self._is_reducing = True
            try:
                means = self._sums.mean_gradients(grads, variables, name)
                return apply(means, trainable_variables)
            finally:
                self._is_reducing = False

        optimizer.apply = apply_means

    def synchronize(self) -> None:
        """Gives all workers the first one's weights and optimizer states.

        Random layers then draw other numbers on each worker.
        """
        model = self._model
        is_own_step = type(model).train_step is not keras.Model.train_step
        if model.compiled and not is_own_step and model.trainable_variables:
            if model.optimizer is not None and not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
        variables = {id(v): v for v in model.weights}
        for optimizer in self._optimizers:
            variables |= {id(v): v for v in optimizer.variables}
        layers = model._flatten_layers()
        seeds = [g.state for layer in layers for g in layer._seed_generators]
        variables |= {id(v): v for v in seeds}
        self._sums.broadcast(list(variables.values()))
        for seed in {id(v): v for v in seeds}.values():
            seed.assign(seed + keras.ops.cast([self._communicator.rank, 0], seed.dtype))

    def begin_fit(self, params: dict[str, Any]) -> None:
        """Agrees on epochs and steps, and reports what one process would do otherwise.

        Args:
          params: Of the callbacks of this `fit`.
        """
        settings = self._settings
        has_validation = settings.get("validation_data") is not None
        self._sums.require_same(
            "`fit`",
            {
                "epochs": params["epochs"],
                "validation_data": has_validation,
                "validation_split": settings.get("validation_split", 0.0),
                "validation_freq": settings.get("validation_freq", 1),
                "steps_per_execution": self._model.steps_per_execution,
            },
        )
        first = self._model._initial_epoch or settings.get("initial_epoch", 0)
        lengths = [params["steps"] or -1, count_batches(settings)]
        table = self._communicator.gather([first, *lengths]).astype(int)
        self._model._initial_epoch = int(table[0, 0])
        self._sums.stop.assign(0.0)
        self._sums.stops.assign(0.0)
        is_unknown = (table[:, 1:] == tf.data.UNKNOWN_CARDINALITY).any() or (
            table[:, 1] == -1
        ).any()
        differ = (table != table[0])[:, 1:].any()
        self._agrees_each_step = bool(is_unknown or differ)
        if differ:
            lengths = ["unknown" if n < 0 else int(n) for n in table[:, 1]]
            launch.report(
                f"The workers have {lengths} batches in an epoch, by rank: it ends "
                "when one of them has no more."
            )
        if found := departures(self._model, settings):
            launch.report(
                f"{self._communicator.size} workers do not train exactly as one "
                f"process on the joined batches: {'; '.join(found)}."
            )

    def agree_to_stop(self) -> None:
        """Leaves the epoch on all workers at the same step, if any asked to stop."""
        if self._model.stop_training:
            self._sums.stop.assign(1.0)
        self._model.stop_training = bool(self._sums.stops.numpy() > 0)

    def end_epoch(self) -> None:
        """Checks that the workers have the same weights, and agrees to stop."""
        self._sums.require_same_values(self._model.weights)
        asks = self._model.stop_training or self._sums.stop.numpy() > 0
        self._model.stop_training = bool(self._communicator.gather([asks]).any())

    def _train(self, iterator: Iterator[Any]) -> Any:  # noqa: ANN401
        """Keras's train function on the next batches, as many as every worker has."""
        if self._is_synchronized and not self._agrees_each_step:
            return self._train_function(iterator)
        batches = list(itertools.islice(iterator, self._model.steps_per_execution))
        number = self._count_common(len(batches))
        if not number:
            raise StopIteration
        was_built = self._is_synchronized or self._begin(batches[0])
        logs = self._train_function(iter(batches[:number]))
        if not was_built:
            self.synchronize()
        self._is_synchronized = True
        return logs

    def _count_common(self, own: int) -> int:
        """The batches that every worker has; 0 ends the epoch."""
        numbers = self._communicator.gather([own])[:, 0].astype(int)
        if numbers.min() < numbers.max():
            launch.report(
                f"The epoch ends where worker {numbers.argmin()} has no more batches: "
                "the next ones of others are left out."
            )
        self._has_ended = not numbers.min()
        return int(numbers.min())

    def _begin(self, batch: Any) -> bool:  # noqa: ANN401
        """Starts from the same weights, if the model can be built before a step."""
        codes = [zlib.crc32(x.numpy().tobytes()) for x in arrays(batch)]
        table = self._communicator.gather(codes)
        if codes and (table == table[0]).all():
            launch.report(
                "All workers got the same first batch. Give each its own part of the "
                "data, such as dataset.shard(workers.size, workers.rank)."
            )
        if not all(layer.built for layer in self._model._flatten_layers()):
            try:
                step = tf.function(self._model.train_step, autograph=False)
                step.get_concrete_function(without_optionals(batch))
            except Exception as error:  # noqa: BLE001 - whatever a user's step raises
                launch.report(
                    "The model cannot be built before its first step, which each "
                    f"worker takes from its own initial weights: {error}"
                )
                return False
            finally:
                self._sums.rows = None
        self.prepare()
        self.synchronize()
        return True


class _Agreement(keras.callbacks.Callback):
    """Calls back when all callbacks of the user have run."""

    def __init__(self, distributed: _DistributedFit) -> None:
        super().__init__()
        self._distributed = distributed

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Before the first epoch."""
        self._distributed.begin_fit(self.params)

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        """After each execution of steps."""
        self._distributed.agree_to_stop()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """After each epoch and its validation."""
        self._distributed.end_epoch()
