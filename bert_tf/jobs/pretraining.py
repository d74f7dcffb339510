"""Pre-training: a config to a trained and evaluated model."""

import functools
import os
import time

import numpy as np

from bert_tf.config import BertConfig, PretrainingConfig
from bert_tf.config.record_ranges import parse_ranges
from bert_tf.data.batches.dynamic_masking import DynamicMasker, make_masker
from bert_tf.data.batches.record_batches import TrainingReader, evaluation_batches
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.data.records.masked_tokens import measure_masked_tokens
from bert_tf.data.records.metadata import Metadata
from bert_tf.data.records.record_index import SetShare
from bert_tf.data.records.record_set import RecordSet, SkipSettings, open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.data.records.skipping import require_files
from bert_tf.distribute import Communicator
from bert_tf.errors import counted
from bert_tf.evaluation.metrics import evaluate_pretraining
from bert_tf.jobs.goal import Goal, describe_goal
from bert_tf.jobs.next_sentence import Records, choose_nsp
from bert_tf.jobs.run.fingerprint import (
    check_packing,
    record_facts,
    training_facts,
)
from bert_tf.jobs.run.messages import describe_changes, describe_model
from bert_tf.jobs.run.output_dir import INDEX_CACHE_DIR
from bert_tf.jobs.run.plan import Plan, TrainingSet, build_plan, divide_batch
from bert_tf.jobs.run.session import Session, open_session
from bert_tf.jobs.run.start import find_pretraining_start, takes_steps
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.jobs.run.training_loop import train
from bert_tf.modeling.models import ModelOptions
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.signals import StopRequest
from bert_tf.stages import stage

# Weights that a training may initialise newly, if it starts from an encoder.
_HEADS = ("cls/*", "bert/pooler/*")
# The order of an evaluation set never changes, so that results can be compared.
EVALUATION_SEED = 0
# Of LAMB, by NVIDIA's recipe for phase 1, over all workers.
_USUAL_RATE = 0.006
# Records whose sequences are measured for the report.
_NUM_MEASURED = 2048


PretrainingPlan = Plan[PretrainingConfig, Records, PretrainingTask]


def run(config: PretrainingConfig, stop: StopRequest | None = None) -> dict[str, float]:
    """Trains and evaluates as the config says.

    Args:
      config: The settings.
      stop: A signal that ends the run early.

    Returns:
      The results of the evaluation, as in eval_results.txt; empty without one.

    Raises:
      RunError: if the run cannot start or continue.
      NotConverged: if it has a target, and has not reached it.
    """
    with open_session(config, stop) as session:
        plan = session.make_plan(config, prepare)
        describe(plan, session)
        if config.saving.benchmark:
            train(plan, session)
            return {}
        goal = Goal(plan, session, functools.partial(evaluate, plan, session))
        if config.training.do_train and not goal.evaluate_start():
            goal.trained = train(plan, session, goal.after_step)
        results = goal.evaluate_end() if config.training.evaluates else {}
        goal.finish()
        return results


def prepare(config: PretrainingConfig, communicator: Communicator) -> PretrainingPlan:
    """Checks everything, and builds model and optimizer.

    Args:
      config: The settings.
      communicator: The workers.

    Returns:
      The plan of the run.

    Raises:
      ValueError, OSError, RunError: if the run cannot start.
    """
    found = find_pretraining_start(config, communicator.local_rank)
    start, bert, tokenizer, stated, sized = found
    records = _open_records(config, communicator, bert, start, stated)
    sets = records.sets
    notes = [*sized, *dict.fromkeys(note for each in sets for note in each.notes)]
    do_nsp, more = choose_nsp(config, start, records)
    notes += more
    masker, training_set = None, None
    if records.train is not None and config.training.dynamic_masking:
        vocab_file, known = tokenizer.vocab_file, records.train.metadata
        masker, lines = make_masker(vocab_file, bert.vocab_size, known)
        notes += lines
    elif config.training.dynamic_masking and not config.training.do_train:
        notes.append("--dynamic_masking has no effect without --do_train.")
    if records.train is not None:
        training_set = _training_set(records.train, masker, tokenizer.vocab_file)
        check_packing(start, training_set.is_packed)
        _check_global_batch(config, communicator, start, training_set)
    lengths = {each.shape.max_seq_length for each in sets}
    # Sets of two lengths need a model of any length.
    max_seq_length = min(lengths) if len(lengths) == 1 else None

    def make_task(bert: BertConfig, options: ModelOptions) -> PretrainingTask:
        return PretrainingTask(
            build_pretraining_model(
                bert,
                max_seq_length=max_seq_length,
                seeded_dropout=True,
                do_nsp=do_nsp,
                **options,
            ),
            do_nsp,
        )

    return build_plan(
        config,
        communicator,
        start=start,
        bert=bert,
        tokenizer=tokenizer,
        training_set=training_set,
        data=records,
        num_eval_records=len(records.evaluation or ()),
        make_task=make_task,
        head=_HEADS,
        notes=notes,
        facts={
            "labels": {},
            "losses": {"do_nsp": do_nsp},
            "evaluation": record_facts(records.evaluation),
        },
    )


