import json
import types

import pytest
from runs import parse

from bert_tf.config import BertConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.jobs.run.session import Session


class Two(Communicator):
    """The first of two workers; the other one's plan has another value of something."""

    size = local_size = 2

    def __init__(self, **other):
        self._other = other

    def gather_texts(self, text):
        return [text, json.dumps(json.loads(text) | self._other)]


@pytest.mark.parametrize(
    "name, value, received",
    [
        ("training records", 110, "150, 110"),
        ("content of the training records (sha256)", "b2", "a1, b2"),
        ("hidden_act of the architecture", "relu", "gelu, relu"),
    ],
)
def test_workers_with_other_plans_are_refused(tmp_path, name, value, received):
    config = parse(
        "pretraining",
        "--do_train",
        "--preset=tiny",
        "--input_files_dir=/a",
        f"--output_dir={tmp_path}",
    )
    plan = types.SimpleNamespace(
        config=config,
        step=3,
        shape=BatchShape(micro_batch_size=4, num_micro_batches=2),
        learning_rate=0.1,
        seed=1,
        training_set=types.SimpleNamespace(num_records=150, sha256="a1"),
        num_eval_records=0,
        bert=BertConfig(hidden_act="gelu"),
    )
    session = Session(Two(**{name: value}))
    with session.open_until, pytest.raises(RunError) as caught:
        session.make_plan(config, lambda *_: plan)
    assert f"must have the same {name}. Received, by worker: {received}." in str(
        caught.value
    )
