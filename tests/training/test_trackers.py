"""Trackers get the values of steps, and never stop a training."""

import os
import sys
import time

import pytest

from bert_tf.config.runtime import RuntimeConfig
from bert_tf.training.runlog import ConsoleLog
from bert_tf.training.trackers import Trackers, flattened

SETTINGS = {"optimizer": {"beta_1": 0.9, "names": ("a", "b")}, "workers": 2}


def open_trackers(folder, *names, first_step=1):
    trackers = Trackers()
    lines = trackers.open(names, str(folder), SETTINGS, "Run: one.", first_step)
    return trackers, lines


def scalars(folder):
    """Tag -> steps and values, as TensorBoard shows a folder."""
    from tensorboard.backend.event_processing import plugin_event_accumulator
    from tensorboard.util import tensor_util

    events = plugin_event_accumulator.EventAccumulator(
        str(folder / "tensorboard"), {"tensors": 0}
    )
    events.Reload()
    return {
        tag: [
            (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
            for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
        if "/" in tag and not tag.startswith("_")
    }


def test_tensorboard_shows_scalars(tmp_path):
    trackers, lines = open_trackers(tmp_path, "tensorboard")
    assert not lines
    for step in (10, 20):
        assert not trackers.log("train", step, {"loss": step / 10})
    trackers.log("eval", 20, {"eval_accuracy": 0.5})
    trackers.close()
    assert scalars(tmp_path) == {
        "train/loss": [(10, 1.0), (20, 2.0)],
        "eval/accuracy": [(20, 0.5)],
    }


def test_a_resumed_run_has_no_step_twice(tmp_path):
    for first, last in ((1, 50), (31, 60)):
        trackers, _ = open_trackers(tmp_path, "tensorboard", first_step=first)
        for step in range(first, last + 1):
            trackers.log("train", step, {"loss": float(first)})
        trackers.close()
        time.sleep(0.01)  # Files are read in the order of their names.
    found = scalars(tmp_path)["train/loss"]
    assert [step for step, _ in found] == [*range(1, 61)]
    assert found[30:] == [(step, 31.0) for step in range(31, 61)]


def test_an_evaluation_is_passed_on_once(tmp_path):
    trackers, _ = open_trackers(tmp_path, "tensorboard")
    log = ConsoleLog(str(tmp_path / "log.json"), 20, trackers)
    log.evaluation(20, {"accuracy": 0.5})
    log.summary({"accuracy": 0.5, "global_step": 20})
    log.summary({"accuracy": 0.9, "global_step": 10})  # Of the best weights.
    log.summary({"e2e_time": 1.0, "first_step": 1, "global_step": 20})
    log.close()
    assert scalars(tmp_path) == {"eval/accuracy": [(20, 0.5)]}


def test_each_start_writes_one_file(tmp_path):
    trackers, _ = open_trackers(tmp_path, "tensorboard")
    for step in range(2000):
        trackers.log("train", step, {"loss": 1.0})
    descriptors = len(os.listdir("/proc/self/fd"))
    trackers.log("train", 2000, {"loss": 1.0})
    assert len(os.listdir("/proc/self/fd")) == descriptors
    trackers.close()
    assert len(os.listdir(tmp_path / "tensorboard")) == 1


def test_a_folder_that_cannot_be_written_gives_one_warning(tmp_path, capsys):
    (tmp_path / "tensorboard").write_text("a file")
    trackers, lines = open_trackers(tmp_path, "tensorboard")
    [line] = lines
    assert line.startswith("warning: tensorboard failed, and is no longer used")
    assert not trackers.log("train", 1, {"loss": 1.0})
    assert not trackers.close()


FAKE = """
calls = []
class Run:
    def log(self, *given, **named): calls.append(("log", *given, *named.values()))
    def finish(self): calls.append(("finish",))
def init(**given):
    calls.append(("init", given))
    return Run()
class Info:
    class info: run_id = "r"
class MlflowClient:
    def set_terminated(self, run_id): calls.append(("finish",))
def set_tracking_uri(uri): calls.append(("uri", uri))
def set_experiment(name): calls.append(("experiment", name))
def start_run(**given):
    calls.append(("start", given))
    return Info
def log_params(values): calls.append(("params", values))
def log_metrics(values, step): calls.append(("log", values, step))
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a module that is found under a tracker's name."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def make(name, text=FAKE):
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return lambda: sys.modules[name].calls

    yield make
    for name in ("wandb", "mlflow", "trackio"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_packages_get_settings_and_values(name, package, tmp_path):
    calls = package(name)
    trackers, lines = open_trackers(tmp_path / "run", name)
    assert not lines
    trackers.log("train", 10, {"loss": 2.0})
    trackers.close()
    *begin, log, end = calls()
    values = {"train/loss": 2.0}
    expected = ({"step": 10} | values,) if name == "wandb" else (values, 10)
    assert log == ("log", *expected)
    assert end == ("finish",)
    assert "optimizer/beta_1" in str(begin)


def test_weights_and_biases_is_offline(package, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    calls = package("wandb")
    open_trackers(tmp_path / "run", "wandb")
    [(_, given)] = calls()
    assert given["mode"] == "offline"
    assert given["dir"] == str(tmp_path / "run")


BROKEN = {
    "init": "\ndef init(**_): raise SystemExit('no')\n",
    "log": "\ndef fail(*_, **__): raise SystemExit('no')\nRun.log = fail\n",
    "finish": "\ndef fail(*_): raise SystemExit('no')\nRun.finish = fail\n",
}


@pytest.mark.parametrize("function", BROKEN)
def test_a_package_that_fails_gives_one_warning(function, package, tmp_path):
    package("trackio", FAKE + BROKEN[function])
    trackers, lines = open_trackers(tmp_path, "trackio", "tensorboard")
    for step in range(3):
        lines += trackers.log("train", step, {"loss": 1.0})
    lines += trackers.close()
    assert lines == ["warning: trackio failed, and is no longer used: no"]
    assert len(scalars(tmp_path)["train/loss"]) == 3


def test_a_stop_does_not_wait_for_a_tracker(package, tmp_path):
    package("trackio", FAKE + "\nRun.finish = lambda _: __import__('time').sleep(5)\n")
    trackers, _ = open_trackers(tmp_path, "trackio")
    started = time.monotonic()
    [line] = trackers.close(is_stopped=True)
    assert time.monotonic() - started < 2
    assert "were not closed in time" in line


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()  # As the package itself makes.
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match="Run `pip install wandb`"):
        RuntimeConfig(tracker=("wandb",))
    with pytest.raises(ValueError, match="must list names among trackio, wandb"):
        RuntimeConfig(tracker=("neptune",))


def test_settings_are_flat_and_plain():
    assert flattened(SETTINGS | {"none": None}) == {
        "optimizer/beta_1": 0.9,
        "optimizer/names": "a,b",
        "workers": 2,
        "none": "None",
    }