def _open_records(
    config: PretrainingConfig,
    communicator: Communicator,
    bert: BertConfig,
    start: StartingPoint,
    stated: dict[str, Metadata | None],
) -> Records:
    """Opens the sets that are needed for training and for evaluation."""
    files, training = config.files, config.training
    skipped = parse_ranges("skip_records", training.skip_records)

    def open_set(folders: str, *, may_have_weights: bool) -> RecordSet:
        records = open_records(
            folders,
            ValueLimits(bert.vocab_size, bert.type_vocab_size),
            max_seq_length=config.batch.max_seq_length,
            max_predictions_per_seq=config.batch.max_predictions_per_seq,
            cache_dir=os.path.join(files.output_dir, INDEX_CACHE_DIR),
            skip=SkipSettings(skipped, training.max_corrupt_records),
            communicator=communicator,
            may_have_weights=may_have_weights,
            stated=stated,
        )
        length, most = records.shape.max_seq_length, bert.max_position_embeddings
        if length > most:
            raise ValueError(
                f"The records of {folders} have max_seq_length={length}, more than the "
                f"architecture's max_position_embeddings={most}. Make shorter records, "
                "or use an architecture with more positions."
            )
        return records

    train = evaluation = None
    if takes_steps(config, start):
        train = open_set(files.input_files_dir, may_have_weights=True)
    if training.evaluates:
        evaluation = open_set(files.eval_files_dir, may_have_weights=False)
    records = Records(train, evaluation)
    if train is not None or not training.do_train:
        # Both sets may be the same.
        paths = dict.fromkeys(x for each in records.sets for x in each.index.files)
        require_files([*paths], skipped)
    return records


def _training_set(
    records: RecordSet, masker: DynamicMasker | None, vocab_file: str
) -> TrainingSet:
    shape = records.shape
    shares = records.shares or [SetShare(len(records))]
    return TrainingSet(
        num_records=len(records),
        sha256=records.sha256,
        make_reader=functools.partial(TrainingReader, records.parser, masker=masker),
        max_seq_length=shape.max_seq_length,
        max_predictions=shape.max_predictions,
        sequences_per_record=records.avg_seq_per_sample,
        is_packed=shape.is_packed,
        shares=records.shares,
        facts=training_facts(records, masker and masker.units),
        measure_lengths=functools.partial(_measure_lengths, records),
        measure_masked_tokens=functools.partial(
            measure_masked_tokens, records.parser, shares, records.metadata, vocab_file
        ),
    )


def _measure_lengths(records: RecordSet) -> np.ndarray:
    """Tokens of the sequences of a sample of the records, evenly spread: [n]."""
    count = min(len(records), _NUM_MEASURED)
    numbers = np.linspace(0, len(records) - 1, count).astype(np.int64)
    mask = records.parser(np.unique(numbers))["input_mask"]
    of_sequences = range(1, int(mask.max(initial=0)) + 1)
    lengths = np.concatenate([(mask == n).sum(axis=1) for n in of_sequences] or [[]])
    return lengths[lengths > 0].astype(np.int64)


