"""A table of bad inputs: kinds of damage, and the commands that meet each."""

import copy
import dataclasses
import gzip
import json
import os
import random
import socket
from collections.abc import Callable

from conftest import write_records
from integration import finetuning_data

from bert_tf.config import PretrainingConfig
from bert_tf.config.conversion import ChopDataConfig, ConvertDataConfig, PickEvalConfig
from bert_tf.config.data import CreateDataConfig, PackDataConfig, ShowDataConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.options import options_of
from bert_tf.config.text import ExtractConfig, SentencesConfig, ShardConfig, VocabConfig


@dataclasses.dataclass
class Case:
    """A command line that must be refused.

    Attributes:
      name: What is bad.
      command: See `good_input.COMMANDS`.
      changes: Options that differ from the good ones.
      words: Words to add.
      prepare: Writes what is needed into the current folder.
      expected: What the message must hold.
    """

    name: str
    command: str
    changes: dict = dataclasses.field(default_factory=dict)
    words: tuple = ()
    prepare: Callable = lambda good: None
    expected: tuple = ()

    @property
    def title(self):
        return f"{self.command}: {self.name}"


# Numbers.

CONFIGS = {
    "pretraining": PretrainingConfig,
    "squad": SquadConfig,
    "classifier": ClassifierConfig,
    "extract": ExtractConfig,
    "sentences": SentencesConfig,
    "shard": ShardConfig,
    "vocab": VocabConfig,
    "data_create": CreateDataConfig,
    "pack": PackDataConfig,
    "data_convert": ConvertDataConfig,
    "chop": ChopDataConfig,
    "pick_eval": PickEvalConfig,
    "show": ShowDataConfig,
}
BAD_NUMBERS = ("nan", "inf", "-inf", "1e400", "-1", "1" + "0" * 30, "", "x", "9" * 5000)
SIGNED = dict.fromkeys(
    ("null_score_diff_threshold", "start_warmup_step", "display_loss_steps"), ("-1",)
)


def numbers():
    for command, config in CONFIGS.items():
        groups = [config]
        if command in ("pretraining", "squad", "classifier"):
            groups = [field.type for field in dataclasses.fields(config)]
        for group in groups:
            for option in options_of(group).values():
                if option.kind in (int, float):
                    for value in BAD_NUMBERS:
                        if value not in SIGNED.get(option.name, ()):
                            changes = {option.name: value}
                            name = f"{option.name}={value[:40]}"
                            yield Case(name, command, changes, expected=(option.name,))


def flags():
    scripts = ("pretraining", "squad", "classifier")
    for command in (*scripts, "pack", "predict", "convert", "shard", "vocab", "verify"):
        yield Case("unknown", command, {"no_such_flag": 1}, expected=("no_such_flag",))
        word = "--" + "x" * 100_000
        yield Case("very long", command, words=(word,), expected=("xxx",))
        yield Case("bytes", command, words=("--\udce9=1",), expected=("\\udce9",))
        yield Case("line end", command, words=("--a\nb=1",), expected=("a",))
    for command in scripts:
        for name, value in (
            ("do_train", "perhaps"),
            ("horovod", "2"),
            ("optimizer_type", "sgd\nlamb"),
            ("precision", "fp8"),
            ("preset", "huge"),
            ("profile", "1,"),
            ("profile", f"1,{'9' * 5000}"),
            ("profile", "2,1"),
            ("loss_normalization", "none"),
            ("init_loss_scale", "3"),
            ("exclude_from_weight_decay", "(["),
            ("exclude_from_layer_adaptation", "*"),
        ):
            changes = {name: value}
            if name == "preset":
                changes["bert_config_file"] = None
            yield Case(f"{name}={value[:20]!r}", command, changes, expected=(name,))
        for changes in (
            {"amp": "true", "precision": "bf16"},
            {"amp": "true", "bf16_config_path": "{good}/precision.json"},
            {"precision": "fp32", "bf16_config_path": "{good}/precision.json"},
            {"preset": "tiny"},
            {"num_warmup_steps": 5},
            {"do_train": "false"},
            {"horovod_hierarchical_allreduce": "true"},
            {"output_dir": ""},
            {"output_dir": None},
        ):
            name = " ".join(f"{key}={value}" for key, value in changes.items())
            yield Case(name, command, changes, expected=(next(iter(changes)),))
        yield Case("a word", command, words=("more",), expected=("more",))
    for name, value in (
        ("max_seq_length", 19),
        ("doc_stride", 47),
        ("doc_stride", 65_000),
        ("train_file", ""),
        ("max_seq_length", 600),
    ):
        yield Case(f"{name}={value}", "squad", {name: value}, expected=(name,))
    for changes in (
        {"task_name": "no"},
        {"task_name": ""},
        {"data_dir": ""},
        {"max_seq_length": 600},
        {"text_a_column": "none"},
        {"label_column": "none"},
        {"is_regression": "true"},
        {"new_head": "true", "do_train": "false", "do_eval": "true"},
        {"dropout_before_logits": 1},
        {"task_name": "MNLI"},
        {"task_name": "jsonl"},
    ):
        name = " ".join(f"{key}={value}" for key, value in changes.items())
        yield Case(name, "classifier", changes)
    for command, name, value in (
        ("pretraining", "max_seq_length", 64),
        ("pretraining", "max_predictions_per_seq", 3),
        ("pretraining", "train_batch_size", 10_000),
        ("pretraining", "resume", "true"),
        ("data_create", "max_ngram_size", 2),
        ("data_create", "masked_lm_prob", 1),
        ("data_create", "short_seq_prob", -0.1),
        ("data_create", "max_seq_length", 7),
        ("data_create", "format", "csv"),
        ("data_create", "num_shards", 100_000),
        ("data_convert", "format", "csv"),
        ("data_convert", "compression", "zip"),
        ("shard", "fraction_test_set", 1),
        ("shard", "n_test_shards", 100_000),
        ("shard", "n_training_shards", 100_000),
        ("vocab", "vocab_size", 3),
        ("vocab", "do_lower_case", "perhaps"),
        ("extract", "input_format", "pdf"),
        ("extract", "text_field", "body"),
        ("download", "name", "none"),
        ("download", "language", "../en"),
        ("download", "date", "yesterday"),
        ("download", "sha256", "abc"),
        ("pick_eval", "num_examples", 10**9),
        ("chop", "num_shards", 100_000),
        ("predict", "top_k", 0),
        ("predict", "top_k", 10**9),
        ("predict", "batch_size", 10**12),
        ("predict", "batch_size", "1e400"),
        ("predict", "precision", "fp8"),
        ("convert", "vocab_size", 0),
        ("convert", "vocab_size", -8),
        ("convert", "vocab_size", 10**12),
        ("convert", "form", "pickle"),
        ("convert", "do_lower_case", "perhaps"),
    ):
        yield Case(f"{name}={value}", command, {name: value}, expected=(name,))


