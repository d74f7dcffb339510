"""What several workers say of themselves, compared."""

import json

import pytest

from bert_tf import fused_ops
from bert_tf.config import (
    FilesConfig,
    OptimizerConfig,
    PretrainingConfig,
    RuntimeConfig,
    TrainingConfig,
)
from bert_tf.config.finetuning import (
    FinetuningFilesConfig,
    FinetuningTrainingConfig,
    SquadConfig,
    SquadDataConfig,
)
from bert_tf.distribute import Communicator
from bert_tf.errors import OtherWorkerFailed, RunError
from bert_tf.jobs.run import agreement
from bert_tf.jobs.run.agreement import agree, settings
from bert_tf.jobs.run.compute_path import worker_paths


@pytest.fixture(autouse=True)
def unlimited():
    """Nothing is kept of a test."""
    yield
    fused_ops.limit("")


class Two(Communicator):
    """The first, or second, of two workers; the other one differs as given."""

    size = 2

    def __init__(self, change, rank=0):
        self.rank = rank
        self._change = change

    def gather_values(self, value):
        other = json.loads(json.dumps(value)) | {"host": "other"}
        self._change(other)
        return [value, other] if self.rank == 0 else [other, value]


def config(**runtime):
    return PretrainingConfig(
        files=FilesConfig(output_dir="out", input_files_dir="in", preset="tiny"),
        optimizer=OptimizerConfig(learning_rate=0.5),
        training=TrainingConfig(do_train=True),
        runtime=RuntimeConfig(**runtime),
    )


def refused(change, of_run=None):
    with pytest.raises(RunError) as caught:
        agree(Two(change), of_run or config())
    with pytest.raises(OtherWorkerFailed):
        agree(Two(change, rank=1), of_run or config())
    return str(caught.value)


def test_one_worker_agrees_with_itself():
    path, warnings = agree(Communicator(), config(), 2)
    assert path.name == next(iter(fused_ops.paths()))
    assert not warnings


def test_equal_workers_agree():
    path, warnings = agree(Two(lambda other: None), config())
    assert path.name == next(iter(fused_ops.paths()))
    assert not warnings


@pytest.mark.parametrize(
    "name",
    ["Python", "tensorflow", "keras", "numpy", "tokenizers", "horovod"]
    + ["bert_tf's source", "the fused operations' source", "TensorFlow's build"],
)
def test_another_version_is_refused_by_name(name):
    def change(other):
        other["code"][name] = "0.0"
        other["folder"] = "/elsewhere/bert_tf"

    message = refused(change)
    assert f"\n  {name}: " in message
    assert "on worker 0 (" in message and "; 0.0 on worker 1 (other)." in message
    assert "/elsewhere/bert_tf on worker 1 (other)." in message
    assert "Start the same checkout" in message


def test_another_flag_is_refused_by_name():
    def change(other):
        other["settings"]["--learning_rate"] = "0.25"

    message = refused(change)
    assert "\n  --learning_rate: 0.5 on worker 0 (" in message
    assert "; 0.25 on worker 1 (other)." in message


def test_settings_of_the_task_are_compared_but_for_paths():
    squad = SquadConfig(
        files=FinetuningFilesConfig(output_dir="out"),
        training=FinetuningTrainingConfig(do_train=True),
        squad=SquadDataConfig(train_file="train.json", doc_stride=64),
    )

    def change(other):
        other["settings"]["--doc_stride"] = "128"

    message = refused(change, squad)
    assert "\n  --doc_stride: 64 on worker 0 (" in message
    names = settings(squad).keys()
    assert not names & {"--train_file", "--output_dir", "--num_processes"}


def test_a_worker_on_another_kind_of_device_is_refused():
    def change(other):
        other["settings"]["device"] = "GPU"

    assert "\n  device: CPU on worker 0 (" in refused(change)


def test_a_precision_that_one_worker_was_not_given_is_refused(monkeypatch):
    """As of a variable that mpirun does not pass to other hosts without -x."""
    monkeypatch.setenv("TF_BF16_CONVERSION", "1")

    def change(other):
        other["settings"]["precision"] = "fp32"

    assert "\n  precision: bf16 on worker 0 (" in refused(change)


def test_variables_that_change_no_weight_may_differ(monkeypatch):
    """TF_CONFIG names each host's own place; mpirun passes it to no other host."""
    before = settings(config())
    monkeypatch.setenv("TF_CONFIG", '{"task": {"type": "worker", "index": 0}}')
    assert settings(config()) == before
    monkeypatch.setenv("TF_DETERMINISTIC_OPS", "1")
    assert settings(config()) != before


def test_paths_of_files_and_threads_may_differ():
    def change(other):
        other["threads"] = 5

    path, [warning] = agree(Two(change), config(), 2)
    assert "2 on worker 0 (" in warning and "5 on worker 1 (other)" in warning
    drifts = path.name == fused_ops.REFERENCE
    assert ("Give all workers --num_threads=2." in warning) == drifts


def test_the_common_path_is_used():
    def change(other):
        other["paths"], other["missing"] = [[fused_ops.REFERENCE, ""]], "it has none"
        other["lacks"] = dict.fromkeys(fused_ops.ISA_FLAGS, "it has none")

    path, _ = agree(Two(change), config())
    assert path.name == fused_ops.REFERENCE
    assert fused_ops.library() is None
    agree(Communicator(), config())
    assert (
        list(fused_ops.paths())[0] == fused_ops.REFERENCE
        or fused_ops.library() is not None
    )


def test_an_instruction_set_that_does_not_exist_ends_the_run(monkeypatch):
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, "avx3")
    with pytest.raises(RunError, match="BERT_TF_ISA must be one of .*avx3"):
        agree(Communicator(), config())


@pytest.mark.parametrize("local_rank", [0, 1])
def test_the_first_worker_of_each_host_builds_and_the_others_wait(
    monkeypatch, local_rank
):
    happened = []
    monkeypatch.setattr(
        agreement, "build_at_first_use", lambda: happened.append("build")
    )
    monkeypatch.setattr(
        agreement, "worker_paths", lambda: happened.append("look") or worker_paths()
    )

    class Worker(Two):
        def agree(self, error):
            happened.append("wait")

    worker = Worker(lambda other: None, rank=1)
    worker.local_rank = local_rank
    agree(worker, config())
    built = ["build"] if local_rank == 0 else []
    assert happened == ["wait", *built, "wait", "look"]
