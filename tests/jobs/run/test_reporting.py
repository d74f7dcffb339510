"""What a run leaves for its report, and that no run ends because of it."""

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import runs
from conftest import make_example
from integration.launching import ROOT, environment
from report.test_page import assert_fetches_nothing
from training.test_trackers import scalars

from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.text.token_sequences import TokenSequences
from bert_tf.errors import RunError
from bert_tf.jobs.finetuning import training_set
from bert_tf.jobs.run import reporting
from bert_tf.jobs.run.reporting import RunReport, command_line, confusion_of, hardest


@pytest.fixture(scope="module")
def stopped_and_resumed(tiny_config_file, tiny_records, tmp_path_factory):
    """The folder of a run of 12 steps, the last 4 of which are taken twice."""
    folder = tmp_path_factory.mktemp("report") / "<b>run"
    arguments = runs.pretraining_flags(
        *(tiny_config_file, tiny_records, folder),
        *("--display_loss_steps=1", "--save_checkpoints_steps=4", "--do_eval"),
        *(f"--eval_files_dir={tiny_records}", "--max_eval_steps=2"),
        steps=12,
    )
    runs.run("pretraining", *arguments, "--steps_this_run=8")
    for path in folder.glob("model.ckpt-8*"):  # As if it had been killed before.
        path.unlink()
    runs.run("pretraining", *arguments)
    return folder


def test_a_run_leaves_a_page_with_its_curves(stopped_and_resumed):
    page = assert_fetches_nothing(stopped_and_resumed / "report.html")
    for name in ("loss-0", "loss-1", "learning_rate-0", "gradient_norm-0"):
        assert page.points[name] == 12, name
    assert page.points["throughput-0"] >= 10  # The first step of a start has none.
    for text in ("masked_lm_accuracy", "optimizer_type", "compute path", "lamb"):
        assert text in page.text


def test_the_page_states_what_flags_leave_open(stopped_and_resumed):
    settings = runs.read_json(stopped_and_resumed / "report.json")["settings"]
    assert settings["optimizer"]["poly_power"] is None
    assert settings["in effect"] == {
        "peak learning rate": settings["optimizer"]["learning_rate"],
        "power of the decay": 0.5,
        "warm-up steps": 1,
        "steps": 12,
    }


def test_the_page_has_the_lengths_of_the_records(stopped_and_resumed):
    rng = np.random.default_rng(7)  # As tiny_records are made.
    examples = [make_example(rng) for _ in range(150)]
    lengths = [sum(example["input_mask"]) for example in examples]
    data = runs.read_json(stopped_and_resumed / "report.json")["data"]
    assert data["lengths"] == np.bincount(lengths).tolist()
    share = data["share of tokens that are no padding"]
    assert share == pytest.approx(sum(lengths) / (150 * 16))


@pytest.mark.parametrize(("is_packed", "share"), [(False, 1 / 3), (True, 1.0)])
def test_the_padding_of_packed_examples_is_that_of_their_rows(
    is_packed, share, tmp_path
):
    """Sequences of 3, 3 and 2 tokens fill one row of 8, or a third of three rows."""
    flags = ("--do_train", "--task_name=tsv", f"--data_dir={tmp_path}")
    flags += (f"--output_dir={tmp_path}", "--max_seq_length=8")
    config = runs.parse("classifier", *flags, f"--pack_sequences={is_packed}")
    ids = [[2, 5, 3], [2, 6, 3], [2, 3]]
    sequences = TokenSequences.join((each, [0] * len(each)) for each in ids)
    trained = training_set(config, LabelledSequences(sequences), {})
    shape = types.SimpleNamespace(global_batch_size=3)
    plan = types.SimpleNamespace(training_set=trained, shape=shape, num_eval_records=0)
    data = reporting._data(plan)
    assert data["share of tokens that are no padding"] == pytest.approx(share)
    assert data["packed"] == is_packed


