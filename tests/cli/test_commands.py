"""The command line as a whole: commands, help, wrong names."""

import contextlib
import dataclasses
import importlib
import tomllib

import pytest
from conftest import ROOT

from bert_tf import cli
from bert_tf.cli import data, train
from bert_tf.cli.arguments import parse_config
from bert_tf.config.data import CreateDataConfig


def test_help_lists_every_command_once(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines[2:] if line.startswith("  ")]
    assert sorted(listed) == sorted(cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_a_module_with_help(name, capsys):
    if name not in train.JOBS:
        module = importlib.import_module(f"bert_tf.cli.{name}")
        with contextlib.suppress(SystemExit):
            module.main(["--help"])
        assert capsys.readouterr().out.startswith("usage:")


@pytest.mark.parametrize("name", train.JOBS)
def test_a_training_command_runs_the_job_of_its_script(name, monkeypatch, capsys):
    monkeypatch.setattr(train, "use_huge_pages", lambda: None)
    with pytest.raises(SystemExit) as leaving:
        cli.main([name, "--help"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bert-tf {name} --flag=value")
    script = {"classify": "classifier", "pretrain": "pretraining"}.get(name, name)
    config_class, job = train.JOBS[name]
    text = (ROOT / f"run_{script}.py").read_text()
    assert f'run_script({config_class.__name__}, "{job}", arguments)' in text


@pytest.mark.parametrize(
    "words, question",
    [
        (["pretain"], "Did you mean pretrain?"),
        (["clasify"], "Did you mean classify?"),
        (["data", "craete"], "Did you mean create?"),
        (["data", "create", "--max_seq_lenght=8"], "Did you mean --max_seq_length?"),
        (["data", "pack", "--overwrit"], "Did you mean --overwrite?"),
        (["data", "download", "--name=sqad-1.1", "--output_dir=o"], "mean squad-1.1?"),
        (["predict", "sqaud", "--model=m"], "Did you mean squad?"),
        (["predict", "squad", "--model=m", "--precison=bf16"], "mean --precision?"),
        (["predict", "squad", "--model=m", "--precision=bf61"], "Did you mean bf16?"),
        (["convert", "a", "b", "--vocab_fil=v"], "Did you mean --vocab_file?"),
        (["plan", "--preset=lrge"], "Did you mean large?"),
        (["xyzzy"], "Received: 'xyzzy'.\n"),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest_known_one(words, question, capsys):
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert question in error


@pytest.mark.parametrize(
    "text, question",
    [
        ('work_dir = "w"\n[craete]\n', "Did you mean create?"),
        ('work_dri = "w"\n[create]\n', "Did you mean work_dir?"),
        ('work_dir = "w"\n[create]\nmax_seq_lenght = 8\n', "mean --max_seq_length?"),
    ],
)
def test_a_wrong_key_of_a_toml_file_is_refused_likewise(
    text, question, tmp_path, capsys
):
    (tmp_path / "data.toml").write_text(text)
    assert cli.main(["data", "all", f"--config={tmp_path}/data.toml"]) == 1
    assert question in capsys.readouterr().err


@pytest.mark.parametrize("name", data.SUBCOMMANDS)
def test_required_options_exist_and_are_refused_when_missing(name):
    config_class, _ = data.SUBCOMMANDS[name]
    fields = {field.name for field in dataclasses.fields(config_class)}
    assert config_class.REQUIRED and set(config_class.REQUIRED) <= fields
    with pytest.raises(ValueError, match=f"`{config_class.REQUIRED[0]}` must be given"):
        config_class()


def test_console_scripts_resolve():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"bert-tf"}
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_a_repeated_option_is_named_on_standard_error(capsys):
    words = ["--input=a", "--output_dir=o", "--vocab_file=v", "--seed=1", "--seed=2"]
    assert parse_config(CreateDataConfig, words, "data create").seed == 2
    warning = "warning: given more than once, the last value counts: --seed\n"
    assert capsys.readouterr() == ("", warning)


def test_report_names_a_repeated_option(capsys, tmp_path):
    words = ["report", str(tmp_path), "--output=a", "--output=b"]
    assert cli.main(words) == 1
    warning = "warning: given more than once, the last value counts: --output\n"
    assert capsys.readouterr().err.startswith(warning)


def test_recipes_are_listed_with_their_folder(capsys):
    assert cli.main(["recipes"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert "phase1_large" in [line.split()[0] for line in lines]
    assert last.endswith("bert_tf/recipes.")


def test_version_names_packages_and_compute_path(capsys):
    import tensorflow as tf

    assert cli.main(["--version"]) == 0
    ours, packages, path = capsys.readouterr().out.splitlines()
    assert ours.startswith("bert_tf ")
    assert packages.startswith(f"TensorFlow {tf.__version__}, Keras ")
    assert ", Horovod " in packages
    assert path.startswith("compute path: ")
