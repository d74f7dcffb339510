import json

import numpy as np
import pytest

import bert_tf
from bert_tf.interop.classifier_labels import describe_head, head_of, read_head
from bert_tf.interop.weight_files import Kind, Source

NAMES = ("neg", "neu", "pos")


@pytest.fixture
def folder(tmp_path):
    """Writes files beside weights, and says what they tell of a head."""

    def read(num_outputs=3, *, config=None, task=None):
        path = tmp_path / "config.json"
        if config is not None:
            path.write_text(json.dumps(config))
        if task is not None:
            (tmp_path / "task.json").write_text(json.dumps(task))
        config_file = str(path) if config is not None else ""
        weights = str(tmp_path / "model.safetensors")
        source = Source(Kind.SAFETENSORS, weights, config_file, "")
        return read_head(source, num_outputs)

    return read


def test_names_are_in_the_order_of_their_numbers(folder):
    config = {"id2label": {"2": "pos", "0": "neg", "1": "neu"}}
    assert folder(config=config).names == NAMES


def test_names_are_read_from_label2id_alone(folder):
    assert folder(config={"label2id": {"pos": 2, "neg": 0, "neu": 1}}).names == NAMES


@pytest.mark.parametrize("config", [{}, {"id2label": None, "num_labels": 3}])
def test_a_config_may_have_no_names(folder, config):
    assert folder(config=config).names == ()


def test_default_names_are_none(folder):
    names = {str(number): f"LABEL_{number}" for number in range(3)}
    assert folder(config={"id2label": names}).names == ()
    # At another number such a name says something.
    names = {"0": "LABEL_1", "1": "LABEL_0", "2": "LABEL_2"}
    assert folder(config={"id2label": names}).names == ("LABEL_1", "LABEL_0", "LABEL_2")


def test_names_of_task_json_are_read(folder):
    task = {"task": "classify", "label_names": list(NAMES), "max_seq_length": 9}
    head = folder(task=task)
    assert head.names == NAMES
    assert describe_head(head) == task


def test_the_same_names_in_both_files_are_fine(folder):
    names = dict(enumerate(NAMES))
    task = {"task": "classify", "label_names": list(NAMES)}
    assert folder(config={"id2label": names}, task=task).names == NAMES


def test_other_names_in_both_files_are_refused(folder):
    names = dict(enumerate(reversed(NAMES)))
    task = {"task": "classify", "label_names": list(NAMES)}
    with pytest.raises(ValueError, match=r"task\.json and .*config\.json name differ"):
        folder(config={"id2label": names}, task=task)


@pytest.mark.parametrize(
    "config, problem",
    [
        ({"id2label": {"0": "a", "1": "b"}}, "must name 3 classes"),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, "from 0 to 2"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "two classes the same"),
        ({"id2label": {"0": "a", "1": None, "2": "b"}}, "must have strings as names"),
        ({"id2label": {"0": "a", "1": [], "2": "b"}}, "must have strings as names"),
        ({"id2label": {"0": "a", "1": " ", "2": "b"}}, "must not hold an empty name"),
        ({"id2label": ["a", "b", "c"]}, "must be an object"),
        ({"label2id": 3}, "must be an object"),
        (
            {
                "id2label": {"0": "a", "1": "b", "2": "c"},
                "label2id": {"a": 2, "b": 1, "c": 0},
            },
            "`label2id` must number the names as",
        ),
    ],
)
def test_names_that_cannot_be_right_are_refused(folder, config, problem):
    with pytest.raises(ValueError, match=rf"config\.json: .*{problem}"):
        folder(config=config)


@pytest.mark.parametrize("names", ["abc", [1, 2, 3], None])
def test_names_of_task_json_must_be_strings(folder, names):
    with pytest.raises(ValueError, match=r"task\.json: `label_names` must be a list"):
        folder(task={"task": "classify", "label_names": names})