def test_tensorboard_has_each_step_of_a_resumed_run_once(stopped_and_resumed):
    found = scalars(stopped_and_resumed)
    steps = [step for step, _ in found["train/gradient_norm"]]
    assert steps == [*range(1, 13)]
    assert found["eval/masked_lm_accuracy"][-1][0] == 12


@pytest.mark.slow
def test_standard_error_is_empty_where_nothing_is_wrong(
    tiny_config_file, tiny_records, tmp_path
):
    arguments = runs.pretraining_flags(
        tiny_config_file, tiny_records, tmp_path / "run", steps=2
    )
    quiet = environment()
    quiet.pop("TF_CPP_MIN_LOG_LEVEL")
    result = subprocess.run(
        [sys.executable, ROOT / "run_pretraining.py", *arguments],
        capture_output=True,
        env=quiet,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    stages = [line for line in lines if line.endswith(" ...")]
    assert [line.split()[0] for line in stages] == [
        *("Loading", "Preparing", "Compiling", "Saving"),
    ]


def config_of(folder, *more):
    arguments = ["run", "--preset=tiny", "--do_train", "--input_files_dir=x", *more]
    return runs.parse("pretraining", *arguments[1:], f"--output_dir={folder}")


@pytest.mark.parametrize(
    "name", ["a b", "it's", "$HOME `id`", "new\nline", "\x1b[0m", "é", "\udcff\\", '"']
)
def test_the_command_can_be_pasted(name, tmp_path, monkeypatch):
    script = tmp_path / "show.py"
    script.write_text(
        "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"
    )
    words = ["--preset=tiny", "--do_train", "--input_files_dir=x"]
    words.append(f"--output_dir={name}")
    monkeypatch.setattr(sys, "argv", [str(script), *words])
    monkeypatch.setattr(sys, "orig_argv", ["python", str(script), *words])
    monkeypatch.chdir(tmp_path)
    line = command_line(runs.parse("pretraining", *words))
    assert line.isprintable()
    shown = subprocess.run(["bash", "-c", line], capture_output=True, cwd="/")
    assert json.loads(shown.stdout) == [str(tmp_path), *words]


def test_a_run_that_python_code_starts_has_no_command(tmp_path):
    assert command_line(config_of(tmp_path)) == ""


class Log:
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def test_what_fails_is_one_warning(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    log = Log()
    report = RunReport(config_of(tmp_path), log)
    report._facts = {"settings": {}}
    monkeypatch.setattr(reporting, "write_report", fail)
    monkeypatch.setattr(reporting, "write_whole", fail)
    report.add_details(lambda: 1 / 0)
    report.end(None, 1)
    assert log.lines[0].startswith("warning: no report is written")
    assert [line for line in log.lines if "warning" in line] == log.lines[:1]


@pytest.mark.parametrize(
    "error, size, is_written",
    [
        (None, 2, True),
        (RunError("x"), 1, True),
        (RunError("x"), 2, False),  # The others are waiting for the message.
        (KeyboardInterrupt(), 1, False),  # A signal leaves no time.
    ],
)
def test_when_the_page_is_written(error, size, is_written, tmp_path):
    report = RunReport(config_of(tmp_path), Log())
    report._facts = {"settings": {"a": {"b": 1}}}
    report._write_facts()
    report.end(error, size)
    assert os.path.exists(tmp_path / "report.html") == is_written


def test_confusion_counts_truths_in_rows():
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    assert confusion_of(["a", "b", "c"], labels, predictions)["counts"] == [
        [1, 1, 0],
        [0, 1, 0],
        [1, 0, 0],
    ]
    assert confusion_of([str(n) for n in range(2000)], labels, predictions) is None


def test_the_hardest_examples_have_the_largest_errors():
    assert hardest(np.array([0.0, 0.5, 0.0, 0.9, 0.1])).tolist() == [3, 1, 4]
    assert len(hardest(np.arange(100.0))) == reporting.NUM_HARDEST
