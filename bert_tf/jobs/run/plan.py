"""A run that is ready to start, and how it is built from what its job gives."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import google_crc32c
import keras
import numpy as np

from bert_tf import fused_ops
from bert_tf.config import BertConfig
from bert_tf.config.run import RunConfig
from bert_tf.data.batches.record_batches import BatchShape, StepReader
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.records.masked_tokens import MaskedTokens
from bert_tf.data.records.record_index import SetShare
from bert_tf.distribute import Communicator
from bert_tf.interop.weights import Weights
from bert_tf.jobs.run.agreement import versions
from bert_tf.jobs.run.fingerprint import (
    Fingerprint,
    compare_with_run,
    take_fingerprint,
)
from bert_tf.jobs.run.memory import require_memory
from bert_tf.jobs.run.model_files import RunTokenizer
from bert_tf.jobs.run.optimization import (
    make_averages,
    make_clock,
    make_optimizer,
    peak_learning_rate,
)
from bert_tf.jobs.run.output_dir import ModelFiles, model_files
from bert_tf.jobs.run.resume import accumulation_steps, restore, weights_by_name
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.modeling.models import ModelOptions
from bert_tf.precision import PrecisionPolicy, choose_policy
from bert_tf.training.averages import WeightAverages
from bert_tf.training.clock import TrainingClock
from bert_tf.training.gradients import Task
from bert_tf.training.optimizer_base import BertOptimizer
from bert_tf.training.schedules import DecayByTime, WarmupPolynomialDecay


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The records, or examples, that a run trains on.

    Attributes:
      num_records: How many.
      sha256: Checksum of all of them.
      make_reader: Makes their reader, from their order, the shape of batches, and by
        name `first_step` and `first_position`.
      max_seq_length: S, tokens in a row.
      max_predictions: P, masked tokens in a row; 0 without any.
      sequences_per_record: On average; more than 1 where records are packed.
      rows: How examples are packed into rows; None for records, which are rows.
      is_packed: Whether records are packed; None if there are no records.
      shares: The sets of records that they are read from, if these have weights.
      facts: More about them for the fingerprint, by name.
      measure_lengths: The numbers of tokens of its sequences, or of a sample: [n].
      measure_masked_tokens: Statistics of the masked tokens of a sample; None without
        any.
    """

    num_records: int
    sha256: str
    make_reader: Callable[..., StepReader]
    max_seq_length: int
    max_predictions: int = 0
    sequences_per_record: float = 1.0
    rows: RowSettings | None = None
    is_packed: bool | None = None
    shares: Sequence[SetShare] = ()
    facts: Mapping[str, object] = dataclasses.field(default_factory=dict)
    measure_lengths: Callable[[], np.ndarray] = lambda: np.zeros(0, np.int64)
    measure_masked_tokens: Callable[[], MaskedTokens | None] = lambda: None

    def sequences_per_row(self, lengths: np.ndarray) -> float:
        """On average, of sequences of these lengths, [n]."""
        if self.rows is None:
            return self.sequences_per_record
        return len(lengths) / len(self.rows.assign_rows(lengths))


