"""The loop over the steps of a training, with all that happens between them."""

import os
from collections.abc import Callable

from bert_tf.data.batches.record_batches import StepReader
from bert_tf.distribute import Communicator
from bert_tf.jobs.run.messages import StepReport
from bert_tf.jobs.run.output_dir import write_missing_files
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.stopping import TrainingStop
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.profiling import StepProfiler
from bert_tf.training.trainer import Trainer

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
    log, num_train_steps = session.log, plan.config.optimizer.num_train_steps
    if plan.step >= num_train_steps:
        if session.is_first:
            write_missing_files(plan.config.files.output_dir, plan.model_files)
        log.message(_all_done(plan.step, num_train_steps))
        session.stop.state = f"all {plan.step} steps are done and saved"
        return
    reader = plan.make_reader()
    trainer = make_trainer(
        plan, session.communicator, reader, recomputing=session.watchdog.paused
    )
    saver = CheckpointSaver(plan, reader, trainer.loss_scale, log)
    session.open_until.enter_context(saver)
    if session.is_first:
        session.saver = saver
    report, profiler = StepReport(plan, log), _make_profiler(plan, session)
    last_step = num_train_steps
    if plan.config.training.steps_this_run:
        last_step = min(last_step, plan.step + plan.config.training.steps_this_run)
    # The log may already have later steps, of a run that was killed or overwritten.
    log.parameters({"first_step": plan.step + 1})
    if session.is_first and not plan.start.is_own:
        saver.try_save()
    for line in profiler.check(plan.step + 1, last_step):
        log.message(line)
    if plan.step:
        session.stop.state = f"no step was taken after step {plan.step}"
    with TrainingStop(
        *(session.stop, session.communicator, session.hosts),
        ask=trainer.ask_to_stop,
        save=saver.save_now,
    ) as stopping:
        for batch in reader.batches(last_step):
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
            if is_last:
                stopping.saved(result.step)
            if result.must_stop:
                break
            if after_step:
                with report.stopped_clock(), stopping.evaluating():
                    after_step(result.step)
        session.watchdog.pause()
    report.summary()


def _all_done(step: int, num_train_steps: int) -> str:
    if step == num_train_steps:
        return f"All steps are done: {step} of {step}."
    return (
        f"All steps are done: the run is at step {step}, and "
        f"--num_train_steps={num_train_steps}."
    )


def make_trainer(
    plan: Plan, communicator: Communicator, reader: StepReader, **more: object
) -> Trainer:
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
        name_rows=reader.name_rows,
        **more,
    )


def _make_profiler(plan: Plan, session: Session) -> StepProfiler:
    steps = plan.config.runtime.profile if session.is_first else ""
    return StepProfiler(steps, os.path.join(plan.config.files.output_dir, "profile"))
