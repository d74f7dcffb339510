"""demo_bert.py works out the commands of Habana's README, and runs them."""

import importlib.util
import json
import math
import sys

import pytest
from conftest import ROOT, TINY
from integration.launching import run_python
from runs import read_results

_SPEC = importlib.util.spec_from_file_location("demo_bert", ROOT / "demo_bert.py")
demo_bert = importlib.util.module_from_spec(_SPEC)
sys.modules["demo_bert"] = demo_bert
_SPEC.loader.exec_module(demo_bert)

PRETRAINING = ("-c", "pretraining", "-m", "large", "-d", "bf16", "-t", "bookswiki")
TINY_MODEL = ("-m", "tiny", "-d", "fp32")
OVERFIT = ("-c", "pretraining", *TINY_MODEL, "-t", "overfit")


def flags_of(*arguments, environment=None, cores=64):
    """Name -> value of the flags of each stage that trains."""
    options = demo_bert.parse(list(arguments))
    stages = demo_bert.stages(options, environment or {}, cores)
    return [
        dict(
            word.removeprefix("--").partition("=")[::2]
            for word in stage.command
            if word.startswith("--") and "=" in word
        )
        for stage in stages
        if stage.log
    ]


@pytest.mark.parametrize(
    "workers, accumulations, rates",
    [
        # The commands of Habana's README for one card and for eight.
        ((), ("1024", "4096"), ("0.006", "0.004")),
        (("-v", "8"), ("128", "512"), ("0.00075", "0.0005")),
    ],
)
def test_both_phases_have_the_published_numbers(workers, accumulations, rates):
    first, second = flags_of(*PRETRAINING, *workers)
    assert (first["num_accumulation_steps"], second["num_accumulation_steps"]) == (
        accumulations
    )
    assert (first["learning_rate"], second["learning_rate"]) == rates
    assert (first["num_train_steps"], second["num_train_steps"]) == ("7038", "1564")
    assert (first["num_warmup_steps"], second["num_warmup_steps"]) == ("2000", "200")
    assert (first["train_batch_size"], second["train_batch_size"]) == ("64", "8")
    assert second["init_checkpoint"].endswith("phase_1/model.ckpt-7038")


@pytest.mark.parametrize(
    "arguments, rates",
    [
        ((*PRETRAINING, "--learning_rate", "3e-4"), ["0.0003", "0.0003"]),
        ((*OVERFIT, "--learning_rate", "3e-4"), ["0.0003"]),
        (OVERFIT, ["0.02"]),
        # run_pretraining.py multiplies by the number of workers.
        ((*OVERFIT, "-v", "2"), ["0.01"]),
        (("-c", "finetuning", *TINY_MODEL), ["2e-05"]),
        (("-c", "finetuning", *TINY_MODEL, "--learning_rate", "3e-4"), ["0.0003"]),
    ],
)
def test_the_learning_rate(arguments, rates):
    assert [flags["learning_rate"] for flags in flags_of(*arguments)] == rates


def test_the_profiled_run_of_the_readme():
    more = ("--no_steps_accumulation", "1", "--iters", "50,50", "--profile", "30,31")
    first, second = flags_of(*PRETRAINING, "--epochs", "1", *more)
    assert {first["num_train_steps"], second["num_train_steps"]} == {"50"}
    assert first["num_accumulation_steps"] == "1"
    assert first["profile"] == second["profile"] == "30,31"
    assert second["init_checkpoint"].endswith("model.ckpt-50")


def test_one_number_of_steps_is_the_first_phase_alone():
    assert len(flags_of(*PRETRAINING, "-i", "50")) == 1


def test_the_second_phase_alone_starts_from_the_first():
    [second] = flags_of(*PRETRAINING, "--run_phase2", "-o", "out")
    assert second["output_dir"] == "out/phase_2"
    assert second["init_checkpoint"] == "out/phase_1/model.ckpt-7038"


def test_several_hosts_are_reached_through_their_sshd():
    options = demo_bert.parse([*PRETRAINING, "-v", "4"])
    variables = {"MULTI_HLS_IPS": "10.0.0.1,10.0.0.2", "MPI_TCP_INCLUDE": "eth0"}
    words = demo_bert.launcher(options, variables, cores=64)
    line = " ".join(words)
    assert "-H 10.0.0.1:4,10.0.0.2:4" in line
    assert "--mca plm_rsh_args -p3022" in line
    assert "--mca btl_tcp_if_include eth0" in line
    assert "--map-by socket:PE=8" in line
    assert words[-3:-1] == ["-np", "8"]


