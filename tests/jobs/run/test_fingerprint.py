"""What must stay when a run is resumed, and what may change if it is asked to."""

import json

import pytest
from runs import position

from bert_tf.config import BertConfig
from bert_tf.config.run import CONFIG_CHANGES
from bert_tf.jobs.run.fingerprint import (
    TITLES,
    check_architecture,
    check_packing,
    compare_with_run,
    describe_change,
)
from bert_tf.jobs.run.resume import StartingPoint

BERT = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2
)


def resumed(**more):
    settings = {"config": {"bert": BERT.to_dict()}} | more
    return StartingPoint("/run/model.ckpt-3", True, position(3, **settings))


def test_the_same_architecture_passes():
    check_architecture(resumed(), BERT)


@pytest.mark.parametrize(
    "name, value",
    [("num_attention_heads", 4), ("hidden_act", "relu"), ("layer_norm_eps", 1e-6)],
)
def test_an_architecture_that_shapes_do_not_show_is_refused(name, value):
    other = BertConfig(**BERT.to_dict() | {name: value})
    expected = f"run with {name}={getattr(BERT, name)}. Received: {name}={value}"
    with pytest.raises(ValueError, match=expected):
        check_architecture(resumed(), other)


def test_dropout_may_change():
    check_architecture(resumed(), BERT.without_dropout())


