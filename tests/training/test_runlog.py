import contextlib
import datetime
import json
import os
import shutil
import sys

import pytest

from bert_tf.training import runlog
from bert_tf.training.runlog import ConsoleLog, DLLoggerFile, dll_line


def entries(path):
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL ") for line in lines)
    return [json.loads(line[5:]) for line in lines]


def test_lines_have_the_fields_of_dllogger(tmp_path):
    path = tmp_path / "made" / "on" / "the" / "way" / "log.json"
    log = DLLoggerFile(str(path))
    log.log(7, {"mlm_loss": 2.5})
    log.log([], {"throughput_train": 100.0})
    log.close()
    *metadata, step, summary = entries(path)
    assert {entry["type"] for entry in metadata} == {"METADATA"}
    units = {entry["metric"]: entry["metadata"].get("unit") for entry in metadata}
    assert units["throughput_train"] == units["throughput_val"] == "sequences/s"
    assert units["latency_mean"] == units["latency_p99"] == "ms"
    assert (step["type"], step["step"], step["data"]) == ("LOG", 7, {"mlm_loss": 2.5})
    assert summary["step"] == []
    assert float(step["elapsedtime"]) <= float(summary["elapsedtime"])
    moment = datetime.datetime.fromisoformat(step["datetime"])
    assert moment.timestamp() == pytest.approx(float(step["timestamp"]), abs=1e-3)


def test_a_log_is_continued(tmp_path):
    path = tmp_path / "log.json"
    for step in (1, 2):
        log = DLLoggerFile(str(path))
        log.log(step, {})
        log.close()
    steps = [entry["step"] for entry in entries(path) if entry["type"] == "LOG"]
    assert steps == [1, 2]


def test_parameters_are_no_step(tmp_path):
    log = ConsoleLog(str(tmp_path / "log.json"), 20)
    log.parameters({"first_step": 3})
    log.close()
    entry = entries(tmp_path / "log.json")[-1]
    assert (entry["type"], entry["step"]) == ("LOG", "PARAMETER")
    assert entry["data"] == {"first_step": 3}


def test_a_line_that_a_killed_run_began_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "log.json"
    path.write_text('DLLL {"step": 1}\nDLLL {"st')
    DLLoggerFile(str(path)).close()
    before, cut, *after = path.read_text().splitlines()
    assert (before, cut) == ('DLLL {"step": 1}', 'DLLL {"st')
    assert {json.loads(line[5:])["type"] for line in after} == {"METADATA"}


def test_a_pipe_takes_the_lines(tmp_path):
    path = tmp_path / "pipe"  # As /dev/stdout is in `... | tee log`.
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    DLLoggerFile(str(path)).close()
    assert os.read(reader, 5) == b"DLLL "
    os.close(reader)


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    log = ConsoleLog(str(tmp_path / "log.json"), 20)
    log.message("Batch: 32")
    log.progress(1, {"loss": 3.0})
    log.step(10, {"mlm_loss": 2.5, "learning_rate": 1e-4})
    log.close()
    message, line = capsys.readouterr().out.splitlines()
    assert message == "Batch: 32"
    # As DLLogger's StdOutBackend prints it: no unit is a space at the end.
    moment, _, values = line.removeprefix("DLL ").partition(" - ")
    assert datetime.datetime.fromisoformat(moment)
    assert values == "Iteration: 10  mlm_loss : 2.5000  learning_rate : 0.0001 "


@pytest.mark.parametrize("is_one_terminal", [True, False])
def test_a_terminal_gets_a_bar(tmp_path, capsys, monkeypatch, is_one_terminal):
    master, slave = os.openpty()
    name = os.ttyname(slave)
    terminals = {2: name, 1: name if is_one_terminal else ""}
    monkeypatch.setattr(runlog, "terminal_of", terminals.get)
    monkeypatch.setenv("TERM", "xterm")
    with open(slave, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        log = ConsoleLog(str(tmp_path / "log.json"), 20)
        log.evaluation(1, {"masked_lm_accuracy": 0.25})
        for step in range(1, 6):
            log.progress(step, {"loss": 3.5, "sequences/s": 12.0})
        log.message("Batch: 32")
        log.close()
        os.set_blocking(master, False)
        shown = ""
        with contextlib.suppress(BlockingIOError):
            while True:
                shown += os.read(master, 100_000).decode()
        monkeypatch.undo()
    os.close(master)
    for part in ("5/20", "loss 3.5", "sequences/s 12", "masked_lm_accuracy 0.25"):
        assert part in shown
    assert ("Batch: 32" in shown) == is_one_terminal
    assert ("Batch: 32" in capsys.readouterr().out) != is_one_terminal


def test_parameters_and_the_summary_are_printed_as_dllogger_prints_them():
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5, 678901)
    start = "DLL 2020-01-02 03:04:05.678901 - "
    assert dll_line("PARAMETER", {"first_step": 3}, moment) == (
        f"{start}PARAMETER first_step : 3 "
    )
    values = {"throughput_train": 12.34567, "f1": 0.5}
    assert dll_line([], values, moment) == (
        f"{start} throughput_train : 12.346 sequences/s f1 : 0.5 "
    )


STAND_IN = """
import json

class Verbosity:
    OFF, DEFAULT, VERBOSE = -1, 0, 1

class JSONStreamBackend:
    def __init__(self, verbosity, filename, append=False):
        self.file = open(filename, "a" if append else "w")

    def write(self, kind, values):
        line = dict(timestamp="1.5", datetime="d", elapsedtime="0.5", type=kind)
        self.file.write("DLLL " + json.dumps(line | values) + "\\n")

class Logger:
    def __init__(self, backends):
        self.backends = backends

    def metadata(self, metric, metadata):
        for backend in self.backends:
            backend.write("METADATA", dict(metric=metric, metadata=metadata))

    def log(self, step, data, verbosity=1):
        for backend in self.backends:
            backend.write("LOG", dict(step=step, data=data))
"""


