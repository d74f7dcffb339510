"""What version 5da6933 wrote still loads, resumes and predicts.

`tests/fixtures/version_5da6933/README.md` says how its files were made. Each test
copies them to another folder than the one that they name, as a user may have done.
"""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from runs import logged_values

import run_classifier
import run_pretraining
import run_squad
from bert_tf.cli import main as bert_tf
from bert_tf.data.records import tfrecord
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits

pytestmark = pytest.mark.slow
VERSION = ROOT / "tests" / "fixtures" / "version_5da6933"
EXPECTED = VERSION / "expected"
LIMITS = ValueLimits(vocab_size=47, type_vocab_size=2)
# The processor that wrote them gives the same bits; another one adds up the numbers of
# a product in another order, which is 2^-24 for each of them.
TOLERANCE = 1e-5
# Of float16 that is 2^-11. A step changes the loss by 1e-2.
FLOAT16_TOLERANCE = 1e-3

PRETRAINING = [
    "--do_train",
    "--train_batch_size=4",
    "--num_accumulation_steps=2",
    "--num_train_steps=8",
    "--learning_rate=0.02",
    "--keep_checkpoint_max=1",
    "--display_loss_steps=1",
]
FINETUNING = [
    "--do_train",
    "--train_batch_size=8",
    "--num_train_epochs=40",
    "--learning_rate=0.01",
    "--keep_checkpoint_max=1",
    "--display_loss_steps=1",
]
CLASSIFICATION = ["--task_name=tsv", "--max_seq_length=24", "--do_eval"]
TASKS = {
    "classes": (run_classifier, CLASSIFICATION),
    "numbers": (run_classifier, [*CLASSIFICATION, "--is_regression"]),
    "questions": (
        run_squad,
        [
            "--max_seq_length=32",
            "--max_query_length=12",
            "--doc_stride=8",
            "--version_2_with_negative",
            "--n_best_size=2",
            "--num_processes=1",
        ],
    ),
}


@pytest.fixture
def folder(tmp_path):
    """The files of that version, moved."""
    return shutil.copytree(VERSION, tmp_path / "moved")


@pytest.fixture
def pretrain(folder, capsys):
    """Runs pre-training in a folder; returns what it prints."""

    def run(output_dir, records, *more):
        files = [
            f"--output_dir={output_dir}",
            f"--bert_config_file={folder}/bert_config.json",
            f"--vocab_file={folder}/vocab.txt",
            f"--input_files_dir={folder}/records/{records}",
        ]
        assert run_pretraining.main(["run", *files, *PRETRAINING, *more]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def finetune(folder, capsys):
    """Predicts with one of the fine-tuned models, or more; returns what it prints."""

    def run(name, *more):
        data = [f"--data_dir={folder}/{name}"]
        if name == "questions":
            kinds = ("train", "predict")
            data = [f"--{kind}_file={folder}/{name}.json" for kind in kinds]
        script, flags = TASKS[name]
        command = [f"--output_dir={folder}/stopped/{name}", *data, *flags, *more]
        assert script.main(["run", *command, "--do_predict"]) == 0
        return capsys.readouterr().out

    return run


def assert_same_losses(output_dir, name, tolerance=TOLERANCE):
    """The steps that were left were taken, with the losses of a run never stopped."""
    found = [(str(s), loss) for s, loss in logged_values(output_dir, "total_loss")]
    expected = json.loads((EXPECTED / "losses.json").read_text())[name]
    found = found[-len(expected) :]  # The others were logged before the stop.
    assert [step for step, _ in found] == list(expected)
    losses = [loss for _, loss in found]
    np.testing.assert_allclose(losses, list(expected.values()), rtol=tolerance)


def assert_same(found, expected):
    """Words are equal, and numbers to rounding."""
    assert type(found) is type(expected)
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


def assert_same_results(output_dir, expected_dir):
    """Each file of `expected_dir` that holds results has the same content."""
    names = ("*_results.*", "*predictions.json", "null_odds.json")
    paths = [path for name in names for path in expected_dir.glob(name)]
    assert paths
    for path in paths:
        assert_same(read_results(output_dir / path.name), read_results(path))


def read_results(path):
    text = path.read_text()
    return (
        json.loads(text) if path.suffix == ".json" else list(map(value, text.split()))
    )


def value(word):
    try:
        return float(word)
    except ValueError:
        return word


def read_with_tensorflow(path, *, is_packed=False):
    """The features of a folder of TFRecords, without this program's reader."""
    num_sequences = 2 if is_packed else 1
    widths = dict.fromkeys(("input_ids", "input_mask", "segment_ids"), 48)
    widths |= {f"masked_lm_{name}": 8 for name in ("positions", "ids", "weights")}
    widths["next_sentence_labels"] = num_sequences
    if is_packed:
        widths["positions"] = 48
        widths |= dict.fromkeys(
            ("next_sentence_positions", "next_sentence_weights"), num_sequences
        )
    features = {
        name: tf.io.FixedLenFeature(
            [width], tf.float32 if name.endswith("weights") else tf.int64
        )
        for name, width in widths.items()
    }
    files = sorted(map(str, path.iterdir()))
    records = [record.numpy() for record in tf.data.TFRecordDataset(files)]
    return tf.io.parse_example(records, features)


@pytest.mark.parametrize(
    ("name", "num_records"),
    [("unpacked", 46), ("packed", 34), ("hdf5", 46), ("hdf5_variable_length", 46)],
)
def test_records_are_read(folder, name, num_records):
    is_packed = name == "packed"
    expected = read_with_tensorflow(
        folder / "records" / ("packed" if is_packed else "unpacked"),
        is_packed=is_packed,
    )
    records = open_records(
        f"{folder}/records/{name}", LIMITS, max_seq_length=48, max_predictions_per_seq=8
    )
    assert len(records) == num_records
    found = records.parser(np.arange(num_records))
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values.numpy(), key)