# Files.


def _write(data):
    def write(path, good):
        with open(path, "wb") as file:
            file.write(data if isinstance(data, bytes) else data(good))

    return write


def _random(good):
    return random.Random(1).randbytes(5000)


def _socket(path, good):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


KINDS = {
    "missing": lambda path, good: None,
    "folder": lambda path, good: os.mkdir(path),
    "pipe": lambda path, good: os.mkfifo(path),
    "socket": _socket,
    "loop": lambda path, good: os.symlink(path, path),
    "dangling": lambda path, good: os.symlink("nowhere", path),
    "device": lambda path, good: os.symlink("/dev/zero", path),
    "empty": _write(b""),
    "blank": _write(b" \n\n\t\n"),
    "zeros": _write(b"\0" * 5000),
    "latin-1": _write(lambda good: good[:40] + b" caf\xe9 " + good[40:]),
    "utf-16": _write(lambda good: good.decode("utf-8", "replace").encode("utf-16")),
    "utf-16 without a mark": _write(
        lambda good: good.decode("utf-8", "replace").encode("utf-16-le")
    ),
    "gzip": _write(lambda good: gzip.compress(good, mtime=0)[:-9]),  # Cut.
    "zip": _write(lambda good: b"PK\x03\x04" + good),
    "random": _write(_random),
    "page": _write(b"<!DOCTYPE html>\n<html><body>404</body></html>\n"),
    "pointer": _write(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
}
NO_TEXT = ("folder", "pipe", "socket", "loop", "dangling", "device", "missing")
TEXT = (*NO_TEXT, "latin-1", "utf-16", "utf-16 without a mark", "gzip", "random")
JSON = (*TEXT, "empty", "blank", "zeros", "zip", "page", "pointer")
# Command, option, the good file, and how it may be damaged.
FILES = [
    ("pretraining", "bert_config_file", "model/bert_config.json", JSON),
    ("pretraining", "vocab_file", "model/vocab.txt", JSON),
    ("pretraining", "bf16_config_path", "precision.json", JSON),
    ("squad", "bert_config_file", "model/bert_config.json", JSON),
    ("squad", "vocab_file", "model/vocab.txt", JSON),
    ("squad", "train_file", "squad.json", JSON),
    ("classifier", "bert_config_file", "model/bert_config.json", NO_TEXT),
    ("classifier", "vocab_file", "model/vocab.txt", JSON),
    ("predict", "input", "inputs.txt", TEXT),
    ("predict", "vocab_file", "model/vocab.txt", JSON),
    ("tag", "input", "tags/dev.conll", TEXT),
    ("choose", "input", "questions.jsonl", TEXT),
    ("choose", "input", "choices/test.csv", JSON),
    ("embed", "input", "text.txt", (*TEXT, "zeros")),
    ("vectors", "train_file", "pairs.tsv", JSON),
    ("extend", "input", "new_words.txt", (*TEXT, "empty", "blank", "zip")),
    ("extend", "vocab_file", "model/vocab.txt", JSON),
    ("convert", "bert_config_file", "model/bert_config.json", JSON),
    ("convert", "vocab_file", "model/vocab.txt", JSON),
    ("verify", "checksum_file", "sums.md5", JSON),
    ("extract", "input", "documents.json", JSON),
    ("extract", "input", "documents.jsonl", JSON),
    ("extract", "input", "dump.xml", JSON),
    ("extract", "input", "text.txt", (*TEXT, "empty", "blank", "zip")),
    ("sentences", "input", "documents.jsonl", JSON),
    ("shard", "input", "text.txt", (*TEXT, "empty", "blank", "zip")),
    ("vocab", "input", "text.txt", (*TEXT, "empty", "blank", "zip")),
    ("data_create", "input", "text.txt", (*TEXT, "empty", "blank", "zip")),
    ("data_create", "vocab_file", "model/vocab.txt", JSON),
    ("show", "vocab_file", "model/vocab.txt", JSON),
    ("all", "config", "data.toml", JSON),
]
# Files within a folder that is an option.
IN_FOLDERS = [
    ("classifier", "data_dir", "classes", "train.tsv", JSON),
    ("tags", "data_dir", "tags", "train.conll", (*JSON[:-3], "page", "pointer")),
    ("labels", "data_dir", "labels", "train.jsonl", JSON),
    ("choices", "data_dir", "choices", "train.csv", JSON),
    ("pretraining", "input_files_dir", "records", "part-*", TEXT[1:]),
    ("pack", "input_dir", "records", "part-*", TEXT[1:]),
    ("data_convert", "input_dir", "records", "part-*", TEXT[1:]),
    ("index", "input_dir", "records", "part-*", TEXT[1:]),
    ("show", "input_dir", "records", "part-*", TEXT[1:]),
    ("pretraining", "input_files_dir", "hdf5", "part*", TEXT[1:]),
    ("data_convert", "input_dir", "hdf5", "part*", TEXT[1:]),
]
FOLDERS = [
    ("pretraining", "input_files_dir"),
    ("classifier", "data_dir"),
    ("pack", "input_dir"),
    ("data_convert", "input_dir"),
    ("chop", "input_dir"),
    ("pick_eval", "input_dir"),
    ("index", "input_dir"),
    ("show", "input_dir"),
    ("verify", "folder"),
    ("pretraining", "init_checkpoint"),
    ("squad", "init_checkpoint"),
    ("extract", "input"),
    ("sentences", "input"),
    ("shard", "input"),
]


def _records(length, predictions):
    """Writes records of that many tokens and predictions."""

    def prepare(good):
        zeros = {name: [0] * length for name in ("input_ids", "segment_ids")}
        masked = ("masked_lm_positions", "masked_lm_ids")
        zeros |= {name: [0] * predictions for name in masked}
        zeros |= {"masked_lm_weights": [1.0] * predictions}
        zeros |= {"input_mask": [1] * length, "next_sentence_labels": [0]}
        os.mkdir("bad")
        write_records("bad/part-0.tfrecord", [zeros] * 8)

    return prepare


def files():
    for command, option in FOLDERS[:1] + FOLDERS[2:8]:
        for length, predictions in ((0, 0), (0, 4), (16, 0)):
            name = f"records of {length} tokens and {predictions} predictions"
            prepare = _records(length, predictions)
            yield Case(name, command, {option: "bad"}, (), prepare, ("part-0",))
    for command, option, source, kinds in FILES:
        for kind in kinds:
            name = f"bad{os.path.splitext(source)[1]}"

            def prepare(good, kind=kind, name=name, source=source):
                KINDS[kind](os.path.abspath(name), (good / source).read_bytes())

            changes = {option: name}
            yield Case(
                f"{option}: {kind} for {source}", command, changes, (), prepare, (name,)
            )
    for command, option, folder, pattern, kinds in IN_FOLDERS:
        for kind in kinds:

            def prepare(good, kind=kind, folder=folder, pattern=pattern):
                os.mkdir("bad")
                for path in sorted((good / folder).iterdir()):
                    target = os.path.abspath(f"bad/{path.name}")
                    if path.match(pattern):
                        KINDS[kind](target, path.read_bytes())
                    elif path.is_file():
                        with open(target, "wb") as file:
                            file.write(path.read_bytes())

            yield Case(
                f"{folder}/{pattern}: {kind}",
                command,
                {option: "bad"},
                (),
                prepare,
                ("bad",),
            )
    for command, option in FOLDERS:
        for kind in ("missing", "folder", "pipe", "loop", "dangling", "empty"):
            changes = {option: "bad"}

            def prepare(good, kind=kind):
                KINDS[kind](os.path.abspath("bad"), b"")

            yield Case(f"{option}: {kind}", command, changes, (), prepare, ("bad",))


# Paths to write to.

WRITERS = (
    *("pretraining", "squad", "classifier", "extract", "sentences", "shard", "vocab"),
    *("data_create", "pack", "data_convert", "chop", "pick_eval", "download"),
)


def outputs():
    places = {
        "under a file": ("file/out", lambda good: _write(b"x")("file", b"")),
        "a file": ("file", lambda good: _write(b"x")("file", b"")),
        "in /proc": ("/proc/out", lambda good: None),
        "in /proc/sys": ("/proc/sys/out", lambda good: None),
        "in /sys": ("/sys/out", lambda good: None),
        "a device": ("/dev/full", lambda good: None),
        "under a device": ("/dev/null/out", lambda good: None),
        "long": ("x" * 300, lambda good: None),
        "very long": ("x/" * 3000, lambda good: None),
        "loop": ("link", lambda good: os.symlink("link", "link")),
        "dangling": ("link", lambda good: os.symlink("nowhere/a", "link")),
        "other files": ("good", _other_files),
        "with a line end": ("file/a\nb", lambda good: _write(b"x")("file", b"")),
    }
    for command in WRITERS:
        for kind, (path, prepare) in places.items():
            if kind == "other files" and command in WRITERS[:3] + ("download",):
                continue
            yield Case(
                f"output_dir: {kind}",
                command,
                {"output_dir": path},
                (),
                prepare,
                ("output_dir",),
            )
    for path in ("file/log", "/proc/log", "/dev/null/log", "x" * 300 + "/log"):
        for command in WRITERS[:3]:

            def prepare(good):
                _write(b"x")("file", b"")

            yield Case(
                f"dllog_path={path[:20]}", command, {"dllog_path": path}, (), prepare
            )


def _other_files(good):
    os.mkdir("good")
    _write(b"x")("good/mine.doc", b"")


# Architectures.

KEYS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings"),
)
OTHER_KEYS = (
    *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("type_vocab_size", "initializer_range", "layer_norm_eps"),
)
BAD_VALUES = ("null", '"12"', "[1]", "true", "{}", "-1", "NaN", "1e400", "1" + "0" * 12)


