import json
import types

import pytest

from bert_tf.config import BertConfig, OptimizerConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.jobs import changes
from bert_tf.jobs.starting_point import StartingPoint
from bert_tf.training.checkpoints import RunPosition

BERT = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2
)
SETTINGS = {
    "optimizer": {"num_train_steps": 8, "optimizer_type": "lamb"},
    "training": {"deterministic_run": False, "do_eval": True},
    "batch": {"max_seq_length": 128},
    "task": {"new_head": False},
    "runtime": {"num_threads": 1},
    "files": {"input_files_dir": "/a"},
    "bert": BERT.to_dict(),
    "precision": "fp32",
}


def start_of(**more):
    values = dict(
        step=3,
        records=48,
        global_batch_size=16,
        learning_rate=0.01,
        seed=42,
        num_records=150,
        config=SETTINGS,
    )
    return StartingPoint("/run/model.ckpt-3", True, RunPosition(**values | more))


def test_the_same_architecture_passes():
    changes.check_architecture(start_of(), BERT)


@pytest.mark.parametrize(
    "name, value",
    [("num_attention_heads", 4), ("hidden_act", "relu"), ("layer_norm_eps", 1e-6)],
)
def test_an_architecture_that_shapes_do_not_show_is_refused(name, value):
    other = BertConfig(**BERT.to_dict() | {name: value})
    said = f"run with {name}={getattr(BERT, name)}. Received: {name}={value}"
    with pytest.raises(ValueError, match=said):
        changes.check_architecture(start_of(), other)


def test_dropout_may_change():
    changes.check_architecture(start_of(), BERT.without_dropout())


def test_an_older_manifest_is_compared_with_the_config_beside_it(tmp_path):
    old = start_of(config={})
    prefix = str(tmp_path / "model.ckpt-3")
    start = StartingPoint(prefix, True, old.position)
    changes.check_architecture(start, BERT)  # Nothing to compare with.
    values = BERT.to_dict() | {"num_attention_heads": 4}
    (tmp_path / "bert_config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="run with num_attention_heads=4"):
        changes.check_architecture(start, BERT)


@pytest.mark.parametrize("before", [True, False])
def test_packed_and_plain_records_do_not_follow_each_other(before):
    start = start_of(is_packed=before)
    changes.check_packing(start, before)
    with pytest.raises(ValueError, match="--init_checkpoint=/run/model.ckpt-3"):
        changes.check_packing(start, not before)


def test_packing_that_is_not_known_passes():
    changes.check_packing(start_of(), True)
    changes.check_packing(StartingPoint(), True)


def messages(position, *, data="a", records=150, **settings):
    """What is logged of a run whose settings differ by some from `SETTINGS`."""
    lines = []
    optimizer = OptimizerConfig(
        **{"num_train_steps": 8, "learning_rate": 0.01} | settings
    )
    batch = types.SimpleNamespace(train_batch_size=16, num_accumulation_steps=1)
    plan = types.SimpleNamespace(
        start=StartingPoint("/run/model.ckpt-3", True, position),
        config=types.SimpleNamespace(
            optimizer=optimizer, batch=batch, training=types.SimpleNamespace(seed=42)
        ),
        shape=BatchShape(micro_batch_size=16, num_micro_batches=1),
        sequences_per_record=1.0,
        num_train_records=records,
        data_sha256=data,
    )
    now = {**SETTINGS, "optimizer": SETTINGS["optimizer"] | settings}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changes, "run_settings", lambda plan: now)
        changes.describe_changes(plan, types.SimpleNamespace(message=lines.append))
    return lines


def test_a_run_that_goes_on_as_it_began_says_nothing():
    assert messages(start_of(data_sha256="a").position) == []


def test_other_data_of_the_same_number_are_told():
    [line] = messages(start_of(data_sha256="b").position)
    assert line.startswith("warning: the run began with other records, also 150")


def test_another_number_of_records_is_told():
    [line] = messages(start_of(data_sha256="b").position, records=151)
    assert line.startswith("warning: the run began with 150 records and now has 151")


def test_an_older_manifest_says_that_nothing_was_compared():
    [line] = messages(start_of().position)
    assert "could not be compared" in line


def test_a_warmup_that_follows_the_steps_is_told():
    lines = messages(start_of(data_sha256="a").position, num_train_steps=40)
    assert lines == [
        "New from here on: num_train_steps 8 -> 40.",
        "The warm-up follows num_train_steps: 0 -> 4 steps. --num_warmup_steps=0 "
        "keeps it.",
    ]


def test_settings_that_change_a_step_are_told_and_others_are_not():
    before = {
        **SETTINGS,
        "training": {"deterministic_run": True, "do_eval": False},
        "batch": {"max_seq_length": None},  # The default: as the records are.
        "task": {"new_head": True},
        "runtime": {"num_threads": 8},
        "files": {"input_files_dir": "/b"},
        "bert": BERT.to_dict() | {"hidden_dropout_prob": 0.0},
        "precision": "bf16",
    }
    [line] = messages(start_of(data_sha256="a", config=before).position)
    assert line == (
        "New from here on: deterministic_run True -> False, hidden_dropout_prob 0.0 -> "
        "0.1, precision bf16 -> fp32."
    )
