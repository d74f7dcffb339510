"""Why a masked LM has not learnt from context: from a few numbers to a likely cause.

A model that knows word frequencies alone has a masked-LM loss equal to their entropy.
Every training passes through this plateau; one that stays on it has a fault.
"""

import dataclasses
import math

# A loss this far below the entropy, or this far above it, is a different one.
_BELOW, _ABOVE = 0.99, 1.05
# Peak rates between too low and too high, for models from tiny to large.
_MIDDLE_RATE = {"lamb": 2e-3, "adam": 1e-4, "adamw": 1e-4}
# So many times a middle rate, or a part of it, is far outside of what trains.
_FAR_ABOVE, _FAR_BELOW = 100.0, 1 / 50
_MOST_UNKNOWN = 0.1
# A smaller vocabulary may be one of letters.
_MOST_LETTERS, _MOST_LETTERS_OF_A_VOCABULARY = 0.5, 1000
_MOST_REPEATED = 0.5
# BERT keeps half of the masked tokens that it does not show as [MASK].
_FEWEST_KEPT = 0.2
_TINY_BATCH = 50
_MOST_ORDERED = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """What is known of a training when its loss is checked.

    Attributes:
      entropy: Of the masked tokens' frequencies, in nats.
      loss: Masked-LM loss now, a mean over many steps.
      first_loss: That of the first steps.
      uniform_loss: That of a model that knows nothing: ln V.
      has_weights: Whether the training began with weights of another one.
      optimizer_type: lamb, adam or adamw.
      learning_rate: At its peak.
      masked_per_step: Masked tokens of a step, over all workers.
      is_shuffled: Whether records are read in random order.
      order_gain: How much smaller the entropy is within parts of the files, in nats.
      unknown_share: Of the masked tokens, that are [UNK] or [unusedN].
      letter_share: Of the masked tokens, that are a single letter.
      kept_share: Of the masked tokens that are not shown as [MASK], that are shown as
        they are; None if not known.
      copies: How many other records a record is equal to.
      repeated_documents: Share of the documents that repeat another one.
    """

    entropy: float
    loss: float
    first_loss: float
    uniform_loss: float
    has_weights: bool = False
    optimizer_type: str = "lamb"
    learning_rate: float
    masked_per_step: float
    is_shuffled: bool = True
    order_gain: float = 0.0
    unknown_share: float = 0.0
    letter_share: float = 0.0
    kept_share: float | None = 0.5
    copies: float = 0.0
    repeated_documents: float = 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether the loss is not below the entropy."""
        return self.loss > _BELOW * self.entropy


def find_cause(state: TrainingState) -> str:
    """The likely cause of a fault and its remedy; empty if there is none.

    What is measured in the records comes first, then what the loss alone suggests.
    """
    return _in_records(state) or (_of_settings(state) if state.is_stuck else "")


def _in_records(state: TrainingState) -> str:
    """Faults that the records themselves show."""
    if state.unknown_share > _MOST_UNKNOWN:
        return (
            f"wrong vocabulary: {state.unknown_share:.0%} of the masked tokens are "
            "[UNK] or [unusedN]. Pass the --vocab_file of the records, or make them "
            "again with a vocabulary for this text, and its case."
        )
    has_words = state.uniform_loss > math.log(_MOST_LETTERS_OF_A_VOCABULARY)
    if state.letter_share > _MOST_LETTERS and has_words:
        return (
            f"wrong vocabulary: {state.letter_share:.0%} of the masked tokens are "
            "single letters. Make the records again with a vocabulary for this text."
        )
    if state.copies >= 1.0:
        return (
            f"repeated data: a record is equal to about {state.copies:,.0f} others, "
            "masks included. Remove the copies of files or records."
        )
    if state.repeated_documents > _MOST_REPEATED:
        return (
            f"repeated data: {state.repeated_documents:.0%} of the documents repeat "
            "another one. Make the records again with --dedup."
        )
    is_known = state.kept_share is not None
    # A large model learns shuffled labels by heart, slowly.
    if (
        is_known
        and state.kept_share < _FEWEST_KEPT
        and state.loss > 0.8 * state.entropy
    ):
        return (
            "shuffled labels: of the masked tokens that are not shown as [MASK] the "
            f"input has {state.kept_share:.0%} as masked_lm_ids state, where half is "
            "usual. masked_lm_ids or masked_lm_positions belong to other records: make "
            "the records again."
        )
    is_ordered = state.order_gain > _MOST_ORDERED * state.entropy
    if not state.is_shuffled and is_ordered:
        return _no_shuffle(
            f"within a part of the files the entropy is {state.order_gain:.2f} nats "
            "smaller"
        )
    return ""


def _of_settings(state: TrainingState) -> str:
    """Faults of a stuck training whose records look right."""
    middle = _MIDDLE_RATE[state.optimizer_type]
    factor = state.learning_rate / middle
    is_far = state.loss > _ABOVE * state.entropy
    has_risen = is_far and state.loss > _ABOVE * state.first_loss
    has_hardly_moved = is_far and state.loss > (state.first_loss + state.entropy) / 2
    if has_risen or factor >= _FAR_ABOVE:
        return _rate(state, "high")
    if factor <= _FAR_BELOW or (has_hardly_moved and factor < 1.0):
        return _rate(state, "low")
    # Weights without a masked-LM head begin near it, those of other words above it.
    if state.has_weights and state.first_loss > _ABOVE * state.uniform_loss:
        return (
            f"wrong vocabulary: the first loss was {state.first_loss:.3f} although the "
            "weights were trained before. Pass the records and the vocabulary of these "
            "weights."
        )
    if not state.is_shuffled:
        return _no_shuffle("they are read in the order of their files")
    if state.masked_per_step < _TINY_BATCH:
        return (
            f"tiny batch: {state.masked_per_step:.0f} masked tokens in a step, so that "
            "its gradient is mostly noise. Raise --train_batch_size or "
            "--num_accumulation_steps."
        )
    return _rate(state, "high" if factor >= 1.0 else "low")


def _no_shuffle(reason: str) -> str:
    return (
        f"no shuffle of the records: {reason}. Drop --deterministic_run, or shuffle "
        "the records."
    )


def _rate(state: TrainingState, side: str) -> str:
    remedy = {
        "high": "Pass a smaller --learning_rate, or more --num_warmup_steps",
        "low": "Pass a greater --learning_rate, or train for longer",
    }[side]
    return (
        f"learning rate too {side}: {state.learning_rate:g} for "
        f"{state.optimizer_type}. {remedy}."
    )