def _check_global_batch(
    config: PretrainingConfig,
    communicator: Communicator,
    start: StartingPoint,
    training_set: TrainingSet,
) -> None:
    shape = divide_batch(config, communicator, start, training_set)
    if training_set.num_records < shape.global_batch_size:
        raise ValueError(
            f"{config.files.input_files_dir} must hold at least one global batch of "
            f"{shape.global_batch_size} records ({counted(shape.size, 'worker')} x "
            f"{shape.micro_batch_size} x {shape.num_micro_batches} micro-batches). "
            f"Received: {counted(training_set.num_records, 'record')}. Pass a smaller "
            "--train_batch_size or --num_accumulation_steps."
        )


def describe(plan: PretrainingPlan, session: Session) -> None:
    """Logs the model, the batch and the optimizer."""
    log, shape, config = session.log, plan.shape, plan.config
    describe_model(plan, session.threads, log)
    trained = plan.training_set
    if trained is None:
        return
    log.message(
        f"Batch: {counted(shape.size, 'worker')} x {shape.micro_batch_size} records "
        f"per micro-batch x {shape.num_micro_batches} accumulation = "
        f"{shape.global_batch_size} records per step."
    )
    if trained.is_packed:
        average = trained.sequences_per_record
        num_steps = config.batch.num_accumulation_steps
        asked = config.batch.train_batch_size * num_steps * shape.size
        log.message(
            f"Packed records, {average:.3f} sequences each: a step has about "
            f"{shape.global_batch_size * average:.0f} sequences (flags: {asked}, "
            f"accumulation {num_steps} -> {shape.num_micro_batches})."
        )
    if trained.shares:
        log.message(_describe_sets(plan))
    log.message(_describe_optimizer(plan))
    settings = config.optimizer
    is_default = settings.learning_rate == type(settings).learning_rate
    is_low = settings.optimizer_type == "lamb" and plan.learning_rate < _USUAL_RATE
    if is_default and is_low and plan.start.position is None:
        log.message(
            f"--learning_rate={settings.learning_rate:g} is the default for "
            f"compatibility, and low for lamb: {_USUAL_RATE:g} is usual in phase 1, "
            "0.004 in phase 2. `python -m bert_tf recipes` lists published settings."
        )
    describe_changes(plan, log)
    describe_goal(plan, log)


def _describe_optimizer(plan: PretrainingPlan) -> str:
    """The rate, and the steps if they decide it."""
    settings = plan.config.optimizer
    line = f"{settings.optimizer_type}, peak learning rate {plan.learning_rate:g}"
    if plan.start.position is None:  # A resumed run keeps the rate that it had.
        asked = f"--learning_rate={settings.learning_rate:g}"
        line += f" ({asked}, {counted(plan.shape.size, 'worker')})"
    if plan.clock is None:
        line += f", {counted(settings.warmup_steps, 'step')} of warm-up"
        line += f", {counted(settings.num_train_steps, 'step')} in all"
    return f"Optimizer: {line}."


def _describe_sets(plan: PretrainingPlan) -> str:
    """How much the whole run reads of each weighted set."""
    shares, steps = plan.training_set.shares, plan.last_step
    total = sum(share.parts for share in shares)
    read = steps * plan.shape.global_batch_size
    sets = "; ".join(
        f"{share.parts / total:.4g} of {share.path} "
        f"({counted(share.num_records, 'record')}, "
        f"{read * share.parts / total / share.num_records:.3g} epochs)"
        for share in shares
    )
    return f"Of the {read:,} records that {steps:,} steps read: {sets}."


def evaluate(plan: PretrainingPlan, session: Session) -> dict[str, float]:
    """The results of an evaluation; the model stays as it is."""
    config, communicator = plan.config, session.communicator
    records = plan.data.evaluation
    batches = evaluation_batches(
        records.parser,
        RecordOrder(num_records=len(records), seed=EVALUATION_SEED),
        batch_size=config.batch.eval_batch_size,
        max_batches=config.training.max_eval_steps,
        rank=communicator.rank,
        size=communicator.size,
    )
    started = time.perf_counter()
    with (
        stage("Evaluating", session.log.message),
        session.watchdog.paused(),
        session.averaged(plan),
    ):
        watched = session.watchdog.watched(batches)
        results = evaluate_pretraining(plan.task, watched, communicator)
    seconds = time.perf_counter() - started
    has_pairs = "nsp_loss" in plan.task.loss_names
    num_sequences = results["next_sentence_count" if has_pairs else "sequence_count"]
    session.log.summary({"throughput_val": num_sequences / seconds})
    return results