@pytest.mark.parametrize(
    "arguments, pattern",
    [
        (("-c", "finetuning", "-t", "bookswiki"), "`test_set` must be mrpc or squad"),
        (("-c", "pretraining", "-b", "0"), "argument -b/--batch_size"),
        (("-c", "pretraining", "-i", "1,2,3"), "one or two numbers"),
        (("-c", "pretraining", "-i", "20,0"), "numbers greater than 0, such as"),
        (("-c", "pretraining", "-b", "64", "-v", "2", "-fpo", "2"), "must be one of"),
        (("-c", "pretraining", "--no_such"), "unrecognized arguments"),
        (("-c", "pretraining", "-s", "long"), "such as 64 or 64,8, not 'long'"),
        (("-c", "pretraining", "-v", "all"), "a positive whole number, not 'all'"),
        (("-c", "pretraining", "--profile", "3"), "two steps X,Y, not '3'"),
    ],
)
def test_wrong_options_are_one_line(arguments, pattern, capsys):
    assert demo_bert.main([*arguments, "-m", "tiny", "-d", "fp32", "--dry_run"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and pattern in line


def test_missing_records_are_noticed_before_weights_are_downloaded(tmp_path, capsys):
    words = [*PRETRAINING, "--dataset_path", str(tmp_path), "-i", "5"]
    assert demo_bert.main(words) == 1
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    folder = tmp_path / "seq_len_128" / "books_wiki_en_corpus" / "training"
    assert f"There is no folder {folder}. Pass --dataset_path" in line
    assert out == ""


@pytest.mark.parametrize(
    "arguments, variables, message",
    [
        ((), {"MULTI_HLS_IPS": "10.0.0.1"}, "names hosts, but there are no workers"),
        (
            ("-v", "2"),
            {"MULTI_HLS_IPS": "10.0.0.1", "DOCKER_SSHD_PORT": "ssh"},
            "DOCKER_SSHD_PORT must be a number. Received: 'ssh'",
        ),
        (("-v", "2"), {"MPI_MAP_BY": "core"}, "must be socket, slot or none"),
    ],
)
def test_wrong_variables_are_refused(arguments, variables, message):
    options = demo_bert.parse([*PRETRAINING, *arguments])
    with pytest.raises(ValueError, match=message):
        demo_bert.launcher(options, variables, cores=8)


def test_options_that_change_nothing_are_named(capsys):
    demo_bert.main([*PRETRAINING, "-e", "1", "--iterations_per_loop", "1", "--dry_run"])
    line = capsys.readouterr().out.splitlines()[0]
    assert line == "warning: no effect here: --iterations_per_loop --epochs"


def test_a_step_smaller_than_a_micro_batch_is_refused():
    options = demo_bert.parse([*PRETRAINING, "-v", "8", "--global_batch_size", "100"])
    with pytest.raises(ValueError, match="less than one micro-batch of 64 on 8"):
        demo_bert.stages(options, {})


def test_it_must_not_be_started_by_mpirun(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="starts mpirun itself"):
        demo_bert.parse(list(PRETRAINING))


@pytest.fixture
def model(tmp_path):
    """A folder with a config and a vocabulary that knows some of the sample's words."""
    text = (ROOT / "scripts" / "sample_text.txt").read_text().lower()
    words = sorted({*text.replace(".", " ").replace(",", " ").split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ","]
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join([*special, *words]))
    sizes = {"vocab_size": len(words) + 7, "max_position_embeddings": 128}
    (folder / "bert_config.json").write_text(json.dumps(TINY | sizes))
    return folder


@pytest.mark.slow
def test_the_sample_text_is_prepared_trained_and_evaluated(model, tmp_path):
    command = [
        *(ROOT / "demo_bert.py", "-c", "pretraining", "-m", "tiny", "-d", "fp32"),
        *("-t", "overfit", "-i", "3", "-b", "4", "-o", tmp_path / "out"),
        *("--dataset_path", tmp_path / "data", "--bert-config-dir", model),
    ]
    result = run_python(*command)
    assert result.returncode == 0, result.stderr
    assert read_results(tmp_path / "out" / "phase_1")["global_step"] == 3
    assert "Iteration: 3 " in (tmp_path / "out" / "phase_1.log").read_text()
    again = run_python(*command)
    assert "All steps are done" in again.stdout


@pytest.mark.slow
def test_the_default_steps_learn_the_sample_text(model, tmp_path):
    result = run_python(
        *(ROOT / "demo_bert.py", *OVERFIT, "-o", tmp_path / "out"),
        *("--dataset_path", tmp_path / "data", "--bert-config-dir", model),
    )
    assert result.returncode == 0, result.stderr
    size = len((model / "vocab.txt").read_text().splitlines())
    # A random model's loss is ln V + ln 2.
    started = math.log(size) + math.log(2)
    assert read_results(tmp_path / "out" / "phase_1")["loss"] < 0.8 * started


@pytest.mark.slow
def test_the_exit_code_of_a_failed_command_is_that_of_the_demo(model, tmp_path):
    (model / "bert_config.json").write_text("{")
    result = run_python(
        *(ROOT / "demo_bert.py", "-c", "pretraining", "-m", "tiny", "-d", "fp32"),
        *("-t", "overfit", "-o", tmp_path / "out", "--dataset_path", tmp_path / "d"),
        *("--bert-config-dir", model),
    )
    assert result.returncode == 1
    assert "phase 1 failed with exit code 1" in result.stderr
