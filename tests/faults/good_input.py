"""Small good inputs of every command, and the command lines that read them."""

import json
import os
import shutil

from conftest import ROOT  # noqa: F401  # The tests' folder is on the path.
from integration import finetuning_data

import run_classifier
import run_pretraining
import run_sentences
import run_squad
from bert_tf.cli import main as run_command

CHOICES = finetuning_data.QUESTIONS
# Commands that make good inputs of others.
MAKERS = (
    *("create", "create_hdf5", "pretrain", "classify"),
    *("train_tags", "train_choices", "train_vectors"),
)
WIKI = (
    "<mediawiki><page><title>Cat</title><ns>0</ns><revision><text>The cat sat on the "
    "mat. It was glad.</text></revision></page></mediawiki>"
)
PRECISION = {
    "allowlist": ["MatMul"],
    "non_convertible_exceptions": [["pooler", ""]],
}


def make(folder):
    """Writes all inputs; trains a model of each kind for a step."""
    finetuning_data.write_model(folder / "model")
    finetuning_data.write_squad(folder / "squad.json")
    finetuning_data.write_classes(folder / "classes")
    finetuning_data.write_sts_b(folder / "pairs")
    finetuning_data.write_tags(folder / "tags")
    finetuning_data.write_labels(folder / "labels")
    finetuning_data.write_choices(folder / "choices")
    finetuning_data.write_pairs(folder / "pairs.tsv")
    questions = [json.dumps({"context": q[0], "endings": q[2:5]}) for q in CHOICES]
    (folder / "questions.jsonl").write_text("\n".join(questions) + "\n")
    rows = finetuning_data.class_rows()
    lines = [json.dumps({"text": text, "label": name}) for text, name in rows]
    for split in ("train", "dev"):
        (folder / "lines").mkdir(exist_ok=True)
        (folder / "lines" / f"{split}.jsonl").write_text("\n".join(lines))
    texts = [context.replace(". ", ".\n") for context in finetuning_data.CONTEXTS]
    (folder / "text.txt").write_text("\n\n".join(texts * 5) + "\n")
    documents = [json.dumps({"title": str(n), "text": t}) for n, t in enumerate(texts)]
    (folder / "documents.jsonl").write_text("\n".join(documents) + "\n")
    (folder / "documents.json").write_text(f"[{', '.join(documents)}]")
    (folder / "dump.xml").write_text(WIKI)
    (folder / "precision.json").write_text(json.dumps(PRECISION))
    (folder / "new_words.txt").write_text("Lampbread, lampbread and breadlamp.\n" * 2)
    (folder / "inputs.txt").write_text("The cat sat on the [MASK].\n")
    (folder / "sums").mkdir()
    (folder / "sums" / "a").write_text("")
    (folder / "sums.md5").write_text("d41d8cd98f00b204e9800998ecf8427e  a\n")
    (folder / "data.toml").write_text(
        f'work_dir = "out"\n[sentences]\ninput = "{folder}/documents.jsonl"\n'
    )
    for name in MAKERS:
        assert run(name, command_line(name, folder, {}), folder) == 0, name
    # What a case writes must not be there.
    shutil.rmtree(folder / "out", ignore_errors=True)


def run(command, arguments, folder):
    """Runs a command line; returns its exit code."""
    runner = RUNNERS.get(command.partition(".")[0])
    if runner is not None:
        return runner(["run", *arguments])
    return run_command(arguments)


