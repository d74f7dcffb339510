"""The loop over the steps of a training, with all that happens between them."""

import itertools
import os
from collections.abc import Callable, Iterator

from bert_tf.data.batches.record_batches import Features, StepReader
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.jobs.run.exporting import Exporter
from bert_tf.jobs.run.messages import BENCHMARK_STEPS, StepReport
from bert_tf.jobs.run.output_dir import write_model_files
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.stopping import TrainingStop
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.profiling import StepProfiler
from bert_tf.training.runlog import RunLog
from bert_tf.training.trainer import Trainer

# Of --enable_device_warmup: the first compiles, the second allocates no more.
_WARMUP_STEPS = 2
# Is called with the number of steps taken.
AfterStep = Callable[[int], None]


def train(plan: Plan, session: Session, after_step: AfterStep | None = None) -> None:
    """Takes the steps that are left, and saves checkpoints.

    Args:
      plan: The run.
      session: Its workers and its log.
      after_step: Is called after each step, on every worker; its time does not count
        as training.
    """
    log = session.log
    if session.is_first:
        write_model_files(plan.config.files.output_dir, plan.model_files, replace=False)
    if plan.step >= plan.config.optimizer.num_train_steps:
        _report_all_done(plan, session)
        _use_averages(plan, session)
        return
    reader = plan.make_reader()
    trainer = make_trainer(plan, session.communicator, reader)
    saver = CheckpointSaver(plan, reader, trainer.loss_scale, log)
    session.open_until.enter_context(saver)
    report, profiler = StepReport(plan, log), _make_profiler(plan, session)
    exporter = Exporter(plan, log)
    last_step = _last_step(plan)
    # The log may already have later steps, of a run that was killed or overwritten.
    log.parameters({"first_step": plan.step + 1})
    if session.is_first:
        saver.try_save()
        exporter.start()
    for line in profiler.check(plan.step + 1, last_step):
        log.message(line)
    if plan.step:
        session.stop.state = f"no step was taken after step {plan.step}"
    with TrainingStop(
        *(session.stop, session.communicator, session.hosts),
        ask=trainer.ask_to_stop,
        save=saver.save_now,
    ) as stopping:
        for batch in _warmed_up(plan, trainer, reader.batches(last_step), log):
            profiler.before(plan.step + 1)
            result = trainer.train_step(batch)
            if result.is_dropped:
                stopping.dropped()
                break
            stopping.finished(result.step, must_stop=result.must_stop)
            session.watchdog.step_done(result.step)
            is_last = result.step == last_step
            if session.is_first:
                with report.stopped_clock():
                    saver.before_report(result.step)
            report.step(result, is_last=is_last)
            for line in profiler.after(result.step, is_last=is_last):
                log.message(line)
            if session.is_first:
                with report.stopped_clock():
                    saver.after_step(result.step, is_last=is_last)
                    exporter.after_step(result.step)
            if is_last:
                stopping.saved(result.step)
            if result.must_stop:
                break
            if after_step:
                with report.stopped_clock(), stopping.evaluating():
                    after_step(result.step)
        session.watchdog.pause()
    report.summary()
    _use_averages(plan, session)


def _warmed_up(
    plan: Plan, trainer: Trainer, batches: Iterator[Features], log: RunLog
) -> Iterator[Features]:
    """The same batches, after steps on made-up rows if the settings ask for them."""
    if not plan.config.saving.enable_device_warmup:
        return batches
    first = next(batches)
    trainer.warm_up(first, _WARMUP_STEPS)
    log.message(f"Device warm-up: {_WARMUP_STEPS} steps on rows that are made up.")
    return itertools.chain([first], batches)


def _use_averages(plan: Plan, session: Session) -> None:
    """Puts the averages of a complete training into the model, to be evaluated."""
    if plan.averages:
        plan.averages.swap()
        session.log.message(
            "From here on the moving averages of the weights (--ema_decay) are used."
        )


def _last_step(plan: Plan) -> int:
    """The step after which this run ends."""
    training, last = plan.config.training, plan.config.optimizer.num_train_steps
    if plan.config.saving.benchmark:
        return plan.step + sum(BENCHMARK_STEPS)  # Whatever the rate is by then.
    if training.steps_this_run:
        return min(last, plan.step + training.steps_this_run)
    return last


def _report_all_done(plan: Plan, session: Session) -> None:
    """Logs that no step is left, which a benchmark needs."""
    step, last = plan.step, plan.config.optimizer.num_train_steps
    line = f"All steps are done: {step} of {step}."
    if step != last:
        line = f"All steps are done: the run is at step {step}, and "
        line += f"--num_train_steps={last}."
    if plan.config.saving.benchmark:
        raise RunError(f"{line} `benchmark` needs some: pass another --output_dir.")
    session.log.message(line)
    session.stop.state = f"all {step} steps are done and saved"


def make_trainer(plan: Plan, communicator: Communicator, reader: StepReader) -> Trainer:
    """The trainer of a plan, and of the batches that a reader gives."""
    training = plan.config.training
    settings = GradientSettings(
        rank=plan.shape.rank,
        seed=plan.seed,
        max_grad_norm=plan.config.optimizer.max_grad_norm,
        allreduce_post_accumulation=training.allreduce_post_accumulation,
        is_micro_batch_mean=training.is_micro_batch_mean,
        clip_each_micro_batch=training.clip_each_micro_batch,
        use_xla=plan.config.runtime.use_xla,
    )
    loss_scale, position = None, plan.start.position
    if plan.policy.name == "fp16":
        loss_scale = LossScale(plan.config.runtime.init_loss_scale)
        if position is not None and position.loss_scale is not None:
            loss_scale = LossScale(position.loss_scale, position.num_finite_steps)
    return Trainer(
        plan.task,
        plan.optimizer,
        communicator,
        settings,
        loss_scale,
        rows_vary=reader.rows_vary,
        skip_nonfinite=training.skip_nonfinite,
        averages=plan.averages,
        name_rows=reader.name_rows,
    )


def _make_profiler(plan: Plan, session: Session) -> StepProfiler:
    steps = plan.config.runtime.profile if session.is_first else ""
    return StepProfiler(steps, os.path.join(plan.config.files.output_dir, "profile"))
