"""Paths are checked before TensorFlow is loaded, if the run needs them."""

import dataclasses
import runpy
import sys

import pytest
from conftest import ROOT
from runs import parse

from bert_tf import cli
from bert_tf.config.paths import check_paths, check_run, require_exists, require_file
from bert_tf.config.text import ExtractConfig


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


def test_the_vocabulary_in_a_folder_is_named(tmp_path):
    def message(name="vocab_file"):
        with pytest.raises(OSError, match=f"`{name}` must be a file") as error:
            require_file(name, str(tmp_path))
        return str(error.value)

    assert "Pass another path." in message()
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / name).touch()
        assert f"is a folder. Pass {tmp_path / name}." in message()
    assert "Pass another path." in message("train_file")


@pytest.mark.parametrize("name", ["input_files_dir", "eval_files_dir"])
@pytest.mark.parametrize("setting", ["{0}/run", "{0}/x,{0}/ru*", "{0}/./run/:0.5"])
def test_a_run_is_not_written_among_its_records(config, tmp_path, name, setting):
    files = dataclasses.replace(config.files, **{name: setting.format(tmp_path)})
    with pytest.raises(ValueError, match=f"`output_dir` must .* `{name}` names"):
        check_run(dataclasses.replace(config, files=files))


@pytest.mark.parametrize(
    ("address", "advice"),
    [
        ("gs://bucket/a", "gcloud storage cp -r"),
        ("s3://bucket/a", "aws s3 cp --recursive"),
        ("hdfs://host:9000/a", "hdfs dfs -get"),
        ("S3://bucket/a", "aws s3 cp"),
        ("https://host/a", "also a mounted one"),
        ("file:///a", "without file://"),
    ],
)
def test_addresses_are_refused_by_name(tmp_path, address, advice):
    for name in ("input", "output_dir"):
        given = {"input": str(tmp_path), "output_dir": str(tmp_path), name: address}
        with pytest.raises(OSError, match=f"`{name}` must be a path") as refused:
            check_paths(ExtractConfig(**given))
        assert advice in str(refused.value)
    for check in (require_file, require_exists):
        with pytest.raises(OSError, match="`model` must .*is an address of"):
            check("model", address)


@pytest.mark.parametrize(
    "name", ["input_files_dir", "output_dir", "init_checkpoint", "dllog_path"]
)
def test_addresses_are_refused_in_every_path_of_a_run(config, tmp_path, name):
    """Also in a resumed one, and in one of several folders."""
    (tmp_path / "run" / "model.ckpt-3.json").write_text("{}")
    address = "gs://bucket/a"
    if name == "input_files_dir":
        address = f"{tmp_path}, gs://bucket/a:0.5"
    files = dataclasses.replace(config.files, **{name: address})
    with pytest.raises(OSError, match=f"`{name}` must be a path. Received: "):
        check_run(dataclasses.replace(config, files=files))
    assert not (tmp_path / "gs:").exists()


@pytest.mark.parametrize(
    "script, words",
    [
        (
            "scripts/create_pretraining_data.py",
            "--input_file=a --vocab_file=v --output_file=b,gs://b/x",
        ),
        (
            "scripts/extract_features.py",
            "--input_file=a --init_checkpoint=m --output_file=gs://b/x",
        ),
        ("scripts/create_pretraining_data_overfit.py", "gs://b/x m 128 20"),
        (
            "scripts/pack_pretraining_data_tfrec.py",
            "--input-glob=a --output-dir=gs://b/x",
        ),
        ("scripts/download_pretrained_model.py", "https://a.example gs://b/x True"),
        (
            "demo_bert.py",
            "-c pretraining -d fp32 -m base -t bookswiki --dataset_path gs://b/x",
        ),
    ],
)
def test_scripts_refuse_an_address(script, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script, *words.split()])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    error = capsys.readouterr().err or ended.value.code
    assert error.startswith("error: ") and "an address of gs" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["output", "dllog_path"])
def test_the_command_report_refuses_an_address(option, capsys, tmp_path):
    assert cli.main(["report", str(tmp_path), f"--{option}=gs://b/x"]) == 1
    assert f"`{option}` must be a path" in capsys.readouterr().err


def test_a_checkpoint_in_the_folder_of_a_missing_one_is_named(tmp_path):
    (tmp_path / "model.ckpt-600.index").touch()
    wanted = f"does not exist. Did you mean {tmp_path}/model.ckpt-600[?] Pass another"
    with pytest.raises(FileNotFoundError, match=wanted):
        require_exists("init_checkpoint", f"{tmp_path}/bert_model.ckpt")
