"""The lines of MLPerf, as its own compliance checker reads them."""

import json

import pytest

from bert_tf.errors import RunError
from bert_tf.training import mlperf
from bert_tf.training.mlperf import MLPerfLog

# What the rules for BERT ask for.
VALUES = {
    "submission_benchmark": "bert",
    "submission_division": "closed",
    "submission_org": "bert_tf",
    "submission_platform": "a machine",
    "global_batch_size": 448,
    "gradient_accumulation_steps": 2,
    "opt_base_learning_rate": 4e-4,
    "opt_learning_rate_training_steps": 7000,
    "opt_learning_rate_warmup_steps": 0,
    "num_warmup_steps": 0,
    "start_warmup_step": 0,
    "opt_lamb_beta_1": 0.9,
    "opt_lamb_beta_2": 0.999,
    "opt_lamb_epsilon": 1e-6,
    "opt_lamb_weight_decay_rate": 0.01,
    "train_samples": 156_725_653,
    "eval_samples": 10_000,
}


@pytest.fixture
def written(tmp_path):
    """Writes the lines of a run that ends with an accuracy; returns the file."""
    pytest.importorskip("mlperf_logging", reason="mlperf-logging is not installed")

    def write(accuracy):
        path = str(tmp_path / "mllog.txt")
        log = MLPerfLog(path)
        log.begin_run(12.0, VALUES)
        log.evaluation(150_000, 0.5, is_last=False)
        log.evaluation(300_000, accuracy, is_last=True)
        log.end("run_stop", status="success")
        return path

    return write


@pytest.mark.parametrize("rules", ["4.1.0", "5.0.0"])
@pytest.mark.parametrize("accuracy, is_valid", [(0.7201, True), (0.7199, False)])
def test_the_checker_of_mlperf_accepts_a_run_that_converged(
    written, rules, accuracy, is_valid
):
    from mlperf_logging.compliance_checker import mlp_compliance

    checker = mlp_compliance.make_checker("training", rules, True, False)
    rules_file = f"training_{rules}/common.yaml"
    found, *_ = mlp_compliance.main(written(accuracy), rules_file, checker)
    assert found == is_valid


def test_initialization_begins_with_the_process(written):
    lines = open(written(0.8)).read().splitlines()
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines]
    times = {event["key"]: event["time_ms"] for event in events}
    assert 12_000 <= times["init_stop"] - times["init_start"] < 30_000


def test_without_a_path_nothing_is_needed_or_written():
    MLPerfLog().begin_run(0.0, VALUES)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(mlperf.importlib, "import_module", missing)
    with pytest.raises(RunError, match="pip install mlperf-logging"):
        MLPerfLog(str(tmp_path / "log"))
