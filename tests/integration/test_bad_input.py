"""Bad input ends in one clear line and exit code 1 before step 1; nothing is lost."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY, make_example, write_records
from integration.launching import ROOT, mpirun, run_python
from runs import run

from bert_tf import distribute
from bert_tf.errors import RunError

SCRIPT = ROOT / "run_pretraining.py"


@pytest.fixture
def arguments(tiny_config_file, tiny_records, tmp_path):
    """A command that would work, as a dict to spoil."""
    return {
        "bert_config_file": tiny_config_file,
        "input_files_dir": tiny_records,
        "output_dir": str(tmp_path / "run"),
        "train_batch_size": "16",
        "num_train_steps": "2",
        "do_train": "true",
    }


def command_line(arguments):
    return [f"--{name}={value}" for name, value in arguments.items()]


def refused(arguments, pattern):
    with pytest.raises(RunError, match=pattern) as caught:
        run("pretraining", *command_line(arguments))
    assert "\n" not in str(caught.value)
    folder = arguments["output_dir"]
    if os.path.isdir(folder):
        assert not [n for n in os.listdir(folder) if n.startswith("model.ckpt")]


def config_with(tmp_path, **changes):
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(TINY | changes))
    return str(path)


@pytest.mark.parametrize(
    "flag", ["bert_config_file", "input_files_dir", "init_checkpoint", "vocab_file"]
)
def test_missing_files_are_named(arguments, flag):
    arguments[flag] = "/nowhere/at/all"
    refused(arguments, "/nowhere/at/all")


def test_a_config_that_is_not_json(arguments, tmp_path):
    (tmp_path / "c.json").write_text("{'vocab_size': 30}")
    arguments["bert_config_file"] = str(tmp_path / "c.json")
    refused(arguments, "c.json is not JSON")


@pytest.mark.parametrize(
    "changes, pattern",
    [
        ({"hidden_size": 9}, "`hidden_size` must be divisible by `num_attention"),
        ({"vocab_size": "30"}, "`vocab_size` must be of type int"),
        ({"hidden_sise": 8}, "unknown key `hidden_sise`. Did you mean `hidden_size`"),
        ({"hidden_dropout_prob": 1.5}, r"`hidden_dropout_prob` must be in \[0, 1\)"),
        ({"hidden_act": "swish"}, "`hidden_act` must be one of gelu"),
    ],
)
def test_a_config_with_wrong_values(arguments, tmp_path, changes, pattern):
    arguments["bert_config_file"] = config_with(tmp_path, **changes)
    refused(arguments, pattern)


def test_vocabulary_and_config_that_disagree(arguments, tmp_path):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *(f"w{n}" for n in range(35))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    arguments["vocab_file"] = str(tmp_path / "vocab.txt")
    refused(arguments, "has 40 words, but the architecture has vocab_size=30")


def test_records_of_another_length_than_the_flags_say(arguments):
    arguments["max_seq_length"] = "128"
    refused(arguments, "`max_seq_length` must be 16.* Received: max_seq_length=128")


def test_records_longer_than_the_position_table(arguments, tmp_path):
    arguments["bert_config_file"] = config_with(tmp_path, max_position_embeddings=8)
    refused(arguments, "max_seq_length=16, more than .*max_position_embeddings=8")


def test_token_ids_beyond_the_vocabulary(arguments, tmp_path):
    arguments["bert_config_file"] = config_with(tmp_path, vocab_size=20)
    refused(arguments, r"part-0.tfrecord, record \d+, byte offset \d+: `input_ids`")


def test_a_cut_file(arguments, tmp_path):
    folder = shutil.copytree(arguments["input_files_dir"], tmp_path / "copy")
    path = folder / "part-1.tfrecord"
    path.write_bytes(path.read_bytes()[:-3])
    arguments["input_files_dir"] = str(folder)
    refused(arguments, "part-1.tfrecord, record 49, byte offset .* is truncated")


def test_a_file_that_lost_whole_records(arguments, tmp_path, tiny_records):
    """Cut between two records: only the metadata can tell."""
    folder = tmp_path / "copy"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write_records(folder / "part-0", [make_example(rng) for _ in range(30)])
    shard = {"name": "part-0", "records": 31, "bytes": 99, "crc32c": "00000000"}
    metadata = {"avg_seq_per_sample": 1.0, "packed": False, "shards": [shard]}
    (tmp_path / "copy_metadata.json").write_text(json.dumps(metadata))
    arguments["input_files_dir"] = str(folder)
    refused(arguments, "part-0 must hold 31 records in 99 bytes.*Received: 30 records")


def test_fewer_records_than_a_global_batch(arguments):
    arguments["train_batch_size"] = "200"
    refused(arguments, "at least one global batch of 200 .* Received: 150 records")


def test_an_output_dir_that_cannot_be_written(arguments, tmp_path):
    (tmp_path / "file").write_text("")
    arguments["output_dir"] = str(tmp_path / "file" / "run")
    refused(arguments, "`output_dir` must be a folder .* which is under a file")


def test_evaluation_without_a_checkpoint(arguments):
    arguments["do_train"] = "false"
    arguments["do_eval"] = "true"
    arguments["eval_files_dir"] = arguments["input_files_dir"]
    refused(arguments, "Without `do_train` there must be a checkpoint")


def test_checkpoints_of_another_program_are_not_touched(arguments):
    os.makedirs(arguments["output_dir"])
    prefix = os.path.join(arguments["output_dir"], "model.ckpt-100")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=["a"],
        shape_and_slices=[""],
        tensors=[tf.zeros([1])],
    )
    with pytest.raises(RunError, match="checkpoints of another program.*ckpt-100"):
        run("pretraining", *command_line(arguments))
    assert tf.train.load_checkpoint(prefix).has_tensor("a")


def test_an_initial_checkpoint_that_does_not_fit_lists_the_names(arguments, tmp_path):
    prefix = str(tmp_path / "bert_model.ckpt")
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=["bert/embeddings/word_embeddings"],
        shape_and_slices=[""],
        tensors=[tf.zeros([30, 4])],
    )
    arguments["init_checkpoint"] = prefix
    refused(
        arguments,
        r"word_embeddings must have shape \(30, 8\), found \(30, 4\).*"
        r"bert/embeddings/token_type_embeddings \(2, 8\) is missing",
    )


def test_horovod_that_is_not_installed(arguments, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(distribute.importlib, "import_module", missing)
    arguments["horovod"] = "true"
    refused(arguments, "No module named 'horovod.tensorflow'.*make horovod")


@pytest.mark.slow
def test_a_script_ends_in_one_line_and_code_1(arguments):
    arguments["max_seq_length"] = "128"
    result = run_python(SCRIPT, *command_line(arguments))
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("error: `max_seq_length` must be 16")


@pytest.mark.slow
@pytest.mark.horovod
def test_workers_say_it_once(arguments):
    arguments["max_seq_length"] = "128"
    result = mpirun(2, SCRIPT, *command_line(arguments), "--horovod")
    assert result.returncode == 1
    text = result.stdout + result.stderr
    assert text.count("error: `max_seq_length` must be 16") == 1
    assert "Traceback" not in text


@pytest.fixture
def damaged(arguments, tmp_path):
    """Adds 9,000 records, the sixth with a wrong token; too many to be all checked."""
    folder = shutil.copytree(arguments["input_files_dir"], tmp_path / "copy")
    rng = np.random.default_rng(5)
    examples = [make_example(rng) for _ in range(9000)]
    examples[5] |= {"input_ids": [99] * 16}
    write_records(folder / "part-3.tfrecord", examples)
    changes = {"input_files_dir": str(folder), "deterministic_run": "true"}
    return arguments | changes | {"num_train_steps": "50"}


@pytest.mark.slow
def test_a_record_damaged_in_mid_run_is_named(damaged):
    result = run_python(SCRIPT, *command_line(damaged))
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert "part-3.tfrecord, record 5, byte offset" in line
    assert "Received: 99" in line


@pytest.mark.slow
@pytest.mark.horovod
def test_a_worker_that_fails_in_mid_run_ends_all(damaged):
    """Record 155 is in the second worker's half of its batch: the first one waits."""
    damaged["train_batch_size"] = "8"
    result = mpirun(2, SCRIPT, *command_line(damaged), "--horovod", timeout=90)
    assert result.returncode == 1  # 124 would be the time limit.
    text = result.stdout + result.stderr
    assert text.count("part-3.tfrecord, record 5, byte offset") == 1
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.horovod
def test_workers_that_see_different_data_are_refused(arguments, tmp_path):
    """As when a folder is not shared: one worker finds more records than the other."""
    folder = tmp_path / "own"
    shutil.copytree(arguments["input_files_dir"], folder / "0")
    shutil.copytree(arguments["input_files_dir"], folder / "1")
    (folder / "1" / "part-2.tfrecord").unlink()
    script = tmp_path / "differing.py"
    script.write_text(
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import run_pretraining\n"
        "rank = os.environ['OMPI_COMM_WORLD_RANK']\n"
        f"sys.argv.append('--input_files_dir={folder}/' + rank)\n"
        "sys.exit(run_pretraining.main(sys.argv))\n"
    )
    del arguments["input_files_dir"]
    result = mpirun(2, script, *command_line(arguments), "--horovod", timeout=90)
    assert result.returncode == 1
    text = result.stdout + result.stderr
    assert text.count("records of the training data: 150 on worker 0") == 1
    assert "; 110 on worker 1" in text
