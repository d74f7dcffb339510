"""Compares the masked-LM loss of a training with the entropy of its masked tokens."""

import collections
import math
import statistics

from bert_tf.data.records.masked_tokens import MaskedTokens
from bert_tf.errors import one_line
from bert_tf.jobs.run.plan import Plan
from bert_tf.report.log_curves import ENTROPY
from bert_tf.training.loss_doctor import TrainingState, find_cause
from bert_tf.training.runlog import RunLog
from bert_tf.training.trainer import StepResult

_LOSS = "mlm_loss"
# Trainings of all sizes leave the plateau of word frequencies by then.
_SHARE_OF_RUN, _STEPS_AFTER_WARMUP = 0.75, 10_000
# Of a loss before the check: shorter runs may end on it.
_FEWEST_STEPS = 200
_FIRST_STEPS = 10
_FEWEST_LOSSES, _MOST_LOSSES = 20, 1000


class LossWatch:
    """Logs the entropy before the first step, and later one line if there is a fault.

    Attributes:
      parameters: For the log: the entropy, by name; empty without a masked LM.
    """

    def __init__(self, plan: Plan, log: RunLog, *, is_first: bool) -> None:
        """Measures a sample of the records.

        Args:
          plan: The run.
          log: Of the run.
          is_first: Whether this worker logs; others do nothing.
        """
        self._plan, self._log = plan, log
        self._check_step = _check_step(plan)
        self._first: list[float] = []
        count = min(max(self._check_step // 10, _FEWEST_LOSSES), _MOST_LOSSES)
        self._last: collections.deque[float] = collections.deque(maxlen=count)
        self._tokens = self._measure() if is_first else None
        # After a resume behind it, the earlier start has made the check.
        is_ahead = max(plan.step, _FEWEST_STEPS - 1) < self._check_step
        self._is_due = self._tokens is not None and is_ahead
        self.parameters = {ENTROPY: self._tokens.entropy} if self._tokens else {}
        if self._tokens:
            log.message(self._describe(self._tokens))

    def _measure(self) -> MaskedTokens | None:
        """The sample; None without masked tokens, or if it cannot be read."""
        try:
            return self._plan.training_set.measure_masked_tokens()
        except Exception as error:  # The training itself will refuse what is damaged.
            self._log.message(
                f"The entropy of the masked tokens is not measured: {one_line(error)}"
            )
            return None

    def _tokens_read(self, step: int) -> float:
        records = step * self._plan.shape.global_batch_size
        return records * self._tokens.tokens_per_record

    def _describe(self, tokens: MaskedTokens) -> str:
        fewest = math.ceil(_FEWEST_STEPS / _SHARE_OF_RUN)
        checked = f"The run is too short to check that: less than {fewest} steps"
        if self._is_due:
            count = self._tokens_read(self._check_step)
            checked = f"Checked after {count:,.0f} tokens, step {self._check_step}"
            if self._plan.config.training.max_hours is not None:
                checked += ", if the time of --max_hours is enough for it"
        elif self._plan.step >= self._check_step >= _FEWEST_STEPS:
            checked = f"Checked at step {self._check_step}"
        return (
            f"Masked LM without context: a loss of {tokens.entropy:.4f} nats, the "
            f"entropy of {tokens.num_masked:,} masked tokens ({tokens.num_records:,} "
            f"records). A model that learns from context gets below it. {checked}."
        )

    def step(self, result: StepResult) -> None:
        """Takes the loss of a step; makes the check when it is due."""
        if not self._is_due or result.skipped:
            return
        loss = result.losses[_LOSS]
        if len(self._first) < _FIRST_STEPS:
            self._first.append(loss)
        self._last.append(loss)
        is_full = len(self._last) == self._last.maxlen
        if result.step < self._check_step or not is_full:
            return
        self._is_due = False
        state = self._state()
        if cause := find_cause(state):
            verb = "is not below" if state.is_stuck else "is below"
            read = self._tokens_read(result.step)
            self._log.message(
                f"warning: after {read:,.0f} tokens (step {result.step}) the masked-LM "
                f"loss, {state.loss:.4f}, {verb} that of a model without context, "
                f"{state.entropy:.4f}. Likely cause: {cause}"
            )

    def _state(self) -> TrainingState:
        plan, tokens = self._plan, self._tokens
        uniform_loss = math.log(plan.bert.vocab_size)
        is_whole = plan.start.position is None
        return TrainingState(
            entropy=tokens.entropy,
            loss=statistics.fmean(self._last),
            # A resumed run does not know its first steps.
            first_loss=statistics.fmean(self._first) if is_whole else uniform_loss,
            uniform_loss=uniform_loss,
            has_weights=is_whole and bool(plan.start.prefix),
            optimizer_type=plan.config.optimizer.optimizer_type,
            learning_rate=plan.learning_rate,
            masked_per_step=plan.shape.global_batch_size * tokens.masked_per_record,
            is_shuffled=not plan.config.training.deterministic_run,
            unknown_share=tokens.unknown_share,
            letter_share=tokens.letter_share,
            kept_share=tokens.kept_share,
            copies=tokens.copies,
            order_gain=tokens.order_gain,
            repeated_documents=tokens.repeated_documents,
        )


def _check_step(plan: Plan) -> int:
    """The step after which the loss is checked."""
    warmup = plan.config.optimizer.warmup_steps
    return min(int(_SHARE_OF_RUN * plan.last_step), warmup + _STEPS_AFTER_WARMUP)
