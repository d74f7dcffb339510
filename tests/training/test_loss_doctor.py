"""A stuck masked LM: each planted fault is named, a model that learns gets no line."""

import pytest

from bert_tf.training.loss_doctor import TrainingState, find_cause

# A stuck training with nothing else that is unusual, and what each fault changes.
STUCK = dict(
    entropy=6.9,
    loss=6.92,
    first_loss=10.3,
    uniform_loss=10.3,
    learning_rate=1e-3,
    masked_per_step=640.0,
    optimizer_type="adamw",
)
FAULTS = {
    "high": (dict(learning_rate=0.1), "learning rate too high"),
    "rising": (dict(learning_rate=5e-5, loss=12.0), "learning rate too high"),
    "low": (dict(learning_rate=1e-7, loss=10.2), "learning rate too low"),
    "short": (dict(learning_rate=5e-5, loss=9.9), "learning rate too low"),
    "lamb": (dict(optimizer_type="lamb", learning_rate=1e-6), "learning rate too low"),
    "labels": (dict(kept_share=0.02), "shuffled labels"),
    "half-learnt labels": (dict(kept_share=0.02, loss=6.1), "shuffled labels"),
    "unknown": (dict(unknown_share=0.6, loss=3.0, entropy=3.5), "wrong vocabulary"),
    "letters": (dict(letter_share=0.8), "wrong vocabulary"),
    "learnt letters": (dict(letter_share=0.8, loss=3.0), "wrong vocabulary"),
    "weights": (dict(has_weights=True, first_loss=13.0), "wrong vocabulary"),
    "new head": (dict(has_weights=True, first_loss=10.3), "learning rate too high"),
    "copies": (dict(copies=40.0, loss=1.0), "repeated data"),
    "documents": (dict(repeated_documents=0.9, loss=5.0), "repeated data"),
    "file order": (dict(is_shuffled=False), "no shuffle"),
    "sorted": (dict(is_shuffled=False, order_gain=1.0, loss=5.0), "no shuffle"),
    "tiny": (dict(masked_per_step=12.0, learning_rate=2e-3), "tiny batch"),
}


@pytest.mark.parametrize("changes, cause", FAULTS.values(), ids=FAULTS.keys())
def test_a_planted_fault_is_named(changes, cause):
    assert find_cause(TrainingState(**STUCK | changes)).startswith(cause)


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(learning_rate=0.02),
        dict(masked_per_step=10.0),
        dict(is_shuffled=False),
        dict(order_gain=1.0),
        dict(has_weights=True, first_loss=3.0),
        dict(kept_share=None),
        dict(letter_share=0.9, uniform_loss=5.5),
        dict(repeated_documents=0.2, copies=0.1),
    ],
    ids=str,
)
def test_a_model_below_the_entropy_gets_no_line(changes):
    assert not find_cause(TrainingState(**STUCK | dict(loss=6.0) | changes))