def architectures():
    for command in ("pretraining", "squad", "classifier", "convert"):
        keys = KEYS + OTHER_KEYS if command == "pretraining" else KEYS[:3]
        for key in keys:
            for value in BAD_VALUES:
                text = f'"{key}": {value}'
                yield _architecture(command, f"{key}={value}", text, key)
        for key in KEYS:
            yield _architecture(command, f"no {key}", None, key)
    for name, text, expected in (
        ("a key twice", '"hidden_size": 32, "hidden_size": 64', "hidden_size"),
        ("a misspelt key", '"hidden_sise": 64', "hidden_sise"),
        ("deep", '"x": ' + "[" * 100_000, "levels"),
        ("deep and closed", '"x": ' + "[" * 500 + "]" * 500, "levels"),
        ("a digit too many", '"hidden_size": ' + "3" * 5000, "digits"),
        ("half a pair", '"x": "\\ud800"', "ud800"),
        ("heads", '"num_attention_heads": 3', "num_attention_heads"),
        ("positions", '"position_embedding_type": "relative_key"', "relative_key"),
        ("a decoder", '"is_decoder": true', "is_decoder"),
        ("an activation", '"hidden_act": "swish"', "swish"),
        ("a long value", '"hidden_act": "' + "x" * 100_000 + '"', "hidden_act"),
        ("a line end", '"hidden_act": "a\\nb"', "hidden_act"),
        ("no words", '"vocab_size": 0', "vocab_size"),
    ):
        yield _architecture("pretraining", name, text, expected)


