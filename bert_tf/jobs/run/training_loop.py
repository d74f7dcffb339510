"""The loop over the steps of a training, with all that happens between them."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from bert_tf.data.batches.record_batches import Features, StepReader
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.jobs.run.exporting import Exporter
from bert_tf.jobs.run.loss_watch import LossWatch
from bert_tf.jobs.run.messages import BENCHMARK_STEPS, StepReport, describe_kept
from bert_tf.jobs.run.output_dir import write_missing_files
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.stopping import TrainingStop
from bert_tf.report.log_curves import FIRST_STEP
from bert_tf.stages import stage
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.loss_scale import LossScale
from bert_tf.training.profiling import StepProfiler
from bert_tf.training.runlog import RunLog
from bert_tf.training.trainer import Recomputing, StepResult, Trainer

# Steps of --enable_device_warmup: the first one compiles, and after the second one
# nothing more is allocated.
_WARMUP_STEPS = 2


class AfterStep(NamedTuple):
    """What follows some steps, on every worker.

    Attributes:
      is_due: Whether it follows a step; a function of the number of steps taken alone.
      run: Is called with that number; returns whether to end the training.
      is_over: Whether it has ended the training in an earlier start.
    """

    is_due: Callable[[int], bool]
    run: Callable[[int], bool]
    is_over: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """What one start of a run has trained.

    Attributes:
      num_steps: Steps taken.
      seconds: That they took, without evaluations, and without waiting for checkpoints.
      loss: Total loss of the last one; None without steps.
    """

    num_steps: int = 0
    seconds: float = 0.0
    loss: float | None = None


class _Bookkeeping(NamedTuple):
    """What is logged and saved between the steps of a training.

    Attributes:
      plan: The run.
      session: Its workers and its log.
      trainer: Gathers the optimizer's state, where that is sharded.
      report: Of steps; its clock stands still while files are written.
      watch: Of the loss.
      profiler: Of some steps.
      saver: Of checkpoints, on the first worker.
      exporter: Of the model for transformers, on the first worker.
    """

    plan: Plan
    session: Session
    trainer: Trainer
    report: StepReport
    watch: LossWatch
    profiler: StepProfiler
    saver: CheckpointSaver
    exporter: Exporter

    def begin(self) -> None:
        """Does what precedes the first step of this start."""
        plan, session, shards = self.plan, self.session, self.trainer.shards
        if shards:
            session.log.message(shards.describe())
            if plan.config.runtime.use_xla:
                session.log.message(
                    "--use_xla does not compile the update of a sharded optimizer."
                )
            if not plan.start.is_own:
                self.trainer.gather_state()  # To try to save it.
        elif plan.config.runtime.shard_optimizer:
            session.log.message("--shard_optimizer has no effect: there is one worker.")
        if session.is_first:
            session.saver = self.saver
            with self.report.stopped_clock():
                self.saver.try_save()
                self.exporter.start()
        if plan.step:
            session.stop.state = f"no step was taken after step {plan.step}"

    def after_step(self, result: StepResult, *, is_last: bool) -> None:
        """Logs a step, and saves what is due."""
        is_first, stopped_clock = self.session.is_first, self.report.stopped_clock
        if result.saves or is_last:
            with stopped_clock():
                if is_first and result.saves:
                    self.saver.wait()  # There is one copy of the state at a time.
                self.trainer.gather_state()
        if is_first:
            with stopped_clock():
                self.saver.before_report(result.step)
        self.report.step(result, is_last=is_last)
        self.watch.step(result)
        self._profile(result.step, is_last=is_last)
        if is_first:
            with stopped_clock():
                self.saver.after_step(result.step, is_last=is_last)
                self.exporter.after_step(result.step)

    def end_early(self, result: StepResult) -> None:
        """Logs and saves a step that turns out to be the last one."""
        self.report.end_early(result)
        if self.session.is_first:
            with self.report.stopped_clock():
                self.saver.save_now(result.step)
        self._profile(result.step, is_last=True)

    def _profile(self, step: int, *, is_last: bool) -> None:
        for line in self.profiler.after(step, is_last=is_last):
            self.session.log.message(line)


def train(plan: Plan, session: Session, after_step: AfterStep | None = None) -> Trained:
    """Takes the steps that are left, and saves checkpoints.

    Args:
      plan: The run.
      session: Its workers and its log.
      after_step: An evaluation; its time does not count as training.

    Returns:
      What this start of the run has trained.
    """
    log, first_step = session.log, plan.step
    if is_done(plan) or (after_step and after_step.is_over):
        return _take_no_step(plan, session)
    reader = plan.make_reader()
    trainer = make_trainer(plan, session.communicator, reader, session.watchdog.paused)
    saver = CheckpointSaver(plan, reader, trainer.loss_scale, log, trainer.shards)
    session.open_until.enter_context(saver)
    report, profiler = StepReport(plan, log), _make_profiler(plan, session)
    exporter, watch = Exporter(plan, log), _watched(plan, session)
    last_step, loss = _last_step(plan), None
    books = _Bookkeeping(
        plan, session, trainer, report, watch, profiler, saver, exporter
    )
    books.begin()
    with report.stopped_clock():
        batches = _warmed_up(plan, trainer, reader.batches(last_step), log)
    for line in profiler.check(plan.step + 1, last_step):
        log.message(line)
    first_stage = stage("Compiling the first step", log.message)
    with TrainingStop(
        session.stop,
        session.communicator,
        session.hosts,
        ask=trainer.ask_to_stop,
        save=saver.save_now,
        prepare_save=trainer.gather_state,
    ) as stopping:
        for batch in batches:
            profiler.before(plan.step + 1)
            saves = session.is_first and saver.is_due(plan.step + 1)
            with first_stage:
                result = trainer.train_step(batch, saves=saves)
            first_stage = contextlib.nullcontext()
            if result.is_dropped:
                stopping.dropped()
                break
            stopping.finished(result.step, must_stop=result.must_stop)
            session.watchdog.step_done(result.step)
            is_last = result.step == last_step or result.is_time_over
            loss = loss if result.skipped else result.total_loss
            books.after_step(result, is_last=is_last)
            if is_last:
                stopping.saved(result.step)
            if result.must_stop:
                break
            if after_step and after_step.is_due(result.step):
                with report.stopped_clock(), stopping.evaluating():
                    ends = after_step.run(result.step)
                if ends:
                    books.end_early(result)
                    stopping.saved(result.step)
                is_last |= ends
            if is_last:
                break
        session.watchdog.pause()
        trained = Trained(plan.step - first_step, report.seconds, loss)
    report.summary()
    _use_averages(plan, session)
    return trained


def _watched(plan: Plan, session: Session) -> LossWatch:
    """Measures the loss to compare with; notes where this start begins."""
    watch = LossWatch(plan, session.log, is_first=session.is_first)
    # The log may already have later steps, of a run that was killed or overwritten.
    session.log.parameters({FIRST_STEP: plan.step + 1, **watch.parameters})
    return watch


def _warmed_up(
    plan: Plan, trainer: Trainer, batches: Iterator[Features], log: RunLog
) -> Iterator[Features]:
    """The same batches, after steps on made-up rows if the settings ask for them."""
    if not plan.config.saving.enable_device_warmup:
        return batches
    first = next(batches)
    trainer.warm_up(first, _WARMUP_STEPS)
    log.message(f"Device warm-up: {_WARMUP_STEPS} steps on made-up rows.")
    return itertools.chain([first], batches)


def _use_averages(plan: Plan, session: Session) -> None:
    """Puts the averages of a complete training into the model, to be evaluated."""
    if plan.averages:
        plan.averages.swap()
        session.log.message(
            "From here on the moving averages of the weights (--ema_decay) are used."
        )


def _take_no_step(plan: Plan, session: Session) -> Trained:
    """What is left of a training whose steps are done, or which has stopped early."""
    line = _all_done(plan)
    if plan.config.saving.benchmark:
        raise RunError(f"{line} `benchmark` needs some: pass another --output_dir.")
    if session.is_first:
        write_missing_files(plan.config.files.output_dir, plan.model_files)
        Exporter(plan, session.log).start()
    session.log.message(line)
    if plan.training_set is None:  # Else it is logged with the training.
        describe_kept(plan, session.log)
    session.stop.state = f"the training is over at step {plan.step}, and is saved"
    _use_averages(plan, session)
    return Trained()


def _last_step(plan: Plan) -> int:
    """The step after which this start of the run ends."""
    if plan.config.saving.benchmark:
        return plan.step + sum(BENCHMARK_STEPS)  # Whatever the rate is by then.
    steps = plan.config.training.steps_this_run or plan.last_step
    return min(plan.last_step, plan.step + steps)


def is_done(plan: Plan) -> bool:
    """Whether no step of the run is left."""
    is_over = plan.clock is not None and plan.clock.own_share() >= 1.0
    return plan.step >= plan.last_step or is_over


def _all_done(plan: Plan) -> str:
    step, last_step, training = plan.step, plan.last_step, plan.config.training
    if step < last_step:
        if training.max_hours is None:
            return f"The training has stopped early, at step {step}: no step is taken."
        return f"The time is over: --max_hours={training.max_hours:g}, at step {step}."
    if step == last_step:
        return f"All steps are done: {step} of {step}."
    return (
        f"All steps are done: the run is at step {step}, and its last one is "
        f"{last_step} (--num_train_steps, --max_samples)."
    )


def make_trainer(
    plan: Plan,
    communicator: Communicator,
    reader: StepReader,
    recomputing: Recomputing = contextlib.nullcontext,
) -> Trainer:
    """The trainer of a plan, and of the batches that a reader gives.

    The time of a training that has one starts here. See `Trainer` for `recomputing`.
    """
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
    if plan.clock:
        plan.clock.start()
    return Trainer(
        plan.task,
        plan.optimizer,
        communicator,
        settings,
        loss_scale,
        plan.clock,
        rows_vary=reader.rows_vary,
        skip_nonfinite=training.skip_nonfinite,
        averages=plan.averages,
        shards_optimizer=plan.config.runtime.shard_optimizer,
        name_rows=reader.name_rows,
        recomputing=recomputing,
    )


def _make_profiler(plan: Plan, session: Session) -> StepProfiler:
    steps = plan.config.runtime.profile if session.is_first else ""
    return StepProfiler(steps, os.path.join(plan.config.files.output_dir, "profile"))
