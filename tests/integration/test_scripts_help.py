"""--help of every script, and options that it does not know."""

import os
import pathlib
import runpy
import subprocess
import sys

import pytest
from integration.launching import ROOT

FOLDERS = ("scripts", "data_preprocessing", "download")


def scripts(ending):
    """The scripts with this ending, relative to the checkout."""
    paths = [path for name in FOLDERS for path in (ROOT / name).rglob(f"*{ending}")]
    return sorted(str(path.relative_to(ROOT)) for path in paths)


SCRIPTS = scripts(".sh")


def execute(program, script, *arguments, cwd):
    """Runs a script in an empty folder, without variables for it."""
    names = ("PATH", "HOME")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    environment["IX_NUM_CUDA_VISIBLE_DEVICES"] = "1"  # run_multi_card_FPS.sh
    return subprocess.run(
        [program, str(ROOT / script), *arguments],
        **dict(cwd=cwd, env=environment, capture_output=True, text=True, timeout=60),
    )


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_printed_and_nothing_is_left_behind(script, option, tmp_path):
    result = execute("bash", script, option, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert 1 <= len(lines) <= 15
    assert not any(line.startswith(("#", "set ", "source ")) for line in lines)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unknown_option_is_refused_and_nothing_is_left_behind(script, tmp_path):
    result = execute("bash", script, "--no_such", cwd=tmp_path)
    assert result.returncode != 0
    assert result.stderr.startswith("error: ")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("script", scripts(".py"))
def test_python_scripts_too(script, tmp_path):
    result = execute(sys.executable, script, "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: ")
    result = execute(sys.executable, script, "--no_such", cwd=tmp_path)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert os.listdir(tmp_path) == []


def test_a_second_folder_is_refused(tmp_path):
    result = execute("bash", "scripts/squad_download.sh", "a", "b", cwd=tmp_path)
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "must be at most 1" in line and "Received: a b" in line
    assert os.listdir(tmp_path) == []


def test_the_variables_are_set_where_the_file_is_sourced(tmp_path):
    command = f"source {ROOT}/scripts/env.sh && echo $BERT_INFER_MODEL"
    result = subprocess.run(
        ["bash", "-c", command],
        **dict(cwd=tmp_path, capture_output=True, text=True, timeout=60),
    )
    assert result.stdout == "results/squad\n"


@pytest.mark.parametrize("value, lines", [("0", 0), ("1", 1)])
def test_what_skipping_wikiextractor_means_is_a_line(value, lines, capsys):
    commands = runpy.run_path(str(ROOT / "scripts" / "bertPrep.py"))["commands"]
    words = ["--action=text_formatting", "--dataset=wikicorpus_en"]
    [found] = commands([*words, f"--skip_wikiextractor={value}"], pathlib.Path("x"))
    assert found[:2] == ["data", "extract"]
    assert capsys.readouterr().err.count("--skip_wikiextractor has no effect") == lines