Config = TypeVar("Config", bound=RunConfig, covariant=True)
Data = TypeVar("Data", covariant=True)
JobTask = TypeVar("JobTask", bound=Task, covariant=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan(Generic[Config, Data, JobTask]):
    """A run that is ready to start.

    Attributes:
      config: The settings, with the number of steps filled in.
      data: What the job reads, predicts or evaluates.
      bert: The architecture.
      tokenizer: What text is tokenized with, as far as it is known.
      start: The checkpoint that the run starts from.
      shape: How a global batch is divided.
      learning_rate: Peak learning rate in effect.
      seed: Decides order and dropout; a resumed run keeps its own.
      task: The model and its losses.
      optimizer: Built, with the state of the checkpoint if the run is resumed.
      schedule: Learning rate by step, or by time.
      policy: Decides compute types.
      notes: Lines for the log.
      training_set: What is trained on; None without training.
      num_eval_records: Records, or examples, to evaluate or predict.
      fingerprint: What must be equal on all workers and in a resumed run.
      model_files: The files that its checkpoints are used with.
      weights_crc32c: Checksum of the weights that were read, new heads left out; None
        if none were read, or there are no other workers.
      averages: Moving averages of the weights; None without --ema_decay.
      clock: Of a training that has a time; None without one.
    """

    config: Config
    data: Data
    bert: BertConfig
    tokenizer: RunTokenizer
    start: StartingPoint
    shape: BatchShape
    learning_rate: float
    seed: int
    task: JobTask
    optimizer: BertOptimizer
    schedule: WarmupPolynomialDecay | DecayByTime
    policy: PrecisionPolicy
    notes: list[str]
    training_set: TrainingSet | None
    num_eval_records: int
    fingerprint: Fingerprint
    model_files: ModelFiles
    weights_crc32c: int | None = None
    averages: WeightAverages | None = None
    clock: TrainingClock | None = None

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.optimizer.iterations)

    @property
    def sequences_per_step(self) -> float:
        """Sequences of a step, on all workers; packed records hold several."""
        return self.shape.global_batch_size * self.training_set.sequences_per_record

    def samples(self, step: int) -> int:
        """Sequences that the run has seen after `step` steps."""
        return round(step * self.sequences_per_step)

    def ends_epoch(self, step: int) -> bool:
        """Whether a step completes a pass over the records or the examples."""
        size, count = self.shape.global_batch_size, self.training_set.num_records
        return step * size // count > (step - 1) * size // count

    @property
    def last_step(self) -> int:
        """The run ends after this step, unless its time is over before."""
        most = self.config.training.max_samples
        last = self.config.optimizer.num_train_steps or 0
        if most is None or self.training_set is None:
            return last
        return min(last, math.ceil(most / self.sequences_per_step))

    @property
    def variables(self) -> list[keras.Variable]:
        """Every variable that must be equal on all workers."""
        slots = self.optimizer.slots().values()
        weights = self.task.model.trainable_variables
        averages = self.averages.variables if self.averages else []
        return [*weights, *slots, *averages, self.optimizer.iterations]

    def make_reader(self) -> StepReader:
        """The reader of the steps that are left."""
        if self.start.position:
            first_position = self.start.position.records
        else:
            first_position = self.step * self.shape.global_batch_size
        order = RecordOrder(
            num_records=self.training_set.num_records,
            seed=self.seed,
            is_shuffled=not self.config.training.deterministic_run,
            shares=self.training_set.shares,
        )
        return self.training_set.make_reader(
            order, self.shape, first_step=self.step, first_position=first_position
        )

    def settings(self) -> dict[str, object]:
        """What a manifest keeps of the settings."""
        return dataclasses.asdict(self.config) | {
            "bert": self.bert.to_dict(),
            "precision": self.policy.name,
            "compute_path": fused_ops.in_use(),
            "workers": self.shape.size,
            "micro_batch_size": self.shape.micro_batch_size,
            "num_micro_batches": self.shape.num_micro_batches,
            "versions": versions(),
        }


def divide_batch(
    config: RunConfig,
    communicator: Communicator,
    start: StartingPoint,
    training_set: TrainingSet | None,
) -> BatchShape:
    """How a global batch is divided among workers and micro-batches.

    Raises:
      ValueError: if the global batch of a resumed run cannot be divided.
    """
    num_micro_batches = 1
    if training_set is not None:
        num_micro_batches = accumulation_steps(
            config.batch,
            start.position,
            communicator.size,
            training_set.sequences_per_record,
        )
    return BatchShape(
        micro_batch_size=config.batch.train_batch_size,
        num_micro_batches=num_micro_batches,
        rank=communicator.rank,
        size=communicator.size,
    )


