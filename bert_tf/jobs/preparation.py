"""A config to everything that a run needs, with all checks before the first step."""

import dataclasses
import os

import keras

from bert_tf.config import BertConfig, PretrainingConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.data.records.record_set import RecordSet, open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.distribute import Communicator
from bert_tf.jobs.architecture import load_bert_config
from bert_tf.jobs.changes import (
    check_architecture,
    check_packing,
)
from bert_tf.jobs.folder_task import PRETRAINING, FolderTask, require_same_task
from bert_tf.jobs.memory import require_memory
from bert_tf.jobs.plan import (
    INDEX_CACHE_DIR,
    Plan,
    effective_learning_rate,
    make_optimizer,
)
from bert_tf.jobs.restoring import restore
from bert_tf.jobs.starting_point import (
    StartingPoint,
    accumulation_steps,
    find_starting_point,
)
from bert_tf.jobs.tokenizer import RunTokenizer, pretraining_tokenizer
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.precision import PrecisionPolicy, choose_policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingPlan(Plan):
    """A pre-training that is ready to begin.

    Attributes:
      train_records: The training set, if there is training left.
      eval_records: The evaluation set, if there is evaluation.
      tokenizer: What the records were made with, as far as it is known.
    """

    config: PretrainingConfig
    train_records: RecordSet | None
    eval_records: RecordSet | None
    tokenizer: RunTokenizer


def _open(config: PretrainingConfig, bert: BertConfig, folders: str) -> RecordSet:
    limits = ValueLimits(bert.vocab_size, bert.type_vocab_size)
    records = open_records(
        folders,
        limits,
        max_seq_length=config.batch.max_seq_length,
        max_predictions_per_seq=config.batch.max_predictions_per_seq,
        cache_dir=os.path.join(config.files.output_dir, INDEX_CACHE_DIR),
    )
    length = records.shape.max_seq_length
    if length > bert.max_position_embeddings:
        raise ValueError(
            f"The records of {folders} have max_seq_length={length}, more than the "
            f"architecture's max_position_embeddings={bert.max_position_embeddings}. "
            "Make shorter records, or use a larger table."
        )
    return records


def _open_sets(
    config: PretrainingConfig, bert: BertConfig, start: StartingPoint
) -> tuple[RecordSet | None, RecordSet | None]:
    """The sets that are needed for training and for evaluation."""
    train = evaluation = None
    steps = start.position.step if start.position else 0
    if config.training.do_train and steps < config.optimizer.num_train_steps:
        train = _open(config, bert, config.files.input_files_dir)
    if config.training.do_eval:
        evaluation = _open(config, bert, config.files.eval_files_dir)
    return train, evaluation


def _check_global_batch(
    config: PretrainingConfig, records: RecordSet, shape: BatchShape
) -> None:
    if len(records) < shape.global_batch_size:
        raise ValueError(
            f"{config.files.input_files_dir} must hold at least one global batch of "
            f"{shape.global_batch_size} records ({shape.size} workers x "
            f"{shape.micro_batch_size} x {shape.num_micro_batches} micro-batches). "
            f"Received: {len(records)} records. Make the batch smaller."
        )


def batch_shape(
    config: PretrainingConfig,
    start: StartingPoint,
    communicator: Communicator,
    train: RecordSet | None,
) -> BatchShape:
    """How a global batch is cut up over micro-batches and workers."""
    size = communicator.size
    num_micro_batches = 1
    if train is not None:
        average = train.avg_seq_per_sample
        num_micro_batches = accumulation_steps(config, start.position, size, average)
    shape = BatchShape(
        micro_batch_size=config.batch.train_batch_size,
        num_micro_batches=num_micro_batches,
        rank=communicator.rank,
        size=size,
    )
    if train is not None:
        _check_global_batch(config, train, shape)
    return shape


def _build_model(
    config: PretrainingConfig,
    bert: BertConfig,
    policy: PrecisionPolicy,
    seed: int,
    sets: list[RecordSet],
) -> keras.Model:
    """The model, for the length of the records."""
    lengths = {records.shape.max_seq_length for records in sets}
    return build_pretraining_model(
        bert.without_dropout() if config.training.deterministic_run else bert,
        # Sets of two lengths need a model of any length.
        max_seq_length=lengths.pop() if len(lengths) == 1 else None,
        policy=policy,
        seed=seed,
        seeded_dropout=True,
        allow_fused=not config.runtime.use_xla,
        recompute=config.runtime.recompute,
        unpad=config.runtime.unpad,
    )


def prepare(config: PretrainingConfig, communicator: Communicator) -> PretrainingPlan:
    """Checks everything, and builds model and optimizer.

    Args:
      config: The settings.
      communicator: The workers.

    Returns:
      The plan of the run.

    Raises:
      ValueError, OSError, RunError: if the run cannot begin; the message says why.
    """
    start = find_starting_point(config)
    require_same_task(config, start, FolderTask(PRETRAINING))
    bert = load_bert_config(config.files, start)
    require_memory(bert, communicator)
    check_architecture(start, bert)
    runtime = config.runtime
    policy = choose_policy(runtime.chosen_precision, runtime.bf16_config_path)
    train, evaluation = _open_sets(config, bert, start)
    if train is not None:
        check_packing(start, train.shape.is_packed)
    sets = [records for records in (train, evaluation) if records is not None]
    metadata = {folder: m for each in sets for folder, m in each.metadata.items()}
    tokenizer = pretraining_tokenizer(config, start, bert, metadata)
    shape = batch_shape(config, start, communicator, train)
    seed = start.position.seed if start.position else config.training.seed
    model = _build_model(config, bert, policy, seed, sets)
    learning_rate = effective_learning_rate(config.optimizer, start, shape.size)
    optimizer, schedule = make_optimizer(config.optimizer, learning_rate, model)
    notes = restore(start, model, optimizer, bert, do_train=config.training.do_train)
    return PretrainingPlan(
        config=config,
        bert=bert,
        start=start,
        shape=shape,
        learning_rate=learning_rate,
        seed=seed,
        task=PretrainingTask(model),
        optimizer=optimizer,
        schedule=schedule,
        train_records=train,
        eval_records=evaluation,
        tokenizer=tokenizer,
        policy=policy,
        notes=[*tokenizer.notes, *notes],
        num_train_records=len(train or ()),
        num_eval_records=len(evaluation or ()),
        sequences_per_record=train.avg_seq_per_sample if train else 1.0,
        data_sha256=train.sha256 if train else None,
        is_packed=train.shape.is_packed if train else None,
    )
