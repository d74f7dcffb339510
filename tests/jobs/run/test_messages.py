"""What a run logs before it starts, and of its steps."""

import types

import pytest
from runs import position

from bert_tf.config import BertConfig, OptimizerConfig, RuntimeConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.jobs.run import messages as run_messages
from bert_tf.jobs.run.messages import (
    StepReport,
    describe_changes,
    thread_warnings,
    unused_settings,
)
from bert_tf.jobs.run.plan import TrainingSet
from bert_tf.jobs.run.resume import StartingPoint
from bert_tf.training.trainer import StepResult

BERT = BertConfig(
    vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2
)
SETTINGS = {
    "optimizer": {"num_train_steps": 8, "optimizer_type": "lamb"},
    "training": {"deterministic_run": False, "do_eval": True},
    "batch": {"max_seq_length": 128},
    "task": {"new_head": False},
    "runtime": {"num_threads": 1},
    "files": {"input_files_dir": "/a"},
    "bert": BERT.to_dict(),
    "precision": "fp32",
}


def start_of(**more):
    settings = {"config": SETTINGS} | more
    return StartingPoint("/run/model.ckpt-3", True, position(3, **settings))


def messages(start, **changed):
    """The log of a run with some other settings than `SETTINGS`."""
    lines = []
    optimizer = OptimizerConfig(
        **{"num_train_steps": 8, "learning_rate": 0.01} | changed
    )
    batch = types.SimpleNamespace(train_batch_size=16, num_accumulation_steps=1)
    now = {**SETTINGS, "optimizer": SETTINGS["optimizer"] | changed}
    plan = types.SimpleNamespace(
        start=start,
        config=types.SimpleNamespace(
            optimizer=optimizer, batch=batch, training=types.SimpleNamespace(seed=42)
        ),
        shape=BatchShape(micro_batch_size=16, num_micro_batches=1),
        training_set=TrainingSet(
            num_records=150, sha256="a", make_reader=None, max_seq_length=128
        ),
        settings=lambda: now,
    )
    describe_changes(plan, types.SimpleNamespace(message=lines.append))
    return lines


def test_a_run_that_is_resumed_unchanged_logs_nothing():
    assert messages(start_of()) == []


def unused(optimizer, *, size=1, precision="fp32", **runtime):
    config = types.SimpleNamespace(
        runtime=RuntimeConfig(**runtime), optimizer=OptimizerConfig(**optimizer)
    )
    plan = types.SimpleNamespace(
        config=config,
        shape=BatchShape(micro_batch_size=16, num_micro_batches=1, size=size),
        policy=types.SimpleNamespace(name=precision),
        training_set="some",
    )
    return unused_settings(plan)


def test_settings_without_effect_are_logged():
    adam = {"optimizer_type": "adam", "exclude_from_layer_adaptation": ("bias",)}
    runtime = {"horovod_compression": "fp16", "init_loss_scale": 1024.0}
    assert unused(adam, **runtime) == [
        "--init_loss_scale has no effect without --precision=fp16.",
        "--horovod_compression has no effect without other workers.",
        "--exclude_from_layer_adaptation has no effect without --optimizer_type=lamb.",
    ]
    lamb = adam | {"optimizer_type": "lamb"}
    assert unused(lamb, size=2, precision="fp16", **runtime) == unused({}) == []


def test_a_warmup_that_changes_with_the_steps_is_logged():
    lines = messages(start_of(), num_train_steps=40)
    assert lines == [
        "New from here on: num_train_steps 8 -> 40.",
        "The warm-up follows num_train_steps: 0 -> 4 steps. --num_warmup_steps=0 "
        "keeps it.",
    ]


def test_settings_that_change_a_step_are_logged_and_others_are_not():
    before = {
        **SETTINGS,
        "training": {"deterministic_run": True, "do_eval": False},
        "batch": {"max_seq_length": None},  # The default: as the records are.
        "task": {"new_head": True},
        "runtime": {"num_threads": 8, "horovod": True},
        "files": {"input_files_dir": "/b"},
        "bert": BERT.to_dict() | {"hidden_dropout_prob": 0.0},
        "precision": "bf16",
    }
    [line] = messages(start_of(config=before))
    assert line == (
        "New from here on: deterministic_run True -> False, num_threads 8 -> 1, "
        "hidden_dropout_prob 0.0 -> 0.1."
    )


@pytest.fixture
def machine(monkeypatch):
    """8 cores, and no variable for threads."""
    monkeypatch.setattr(run_messages, "available_cores", lambda size: 8 // size)
    monkeypatch.setattr(run_messages, "describe_cores", lambda: "8 cores")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_an_even_share_of_threads_makes_no_warning(machine):
    assert thread_warnings(4, None, 2) == []


def test_more_threads_than_cores_make_a_warning(machine):
    [line] = thread_warnings(8, 8, 2)
    assert line.startswith("warning: 8 threads share 4 cores")
    assert "(2 workers on this host, 8 cores)" in line


def test_a_variable_that_tensorflow_does_not_read_is_logged(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    [line] = thread_warnings(4, None, 2)
    assert line.startswith("OMP_NUM_THREADS=2 has no effect")
    assert thread_warnings(3, 3, 2) == []  # The flag is the user's answer.
    assert thread_warnings(2, None, 4) == []  # It happens to be so.


class Recorded:
    """A log that keeps what it gets."""

    def __init__(self):
        self.steps, self.summaries = {}, []

    def step(self, step, values):
        self.steps[step] = values

    def summary(self, values):
        self.summaries.append(values)

    def progress(self, *_):
        pass

    message = progress


@pytest.fixture
def report_steps(monkeypatch):
    """Reports three steps of 100, 1 and 2 seconds with 8 sequences each."""

    def report(losses):
        now = [1000.0]
        clock = types.SimpleNamespace(perf_counter=lambda: now[0])
        monkeypatch.setattr(run_messages, "time", clock)
        plan = types.SimpleNamespace(
            config=types.SimpleNamespace(
                saving=types.SimpleNamespace(benchmark=False),
                training=types.SimpleNamespace(display_loss_steps=1),
            ),
            sequences_per_step=8,
            schedule=lambda step: 0.1,
        )
        log = Recorded()
        steps = StepReport(plan, log)
        for step, seconds in ((1, 100.0), (2, 1.0), (3, 2.0)):
            now[0] += seconds
            steps.step(StepResult(step, losses, 1.0), is_last=step == 3)
        steps.summary()
        return log

    return report


def test_each_logged_step_has_its_speed_and_the_summary_leaves_out_the_first(
    report_steps,
):
    log = report_steps({"mlm_loss": 2.0, "nsp_loss": 0.5})
    speeds = {step: x["throughput_train"] for step, x in log.steps.items()}
    assert speeds == {1: 8 / 100, 2: 8.0, 3: 4.0}
    assert log.summaries == [{"throughput_train": 16 / 3}]


def test_pretraining_logs_the_names_that_nvidia_s_parsers_read(report_steps):
    values = report_steps({"mlm_loss": 2.0, "nsp_loss": 0.5}).steps[2]
    del values["throughput_train"]
    losses = {"mlm_loss": 2.0, "nsp_loss": 0.5, "total_loss": 2.5, "avg_loss_step": 2.5}
    assert values == losses | {"learning_rate": 0.1, "gradient_norm": 1.0}


def test_fine_tuning_logs_its_one_loss_once(report_steps):
    values = report_steps({"loss": 2.0}).steps[2]
    del values["throughput_train"]
    others = {"learning_rate": 0.1, "gradient_norm": 1.0}
    assert values == {"total_loss": 2.0} | others