RUNNERS = {
    "pretraining": run_pretraining.main,
    "pretrain": run_pretraining.main,
    "squad": run_squad.main,
    "classifier": run_classifier.main,
    "classify": run_classifier.main,
    **dict.fromkeys(("tags", "labels", "choices"), run_classifier.main),
    **dict.fromkeys(("train_tags", "train_choices"), run_classifier.main),
    **dict.fromkeys(("vectors", "train_vectors"), run_sentences.main),
}
_PRETRAINING = {
    "bert_config_file": "{good}/model/bert_config.json",
    "vocab_file": "{good}/model/vocab.txt",
    "input_files_dir": "{good}/records",
    "output_dir": "out",
    "train_batch_size": 4,
    "num_train_steps": 1,
    "do_train": "true",
}
_SQUAD = {
    "bert_config_file": "{good}/model/bert_config.json",
    "vocab_file": "{good}/model/vocab.txt",
    "train_file": "{good}/squad.json",
    "output_dir": "out",
    "max_seq_length": 48,
    "doc_stride": 16,
    "max_query_length": 16,
    "num_processes": 1,
    "num_train_steps": 1,
    "train_batch_size": 4,
    "do_train": "true",
}
_CLASSIFIER = {
    "bert_config_file": "{good}/model/bert_config.json",
    "vocab_file": "{good}/model/vocab.txt",
    "data_dir": "{good}/classes",
    "task_name": "tsv",
    "output_dir": "out",
    "max_seq_length": 32,
    "num_train_steps": 1,
    "train_batch_size": 4,
    "do_train": "true",
}
_TAGS = _CLASSIFIER | {"data_dir": "{good}/tags", "task_name": "conll"}
_LABELS = _CLASSIFIER | {
    "data_dir": "{good}/labels",
    "task_name": "jsonl",
    "is_multi_label": "true",
}
_CHOICES = _CLASSIFIER | {"data_dir": "{good}/choices", "task_name": "swag"}
_VECTORS = {
    name: value
    for name, value in _CLASSIFIER.items()
    if name not in ("data_dir", "task_name")
} | {"train_file": "{good}/pairs.tsv"}
_CREATE = {
    "input": "{good}/text.txt",
    "output_dir": "out",
    "vocab_file": "{good}/model/vocab.txt",
    "max_seq_length": 32,
    "max_predictions_per_seq": 4,
    "dupe_factor": 2,
    "num_processes": 1,
}
# Name -> words before the options, and the options of a command that works.
COMMANDS = {
    "pretraining": ((), _PRETRAINING),
    "pretrain": ((), _PRETRAINING | {"output_dir": "{good}/pretrained"}),
    "squad": ((), _SQUAD),
    "classifier": ((), _CLASSIFIER),
    "classify": ((), _CLASSIFIER | {"output_dir": "{good}/classifier"}),
    "tags": ((), _TAGS),
    "train_tags": ((), _TAGS | {"output_dir": "{good}/tagger"}),
    "labels": ((), _LABELS),
    "choices": ((), _CHOICES),
    "train_choices": ((), _CHOICES | {"output_dir": "{good}/chooser"}),
    "vectors": ((), _VECTORS),
    "train_vectors": ((), _VECTORS | {"output_dir": "{good}/vectors"}),
    "tag": (
        ("predict", "tag"),
        {"model": "{good}/tagger", "input": "{good}/tags/test.conll"},
    ),
    "choose": (
        ("predict", "choose"),
        {"model": "{good}/chooser", "input": "{good}/questions.jsonl"},
    ),
    "embed": (
        ("predict", "embed"),
        {"model": "{good}/vectors", "input": "{good}/text.txt", "output": "out.npy"},
    ),
    "extend": (
        ("vocab", "extend", "{good}/pretrained", "out"),
        {"input": "{good}/new_words.txt", "num_tokens": 2, "num_processes": 1},
    ),
    "predict": (
        ("predict", "fill-mask"),
        {"model": "{good}/pretrained", "input": "{good}/inputs.txt"},
    ),
    "convert": (("convert", "{good}/pretrained", "out"), {}),
    "download": (("data", "download"), {"name": "squad-1.1", "output_dir": "out"}),
    "verify": (
        ("data", "verify"),
        {"folder": "{good}/sums", "checksum_file": "{good}/sums.md5"},
    ),
    "extract": (
        ("data", "extract"),
        {"input": "{good}/documents.json", "output_dir": "out", "num_processes": 1},
    ),
    "sentences": (
        ("data", "sentences"),
        {"input": "{good}/documents.jsonl", "output_dir": "out", "num_processes": 1},
    ),
    "shard": (
        ("data", "shard"),
        {
            "input": "{good}/text.txt",
            "output_dir": "out",
            "n_training_shards": 1,
            "n_test_shards": 1,
            "num_processes": 1,
        },
    ),
    "vocab": (
        ("data", "vocab"),
        {"input": "{good}/text.txt", "output_dir": "out", "num_processes": 1},
    ),
    "create": (("data", "create"), _CREATE | {"output_dir": "{good}/records"}),
    "create_hdf5": (
        ("data", "create"),
        _CREATE | {"output_dir": "{good}/hdf5", "format": "hdf5"},
    ),
    "data_create": (("data", "create"), _CREATE),
    "pack": (
        ("data", "pack"),
        {"input_dir": "{good}/records", "output_dir": "out", "num_processes": 1},
    ),
    "data_convert": (
        ("data", "convert"),
        {"input_dir": "{good}/records", "output_dir": "out", "num_processes": 1},
    ),
    "chop": (
        ("data", "chop"),
        {"input_dir": "{good}/records", "output_dir": "out", "num_shards": 2},
    ),
    "pick_eval": (
        ("data", "pick_eval"),
        {"input_dir": "{good}/records", "output_dir": "out", "num_examples": 3},
    ),
    "index": (("data", "index"), {"input_dir": "{good}/records", "overwrite": "true"}),
    "show": (
        ("data", "show"),
        {"input_dir": "{good}/records", "vocab_file": "{good}/model/vocab.txt"},
    ),
    "all": (("data", "all"), {"config": "{good}/data.toml"}),
}


def command_line(command, good, changes, more=()):
    """The words of a command.

    Args:
      command: Its name in `COMMANDS`.
      good: The folder of the good inputs.
      changes: Other values of options; None leaves one out.
      more: Words to add; source and destination replace those of `convert`.
    """
    words, options = COMMANDS[command]
    if more and not more[0].startswith("-"):
        words = words[:1] if command == "convert" else words
    options = options | changes
    listed = [f"--{name}={x}" for name, x in options.items() if x is not None]
    return [
        str(word).replace("{good}", os.fspath(good))
        for word in (*words, *more, *listed)
    ]
