"""The published systems' command lines run, with every flag that they use."""

import json
import re

import pytest
from integration.launching import ROOT, mpirun, run_python

SCRIPT = ROOT / "run_pretraining.py"

pytestmark = pytest.mark.slow


def published(tiny_config_file, tiny_records, output_dir, *more):
    """The command of phase 1, its sizes made small, and the script's other flags."""
    return [
        f"--input_files_dir={tiny_records}",
        f"--eval_files_dir={tiny_records}",
        f"--output_dir={output_dir}",
        f"--bert_config_file={tiny_config_file}",
        "--do_train=True",
        "--do_eval=True",
        "--train_batch_size=4",
        "--eval_batch_size=8",
        "--max_seq_length=16",
        "--max_predictions_per_seq=4",
        "--num_train_steps=6",
        "--num_accumulation_steps=2",
        "--num_warmup_steps=2",
        "--save_checkpoints_steps=3",
        "--learning_rate=0.00075",
        "--noamp",
        "--nouse_xla",
        "--allreduce_post_accumulation=True",
        f"--dllog_path={output_dir}/logs/bert_dllog.json",
        "--enable_scoped_allocator=False",
        "--resume=False",
        "--optimizer_type=lamb",
        "--max_eval_steps=5",
        "--display_loss_steps=2",
        "--iterations_per_loop=1000",
        "--save_summary_steps=1",
        "--init_loss_scale=4294967296",
        "--noverbose_logging",
        "--report_loss",
        "--nomanual_fp16",
        "--deterministic_run=False",
        *more,
    ]


def read_log(path):
    lines = path.read_text().splitlines()
    assert all(line.startswith("DLLL {") for line in lines)
    return [json.loads(line.removeprefix("DLLL ")) for line in lines]


def test_single_process(tiny_config_file, tiny_records, tmp_path):
    config = ROOT / "bf16_config" / "bert.json"
    command = published(
        tiny_config_file, tiny_records, tmp_path, f"--bf16_config_path={config}"
    )
    result = run_python(SCRIPT, *command)
    assert result.returncode == 0, result.stderr
    assert "1 worker x 4 records per micro-batch x 2 accumulation = 8" in result.stdout
    warnings = [line for line in result.stderr.splitlines() if "no effect" in line]
    assert len(warnings) == 1
    assert "--iterations_per_loop" in warnings[0]
    assert "weights, precision bf16" in result.stdout
    entries = read_log(tmp_path / "logs/bert_dllog.json")
    steps = [e for e in entries if "total_loss" in e.get("data", ())]
    assert [e["step"] for e in steps] == [1, 2, 4, 6]
    names = {"mlm_loss", "nsp_loss", "total_loss", "avg_loss_step"}
    names |= {"throughput_train", "learning_rate", "gradient_norm"}
    assert all({*entry["data"]} == names for entry in steps)
    results = (tmp_path / "eval_results.txt").read_text()
    names = re.findall(r"^(\w+) = \S+$", results, re.MULTILINE)
    assert names == sorted(names)
    assert {"global_step", "loss", "masked_lm_accuracy", "masked_lm_loss"} <= {*names}


@pytest.mark.horovod
def test_two_workers(tiny_config_file, tiny_records, tmp_path):
    more = ("--use_horovod=true", "--horovod_hierarchical_allreduce=false")
    command = published(tiny_config_file, tiny_records, tmp_path, *more)
    result = mpirun(2, SCRIPT, *command)
    assert result.returncode == 0, result.stderr
    assert (
        "2 workers x 4 records per micro-batch x 2 accumulation = 16" in result.stdout
    )
    assert "peak learning rate 0.0015 (--learning_rate=0.00075" in result.stdout
    assert (tmp_path / "model.ckpt-6.json").exists()


def test_whole_step_compiled_by_xla(tiny_config_file, tiny_records, tmp_path):
    command = published(tiny_config_file, tiny_records, tmp_path, "--use_xla")
    result = run_python(SCRIPT, *command)
    assert result.returncode == 0, result.stderr
    plain = published(tiny_config_file, tiny_records, tmp_path / "plain")
    assert run_python(SCRIPT, *plain).returncode == 0
    ours, theirs = (
        [
            e["data"]["total_loss"]
            for e in read_log(path)
            if "total_loss" in e.get("data", {})
        ]
        for path in (
            tmp_path / "logs/bert_dllog.json",
            tmp_path / "plain/logs/bert_dllog.json",
        )
        if path.exists()
    )
    assert ours == pytest.approx(theirs, rel=1e-5)