@pytest.mark.parametrize("task", [["tag"], 3, None])
def test_the_task_of_task_json_must_be_a_string(folder, task):
    with pytest.raises(ValueError, match=r"task\.json: `task` must be a string"):
        folder(task={"task": task})


def test_numbers_of_label2id_may_be_strings(folder):
    names = dict(enumerate(NAMES))
    numbers = {name: str(number) for number, name in names.items()}
    assert folder(config={"id2label": names, "label2id": numbers}).names == NAMES


def test_default_names_of_label2id_are_passed_over(folder):
    names = dict(enumerate(NAMES))
    defaults = {f"LABEL_{number}": number for number in range(3)}
    assert folder(config={"id2label": names, "label2id": defaults}).names == NAMES


@pytest.mark.parametrize(
    "num_outputs, config, expected",
    [
        (1, {"id2label": {"0": "LABEL_0"}, "problem_type": "regression"}, "regression"),
        (1, {"id2label": {"0": "score"}}, ""),
        (
            3,
            {"problem_type": "multi_label_classification"},
            "multi_label_classification",
        ),
    ],
)
def test_the_kind_of_problem_is_read(folder, num_outputs, config, expected):
    head = folder(num_outputs, config=config)
    assert head.problem_type == expected
    assert head.names == ()
    again = folder(num_outputs, config={}, task=describe_head(head))
    assert again.problem_type == expected


def test_weights_without_a_classifier_have_no_names(folder):
    head = folder(0, config={"id2label": {"0": "a", "1": "a"}})
    assert head.num_outputs == 0
    assert head.names == ()


@pytest.mark.parametrize(
    "description, num_outputs, names, problem_type",
    [
        ({"task": "classify", "label_names": ["no", "yes"]}, 2, ("no", "yes"), ""),
        ({"task": "classify", "label_names": []}, 1, (), "regression"),
        ({"task": "squad"}, 0, (), ""),
        ({}, 0, (), ""),
    ],
)
def test_the_head_of_a_run_is_that_of_its_description(
    description, num_outputs, names, problem_type
):
    head = head_of(description, num_outputs)
    assert (head.num_outputs, head.names) == (num_outputs, names)
    assert head.problem_type == problem_type
    assert head.description == description


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BertForTokenClassification", "tag"),
        ("BertForMultipleChoice", "choose"),
        ("BertForSequenceClassification", "classify"),
        ("BertForMaskedLM", ""),
    ],
)
def test_the_class_of_transformers_tells_the_kind(folder, name, kind):
    assert folder(config={"architectures": [name]}).kind == kind


def test_default_names_of_a_model_of_choices_are_not_those_of_its_one_output(folder):
    names = {"0": "LABEL_0", "1": "LABEL_1"}
    config = {"architectures": ["BertForMultipleChoice"], "id2label": names}
    assert folder(1, config=config).kind == "choose"


@pytest.mark.parametrize("names", [["O", "B-PER"], None])
def test_the_kind_in_task_json_stays(folder, names):
    task = {"task": "tag", "label_names": names} if names else {"task": "choose"}
    head = folder(2 if names else 1, task=task)
    assert head.kind == task["task"]
    assert describe_head(head) == task


@pytest.mark.parametrize(
    "names", ["ab", ["a", "a"], ["a", " "], ["a"], [0, 1], np.array(["a", "a"])]
)
def test_names_that_no_predictor_could_read_are_not_saved(tiny_config, tmp_path, names):
    model = bert_tf.build_classifier_model(tiny_config, 2)
    with pytest.raises(ValueError, match="must be 2 different names"):
        bert_tf.save_pretrained(model, tmp_path / "out", label_names=names)
    assert not (tmp_path / "out").exists()


def test_names_may_be_an_array(tiny_config, tmp_path):
    model = bert_tf.build_classifier_model(tiny_config, 2)
    names = np.array(["no", "yes"])
    bert_tf.save_pretrained(model, tmp_path / "out", label_names=names)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["id2label"] == {"0": "no", "1": "yes"}
