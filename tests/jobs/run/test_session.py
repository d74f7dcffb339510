import json
import types
from unittest import mock

import pytest
import tensorflow as tf
from runs import parse

from bert_tf.config import BertConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError, WorkerLost
from bert_tf.jobs.run import session as run_session
from bert_tf.jobs.run.compute_path import ComputePath
from bert_tf.jobs.run.memory import Rows
from bert_tf.jobs.run.plan import TrainingSet
from bert_tf.jobs.run.resume import StartingPoint
from bert_tf.jobs.run.session import Session, open_session
from bert_tf.training.runlog import RunLog


class Two(Communicator):
    """The first of two workers; the other one's plan has another value of something."""

    size = local_size = 2

    def __init__(self, **other):
        self._other = other

    def gather_values(self, value):
        if not isinstance(value, dict):  # Both see the same files.
            return [value, value]
        changed = {name: json.dumps(x) for name, x in self._other.items()}
        return [value, {"host": "other", "plan": value["plan"] | changed}]


@pytest.fixture
def config(tmp_path):
    return parse(
        "pretraining",
        "--do_train",
        "--preset=tiny",
        "--input_files_dir=/a",
        f"--output_dir={tmp_path}",
    )


def make_plan(config, **more):
    """As much of a plan as a session needs."""
    values = dict(
        config=config,
        step=3,
        shape=BatchShape(micro_batch_size=4, num_micro_batches=2),
        learning_rate=0.1,
        seed=1,
        training_set=TrainingSet(
            num_records=150, sha256="a1", make_reader=None, max_seq_length=128
        ),
        num_eval_records=0,
        weights_crc32c=5,
        start=StartingPoint(is_own=True),
        fingerprint={
            "data": {"records": 150},
            "evaluation": {"sha256": "a1"},
            "architecture": {"hidden_act": "gelu"},
        },
        bert=BertConfig(hidden_act="gelu"),
        task=types.SimpleNamespace(model=None),
        variables=[],
        averages=None,
        last_step=0,
    )
    return types.SimpleNamespace(**values | more)


@pytest.mark.parametrize(
    "name, value, received",
    [
        ("records of the training data", 110, ("150", "110")),
        ("sha256 of the evaluation data", "b2", ('"a1"', '"b2"')),
        ("hidden_act of the architecture", "relu", ('"gelu"', '"relu"')),
        ("checksum of the weights to start from", 7, ("5", "7")),
        ("learning rate", 0.2, ("0.1", "0.2")),
    ],
)
def test_workers_with_other_plans_are_refused(config, name, value, received):
    session = Session(Two(**{name: value}), hosts=["this host", "other"])
    with session.open_until, pytest.raises(RunError) as caught:
        session.make_plan(config, lambda *_: make_plan(config))
    ours, theirs = received
    message = str(caught.value)
    assert f"\n  {name}: {ours} on worker 0 (" in message
    assert f"; {theirs} on worker 1 (other)." in message


@pytest.mark.parametrize("is_trained", [True, False])
def test_memory_is_estimated_for_a_training_alone(config, monkeypatch, is_trained):
    backends = types.SimpleNamespace(
        fused_dtype=None, exempt={}, why_not_fused="", unpads=False
    )
    rows = []
    monkeypatch.setattr(run_session, "backends_of", lambda model: backends)
    monkeypatch.setattr(
        run_session, "_open_log", lambda _: mock.MagicMock(RunLog, notes=[])
    )
    monkeypatch.setattr(run_session, "RunReport", lambda *_: mock.MagicMock())
    monkeypatch.setattr(
        run_session, "memory_warnings", lambda bert, *more, **_: rows.append(more) or []
    )
    session = Session(Communicator(), path=ComputePath("reference", "no library"))
    more = {} if is_trained else {"training_set": None}
    with session.open_until:
        session.make_plan(config, lambda *_: make_plan(config, **more))
    assert len(rows) == is_trained
    assert not is_trained or rows[0][0] == Rows(32, 128, 0)


def test_after_a_lost_worker_no_checkpoint_is_promised(config):
    """With --skip_checkpoint there is none."""
    with pytest.raises(WorkerLost, match="last checkpoint, if there is one"):
        with open_session(config):
            raise tf.errors.UnknownError(None, None, "Horovod has been shut down.")
