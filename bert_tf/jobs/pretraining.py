"""Pre-training: a config to a trained and evaluated model."""

import time

from bert_tf.config import PretrainingConfig
from bert_tf.data.batches.record_batches import TrainingReader, evaluation_batches
from bert_tf.data.batches.record_order import RecordOrder
from bert_tf.distribute import Communicator
from bert_tf.evaluation.metrics import evaluate_pretraining
from bert_tf.jobs.architecture import write_architecture
from bert_tf.jobs.folder_task import remove_description
from bert_tf.jobs.plan import shared_state
from bert_tf.jobs.preparation import PretrainingPlan, prepare
from bert_tf.jobs.reporting import describe, report_results
from bert_tf.jobs.running import run_job
from bert_tf.jobs.steps import take_steps
from bert_tf.training.runlog import RunLog

# The order of an evaluation set never changes, so that results can be compared.
EVALUATION_SEED = 0


def run(config: PretrainingConfig) -> dict[str, float]:
    """Trains and evaluates as the config says.

    Args:
      config: The settings.

    Returns:
      The evaluation's results, as in eval_results.txt; empty without evaluation.

    Raises:
      RunError: if the run cannot begin or go on.
    """
    return run_job(config, prepare, _act)


def _act(
    plan: PretrainingPlan, communicator: Communicator, threads: int, log: RunLog
) -> dict[str, float]:
    """What a prepared run does."""
    describe(plan, communicator, threads, log)
    communicator.broadcast(shared_state(plan))
    files = plan.config.files
    if communicator.rank == 0 and plan.config.training.do_train:
        write_architecture(files.output_dir, plan.bert, plan.tokenizer)
        if not plan.start.is_own:
            remove_description(files.output_dir)
    if plan.config.training.do_train:
        train(plan, communicator, log)
    if plan.config.training.do_eval:
        return evaluate(plan, communicator, log)
    return {}


def _reader(plan: PretrainingPlan) -> TrainingReader:
    return TrainingReader(
        plan.train_records.parser,
        plan.order,
        plan.shape,
        first_step=int(plan.optimizer.iterations),
        first_position=plan.first_position,
    )


def train(plan: PretrainingPlan, communicator: Communicator, log: RunLog) -> None:
    """Takes the steps that are left."""
    step, last = int(plan.optimizer.iterations), plan.config.optimizer.num_train_steps
    if step >= last:
        log.message(f"All steps are done: {step} of {last}.")
        return
    for _ in take_steps(plan, _reader(plan), communicator, log):
        pass  # Nothing to be done between steps.


def evaluate(
    plan: PretrainingPlan, communicator: Communicator, log: RunLog
) -> dict[str, float]:
    """Evaluates, and writes eval_results.txt on the first worker."""
    config = plan.config
    order = RecordOrder(num_records=len(plan.eval_records), seed=EVALUATION_SEED)
    batches = evaluation_batches(
        plan.eval_records.parser,
        order,
        batch_size=config.batch.eval_batch_size,
        max_batches=config.training.max_eval_steps,
        rank=communicator.rank,
        size=communicator.size,
    )
    started = time.perf_counter()
    results = evaluate_pretraining(plan.task, batches, communicator)
    seconds = time.perf_counter() - started
    log.summary({"throughput_val": results["next_sentence_count"] / seconds})
    return report_results(plan, results, communicator, log)
