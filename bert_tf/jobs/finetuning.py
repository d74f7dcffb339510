"""What both kinds of fine-tuning do: a config to a plan, and its training."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

from bert_tf.config import BertConfig
from bert_tf.config.finetuning import FinetuningConfig
from bert_tf.data.batches.example_batches import ExampleReader, LabelledSequences
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.packing.layout import RowSettings
from bert_tf.data.text.vocabulary import check_size
from bert_tf.distribute import Communicator
from bert_tf.interop.weights import Weights
from bert_tf.jobs.architecture import load_bert_config
from bert_tf.jobs.best import BestCheckpoint, forget_best
from bert_tf.jobs.changes import (
    check_architecture,
    describe_changes,
)
from bert_tf.jobs.memory import require_memory
from bert_tf.jobs.plan import (
    Plan,
    effective_learning_rate,
    make_optimizer,
    shared_state,
)
from bert_tf.jobs.reporting import describe_model
from bert_tf.jobs.restoring import restore
from bert_tf.jobs.starting_point import StartingPoint, accumulation_steps
from bert_tf.jobs.steps import take_steps
from bert_tf.jobs.tokenizer import RunTokenizer, finetuning_tokenizer
from bert_tf.modeling.finetuning import FinetuningTask
from bert_tf.precision import PrecisionPolicy, choose_policy
from bert_tf.training.runlog import RunLog

# The architecture, and keyword arguments for the model -> the model and its loss.
MakeTask = Callable[[BertConfig, dict[str, Any]], FinetuningTask]
Evaluate = Callable[[], dict[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuningPlan(Plan):
    """A fine-tuning that is ready to begin.

    Attributes:
      train_examples: What is trained on, if there is training.
      data: What the job itself is to predict and evaluate, if anything.
      tokenizer: What cuts text up.
    """

    config: FinetuningConfig
    train_examples: LabelledSequences | None
    data: Any
    tokenizer: RunTokenizer

    @property
    def rows(self) -> RowSettings:
        """What rows are like."""
        return RowSettings(self.config.max_seq_length, self.config.batch.pack_sequences)


def load_model_files(
    config: FinetuningConfig, start: StartingPoint
) -> tuple[BertConfig, RunTokenizer]:
    """The architecture and the tokenizer, checked before any data are read.

    Raises:
      FileNotFoundError, ValueError: see `load_bert_config`, `check_architecture` and
        `finetuning_tokenizer`; or if rows are longer than the table of positions, or
        the vocabulary than that of words.
    """
    bert = load_bert_config(config.files, start)
    check_architecture(start, bert)
    tokenizer = finetuning_tokenizer(config, start)
    notes = check_size(tokenizer.vocab_file, bert.vocab_size)
    if config.max_seq_length > bert.max_position_embeddings:
        raise ValueError(
            "`max_seq_length` must be at most the architecture's "
            f"max_position_embeddings={bert.max_position_embeddings}. Received: "
            f"max_seq_length={config.max_seq_length}."
        )
    return bert, dataclasses.replace(tokenizer, notes=[*tokenizer.notes, *notes])


def make_plan(
    config: FinetuningConfig,
    communicator: Communicator,
    start: StartingPoint,
    bert: BertConfig,
    tokenizer: RunTokenizer,
    train_examples: LabelledSequences | None,
    make_task: MakeTask,
    *,
    head: tuple[str, ...],
    data: Any,  # noqa: ANN401 - of the job alone
    num_eval_records: int,
    notes: list[str],
    weights: Weights | None = None,
) -> FinetuningPlan:
    """Builds model and optimizer, and loads the weights.

    Args:
      config: The settings.
      communicator: The workers.
      start: Where it begins.
      bert: The architecture.
      tokenizer: What has cut the examples up.
      train_examples: What is trained on, if there is training.
      make_task: Makes the model and its loss.
      head: Names of the weights that a model without this task lacks.
      data: See `FinetuningPlan`.
      num_eval_records: How many examples it has.
      notes: What is to be told of the data.
      weights: Those of the starting point, if they have been read.

    Returns:
      The plan; its config has the number of steps filled in.

    Raises:
      ValueError, OSError, RunError: if the run cannot begin; the message says why.
    """
    require_memory(bert, communicator)
    shape = _batch_shape(config, start, communicator)
    count = len(train_examples.sequences) if train_examples else 0
    settings = config.optimizer.for_examples(count, shape.global_batch_size)
    config = dataclasses.replace(config, optimizer=settings)
    seed = start.position.seed if start.position else config.training.seed
    task, policy = _build_task(config, bert, seed, make_task)
    learning_rate = effective_learning_rate(settings, start, shape.size)
    optimizer, schedule = make_optimizer(settings, learning_rate, task.model)
    do_train = config.training.do_train
    restored = restore(
        *(start, task.model, optimizer, bert),
        do_train=do_train,
        new_weights=head,
        weights=weights,
    )
    return FinetuningPlan(
        config=config,
        start=start,
        shape=shape,
        learning_rate=learning_rate,
        seed=seed,
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        policy=policy,
        notes=[*tokenizer.notes, *notes, *restored],
        num_train_records=count,
        data_sha256=train_examples.sha256() if train_examples else None,
        num_eval_records=num_eval_records,
        data=data,
        bert=bert,
        train_examples=train_examples,
        tokenizer=tokenizer,
    )


def _batch_shape(
    config: FinetuningConfig, start: StartingPoint, communicator: Communicator
) -> BatchShape:
    """How the examples of a step are cut up; without training nothing is kept."""
    position = start.position if config.training.do_train else None
    steps = accumulation_steps(config, position, communicator.size)
    return BatchShape(
        micro_batch_size=config.batch.train_batch_size,
        num_micro_batches=steps,
        rank=communicator.rank,
        size=communicator.size,
    )


def _build_task(
    config: FinetuningConfig, bert: BertConfig, seed: int, make_task: MakeTask
) -> tuple[FinetuningTask, PrecisionPolicy]:
    """The model with its loss, and what it computes in."""
    runtime = config.runtime
    policy = choose_policy(runtime.chosen_precision, runtime.bf16_config_path)
    settings = {
        "max_seq_length": config.max_seq_length,
        "policy": policy,
        "seed": seed,
        "allow_fused": not runtime.use_xla,
        "recompute": runtime.recompute,
        "unpad": runtime.unpad,
    }
    if config.training.deterministic_run:
        bert = bert.without_dropout()
    return make_task(bert, settings), policy


def describe(plan: FinetuningPlan, threads: int, log: RunLog) -> None:
    """Says what is about to be done."""
    describe_model(plan, threads, log)
    if plan.train_examples is None:
        return
    shape, settings = plan.shape, plan.config.optimizer
    log.message(
        f"Training: {plan.num_train_records} examples, {shape.global_batch_size} per "
        f"step ({shape.size} workers x {shape.micro_batch_size} x "
        f"{shape.num_micro_batches} accumulation), {settings.num_train_steps} steps; "
        f"{settings.optimizer_type}, peak learning rate {plan.learning_rate:g}, "
        f"{settings.warmup_steps} steps of warm-up."
    )
    if plan.rows.is_packed:
        lengths = plan.train_examples.sequences.lengths
        rows = len(plan.rows.assign_rows(lengths))
        log.message(f"Packed: about {len(lengths) / rows:.2f} sequences in a row.")
    describe_changes(plan, log)


def _reader(plan: FinetuningPlan) -> ExampleReader:
    return ExampleReader(
        plan.train_examples,
        plan.order,
        plan.shape,
        plan.rows,
        first_step=int(plan.optimizer.iterations),
        first_position=plan.first_position,
    )


def train(
    plan: FinetuningPlan,
    communicator: Communicator,
    log: RunLog,
    evaluate: Evaluate,
    criterion: str,
) -> None:
    """Takes the steps that are left; keeps the best checkpoint where that is asked for.

    Args:
      plan: The run; afterwards its model has the weights that are to be used.
      communicator: The workers.
      log: Where steps are told.
      evaluate: Evaluates the model as it is.
      criterion: Name of the result that is to be high.
    """
    communicator.broadcast(shared_state(plan))
    if not plan.config.training.do_train:
        return
    if communicator.rank == 0 and not plan.start.is_own:
        forget_best(plan.config.files.output_dir)
    step, last = int(plan.optimizer.iterations), plan.config.optimizer.num_train_steps
    steps = take_steps(plan, _reader(plan), communicator, log) if step < last else []
    if step >= last:
        log.message(f"All steps are done: {step} of {last}.")
    if not plan.config.training.evaluate_each_epoch:
        for _ in steps:
            pass  # Nothing to be done between steps.
        return
    best = BestCheckpoint(plan, criterion, communicator.rank)
    if plan.start.is_own and step and not best.last_step:
        log.message(f"The best checkpoint is chosen from step {step} on.")
    # A run may have been stopped between a checkpoint and its evaluation.
    is_due = step > best.last_step and plan.start.is_own
    for done in itertools.chain([step] if is_due else [], steps):
        if not _ends_epoch(plan, done):
            continue
        results = evaluate()
        is_best = best.offer(done, results)
        line = f"After step {done}: {criterion} = {results[criterion]:.6g}"
        log.message(f"{line} (best so far)" if is_best else line)
        log.evaluation(done, results)
    communicator.agree(None)  # The files of the first worker are complete.
    log.message(best.load())


def _ends_epoch(plan: FinetuningPlan, step: int) -> bool:
    """Whether a step is the run's last, or completes a pass over the examples."""
    size, count = plan.shape.global_batch_size, plan.num_train_records
    completes = step * size // count > (step - 1) * size // count
    return completes or step == plan.config.optimizer.num_train_steps
