"""What every training run consists of, and how its common parts are made."""

import contextlib
import dataclasses
import os
import tempfile
from typing import Any

import keras
import tensorflow as tf

from bert_tf.config import BertConfig, OptimizerConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.files import lock, remove_unfinished
from bert_tf.interop.tensor_names import of_variable
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.precision import PrecisionPolicy
from bert_tf.training import checkpoints
from bert_tf.training.gradients import Task
from bert_tf.training.optimizer_types import build_optimizer
from bert_tf.training.optimizers import BertOptimizer
from bert_tf.training.schedules import WarmupPolynomialDecay

# Folders in output_dir: of the best checkpoint, and of where each record begins.
BEST_DIR = "best"
INDEX_CACHE_DIR = ".record_index"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that is ready to begin.

    Attributes:
      config: The settings, in groups `files, optimizer, training, runtime`.
      bert: The architecture.
      start: Which checkpoint it begins with.
      shape: How a global batch is cut up.
      learning_rate: Peak learning rate in effect.
      seed: Decides order and dropout; a resumed run keeps its own.
      task: The model and its losses.
      optimizer: Built, with the checkpoint's state if it is resumed.
      schedule: Learning rate by step.
      policy: Decides compute types.
      notes: What is to be told of the checkpoint.
      num_train_records: Records, or examples, to train on.
      num_eval_records: Those to evaluate on.
      sequences_per_record: How many sequences one to train on holds on average.
      data_sha256: Of what there is to train on; None without training.
      is_packed: Whether records hold several sequences; None where there are none.
    """

    config: Any
    bert: BertConfig
    start: StartingPoint
    shape: BatchShape
    learning_rate: float
    seed: int
    task: Task
    optimizer: BertOptimizer
    schedule: WarmupPolynomialDecay
    policy: PrecisionPolicy
    notes: list[str]
    num_train_records: int = 0
    num_eval_records: int = 0
    sequences_per_record: float = 1.0
    data_sha256: str | None = None
    is_packed: bool | None = None

    @property
    def order(self) -> RecordOrder:
        """The order in which the records to train on are read."""
        return RecordOrder(
            num_records=self.num_train_records,
            seed=self.seed,
            is_shuffled=not self.config.training.deterministic_run,
        )

    @property
    def first_position(self) -> int:
        """Records that the run has read before, over all workers."""
        if self.start.position:
            return self.start.position.records
        return int(self.optimizer.iterations) * self.shape.global_batch_size


def shared_state(plan: Plan) -> list:
    """Every variable that the workers must have in common."""
    return [
        *plan.task.model.trainable_variables,
        *plan.optimizer.slots().values(),
        plan.optimizer.iterations,
    ]


def effective_learning_rate(
    config: OptimizerConfig, start: StartingPoint, size: int
) -> float:
    """The peak rate of all workers together; a resumed run keeps its own."""
    if start.position is not None:
        return start.position.learning_rate
    return config.learning_rate * (size if config.scale_learning_rate else 1)


def make_optimizer(
    settings: OptimizerConfig, learning_rate: float, model: keras.Model
) -> tuple[BertOptimizer, WarmupPolynomialDecay]:
    """The optimizer of a model, and the schedule that it follows."""
    schedule = WarmupPolynomialDecay(
        learning_rate=learning_rate,
        num_train_steps=settings.num_train_steps,
        num_warmup_steps=settings.warmup_steps,
        power=settings.power,
        compensate_warmup=settings.optimizer_type != "lamb",
    )
    optimizer = build_optimizer(
        settings.optimizer_type,
        schedule,
        beta_1=settings.beta_1,
        beta_2=settings.beta_2,
        epsilon=settings.epsilon,
        weight_decay_rate=settings.weight_decay_rate,
        exclude_from_weight_decay=settings.exclude_from_weight_decay,
        exclude_from_layer_adaptation=settings.exclude_from_layer_adaptation,
    )
    optimizer.build(model.trainable_variables)
    return optimizer, schedule


def weights_by_name(model: keras.Model) -> dict[str, tf.Variable]:
    """Trainable variables by the original tensor names."""
    return {of_variable(v.path): v.value for v in model.trainable_variables}


def slots_by_name(optimizer: BertOptimizer) -> dict[str, tf.Variable]:
    """Optimizer state by the original tensor names."""
    slots = optimizer.slots().items()
    return {of_variable(name): slot.value for name, slot in slots}


def check_output_dir(path: str) -> None:
    """Makes the folder and tries to write into it.

    Raises:
      OSError: if that fails, naming the folder.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OSError(
            f"`output_dir` {path} cannot be written: {error.strerror}. Choose another."
        ) from error


def prepare_output_dir(
    config: Any,  # noqa: ANN401 - as `Plan.config`
    held: contextlib.ExitStack,
) -> None:
    """Makes the folder, tries it, takes it for this training, and sweeps it up.

    An evaluation may run beside a training; two trainings would overwrite each other.

    Args:
      config: The settings.
      held: Keeps the folder until it is closed.

    Raises:
      OSError: if it cannot be written.
      RunError: if another process is training in it.
    """
    path = config.files.output_dir
    check_output_dir(path)
    if not config.training.do_train:
        return
    folder = os.open(path, os.O_RDONLY)
    held.callback(os.close, folder)
    lock(folder, f"training in `output_dir` {path}")
    checkpoints.remove_leftovers(path)
    best = os.path.join(path, BEST_DIR)
    if os.path.isdir(best):
        checkpoints.remove_leftovers(best)
    remove_unfinished(os.path.join(path, INDEX_CACHE_DIR))
