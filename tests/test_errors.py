"""Parts of messages."""

import re

import pytest

from bert_tf import flags
from bert_tf.cli import predict
from bert_tf.config import PretrainingConfig
from bert_tf.config.data import CreateDataConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.options import options_of
from bert_tf.config.sentences import SentencesConfig
from bert_tf.config.text import ExtractConfig
from bert_tf.errors import _OF_TRANSFORMERS, did_you_mean, listed, similar_path


def test_of_long_lists_the_rest_is_counted():
    assert listed(["a", "b"]) == "a, b"
    assert listed(map(str, range(22)), "; ").endswith("; 19; and 2 more")
    assert listed(["a"] * 1005, most=5) == "a, a, a, a, a, and 1,000 more"


@pytest.mark.parametrize(
    ("config_class", "flag", "ours"),
    [
        (PretrainingConfig, "--save_steps", "--save_checkpoints_steps"),
        (PretrainingConfig, "--report_to", "--tracker"),
        (PretrainingConfig, "--bf16", "--precision=bf16"),
        (PretrainingConfig, "--text_column_name", ""),
        (PretrainingConfig, "--eval_strategy", "--eval_steps"),
        (ClassifierConfig, "--eval_strategy", "--evaluate_each_epoch"),
        (ClassifierConfig, "--per_device_train_batch_size", "--train_batch_size"),
        (ClassifierConfig, "--per-device-train-batch-size", "--train_batch_size"),
        (ClassifierConfig, "--text_column_name", "--text_a_column"),
        (ClassifierConfig, "--validation_file", "--data_dir"),
        (SquadConfig, "--validation_file", "--predict_file"),
    ],
)
def test_an_argument_of_transformers_is_answered_with_ours(config_class, flag, ours):
    known = [f"--{name}" for name in flags.make_flags(config_class)]
    assert did_you_mean(flag, known) == (f"Did you mean {ours}?" if ours else "")


def test_our_names_of_arguments_of_transformers_exist():
    known = set()
    for config in (PretrainingConfig, ClassifierConfig, SquadConfig, SentencesConfig):
        known |= set(flags.all_options(config))
    for config in (CreateDataConfig, ExtractConfig):
        known |= set(options_of(config))
    known |= {n.lstrip("-") for n in predict.make_parser()._option_string_actions}
    for ours in _OF_TRANSFORMERS.values():
        assert {re.sub("=.*", "", name) for name in ours} <= known


@pytest.mark.parametrize(
    "missing, ending, expected",
    [
        ("wiki/trian", "", "wiki/train"),
        ("wikki/train", "", "wiki/train"),
        ("wikki/test", "", ""),
        ("wiki/elsewhere", "", ""),
        ("none/of/it", "", ""),
        ("run/bert_model.ckpt", ".index", "run/model.ckpt-600"),
        ("run/other", ".index", "run/model.ckpt-600"),
        ("runs/model.ckpt-90", ".index", "run/model.ckpt-90"),
        ("wiki/model.ckpt-90", ".index", ""),
    ],
)
def test_a_missing_path_is_compared_with_its_neighbours(
    tmp_path, missing, ending, expected
):
    (tmp_path / "wiki" / "train").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    for name in ("model.ckpt-90", "model.ckpt-600"):
        for kind in ("index", "data-00000-of-00001", "json"):
            (tmp_path / "run" / f"{name}.{kind}").touch()
    question = similar_path(f"{tmp_path}/{missing}", ending)
    assert question == (f"Did you mean {tmp_path}/{expected}?" if expected else "")
