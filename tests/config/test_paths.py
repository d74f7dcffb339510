"""Paths are checked before TensorFlow is loaded, if the run needs them."""

import dataclasses

import pytest
from runs import parse

from bert_tf.config.paths import check_run


@pytest.fixture
def config(tiny_config_file, tmp_path):
    """A training whose initial weights and records are gone."""
    (tmp_path / "run").mkdir()
    return parse(
        *("pretraining", "--do_train", f"--output_dir={tmp_path}/run"),
        *(f"--bert_config_file={tiny_config_file}", "--input_files_dir=/gone"),
        "--init_checkpoint=/gone/too",
    )


def test_missing_records_are_refused(config):
    with pytest.raises(OSError, match="`input_files_dir` must .*/gone"):
        check_run(config)


def test_a_run_with_a_checkpoint_may_do_without_them(config, tmp_path):
    (tmp_path / "run" / "model.ckpt-3.json").write_text("{}")
    check_run(config)


@pytest.mark.parametrize("setting", ["/gone:0.5", "{0}x:1"])
def test_a_weight_does_not_hide_that_records_are_missing(config, tmp_path, setting):
    setting = setting.format(tmp_path)
    files = dataclasses.replace(config.files, input_files_dir=setting)
    with pytest.raises(OSError, match="`input_files_dir` must"):
        check_run(dataclasses.replace(config, files=files))


def test_a_weight_is_no_part_of_the_path(config, tmp_path):
    (tmp_path / "a:b").mkdir()
    given = {"init_checkpoint": "", "input_files_dir": f"{tmp_path}/a:b:0.5"}
    files = dataclasses.replace(config.files, **given)
    check_run(dataclasses.replace(config, files=files))
