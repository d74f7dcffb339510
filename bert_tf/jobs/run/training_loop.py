"""The loop over the steps of a training, with all that happens between them."""

import os
from collections.abc import Callable

from bert_tf.data.batches.record_batches import StepReader
from bert_tf.distribute import Communicator
from bert_tf.jobs.run.messages import StepReport
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.resume import slots_by_name, weights_by_name
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.stopping import TrainingStop
from bert_tf.training import checkpoints
from bert_tf.training.checkpoints import RunPosition
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
        log.message(f"All steps are done: {plan.step} of {num_train_steps}.")
        session.stop.state = f"all {plan.step} steps are done and saved"
        return
    reader = plan.make_reader()
    trainer = make_trainer(plan, session.communicator, rows_vary=reader.rows_vary)
    saver = CheckpointSaver(plan, reader, trainer.loss_scale)

    report, profiler = StepReport(plan, log), _make_profiler(plan, session)
    last_step = num_train_steps
    if plan.config.training.steps_this_run:
        last_step = min(last_step, plan.step + plan.config.training.steps_this_run)
    # The log may already have later steps, of a run that was killed or overwritten.
    log.parameters({"first_step": plan.step + 1})
    if session.is_first and not plan.start.is_own:
        # A folder in which no checkpoint can be saved is found now, not after hours.
        saver.save(plan.step)
    for line in profiler.check(plan.step + 1, last_step):
        log.message(line)
    workers, every = session.communicator, plan.config.training.save_checkpoints_steps
    if plan.step:
        session.stop.state = f"no step was taken after step {plan.step}"
    with TrainingStop(
        session.stop, workers, session.hosts, trainer.ask_to_stop, saver.save
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
            report.step(result, is_last=is_last)
            for line in profiler.after(result.step, is_last=is_last):
                log.message(line)
            if is_last or result.step % every == 0:
                if session.is_first:
                    saver.save(result.step)
                stopping.saved(result.step)
                report.restart_clock(result.step)
            if result.must_stop:
                break
            if after_step:
                with report.stopped_clock(), stopping.evaluating():
                    after_step(result.step)
        session.watchdog.pause()
    report.summary()


def make_trainer(
    plan: Plan, communicator: Communicator, *, rows_vary: bool = False
) -> Trainer:
    """The trainer of a plan; see `Trainer` for `rows_vary`."""
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
        rows_vary=rows_vary,
    )


def _make_profiler(plan: Plan, session: Session) -> StepProfiler:
    steps = plan.config.runtime.profile if session.is_first else ""
    return StepProfiler(steps, os.path.join(plan.config.files.output_dir, "profile"))


class CheckpointSaver:
    """Saves the state of a run, and deletes older checkpoints."""

    def __init__(
        self, plan: Plan, reader: StepReader, loss_scale: LossScale | None
    ) -> None:
        """Prepares for one run.

        Args:
          plan: The run.
          reader: Knows how many records were read after a step.
          loss_scale: Of float16.
        """
        self._plan = plan
        self._reader = reader
        self._loss_scale = loss_scale
        files = plan.config.files
        overwrites = files.overwrite_output_dir and not plan.start.is_own
        # Checkpoints of the overwritten run, kept until the first new one is complete.
        self._overwritten = (
            checkpoints.committed_steps(files.output_dir) if overwrites else []
        )

    def save(self, step: int) -> None:
        """Writes the state after `step` steps; for the first worker alone."""
        plan, files = self._plan, self._plan.config.files
        scale, trained = self._loss_scale, plan.training_set
        position = RunPosition(
            step=step,
            records=self._reader.position(step),
            global_batch_size=plan.shape.global_batch_size,
            learning_rate=plan.learning_rate,
            seed=plan.seed,
            num_records=trained.num_records,
            loss_scale=scale.value if scale else None,
            num_finite_steps=scale.num_finite_steps if scale else 0,
            data_sha256=trained.sha256,
            is_packed=trained.is_packed,
            config=plan.settings(),
        )
        tensors = weights_by_name(plan.task.model) | slots_by_name(plan.optimizer)
        checkpoints.save(files.output_dir, tensors, position)
        overwritten = [s for s in self._overwritten if s != step]
        committed = checkpoints.committed_steps(files.output_dir)
        own = [s for s in committed if s not in overwritten]
        for unwanted in overwritten + own[: -files.keep_checkpoint_max]:
            checkpoints.remove(files.output_dir, unwanted)
        self._overwritten = []
