"""Time to train: evaluations while a pre-training runs, its target, and its result."""

import json
import os
import platform
from collections.abc import Callable

from bert_tf.config import PretrainingConfig
from bert_tf.errors import NotConverged, counted
from bert_tf.files import write_whole
from bert_tf.jobs.run.agreement import agreement
from bert_tf.jobs.run.best_checkpoint import BestCheckpoint
from bert_tf.jobs.run.checkpoint_policy import num_due
from bert_tf.jobs.run.exporting import Exporter
from bert_tf.jobs.run.plan import Plan
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.jobs.run.session import Session
from bert_tf.jobs.run.training_loop import AfterStep, Trained, is_done
from bert_tf.report.run_files import TRAINING_RESULT_FILE
from bert_tf.resources import process_seconds
from bert_tf.training.mlperf import MLPerfLog
from bert_tf.training.runlog import RunLog

_ACCURACY = "masked_lm_accuracy"

GoalPlan = Plan[PretrainingConfig, object, object]


def mlperf_interval(global_batch_size: float) -> int:
    """Sequences between two evaluations.

    Args:
      global_batch_size: Sequences of a step.

    Source: the rules of MLPerf Training for BERT, versions 1.0 to 5.0: a twentieth of
    the sequences that the reference needs to converge, in units of 25,000.
    """
    needed = 230.23 * global_batch_size + 3_000_000
    return int(0.05 * needed / 25_000) * 25_000


def _samples_of_evaluations(plan: GoalPlan) -> tuple[int, int]:
    """Sequences before the first evaluation, and between two."""
    training = plan.config.training
    between = training.samples_between_eval
    between = between or mlperf_interval(plan.sequences_per_step)
    first = training.samples_start_eval
    return between if first is None else first, between


def is_due(plan: GoalPlan, step: int) -> bool:
    """Whether there is an evaluation after a step; a function of the step alone."""
    training = plan.config.training
    if training.evaluate_each_epoch and plan.ends_epoch(step):
        return True
    if not training.has_evaluation_period:
        return False
    if training.eval_steps:
        has_begun = plan.samples(step) >= (training.samples_start_eval or 0)
        return has_begun and step % training.eval_steps == 0
    now, before = (
        num_due(plan.samples(s), *_samples_of_evaluations(plan))
        for s in (step, step - 1)
    )
    return now > before


def describe_goal(plan: GoalPlan, log: RunLog) -> None:
    """Logs when the training evaluates, and what may end it early."""
    training = plan.config.training
    if training.evaluation_settings:
        first, between = _samples_of_evaluations(plan)
        when = [f"from {first:,} sequences on, every {between:,}"]
        if training.eval_steps:
            when = [f"every {counted(training.eval_steps, 'step')}"]
            if training.samples_start_eval:
                when[0] += f" from {training.samples_start_eval:,} sequences on"
        if training.evaluate_each_epoch:
            when = when if training.has_evaluation_period else []
            when.append("after each pass over the records")
        log.message(f"Evaluations: {', '.join(when)}, and at the end.")
    if training.target_mlm_accuracy is not None:
        log.message(
            f"Ends when {_ACCURACY} is at least {training.target_mlm_accuracy:g}."
        )
    if training.max_samples is not None:
        log.message(
            f"Ends after step {plan.last_step}: {plan.samples(plan.last_step):,} "
            f"sequences (--max_samples={training.max_samples}); the learning rate "
            f"follows --num_train_steps={plan.config.optimizer.num_train_steps}."
        )
    if plan.clock is not None:
        share = plan.config.optimizer.warmup_steps
        share /= plan.config.optimizer.num_train_steps
        log.message(
            f"Ends after {training.max_hours:g} hours, of which "
            f"{plan.clock.seconds():.0f} seconds are spent, or after step "
            f"{plan.last_step}. The learning rate depends on the elapsed time, "
            f"{100 * share:g}% of which is warm-up, so two runs do not have exactly "
            "the same losses."
        )