def test_training_and_evaluation_share_no_name_at_a_step(tmp_path):
    log = ConsoleLog(str(tmp_path / "log.json"), 20)
    log.step(10, {"total_loss": 2.5})
    log.evaluation(10, {"loss": 3.5, "accuracy": 0.5})
    log.close()
    found = [e["data"] for e in entries(tmp_path / "log.json") if e.get("step") == 10]
    assert found == [{"total_loss": 2.5}, {"eval_loss": 3.5, "accuracy": 0.5}]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package `dllogger` of a text."""

    def make(text):
        folder = tmp_path / "packages"
        folder.mkdir()
        (folder / "dllogger.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))

    monkeypatch.delitem(sys.modules, "dllogger", raising=False)
    yield make
    sys.modules.pop("dllogger", None)


def test_nvidia_s_package_writes_the_same_keys_types_and_values(tmp_path, package):
    def write(path):
        log = ConsoleLog(str(path), 20)
        log.parameters({"first_step": 1})
        log.step(10, {"throughput_train": 12.5, "mlm_loss": 2.5})
        log.summary({"throughput_train": 12.5})
        log.close()
        return log.notes, entries(path)

    notes, ours = write(tmp_path / "ours.json")
    assert notes == []
    package(STAND_IN)
    (tmp_path / "theirs.json").write_text('DLLL {"step": 1}\n')  # Of an earlier start.
    notes, [first, *theirs] = write(tmp_path / "theirs.json")
    assert first == {"step": 1}
    assert notes == [f"Log {tmp_path}/theirs.json: written by NVIDIA's dllogger."]
    assert {each["timestamp"] for each in theirs} == {"1.5"}
    changing = ("timestamp", "datetime", "elapsedtime")
    for one, other in zip(ours, theirs, strict=True):
        assert {k: type(v) for k, v in one.items()} == {
            k: type(v) for k, v in other.items()
        }
        assert {k: v for k, v in one.items() if k not in changing} == {
            k: v for k, v in other.items() if k not in changing
        }


@pytest.mark.parametrize("text", ["", "JSONStreamBackend = Verbosity = 1", "1 / 0"])
def test_another_package_of_that_name_is_reported_and_not_used(tmp_path, package, text):
    package(text)
    log = ConsoleLog(str(tmp_path / "log.json"), 20)
    log.step(1, {"loss": 1.0})
    log.close()
    assert entries(tmp_path / "log.json")[-1]["data"] == {"loss": 1.0}
    assert "the package dllogger here is not NVIDIA's" in log.notes[0]


def test_a_log_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        DLLoggerFile(str(tmp_path / "file" / "log.json"))


def test_a_pipe_that_nobody_reads_is_refused_and_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe cannot be written: nobody reads this pipe"):
        DLLoggerFile(str(tmp_path / "pipe"))


def test_a_pipe_that_is_full_loses_lines_and_does_not_wait(tmp_path, capsys):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = DLLoggerFile(str(path))
    for step in range(1000):
        log.log(step, {"loss": 1.0})
    log.close()
    os.close(reader)
    assert capsys.readouterr().err.count("lines of it are lost") == 1


def test_a_full_disk_is_one_warning(capsys):
    log = DLLoggerFile("/dev/full")
    log.log(1, {})
    log.close()
    log.log(2, {})  # Does nothing.
    assert capsys.readouterr().err == (
        "warning: the log /dev/full cannot be written (No space left on device): lines "
        "of it are lost.\n"
    )


def test_a_log_that_is_deleted_is_made_again(tmp_path, capsys):
    path = tmp_path / "logs" / "log.json"
    log = DLLoggerFile(str(path))
    for step in (1, 2, 3):
        shutil.rmtree(path.parent)
        log.log(step, {})
    log.close()
    [entry] = entries(path)
    assert entry["step"] == 3
    assert capsys.readouterr().err.count("was deleted, and is made again") == 1


def test_a_full_disk_is_named_after_a_deleted_log(tmp_path, capsys):
    path = tmp_path / "log.json"
    log = DLLoggerFile(str(path))
    path.unlink()
    log.log(1, {})
    path.unlink()
    path.symlink_to("/dev/full")
    log.log(2, {})
    log.log(3, {})
    log.close()
    errors = capsys.readouterr().err
    assert errors.count("was deleted, and is made again") == 1
    assert errors.count("No space left on device") == 1


def test_a_log_whose_folder_cannot_be_made_again_is_given_up(tmp_path, capsys):
    path = tmp_path / "logs" / "log.json"
    log = DLLoggerFile(str(path))
    shutil.rmtree(path.parent)
    (tmp_path / "logs").touch()
    log.log(1, {})
    log.log(2, {})
    log.close()
    assert capsys.readouterr().err.count("the rest of it is lost") == 1


@pytest.mark.parametrize("is_open", [True, False])
def test_a_standard_output_that_cannot_be_written_is_no_error(
    tmp_path, monkeypatch, is_open
):
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        log = ConsoleLog(str(tmp_path / "log.json"), 20)
        if not is_open:
            stream.close()
        log.message("Batch: 32")
        log.step(10, {"mlm_loss": 2.5})
        log.close()
        monkeypatch.undo()
        with contextlib.suppress(OSError):
            stream.close()
    assert entries(tmp_path / "log.json")[-1]["step"] == 10
