"""Mistakes that are refused without TensorFlow, which takes seconds to load."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT, TINY
from runs import position

from bert_tf.data.records.metadata import Metadata, write_metadata
from bert_tf.data.text.vocabulary import vocabulary_sha256
from bert_tf.training import checkpoints

# Runs command lines, and prints the last line that each has printed on stderr.
WORKER = """
import contextlib, importlib, io, json, sys
sys.modules["tensorflow"] = None  # An import of it is an error.
sys.path += ["scripts"]
lines = {}
for name, (program, *words) in json.load(sys.stdin).items():
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            module = importlib.import_module(program)
            if program == "extract_features":
                module.extract(words)
            else:
                module.main(words)
        except Exception as error:
            errors.write(f"{type(error).__name__}: {error}")
    lines[name] = (errors.getvalue().splitlines() or [""])[-1]
print(json.dumps(lines))
"""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *(f"w{number}" for number in range(25))]
RECORDS = {"max_seq_length": 16, "max_predictions_per_seq": 4}

PRETRAIN = ["run_pretraining", "run", "--do_train", "--output_dir={f}/new"]
PRETRAIN += ["--bert_config_file={f}/model/bert_config.json"]
PRETRAIN += ["--input_files_dir={f}/records"]
SQUAD = ["run_squad", "run", "--do_train", "--train_file={f}/squad.json"]
SQUAD += ["--output_dir={f}/new", "--max_seq_length=16", "--max_query_length=4"]
CLASSIFY = ["run_classifier", "run", "--do_train", "--task_name=tsv"]
CLASSIFY += ["--data_dir={f}/data", "--output_dir={f}/new", "--max_seq_length=16"]
SENTENCES = ["run_sentences", "run", "--do_train", "--output_dir={f}/new"]
MODEL = "--init_checkpoint={f}/model"
EXTRACT = ["extract_features", "--input_file={f}/data/train.tsv", MODEL]
EXTRACT += ["--output_file={f}/features"]
CLI = "bert_tf.cli"
EVALUATE = [CLI, "evaluate", "suite", "--data_dir={f}/empty", "--output={f}/suite.json"]
# Name -> the command, and a part of its error.
CASES = {
    "config": ([*PRETRAIN, "--bert_config_file={f}/squad.json"], "must have the keys"),
    "vocabulary": ([*PRETRAIN, "--vocab_file={f}/other.txt"], "made with another voca"),
    "no_words": ([*PRETRAIN, "--vocab_file={f}/model/a.ckpt.index"], "not UTF-8"),
    "length": ([*PRETRAIN, "--max_seq_length=128"], "`max_seq_length` must be 16"),
    "predictions": ([*PRETRAIN, "--max_predictions_per_seq=20"], "must be 4, that of"),
    "heads": (
        [w for w in PRETRAIN if "config" not in w] + [MODEL, "--preset=mini"],
        "has num_attention_heads=2. Received: num_attention_heads=4.",
    ),
    "no_records": ([*PRETRAIN, "--input_files_dir={f}/empty"], "holds no record files"),
    "no_weights": ([*PRETRAIN, "--init_checkpoint={f}/empty"], "holds no weights"),
    "other_task": (
        [*PRETRAIN, "--output_dir={f}/squad"],
        "of another task",
    ),
    "nothing": (
        [*PRETRAIN, "--nodo_train", "--do_eval", "--eval_files_dir={f}/records"],
        "there must be a checkpoint",
    ),
    "positions": ([*SQUAD, MODEL, "--max_seq_length=32"], "max_position_embeddings=16"),
    "not_its_words": (
        [*SQUAD, MODEL, "--vocab_file={f}/other.txt"],
        "have the tokens",
    ),
    "no_architecture": (SQUAD, "`bert_config_file` or `preset` must be given"),
    "layers": ([*CLASSIFY, MODEL, "--frozen_layers=3"], "`frozen_layers` must be at m"),
    "precision_key": (
        [*CLASSIFY, MODEL, "--bf16_config_path={f}/squad/task.json"],
        "the keys must be among allowlist",
    ),
    "precision_pair": (
        [*PRETRAIN, "--bf16_config_path={f}/pair.json"],
        "must hold pairs of a pattern",
    ),
    "precision_list": (
        [*PRETRAIN, "--bf16_config_path={f}/list.json"],
        "list.json: `allowlist` must hold types of operations",
    ),
    "no_test": ([*CLASSIFY, MODEL, "--do_predict"], "without {f}/data/test.tsv"),
    "columns": (
        [*SENTENCES, MODEL, "--train_file={f}/data/train.tsv"],
        "there must be columns anchor and positive",
    ),
    "predict_kind": (
        [CLI, "predict", "squad", "--model={f}/squad", "x"],
        "takes q",
    ),
    "predict_other": ([CLI, "predict", "tag", "--model={f}/squad", "x"], "for tag"),
    "predict_nothing": (
        [CLI, "predict", "tag", "--model={f}/empty", "x"],
        "no weights",
    ),
    "predict_words": (
        [CLI, "predict", "embed", "--model={f}/model", "--vocab_file={f}/other.txt"],
        "must have the tokens of",
    ),
    "predict_no_mask": (
        [CLI, "predict", "fill-mask", "--model={f}/model", "It rains."],
        "A text must hold [MASK]. Received: 'It rains.'",
    ),
    "predict_line_without_mask": (
        [CLI, "predict", "fill-mask", "--model={f}/model", "--input={f}/other.txt"],
        "other.txt, line 1: A text must hold [MASK]. Received: '[PAD]'",
    ),
    "predict_length": (
        [CLI, "predict", "embed", "--model={f}/model", "--max_seq_length=17", "x"],
        "`max_seq_length` must be from 3 to the model's max_position_embeddings=16",
    ),
    # That of the worker has been read.
    "predict_empty": (
        [CLI, "predict", "embed", "--model={f}/model"],
        "standard input holds no text, so nothing is predicted",
    ),
    "predict_table": (
        [CLI, "predict", "embed", "--model={f}/model", "--input={f}/data/odd.csv"],
        "no column has the name of a text",
    ),
    "evaluate": ([*EVALUATE, "{f}/empty"], "holds no weights"),
    "convert_nothing": ([CLI, "convert", "{f}/empty", "{f}/new"], "holds no weights"),
    "convert_form": (
        [CLI, "convert", "{f}/model", "{f}/a.h5"],
        "must end in",
    ),
    "convert_away": (
        [CLI, "convert", "{f}/model", "{f}/a.h5", "--to=savedmodel"],
        "`destination` must be a folder for --to=savedmodel",
    ),
    "extend": (
        [CLI, "vocab", "extend", "{f}/empty", "{f}/new", "--input={f}/other.txt"]
        + ["--num_tokens=1"],
        "holds no weights",
    ),
    "pack": (
        [CLI, "data", "pack", "--input_dir={f}/empty", "--output_dir={f}/new"],
        "holds no record files",
    ),
    "index": (
        [CLI, "data", "index", "--input_dir={f}/data"],
        "is truncated within",
    ),
    "extract_layers": ([*EXTRACT, "--layers=-3"], "`layers` must be from -1"),
    "extract_length": (
        [*EXTRACT, "--layers=-1", "--max_seq_length=17"],
        "`max_seq_length` must be from 3",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model without tensors, records, examples, and a checkpoint of SQuAD."""
    path = tmp_path_factory.mktemp("early")
    for name in ("model", "records", "data", "empty", "squad"):
        (path / name).mkdir()
    texts = {"other": [*WORDS[:-1], "x"], "model/vocab": WORDS}
    for name, words in texts.items():
        (path / f"{name}.txt").write_text("".join(f"{word}\n" for word in words))
    (path / "model/bert_config.json").write_text(json.dumps(TINY))
    (path / "model/a.ckpt.index").write_bytes(b"\xff")
    (path / "records/part-0.tfrecord").write_bytes(b"")
    about = {"packed": False, "max_predictions_per_pack": 4, "vocab_size": 30}
    about["vocab_sha256"] = vocabulary_sha256(str(path / "model/vocab.txt"))
    write_metadata(
        str(path / "records"), Metadata(avg_seq_per_sample=1.0, **RECORDS, **about)
    )
    (path / "squad.json").write_text("{}")
    (path / "data/train.tsv").write_text("text\tlabel\n")
    (path / "data/odd.csv").write_text("n,m\n1,2\n")
    (path / "pair.json").write_text('{"convertible_exceptions": ["a"]}')
    (path / "list.json").write_text('{"allowlist": [["MatMul"]]}')
    settings = {"squad": {"version_2_with_negative": False}}
    for name in ("bert_config.json", "vocab.txt"):
        (path / "squad" / name).write_bytes((path / "model" / name).read_bytes())
    (path / "squad/task.json").write_text('{"task": "squad"}')
    checkpoints.save(str(path / "squad"), {}, position(config=settings, fingerprint={}))
    return path


@pytest.fixture(scope="module")
def errors(folder):
    """Name of a case -> the last line on stderr."""
    commands = {
        name: [word.format(f=folder) for word in words]
        for name, (words, _) in CASES.items()
    }
    found = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_refused_before_tensorflow_is_loaded(errors, folder, name):
    assert CASES[name][1].format(f=folder) in errors[name]
    assert "tensorflow" not in errors[name]
    assert not (folder / "new").exists()