class Goal:
    """What a pre-training is for: its evaluations, its target and its result."""

    def __init__(
        self,
        plan: GoalPlan,
        session: Session,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        """Prepares for one start of a run.

        Args:
          plan: The run.
          session: Its workers and its log.
          evaluate: Evaluates the model.
        """
        self._plan = plan
        self._session = session
        self._evaluate_model = evaluate
        self._target = plan.config.training.target_mlm_accuracy
        self._results: dict[str, float] = {}
        self._evaluated_step: int | None = None
        self._init_seconds = process_seconds()
        self._mlperf = MLPerfLog()
        self._best: BestCheckpoint | None = None
        # The first checkpoint of a new run forgets the best one of an earlier run.
        self._has_steps = plan.start.is_own
        if plan.config.training.evaluate_each_epoch and plan.training_set:
            with agreement(session.communicator):
                rank = session.communicator.rank
                self._best = BestCheckpoint(plan, _ACCURACY, rank)
        self.trained = Trained()
        if plan.config.files.mlperf_log:
            self._begin_mlperf_log(plan.config.files.mlperf_log)

    def _begin_mlperf_log(self, path: str) -> None:
        """Writes what precedes the first step, on the first worker."""
        if self._plan.training_set is None:  # All steps are done.
            return
        with agreement(self._session.communicator):
            if self._session.is_first:
                self._mlperf = MLPerfLog(path)
        self._mlperf.begin_run(self._init_seconds, _mlperf_values(self._plan))

    @property
    def is_reached(self) -> bool:
        """Whether the last evaluation has the accuracy that is asked for."""
        accuracy = self._results.get(_ACCURACY)
        has_both = accuracy is not None and self._target is not None
        return has_both and accuracy >= self._target

    def evaluate_start(self) -> bool:
        """Evaluates the start where that is due; returns whether it is the end.

        A run with a target evaluates the weights that it starts from, unless they are
        new: it may have been stopped after it had converged. A resumed run repeats the
        evaluation of its step, in which it may have been stopped.
        """
        plan, session = self._plan, self._session
        was_due = plan.start.is_own and plan.training_set and is_due(plan, plan.step)
        if not plan.start.prefix or (self._target is None and not was_due):
            return False
        if not self._evaluate(plan.step):
            return False
        if not plan.start.is_own and session.is_first:
            with CheckpointSaver(plan, plan.make_reader(), None, session.log) as saver:
                saver.save_now(plan.step)
        if session.is_first:
            Exporter(plan, session.log).start()
        session.stop.state = f"step {plan.step}, which has converged, is saved"
        session.log.message("No step is taken: the target is already reached.")
        return True

    @property
    def after_step(self) -> AfterStep:
        """The evaluations in the training, which ends when the target is reached."""
        return AfterStep(self._is_due_after, self._evaluate)

    def _is_due_after(self, step: int) -> bool:
        self._has_steps = True
        return is_due(self._plan, step)

    def _evaluate(self, step: int, *, is_last: bool = False) -> bool:
        """Evaluates and logs the results; returns whether the target is reached."""
        log, plan, samples = self._session.log, self._plan, {}
        if plan.training_set:  # A finished run does not read its records.
            samples = {"samples": plan.samples(step)}
        self._results, self._evaluated_step = self._evaluate_model(), step
        log.evaluation(step, self._results | samples)
        values = {n: self._results[n] for n in (_ACCURACY, "loss")} | samples
        listed = ", ".join(f"{n} = {value:.6g}" for n, value in values.items())
        line = f"After step {step}: {listed}"
        if self._best and self._has_steps and self._is_new_best(step):
            line += " (best so far)"
        if self.is_reached:
            line += f". Converged: --target_mlm_accuracy={self._target:g} is reached"
        log.message(f"{line}.")
        if plan.training_set:
            is_last = is_last or self.is_reached or step >= plan.last_step
            accuracy = self._results[_ACCURACY]
            self._mlperf.evaluation(samples["samples"], accuracy, is_last=is_last)
        return self.is_reached

    def _is_new_best(self, step: int) -> bool:
        """Keeps the weights if their accuracy is the highest; returns whether."""
        session = self._session
        with session.averaged(self._plan), session.stop.writing:
            if session.saver:
                session.saver.save_first(step)
            return self._best.offer(step, self._results)

    def evaluate_end(self) -> dict[str, float]:
        """The results of the last step, which are also written to eval_results.txt."""
        plan, session = self._plan, self._session
        if not plan.config.training.evaluation_settings:
            self._results = self._evaluate_model()
        elif self._evaluated_step != plan.step:
            self._evaluate(plan.step, is_last=True)
        return session.report_results(plan, self._results)

    def finish(self) -> None:
        """Logs the result of a training, and writes it to `TRAINING_RESULT_FILE`.

        Raises:
          NotConverged: on all workers, if it has a target, and has not reached it.
        """
        plan, session = self._plan, self._session
        if not plan.config.training.do_train:
            return
        record = self._record()
        shown = ", ".join(f"{n}={_shown(value)}" for n, value in record.items())
        session.log.message(f"Result: {shown}.")
        session.log.summary({n: x for n, x in record.items() if x is not None})
        self._mlperf.end("run_stop", status="success" if self.is_reached else "aborted")
        with agreement(session.communicator):
            if session.is_first:
                self._write(record)
        if self._target is None or self.is_reached:
            return
        advice = "Its last step is taken: train longer, or with other settings."
        if not is_done(plan) and plan.config.saving.saves_nothing:
            advice = "Nothing is saved to resume from: raise --steps_this_run."
        elif not is_done(plan) and plan.config.files.overwrite_output_dir:
            advice = "The same command without --overwrite_output_dir resumes."
        elif not is_done(plan):
            advice = "The same command resumes."
        raise NotConverged(
            f"Not converged: {_ACCURACY} is {self._results[_ACCURACY]:.6g} after step "
            f"{plan.step}, less than --target_mlm_accuracy={self._target:g}. {advice}"
        )

    def _record(self) -> dict[str, float | None]:
        """The result of this start, under the names of MLPerf's PyTorch trainers."""
        plan, trained = self._plan, self.trained
        speed = None
        if trained.num_steps:
            speed = trained.num_steps * plan.sequences_per_step / trained.seconds
        return {
            "e2e_time": process_seconds(),
            "training_sequences_per_second": speed,
            "converged": None if self._target is None else self.is_reached,
            "final_loss": trained.loss,
            "final_mlm_accuracy": self._results.get(_ACCURACY),
            "raw_train_time": trained.seconds,
            "init_time": self._init_seconds,
            "first_step": plan.step - trained.num_steps + 1,
            "global_step": plan.step,
        }

    def _write(self, record: dict[str, float | None]) -> None:
        path = os.path.join(self._plan.config.files.output_dir, TRAINING_RESULT_FILE)
        if not self.trained.num_steps and os.path.exists(path):
            self._session.log.message(f"{path} is kept: this start took no step.")
            return
        write_whole(path, json.dumps(record, indent=2) + "\n")


def _mlperf_values(plan: GoalPlan) -> dict[str, object]:
    """Sizes and settings of a run, by their names in the rules of MLPerf."""
    settings, shape = plan.config.optimizer, plan.shape
    return {
        "submission_benchmark": "bert",
        "submission_division": "closed",
        "submission_org": "bert_tf",
        "submission_platform": platform.platform(),
        "seed": plan.seed,
        "global_batch_size": plan.samples(1),
        "gradient_accumulation_steps": shape.num_micro_batches,
        "opt_name": settings.optimizer_type,
        "opt_base_learning_rate": plan.learning_rate,
        "opt_learning_rate_training_steps": settings.num_train_steps,
        "opt_learning_rate_warmup_steps": settings.warmup_steps,
        "num_warmup_steps": settings.warmup_steps,
        "start_warmup_step": 0,
        "opt_lamb_learning_rate_decay_poly_power": settings.power,
        "opt_lamb_beta_1": settings.beta_1,
        "opt_lamb_beta_2": settings.beta_2,
        "opt_lamb_epsilon": settings.epsilon,
        "opt_lamb_weight_decay_rate": settings.weight_decay_rate,
        "train_samples": round(
            plan.training_set.num_records * plan.training_set.sequences_per_record
        ),
        "eval_samples": plan.num_eval_records,
    }


def _shown(value: float | None) -> str:
    return json.dumps(value) if isinstance(value, bool | None) else f"{value:.6g}"