def test_an_older_manifest_is_compared_with_the_config_beside_it(tmp_path):
    old = resumed(config={})
    prefix = str(tmp_path / "model.ckpt-3")
    start = StartingPoint(prefix, True, old.position)
    check_architecture(start, BERT)  # Nothing to compare with.
    values = BERT.to_dict() | {"num_attention_heads": 4}
    (tmp_path / "bert_config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="run with num_attention_heads=4"):
        check_architecture(start, BERT)


@pytest.mark.parametrize("before", [True, False])
def test_packed_and_plain_records_do_not_follow_each_other(before):
    start = resumed(is_packed=before)
    check_packing(start, before)
    with pytest.raises(ValueError, match="--init_checkpoint=/run/model.ckpt-3"):
        check_packing(start, not before)


def test_packing_that_is_not_known_passes():
    check_packing(resumed(), True)
    check_packing(StartingPoint(), True)


def test_another_architecture_may_be_allowed():
    other = BertConfig(**BERT.to_dict() | {"num_attention_heads": 4})
    check_architecture(resumed(), other, ("architecture",))


STATED = {
    "data": {"records": 150, "files": [["a.tfrecord", 100], ["b.tfrecord", 90]]},
    "evaluation": {"records": 20},
    "vocabulary": {"words": 30, "sha256": "aa"},
    "architecture": {"num_attention_heads": 2},
    "labels": {"classes": ["no", "yes"]},
    "loss": {"loss_normalization": "global"},
    "precision": {"name": "bf16", "lists": {"allowlist": ["MatMul", "Conv2D"]}},
}
OTHER = {
    "data": {"records": 151},
    "vocabulary": {"sha256": "bb"},
    "architecture": {"num_attention_heads": 4},
    "labels": {"classes": ["yes", "no"]},
    "loss": {"loss_normalization": "micro_batch"},
    "precision": {"name": "fp32"},
}
LINES = {
    "data": "training data: records 150 -> 151",
    "vocabulary": "vocabulary: sha256 aa -> bb",
    "architecture": "architecture: num_attention_heads 2 -> 4",
    "labels": 'label set: classes ["no", "yes"] -> ["yes", "no"]',
    "loss": "loss settings: loss_normalization global -> micro_batch",
    "precision": "precision: name bf16 -> fp32",
}


def compared(now, *allowed, before=STATED, takes_steps=True):
    start = resumed(fingerprint=before)
    return compare_with_run(start, now, allowed, takes_steps=takes_steps)


def changed_in(entry, **values):
    return STATED | {entry: STATED[entry] | (values or OTHER[entry])}


def test_an_equal_run_resumes_without_a_line():
    assert compared(STATED) == []


@pytest.mark.parametrize("entry", CONFIG_CHANGES)
def test_a_change_is_refused_with_both_values_unless_its_name_is_allowed(entry):
    with pytest.raises(ValueError) as caught:
        compared(changed_in(entry))
    assert f"Before -> now, {LINES[entry]}. Pass what" in str(caught.value)
    assert f"--allow_config_change={entry} resumes" in str(caught.value)
    expected = f"--allow_config_change={entry}: {LINES[entry]}."
    assert compared(changed_in(entry), entry) == [expected]
    others = [name for name in CONFIG_CHANGES if name != entry]
    with pytest.raises(ValueError, match="of a run with other settings"):
        compared(changed_in(entry), *others)


def test_all_changes_are_named_at_once():
    with pytest.raises(ValueError) as caught:
        compared({name: STATED[name] | OTHER.get(name, {}) for name in STATED})
    assert all(line in str(caught.value) for line in LINES.values())
    assert "data,vocabulary,architecture,labels,loss,precision" in str(caught.value)


def test_other_evaluation_data_are_logged():
    lines = compared(STATED | {"evaluation": {"records": 30}})
    assert lines == ["New from here on: evaluation data: records 20 -> 30."]


@pytest.mark.parametrize("entry", ["data", "loss", "precision"])
def test_an_evaluation_need_not_compute_as_the_training_did(entry):
    lines = compared(changed_in(entry), takes_steps=False)
    logged = (
        [f"Differs from the training: {LINES[entry]}."] if entry == "precision" else []
    )
    assert lines == logged


@pytest.mark.parametrize("entry", ["vocabulary", "architecture", "labels"])
def test_an_evaluation_needs_the_same_meaning_of_the_weights(entry):
    with pytest.raises(ValueError, match="of a run with other settings"):
        compared(changed_in(entry), takes_steps=False)


def test_runs_of_earlier_versions_predicted_next_sentences():
    assert compared(changed_in("loss", do_nsp=True)) == []
    with pytest.raises(ValueError, match="loss settings: do_nsp true -> false"):
        compared(changed_in("loss", do_nsp=False))


def test_a_name_that_allows_nothing_is_logged():
    expected = ["--allow_config_change=loss has no effect: nothing of it has changed."]
    assert compared(STATED, "loss") == expected
    assert compare_with_run(StartingPoint(), STATED, ["loss"], takes_steps=True) == (
        expected
    )


def test_what_only_one_of_them_states_is_one_line():
    before = {name: STATED[name] for name in STATED if name != "vocabulary"}
    before["data"] = {"records": 150}
    [line] = compared(STATED, before=before)
    assert line == (
        "Since /run/model.ckpt-3 or this run does not state them, these could not be "
        "compared: files of the training data, vocabulary."
    )


def test_a_manifest_of_an_earlier_version_is_compared_as_far_as_it_goes():
    config = {
        "bert": BERT.to_dict(),
        "training": {"loss_normalization": "micro_batch"},
        "runtime": {"precision": "", "amp": True},
        "squad": {"version_2_with_negative": True},
    }
    start = resumed(config=config, data_sha256="ab")
    now = STATED | {
        "data": {"records": 150, "sha256": "cd", "files": []},
        "labels": {"version_2_with_negative": False},
    }
    with pytest.raises(ValueError) as caught:
        compare_with_run(start, now, (), takes_steps=True)
    for line in (
        "training data: sha256 ab -> cd",
        "label set: version_2_with_negative true -> false",
        "loss settings: loss_normalization micro_batch -> global",
        "precision: name fp16 -> bf16",
    ):
        assert line in str(caught.value)
    allowed = ("data", "labels", "loss", "precision")
    *_, line = compare_with_run(start, now, allowed, takes_steps=True)
    assert "could not be compared: files of the training data, vocabulary, " in line


def test_a_precision_that_no_flag_decided_is_not_known_of_an_earlier_version():
    config = {"runtime": {"precision": "", "amp": False}}
    start = resumed(config=config)
    now = {"precision": {"name": "bf16"}}
    [line] = compare_with_run(start, now, (), takes_steps=True)
    assert line.endswith("compared: training data, precision.")


@pytest.mark.parametrize(
    "before, now, expected",
    [
        (1, 2, ["x 1 -> 2"]),
        (["a"], ["b"], ['x ["a"] -> ["b"]']),
        (list("abcde"), list("abcdx"), ['x "e" -> "x"']),
        (
            list("abcdefghi"),
            list("abcd"),
            ['x "e", "f", "g" and 2 more -> none of these'],
        ),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}, ["b 2 -> 3", "c null -> 4"]),
        ("none", {"a": 1}, ['x none -> {"a": 1}']),
        ("a" * 100, "b", [f"x {'a' * 30} [...] {'a' * 30} -> b"]),
    ],
)
def test_a_change_shows_what_differs(before, now, expected):
    assert describe_change("x", before, now) == expected


def test_every_entry_has_a_title_and_a_name_to_allow_it():
    assert set(TITLES) == {*CONFIG_CHANGES, "evaluation"}


READING = {"dynamic_masking": False, "weights": []}


@pytest.mark.parametrize(
    "name, value",
    [("dynamic_masking", "whole words"), ("weights", [[100, "7/10"], [50, "3/10"]])],
)
@pytest.mark.parametrize("before", [{}, READING])
def test_how_records_are_read_may_not_change(name, value, before):
    """Runs of versions that did not state it had neither."""
    earlier = changed_in("data", **before) if before else STATED
    assert compared(changed_in("data", **READING), before=earlier) == []
    with pytest.raises(ValueError, match=f"training data: {name}"):
        compared(changed_in("data", **READING | {name: value}), before=earlier)
    changed = changed_in("data", **READING | {name: value})
    [line] = compared(changed, "data", before=earlier)
    assert line.startswith(f"--allow_config_change=data: training data: {name} ")
