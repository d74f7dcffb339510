"""The Python interface: its names, and the examples of its page and its notebook."""

import ast
import dataclasses
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib

import keras
import numpy as np
import pytest
from conftest import ROOT, make_example, write_records

import bert_tf
from bert_tf import keras_registration, runs
from bert_tf.config import PretrainingConfig
from bert_tf.flags import parse

PAGE = ROOT / "docs/api.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
NOTEBOOK = ROOT / "examples/fit_with_lamb.ipynb"


def test_all_lists_what_there_is():
    assert bert_tf.__all__ == sorted([*bert_tf._MODULES, "__version__"])
    for name in bert_tf.__all__:
        value = getattr(bert_tf, name)
        assert name == name.upper() or name == "__version__" or value.__doc__, name
    assert set(bert_tf.__all__) <= set(dir(bert_tf))


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "bert_tf/__init__.py").read_text())
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    names = {alias.name: node.module for node in block.body for alias in node.names}
    assert names == {n: f"bert_tf.{module}" for n, module in bert_tf._MODULES.items()}
    assert (ROOT / "bert_tf/py.typed").exists()


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        bert_tf.no_such_name  # noqa: B018


def test_the_version_has_one_source():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    source = project["tool"]["setuptools"]["dynamic"]["version"]
    assert source == {"attr": "bert_tf.__version__"}
    assert bert_tf.__version__ == importlib.metadata.version("bert_tf")


def test_importing_loads_no_tensorflow():
    check = "import sys, bert_tf; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


def test_every_class_of_files_is_known_to_keras():
    decorated = {
        (path.relative_to(ROOT / "bert_tf").with_suffix("").as_posix(), node.name)
        for path in (ROOT / "bert_tf").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any("register_keras" in ast.unparse(d) for d in node.decorator_list)
    }
    assert decorated == {
        (module.replace(".", "/"), name)
        for module, names in keras_registration.CLASSES.items()
        for name in names
    }
    table = keras.saving.get_custom_objects()
    assert {f"bert_tf>{name}" for _, name in decorated} <= table.keys()


@pytest.mark.slow
def test_a_new_process_that_imports_bert_tf_loads_a_model(tmp_path, tiny_config):
    model = bert_tf.build_classifier_model(tiny_config, 3)
    model.compile(bert_tf.LAMB(1e-3))
    ids = np.random.default_rng(0).integers(5, 30, (4, 7))
    model.fit(ids, np.array([0, 1, 2, 0]), verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "ids.npy", ids)
    script = (
        "import bert_tf, keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "np.save('logits.npy', model(np.load('ids.npy'))['class_logits'])\n"
        "assert type(model.optimizer) is bert_tf.LAMB\n"
        "assert int(model.optimizer.iterations) == 1\n"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, env=environment
    )
    expected = model(ids)["class_logits"].numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with records and the vocabulary, as README's commands leave it."""
    folder = tmp_path_factory.mktemp("api")
    (folder / ".data").symlink_to(ROOT / ".data")
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        path = folder / "results/records" / name
        path.mkdir(parents=True)
        examples = [
            make_example(rng, vocab_size=30522, max_seq_length=128) for _ in range(32)
        ]
        write_records(path / "part-0.tfrecord", examples)
    return folder


@pytest.mark.slow
def test_the_examples_of_the_page_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert len(EXAMPLES) == 5
    names = {}
    for text in EXAMPLES:
        assert len(ast.parse(text).body) <= 10
        exec(compile(text, str(PAGE), "exec"), names)
    assert names["results"]["masked_lm_loss"] > 0
    assert names["vectors"].shape == (2, 128)
    printed = capsys.readouterr().out
    assert len(re.findall(r"(good|bad) \{'bad': 0", printed)) == 2


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(NOTEBOOK.read_text())
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]  # Numbers of one machine are no documentation.
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    assert names["history"].history["val_accuracy"][-1] == 1.0
    assert names["logits"].numpy().argmax(-1).tolist() == [1, 0]


def test_runs_take_the_names_of_flags():
    with pytest.raises(ValueError, match="output_dri. Did you mean output_dir?"):
        bert_tf.pretrain(output_dri="results")
    with pytest.raises(ValueError, match="`input_files_dir` must be given"):
        bert_tf.pretrain(do_train=True, output_dir="x", preset="tiny")