def _architecture(command, name, text, expected):
    """A bert_config.json with a changed entry, or without one."""

    def prepare(good):
        values = json.loads((good / "model" / "bert_config.json").read_text())
        key = text.split('"')[1] if text else name.removeprefix("no ")
        values.pop(key, None)
        entries = [json.dumps({k: v})[1:-1] for k, v in values.items()]
        content = ", ".join([*entries, *([text] if text else [])])
        with open("bert_config.json", "w") as file:
            file.write("{" + content + "}")

    changes = {"bert_config_file": "bert_config.json"}
    expected = ("bert_config.json", expected)
    return Case(f"bert_config: {name[:40]}", command, changes, (), prepare, expected)


# Vocabularies.


def vocabularies():
    def lines(change):
        return lambda good: b"\n".join(change(good.rstrip(b"\n").split(b"\n")))

    damages = {
        "a word twice": lines(lambda words: [*words[:-1], words[20]]),
        "latin-1": lines(lambda words: [*words[:-1], b"caf\xe9"]),
        "a surrogate": lines(lambda words: [*words[:-1], b"\xed\xa0\x80"]),
        "a blank line": lines(lambda words: [*words[:9], b"", *words[10:]]),
        "no [MASK]": lines(lambda words: [w for w in words if w != b"[MASK]"]),
        "no [PAD]": lines(lambda words: [w.replace(b"[PAD]", b"pad") for w in words]),
        "too many": lines(lambda words: words + [b"more%d" % n for n in range(99)]),
        "half": lines(lambda words: words[: len(words) // 2]),
        "JSON": lambda good: json.dumps({"[PAD]": 0, "[UNK]": 1}).encode(),
        "one line": lambda good: good.replace(b"\n", b" "),
    }
    for command in ("pretraining", "squad", "classifier", "data_create", "predict"):
        for name, change in damages.items():
            if command == "data_create" and name in ("too many", "half"):
                continue  # There is no architecture to compare it with.

            def prepare(good, change=change):
                data = (good / "model" / "vocab.txt").read_bytes()
                _write(change(data))("vocab.txt", b"")

            changes = {"vocab_file": "vocab.txt"}
            yield Case(
                f"vocab_file: {name}", command, changes, (), prepare, ("vocab.txt",)
            )


# SQuAD.


def _set(*path):
    *parents, key, value = path

    def change(data):
        for parent in parents:
            data = data[parent]
        data[key] = value

    return change


def _drop(*path):
    *parents, key = path

    def change(data):
        for parent in parents:
            data = data[parent]
        del data[key]

    return change


def squad_files():
    paragraph = ("data", 0, "paragraphs", 0)
    question = (*paragraph, "qas", 0)
    answer = (*question, "answers", 0)
    changes = {}
    for value in (None, 5, "x", True, {}):
        changes[f"data={value!r}"] = _set("data", value)
        changes[f"context={value!r}"] = _set(
            *paragraph, "context", [value] if isinstance(value, str) else value
        )
        changes[f"qas={value!r}"] = _set(*paragraph, "qas", value)
        changes[f"question={value!r}"] = _set(*question, "question", [value])
        changes[f"id={value!r}"] = _set(*question, "id", [value])
        changes[f"answers={value!r}"] = _set(*question, "answers", value)
        changes[f"text={value!r}"] = _set(*answer, "text", [value])
        changes[f"answer_start={value!r}"] = _set(*answer, "answer_start", [value])
    for key in ("context", "qas"):
        changes[f"no {key}"] = _drop(*paragraph, key)
    for key in ("id", "question", "answers"):
        changes[f"no {key}"] = _drop(*question, key)
    for key in ("text", "answer_start"):
        changes[f"no {key}"] = _drop(*answer, key)
    changes |= {
        "no data": _drop("data"),
        "no articles": _set("data", []),
        "no answers": _set(*question, "answers", []),
        "an id twice": _set(*paragraph, "qas", 1, "id", "q00"),
        "is_impossible": _set(*question, "is_impossible", "no"),
        "unexpected 2.0": _set(*question, "is_impossible", True),
    }
    for name, change in changes.items():

        def prepare(good, change=change):
            data = copy.deepcopy(finetuning_data.squad())
            change(data)
            with open("bad.json", "w") as file:
                json.dump(data, file)

        for command, more in (
            ("squad", {"train_file": "bad.json"}),
            ("squad", _evaluation("bad.json")),
        ):
            is_train = "train_file" in more and "do_eval" not in more
            if not is_train and ("start" in name or name.startswith("answer_start")):
                continue  # Scores compare the texts alone.
            label = f"{'train' if is_train else 'predict'}_file: {name}"
            yield Case(label, command, more, (), prepare, ("bad.json",))


def _evaluation(path):
    return {"predict_file": path, "do_eval": "true"}


# Tables.


def tables():
    damages = {
        "a column twice": lambda rows: (
            [("text", "text", "label")] + [(text, text, name) for text, name in rows]
        ),
        "a label twice": lambda rows: (
            [("text", "label", "label")] + [(text, name, name) for text, name in rows]
        ),
        "an unused column twice": lambda rows: (
            [("text", "label", "x", "x")] + [(text, name, 1, 2) for text, name in rows]
        ),
        "no header": lambda rows: rows,
        "no label": lambda rows: [("text",)] + [(text,) for text, _ in rows],
        "a field more": lambda rows: [("text", "label"), *rows, ("a", "food", "b")],
        "a field less": lambda rows: [("text", "label"), *rows, ("a",)],
        "header again": lambda rows: [("text", "label"), *rows, ("text", "label")],
        "one class": lambda rows: (
            [("text", "label")] + [(text, "food") for text, _ in rows]
        ),
        "an empty label": lambda rows: [("text", "label"), *rows, ("a", "")],
        "only a header": lambda rows: [("text", "label")],
    }
    for name, damage in damages.items():

        def prepare(good, damage=damage):
            rows = damage(finetuning_data.class_rows())
            os.mkdir("bad")
            text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
            _write(text.encode())("bad/train.tsv", b"")

        yield Case(name, "classifier", {"data_dir": "bad"}, (), prepare, ("bad",))
    for label in ("1e308", "nan", "inf", "", "x", "1e400", "-1e300", "1e39", "٣x"):

        def prepare(good, label=label):
            os.mkdir("bad")
            text = f"text\tlabel\na b\t1.0\nb c\t{label}\n"
            _write(text.encode())("bad/train.tsv", b"")

        changes = {"data_dir": "bad", "is_regression": "true"}
        yield Case(
            f"label {label}", "classifier", changes, (), prepare, ("train.tsv, line 3",)
        )
    lines = {
        "cut": '{"text": "a"',
        "a list": "[1]",
        "no label": '{"text": "a"}',
        "null": '{"text": null, "label": "food"}',
        "a key twice": '{"text": "a", "text": "b", "label": "food"}',
        "NaN": '{"text": "a", "label": NaN}',
        "half a pair": '{"text": "\\ud800", "label": "food"}',
        "deep": "[" * 100_000,
        "a number": '{"text": 5, "label": "food"}',
        "blank": "",
        "latin-1": "caf\udce9",
    }
    for name, line in lines.items():

        def prepare(good, line=line):
            os.mkdir("bad")
            data = (good / "lines" / "train.jsonl").read_bytes() + b"\n"
            data += line.encode("utf-8", "surrogateescape") + b"\n"
            data += b"[]" * (not line)
            _write(data)("bad/train.jsonl", b"")

        changes = {"data_dir": "bad", "task_name": "jsonl"}
        expected = (f"train.jsonl, line {len(finetuning_data.class_rows()) + 1}",)
        yield Case(f"line: {name}", "classifier", changes, (), prepare, expected)
        if name != "blank":

            def prepare_documents(good, line=line):
                data = (good / "documents.jsonl").read_bytes()
                data += line.encode("utf-8", "surrogateescape") + b"\n"
                _write(data)("bad.jsonl", b"")

            for command in ("extract", "sentences"):
                if "text" in line and name in ("no label", "NaN"):
                    continue
                yield Case(
                    f"line: {name}",
                    command,
                    {"input": "bad.jsonl"},
                    (),
                    prepare_documents,
                    ("bad.jsonl, line 5",),
                )


# Precision lists and files of commands.


def settings_files():
    for name, text in {
        "a list": "[]",
        "unknown key": '{"denylist": []}',
        "no list": '{"allowlist": "MatMul"}',
        "null": '{"allowlist": null}',
        "a number": '{"allowlist": 5}',
        "unknown operation": '{"allowlist": ["MatMull"]}',
        "number in list": '{"allowlist": [5]}',
        "no pair": '{"non_convertible_exceptions": ["pooler"]}',
        "a bad pattern": '{"non_convertible_exceptions": [["(", ""]]}',
        "three": '{"convertible_exceptions": [["a", "MatMul", "b"]]}',
        "a key twice": '{"allowlist": [], "allowlist": ["MatMul"]}',
        "an object": '{"convertible_exceptions": {"a": 1}}',
        "null in pair": '{"convertible_exceptions": [["a", null]]}',
        "number in pair": '{"convertible_exceptions": [["a", 5]]}',
        "deep": '{"allowlist": ' + "[" * 500 + "]" * 500 + "}",
        "deep name": '{"allowlist": [' + "[" * 50 + "]" * 50 + "]}",
        "long": '{"allowlist": ["' + "x" * 100_000 + '"]}',
    }.items():

        def prepare(good, text=text):
            _write(text.encode())("bad.json", b"")

        for command in ("pretraining", "squad"):
            changes = {"bf16_config_path": "bad.json"}
            yield Case(
                f"precision: {name}", command, changes, (), prepare, ("bad.json",)
            )
    for name, text in {
        "no table": 'work_dir = "out"',
        "unknown table": 'work_dir = "out"\n[train]\na = 1',
        "unknown key": 'work_dir = "out"\n[extract]\nouput = 1',
        "unknown key at the top": 'work_dir = "out"\nseed = 1\n[extract]\ninput="a"',
        "a list": 'work_dir = "out"\n[extract]\ninput = ["a"]',
        "no work_dir": "[extract]\ninput = 'a'",
        "work_dir = 5": "work_dir = 5\n[extract]\ninput = 'a'",
        "a key twice": 'work_dir = "out"\n[vocab]\nvocab_size=5\nvocab_size=6',
        "a table twice": 'work_dir = "out"\n[vocab]\n[vocab]',
        "number": 'work_dir = "out"\n[vocab]\nvocab_size = nan',
        "huge number": f'work_dir = "out"\n[vocab]\nvocab_size = 1{"0" * 5000}',
        "infinite": 'work_dir = "out"\n[shard]\nfraction_test_set = inf',
        "deep": "a = " + "[" * 5000 + "]" * 5000,
        "deep table": "[" + ".".join("a" * 5000) + "]",
        "not TOML": "work_dir = out",
        "missing input": 'work_dir = "out"\n[extract]\ninput = "/none"',
        "out": 'work_dir = "out"\n[extract]\ninput = "/none"\noutput_dir = "/proc/a"',
    }.items():

        def prepare(good, text=text):
            _write(text.encode())("bad.toml", b"")

        changes = {"config": "bad.toml"}
        yield Case(f"config: {name}", "all", changes, (), prepare)
    for name, text in {
        "no name": "d41d8cd98f00b204e9800998ecf8427e\n",
        "a short sum": "d41d8cd98f  a\n",
        "no digits": "z41d8cd98f00b204e9800998ecf8427e  a\n",
        "another sum": "d41d8cd98f00b204e9800998ecf8427f  a\n",
        "a missing file": "d41d8cd98f00b204e9800998ecf8427e  b\n",
        "outside": "d41d8cd98f00b204e9800998ecf8427e  ../../etc/passwd\n",
        "absolute": "d41d8cd98f00b204e9800998ecf8427e  /etc/passwd\n",
        "words": "these are words\n",
    }.items():

        def prepare(good, text=text):
            _write(text.encode())("sums.md5", b"")

        yield Case(
            f"checksums: {name}", "verify", {"checksum_file": "sums.md5"}, (), prepare
        )


# Weights.


def weights():
    def checkpoint(change):
        def prepare(good):
            os.mkdir("bad")
            for path in (good / "pretrained").iterdir():
                if path.is_file():
                    _write(change(path.name, path.read_bytes()))(
                        f"bad/{path.name}", b""
                    )

        return prepare

    def only(suffix, new):
        return lambda name, data: new(data) if suffix in name else data

    def _flip(data):
        return data[:900] + bytes([data[900] ^ 1]) + data[901:]

    damages = {
        "cut data": only(".data-", lambda data: data[: len(data) // 2]),
        "flipped data": only(".data-", _flip),
        "no data": only(".data-", lambda data: b""),
        "cut index": only(".index", lambda data: data[: len(data) // 2]),
        "no index": only(".index", lambda data: b""),
        "random index": only(".index", _random),
        "no config": only("bert_config.json", lambda data: b"{}"),
        "cut config": only("bert_config.json", lambda data: data[:20]),
        "cut words": only("vocab.txt", lambda data: data[:50]),
    }
    for name, change in damages.items():
        for command in ("convert", "predict"):
            is_predict = command == "predict"
            if name == "cut words" and not is_predict:
                continue  # Weights are converted without a vocabulary, too.
            changes = {"model": "bad"} if is_predict else {}
            words = () if is_predict else ("bad", "out")
            yield Case(f"weights: {name}", command, changes, words, checkpoint(change))
    names = {
        "a.safetensors": [
            b"",
            b"\0" * 8,
            b"\xff" * 8 + b"{}",
            (10**6).to_bytes(8, "little") + b"{}",
            (2).to_bytes(8, "little") + b"{}",
            (4).to_bytes(8, "little") + b"[[[[",
            (8).to_bytes(8, "little") + b'{"a":{}}',
        ],
        "a.bin": [b"", b"PK\x03\x04", b"\x80\x04", b"random" * 99],
        "a.pt": [b"", b"PK\x05\x06" + b"\0" * 18, b"\x80\x02."],
        "a.h5": [b"\x89HDF\r\n\x1a\n" + b"\0" * 99],
        "a.npz": [b"PK\x03\x04"],
        "a.pkl": [b"\x80\x04."],
        "a.onnx": [b"x"],
        "a.zip": [b"PK\x05\x06" + b"\0" * 18],
        "a.tar.gz": [gzip.compress(b"x")],
        "a.ckpt": [b"x"],
        "a.ckpt.index": [b"x", b"", b"\0" * 99],
    }
    for name, contents in names.items():
        for number, content in enumerate(contents):

            def prepare(good, name=name, content=content):
                _write(content)(name, b"")
                config = (good / "model" / "bert_config.json").read_bytes()
                _write(config)("bert_config.json", b"")

            yield Case(f"{name} {number}", "convert", {}, (name, "out"), prepare)
            changes = {"init_checkpoint": name}
            yield Case(f"{name} {number}", "pretraining", changes, (), prepare)
    for destination in (
        *("file/out", "/proc/out", "/dev/null/x", "out.onnx", "x" * 300),
        *("out.pkl", "out.h5", "{good}/pretrained", "file"),
    ):

        def prepare(good):
            _write(b"x")("file", b"")

        words = ("{good}/pretrained", destination)
        yield Case(f"to {destination[:20]}", "convert", {}, words, prepare)
    yield Case("one word", "convert", {}, ("{good}/pretrained",))


def predictions():
    for name, data in {
        "no mask": b"The cat.\n",
        "JSON without text": b'{"a": 1}\n',
        "cut JSON": b'{"text": "[MASK]"\n',
        "a number": b'{"text": 5}\n',
        "latin-1": b"The [MASK] caf\xe9\n",
        "half a pair": b'{"text": "\\ud800 [MASK]"}\n',
        "too long": b"a " * 3000 + b"[MASK]\n",
        "a key twice": b'{"text": "[MASK]", "text": "[MASK]"}\n',
        "deep": b'{"text": ' + b"[" * 100_000 + b"\n",
        "only masks": b"[MASK] " * 3000,
    }.items():

        def prepare(good, data=data):
            _write(data)("bad.txt", b"")

        yield Case(
            f"input: {name}",
            "predict",
            {"input": "bad.txt"},
            (),
            prepare,
            ("bad.txt, line 1",),
        )
    for name, model in {
        "missing": "nowhere",
        "a file": "{good}/text.txt",
        "a folder without weights": "{good}/classes",
        "a device": "/dev/zero",
        "a name of a hub": "bert-base-uncased",
    }.items():
        yield Case(f"model: {name}", "predict", {"model": model})


# More tasks: each line replaces the last one of a good file.


def more_tasks():
    lines = {
        ("tags", "train.conll"): {
            "a column less": "Maria X B-PER",
            "an empty tag": "Maria\tX\tY\t",
            "two bytes": "caf\udce9 X Y O",
        },
        ("labels", "train.jsonl"): {
            "no label": '{"text": "a"}',
            "null": '{"text": "a", "labels": null}',
            "NaN": '{"text": "a", "labels": NaN}',
            "a list in a list": '{"text": "a", "labels": [["water"]]}',
            "an empty name": '{"text": "a", "labels": ["water", ""]}',
            "an object": '{"text": "a", "labels": {"water": 1}}',
            "half a pair": '{"text": "a", "labels": ["\\ud800"]}',
        },
        ("choices", "train.csv"): {
            "a label too high": "a,b,c,d,e,3",
            "a negative label": "a,b,c,d,e,-1",
            "no label": "a,b,c,d,e,",
            "many digits": f"a,b,c,d,e,{'1' * 5000}",
            "an empty ending": "a,b,c,,e,1",
            "a column less": "a,b,c,d,1",
            "an open quote": 'a,b,c,d,"e,1',
        },
    }
    for (command, name), damages in lines.items():
        for damage, line in damages.items():

            def prepare(good, command=command, name=name, line=line):
                os.mkdir("bad")
                data = (good / command / name).read_bytes().rstrip(b"\n")
                data += b"\n" + line.encode("utf-8", "surrogateescape") + b"\n"
                _write(data)(f"bad/{name}", b"")

            changes = {"data_dir": "bad"}
            yield Case(f"line: {damage}", command, changes, (), prepare, (name, "line"))
    inputs = {
        "tag": ('{"words": [""]}', '{"words": "a"}', '{"text": null}', '{"a": 1}', "{"),
        "choose": (
            "a text",
            '{"context": "a", "endings": ["b"]}',
            '{"context": "a", "endings": ["b", null]}',
            '{"context": null, "endings": ["b", "c"]}',
            f'{{"context": "a", "ending{"1" * 5000}": "b", "ending2": "c"}}',
        ),
        "embed": ('{"text_a": null}', '{"text_a": "a", "text_b": 5}', '{"a": 1}'),
    }
    for command, bad in inputs.items():
        for line in bad:

            def prepare(good, line=line):
                _write(line.encode())("bad.txt", b"")

            changes, where = {"input": "bad.txt"}, ("bad.txt, line 1",)
            yield Case(f"input: {line[:30]}", command, changes, (), prepare, where)
    for command, name, value in (
        ("tags", "is_multi_label", "true"),
        ("tags", "class_weights", "balanced"),
        ("tags", "init_checkpoint", "{good}/chooser"),
        ("choices", "is_regression", "true"),
        ("choices", "label_column", "none"),
        ("choices", "text_a_column", "none"),
        ("choices", "init_checkpoint", "{good}/classifier"),
        ("labels", "class_weights", "balanced"),
        ("labels", "is_regression", "true"),
        ("labels", "label_column", "a,,b"),
        ("labels", "init_checkpoint", "{good}/tagger"),
        ("classifier", "is_multi_label", "perhaps"),
        ("vectors", "anchor_column", "anchor"),
        ("vectors", "negative_column", "none"),
        ("vectors", "negative_column", "positive"),
        ("vectors", "train_batch_size", 1),
        ("vectors", "do_predict", "true"),
        ("vectors", "do_eval", "true"),
        ("vectors", "pooling", "max"),
        ("vectors", "scale", 0),
        ("vectors", "clip_each_micro_batch", "true"),
        ("vectors", "max_seq_length", 2),
        ("tag", "model", "{good}/chooser"),
        ("tag", "output", "a.npy"),
        ("choose", "model", "{good}/vectors"),
        ("choose", "pooling", "cls"),
        ("embed", "model", "{good}/classes"),
        ("embed", "output", "a.txt"),
        ("embed", "max_seq_length", 2),
        ("embed", "max_seq_length", 513),
        ("embed", "batch_size", 0),
        ("embed", "top_k", 3),
        ("extend", "num_tokens", 0),
        ("extend", "num_tokens", "x"),
        ("extend", "num_processes", -1),
        ("extend", "into_unused", "perhaps"),
        ("extend", "input", "{good}/model/bert_config.json,"),
    ):
        # The message is about the model, or the columns of the table.
        columns = ("negative_column", "label_column", "text_a_column")
        is_named = name not in ("init_checkpoint", *columns)
        expected = (name,) if is_named else ("Received",)
        yield Case(f"{name}={value}", command, {name: value}, expected=expected)


def all_cases():
    """Every case, those of one kind next to each other."""
    kinds = (flags, files, outputs, architectures, vocabularies, squad_files, tables)
    kinds += (settings_files, weights, predictions, more_tasks, numbers)
    return [case for kind in kinds for case in kind()]
