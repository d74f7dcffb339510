import json
import types

import pytest

from bert_tf.config import BertConfig
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError
from bert_tf.jobs.running import run_job

PLAN = types.SimpleNamespace(
    optimizer=types.SimpleNamespace(iterations=3),
    shape=types.SimpleNamespace(num_micro_batches=2, micro_batch_size=4),
    learning_rate=0.1,
    seed=1,
    num_train_records=150,
    num_eval_records=0,
    data_sha256="a1",
    bert=BertConfig(hidden_act="gelu"),
    config=types.SimpleNamespace(
        optimizer=types.SimpleNamespace(num_train_steps=8),
    ),
)


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
def test_workers_with_other_plans_are_refused(
    tmp_path, monkeypatch, name, value, received
):
    config = types.SimpleNamespace(
        files=types.SimpleNamespace(output_dir=str(tmp_path), dllog_path=""),
        training=types.SimpleNamespace(do_train=False),
        runtime=types.SimpleNamespace(
            horovod=True, horovod_hierarchical_allreduce=False, num_threads=1
        ),
    )
    PLAN.config.files = config.files
    for function, result in (
        ("connect", Two(**{name: value})),
        ("configure_devices", 1),
        ("agree", (None, [])),
    ):
        monkeypatch.setattr(
            f"bert_tf.jobs.running.{function}", lambda *_, result=result: result
        )
    with pytest.raises(RunError) as caught:
        run_job(config, lambda *_: PLAN, None)
    assert f"must have the same {name}. Received, by worker: {received}." in str(
        caught.value
    )