def test_other_names_of_flags_are_taken_as_on_a_command_line(tmp_path, monkeypatch):
    given = dict(do_train=True, preset="tiny", output_dir=tmp_path / "run")
    write_records(tmp_path / "part-0.tfrecord", [make_example(np.random.default_rng())])
    given["input_files_dir"] = tmp_path
    monkeypatch.setattr(runs.pretraining, "run", lambda config: config)
    assert bert_tf.pretrain(**given, max_steps=5).optimizer.num_train_steps == 5
    assert bert_tf.pretrain(**given, max_steps=5, num_train_steps=None, log_freq=None)
    with pytest.raises(ValueError, match="max_steps=5, num_train_steps=6. Pass one"):
        bert_tf.pretrain(**given, max_steps=5, num_train_steps=6)
    with pytest.raises(ValueError, match="Did you mean save_checkpoints_steps?"):
        bert_tf.pretrain(**given, save_steps=5)


def test_a_list_may_be_a_text_as_in_a_flag():
    with pytest.raises(ValueError, match="Did you mean wandb?"):
        bert_tf.pretrain(
            do_train=True,
            preset="tiny",
            input_files_dir="x",
            output_dir="y",
            tracker="wandbb",
        )


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("do_train", "false", "True or False"),
        ("num_train_steps", "100", "a whole number"),
        ("seed", 10**400, "a whole number"),
        ("num_train_steps", 0.5, "a whole number"),
        ("learning_rate", "1e-4", "a number"),
        ("learning_rate", True, "a number"),
        ("vocab_file", 3, "a text"),
        ("export_steps", 10, "a list"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(name, value, rule):
    settings = {"output_dir": "x", "preset": "tiny", name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be {rule}. Received: {name}="):
        bert_tf.pretrain(**settings)


def test_numbers_of_numpy_lists_of_numbers_and_none_are_as_in_flags(tmp_path):
    config = runs._config(
        PretrainingConfig,
        {
            "output_dir": tmp_path / "run",
            "preset": "tiny",
            "input_files_dir": tmp_path,
            "do_train": np.True_,
            "num_train_steps": np.int64(20),
            "train_batch_size": 8.0,
            "learning_rate": 1,
            "export_steps": [0, 10],
            "init_checkpoint": None,
        },
    )
    flags = [
        *(f"--output_dir={tmp_path}/run", f"--input_files_dir={tmp_path}"),
        "--do_train",
        *("--preset=tiny", "--num_train_steps=20", "--train_batch_size=8"),
        *("--learning_rate=1", "--export_steps=0,10"),
    ]
    assert repr(config) == repr(parse(PretrainingConfig, ["", *flags]))


def test_a_precision_that_is_set_before_tensorflow_is_refused(
    tiny_config_file, tiny_records, tmp_path
):
    settings = dict(bert_config_file=tiny_config_file, input_files_dir=tiny_records)
    with pytest.raises(ValueError, match="fp32, bf16 or fp16 from Python"):
        bert_tf.pretrain(
            do_train=True, precision="bf32", output_dir=tmp_path, **settings
        )


def test_a_tokenizer_is_found_next_to_weights(tmp_path, tiny_config):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Cat", "cat"]
    vocab_file = tmp_path / "vocab.txt"
    vocab_file.write_text("\n".join(words) + "\n")
    model = bert_tf.build_encoder_model(dataclasses.replace(tiny_config, vocab_size=7))
    folder = tmp_path / "model"
    bert_tf.save_pretrained(
        model, folder, vocab_file=str(vocab_file), do_lower_case=False
    )
    assert bert_tf.load_tokenizer(folder)("Cat")["input_ids"].tolist() == [[2, 5, 3]]
    lower = bert_tf.load_tokenizer(str(vocab_file), do_lower_case=True)
    assert lower("Cat")["input_ids"].tolist() == [[2, 6, 3]]
    (folder / "vocab.txt").unlink()  # transformers 5 writes none.
    assert bert_tf.load_tokenizer(folder)("Cat")["input_ids"].tolist() == [[2, 5, 3]]
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="neither vocab.txt nor .* next to"):
        bert_tf.load_tokenizer(folder)


MESSAGES = """
import logging
from bert_tf.config import BertConfig

values = BertConfig().to_dict() | {"colour": 1}
BertConfig.from_dict(values, "mine")
logging.getLogger("bert_tf").setLevel(logging.ERROR)
BertConfig.from_dict(values, "again")
assert not logging.root.handlers
"""


def test_messages_are_plain_lines_that_a_program_can_silence():
    command = [sys.executable, "-c", MESSAGES]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == "mine: the unknown key 'colour' is ignored.\n"