def build_plan(
    config: Config,
    communicator: Communicator,
    *,
    start: StartingPoint,
    bert: BertConfig,
    tokenizer: RunTokenizer,
    training_set: TrainingSet | None,
    data: Data,
    num_eval_records: int,
    make_task: Callable[[BertConfig, ModelOptions], JobTask],
    facts: Mapping[str, Mapping[str, object]],
    description: Mapping[str, object] | None = None,
    head: Sequence[str] = (),
    weights: Weights | None = None,
    notes: Sequence[str] = (),
) -> Plan[Config, Data, JobTask]:
    """Builds model and optimizer of any job, and loads the starting point.

    Args:
      config: The settings.
      communicator: The workers.
      start: The checkpoint that the run starts from.
      bert: The architecture.
      tokenizer: See `Plan`.
      training_set: What is trained on, or None.
      data: See `Plan`.
      num_eval_records: See `Plan`.
      make_task: Builds the model and its losses. The architecture that it takes is
        without dropout where the run is.
      facts: The `labels`, `evaluation` and `losses` of `take_fingerprint`.
      description: The content of task.json; None for a pre-training.
      head: Names of weights that a training may initialise newly.
      weights: Those of the starting point, if they have been read.
      notes: Lines about the data.

    Returns:
      The plan.

    Raises:
      ValueError, OSError, RunError: if the run cannot start.
    """
    runtime, training = config.runtime, config.training
    policy = choose_policy(runtime.chosen_precision, runtime.bf16_config_path)
    facts = {"data": _facts(training_set), **facts}
    fingerprint = take_fingerprint(training, bert, tokenizer, policy, **facts)
    takes_steps, allowed = training_set is not None, training.allow_config_change
    compared = compare_with_run(start, fingerprint, allowed, takes_steps=takes_steps)
    require_memory(bert, communicator.local_size)
    shape = divide_batch(config, communicator, start, training_set)
    num_records = training_set.num_records if training_set else 0
    settings = config.optimizer.for_examples(num_records, shape.global_batch_size)
    config = dataclasses.replace(config, optimizer=settings)
    seed = start.position.seed if start.position else training.seed
    built = bert.without_dropout() if training.deterministic_run else bert
    task = make_task(built, _model_options(config, policy, seed))
    learning_rate = peak_learning_rate(settings, start, shape.size)
    clock = make_clock(training, start)
    optimizer, schedule = make_optimizer(settings, learning_rate, task.model, clock)
    averages = make_averages(config, task.model)
    given = {"do_train": training.do_train, "head": head, "weights": weights}
    restored = restore(start, task.model, optimizer, bert, averages=averages, **given)
    return Plan(
        config=config,
        data=data,
        bert=bert,
        tokenizer=tokenizer,
        start=start,
        shape=shape,
        learning_rate=learning_rate,
        seed=seed,
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        policy=policy,
        notes=[*tokenizer.notes, *notes, *restored, *compared],
        training_set=training_set,
        num_eval_records=num_eval_records,
        fingerprint=fingerprint,
        model_files=model_files(bert, tokenizer, description),
        weights_crc32c=_weights_crc32c(task.model, head, start, communicator),
        averages=averages,
        clock=clock,
    )


def _model_options(
    config: RunConfig, policy: PrecisionPolicy, seed: int
) -> ModelOptions:
    """How the layers of the model compute."""
    runtime = config.runtime
    return {
        "policy": policy,
        "seed": seed,
        "allow_fused": not runtime.use_xla,
        "recompute": runtime.recompute,
        "unpad": runtime.unpad,
        "frozen_layers": config.optimizer.frozen_layers,
    }


def _facts(training_set: TrainingSet | None) -> dict[str, object]:
    """What a fingerprint has of a training set; empty without training."""
    if training_set is None:
        return {}
    count, sha256 = training_set.num_records, training_set.sha256
    return {"records": count, "sha256": sha256, **training_set.facts}


def _weights_crc32c(
    model: keras.Model,
    head: Sequence[str],
    start: StartingPoint,
    communicator: Communicator,
) -> int | None:
    """Checksum of weights that several workers have read, without new ones."""
    if not start.prefix or communicator.size == 1:
        return None
    crc = 0
    for name, variable in weights_by_name(model).items():
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in head):
            crc = google_crc32c.extend(crc, variable.numpy().tobytes())
    return crc