CONVERT = ["convert", "--input_dir=records/unpacked", "--format=hdf5"]
DATA_COMMANDS = {
    "unpacked": [
        "create",
        "--input=text.txt",
        "--vocab_file=vocab.txt",
        "--max_seq_length=48",
        "--max_predictions_per_seq=8",
        "--dupe_factor=1",
        "--num_shards=2",
        "--short_seq_prob=0.5",
    ],
    "packed": ["pack", "--input_dir=records/unpacked"],
    "hdf5": CONVERT,
    "hdf5_variable_length": [*CONVERT, "--variable_length"],
}


def run_data(command, output_dir):
    return bert_tf(
        ["data", *command, f"--output_dir={output_dir}", "--num_processes=1"]
    )


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_records_are_not_made_again(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    output = folder / "records" / name
    before = {path.name: path.stat().st_ino for path in output.iterdir()}
    assert run_data(DATA_COMMANDS[name], output) == 0
    assert {path.name: path.stat().st_ino for path in output.iterdir()} == before


def test_stopped_data_command_resumes(folder, monkeypatch):
    monkeypatch.chdir(folder)
    records = folder / "records"
    [first] = (records / "stopped.partial").glob("*.hdf5")
    number = first.stat().st_ino
    assert run_data(CONVERT, records / "stopped") == 0
    assert (records / "stopped" / first.name).stat().st_ino == number
    stopped, complete = (
        sorted(path.name for path in (records / name).iterdir())
        for name in ("stopped", "hdf5")
    )
    assert stopped == complete


def test_index_of_records_is_used(folder, monkeypatch):
    [path, _] = sorted((folder / "records" / "unpacked").iterdir())
    cache = folder / "stopped" / "pretraining_unpacked" / ".record_index"
    # The name follows from the path. Both files have records of the same lengths.
    state = f"{path}|{path.stat().st_size}|{path.stat().st_mtime_ns}"
    name = cache / f"{hashlib.sha256(state.encode()).hexdigest()}.npy"
    shutil.copyfile(sorted(cache.iterdir())[0], name)
    os.utime(name, ns=(path.stat().st_ctime_ns + 1,) * 2)
    expected = tfrecord.scan_offsets(str(path))
    monkeypatch.setattr(tfrecord, "scan_offsets", None)  # must not be called
    found = tfrecord.load_offsets(str(path), str(cache))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "records", "tolerance", "more"),
    [
        ("pretraining_unpacked", "unpacked", TOLERANCE, []),
        ("pretraining_packed", "packed", TOLERANCE, ["--optimizer_type=adamw"]),
        (
            "pretraining_fp16",
            "unpacked",
            FLOAT16_TOLERANCE,
            ["--optimizer_type=adam", "--precision=fp16"],
        ),
    ],
)
def test_pretraining_resumes(folder, pretrain, name, records, tolerance, more):
    output_dir = folder / "stopped" / name
    text = pretrain(output_dir, records, *more)
    assert f"Resuming from {output_dir}/model.ckpt-4 " in text
    # Packed records of that version do not say which vocabulary they have.
    missing = "have no metadata with their vocabulary"
    assert (missing in text) == (records == "packed")
    text = "\n".join(line for line in text.splitlines() if missing not in line)
    for notice in ("warning", "Kept from", "New from"):
        assert notice not in text
    assert_same_losses(output_dir, name, tolerance)


