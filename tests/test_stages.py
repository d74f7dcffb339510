"""Stages and terminals."""

import os
import subprocess
import sys

import pytest

from bert_tf import stages
from bert_tf.data.records.tfrecord import frame_record
from bert_tf.stages import loading_tensorflow, stage, terminal_of, width_of


def test_a_stage_is_named_before_it_and_while_it_lasts(monkeypatch):
    monkeypatch.setattr(stages, "_LINE_PERIOD_SECONDS", 0.01)
    lines, shown = [], stages.threading.Event()

    def show(line):
        lines.append(line)
        if len(lines) == 3:
            shown.set()

    with stage("Building", show):
        assert lines[0] == "Building ..."
        assert shown.wait(10)
    assert lines[1] == "Building: 0 s so far."


def test_other_workers_name_no_stage(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    lines = []
    with stage("Building", lines.append):
        pass
    assert not lines


def test_a_worker_sees_the_terminal_of_mpirun(monkeypatch):
    master, slave = os.openpty()
    name = os.ttyname(slave)
    assert terminal_of(slave) == name
    reader, writer = os.pipe()
    assert terminal_of(writer) == ""
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(os, "getppid", os.getpid)
    assert terminal_of(slave) == name
    assert terminal_of(writer) == ""
    for descriptor in (master, slave, reader, writer):
        os.close(descriptor)
    assert width_of(name) == 80


@pytest.mark.parametrize("is_loaded", [False, True])
def test_loading_tensorflow_is_a_line_on_stderr_unless_it_is_loaded(
    monkeypatch, capsys, is_loaded
):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    if is_loaded:
        monkeypatch.setitem(sys.modules, "tensorflow", sys)
    with loading_tensorflow():
        pass
    line = "" if is_loaded else "Loading TensorFlow ...\n"
    assert capsys.readouterr() == ("", line)


def test_a_command_says_that_it_loads_tensorflow(tmp_path):
    command = [sys.executable, "-m", "bert_tf", "data", "index"]
    (tmp_path / "a.tfrecord").write_bytes(frame_record(b"no example"))
    command += [f"--input_dir={tmp_path}"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.stderr.startswith("Loading TensorFlow ...\nerror: ")
    assert not found.stdout
