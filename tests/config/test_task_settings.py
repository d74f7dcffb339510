"""Settings that a task does not have are refused."""

import pytest

from bert_tf.config.finetuning import ClassifierDataConfig, SquadDataConfig

COLUMNS = ("text_a_column", "text_b_column", "label_column")


def make(task_name, **settings):
    return ClassifierDataConfig(task_name=task_name, data_dir="x", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        *({name: True} for name in ("is_regression", "is_multi_label")),
        {"text_a_column": "a"},
        {"label_column": "a"},
    ],
)
@pytest.mark.parametrize("task_name", ["MRPC", "xnli", "conll", "swag"])
def test_a_setting_that_the_task_would_ignore_is_refused(task_name, settings):
    [name] = settings
    if task_name == "swag" and name in COLUMNS:
        make(task_name, **settings)
        return
    with pytest.raises(ValueError, match=f"`{name}` must .*{task_name}.*--{name}"):
        make(task_name, **settings)


def test_own_files_have_all_settings():
    columns = dict.fromkeys(COLUMNS, "a")
    make("TSV", **columns, is_regression=True)
    make("parquet", **columns, is_multi_label=True)
    make("swag", **columns)


@pytest.mark.parametrize("task_name", ["MNLI", "csv", "conll"])
def test_a_language_is_refused_but_for_xnli(task_name):
    make("X-NLI", xnli_language="de")
    make(task_name, xnli_language="zh")
    with pytest.raises(ValueError, match=f"left out with task_name={task_name}.*=.?de"):
        make(task_name, xnli_language="de")


def test_a_threshold_of_no_answer_is_refused_where_each_question_has_one():
    SquadDataConfig(null_score_diff_threshold=-1.0, version_2_with_negative=True)
    with pytest.raises(ValueError, match="must come with `version_2_with_negative`"):
        SquadDataConfig(null_score_diff_threshold=-1.0)


@pytest.mark.parametrize("task_name", ["tsv", "swag"])
def test_a_second_text_alone_is_refused(task_name):
    with pytest.raises(ValueError, match="`text_b_column` must come with.*text_a_col"):
        make(task_name, text_b_column="b")