def test_loss_scale_is_kept(folder, pretrain):
    """It fell from 2^32 to 2^17 in the first two steps; the flag says 2^16."""
    output_dir = folder / "stopped" / "pretraining_fp16"
    pretrain(output_dir, "unpacked", "--optimizer_type=adam", "--precision=fp16")
    manifest = json.loads((output_dir / "model.ckpt-8.json").read_text())
    assert (manifest["loss_scale"], manifest["num_finite_steps"]) == (2.0**17, 7)


def test_pretraining_resumes_in_another_folder(folder, pretrain, tmp_path):
    checkpoint = folder / "stopped" / "pretraining_unpacked" / "model.ckpt-4"
    more = [f"--init_checkpoint={checkpoint}", "--resume"]
    pretrain(tmp_path / "other", "unpacked", *more)
    assert_same_losses(tmp_path / "other", "pretraining_unpacked")


@pytest.mark.parametrize("name", TASKS)
def test_finetuning_resumes(folder, finetune, name):
    output_dir = folder / "stopped" / name
    each_epoch = ["--evaluate_each_epoch"] * (name == "classes")
    text = finetune(name, *FINETUNING, *each_epoch)
    assert f"Resuming from {output_dir}/model.ckpt-112 " in text
    assert_same_losses(output_dir, name)
    # Of the classes, with the best weights, which are those of step 51.
    assert_same_results(output_dir, EXPECTED / "whole" / name)


@pytest.mark.parametrize("name", ["numbers", "questions"])
def test_scripts_predict_the_same(folder, finetune, name):
    output_dir = folder / "stopped" / name
    for path in (*output_dir.glob("*results*"), *output_dir.glob("*predictions*")):
        path.unlink()
    finetune(name)
    assert_same_results(output_dir, VERSION / "stopped" / name)


@pytest.mark.parametrize(
    ("expected", "kind", "model"),
    [
        ("classes", "classify", "classes"),
        ("best_classes", "classify", "classes/best"),
        ("numbers", "classify", "numbers"),
        ("words", "fill-mask", "pretraining_unpacked"),
    ],
)
def test_command_predicts_the_same(folder, capsys, expected, kind, model):
    line = json.loads((EXPECTED / f"{expected}.jsonl").read_text())
    texts = [line[key] for key in ("text", "text_a", "text_b") if key in line]
    assert bert_tf(["predict", kind, *texts, f"--model={folder}/stopped/{model}"]) == 0
    assert_same(json.loads(capsys.readouterr().out), line)


def test_conversion_names_the_classes(folder, tmp_path):
    model = folder / "stopped" / "classes"
    assert bert_tf(["convert", str(model), str(tmp_path / "converted")]) == 0
    config = json.loads((tmp_path / "converted" / "config.json").read_text())
    assert list(config["id2label"].values()) == ["making", "seeing", "travel"]
