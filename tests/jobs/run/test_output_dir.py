import json
import types

import pytest
import tensorflow as tf
import tokenizers
from conftest import TINY
from runs import position

from bert_tf.config import BertConfig
from bert_tf.data.text.tokenization import TokenizerSettings
from bert_tf.errors import RunError
from bert_tf.jobs.run.model_files import RunTokenizer
from bert_tf.jobs.run.output_dir import (
    PRETRAINING,
    FolderTask,
    changed_files,
    check_model_files,
    model_files,
    no_traces,
    require_same_task,
    squad_task,
    write_missing_files,
)
from bert_tf.jobs.run.resume import StartingPoint
from bert_tf.training import checkpoints

MRPC = FolderTask("classify", "MRPC")
SETTINGS = {
    "pretraining": {"files": {}},
    "squad": {"squad": {"version_2_with_negative": False}},
    "classify": {"task": {"task_name": "mrpc"}},
}


def check(known, task, *, do_train=True):
    """Resumes `task` in /used, whose newest manifest is of `known`."""
    manifest = position(config=SETTINGS[known])
    start = StartingPoint("/used/model.ckpt-3", True, manifest, is_own=True)
    config = types.SimpleNamespace(
        files=types.SimpleNamespace(output_dir="/used"),
        training=types.SimpleNamespace(do_train=do_train),
    )
    require_same_task(config, start, task)


def test_the_same_task_passes():
    check("pretraining", FolderTask(PRETRAINING))
    check("squad", squad_task(False))
    check("classify", MRPC)


def test_formats_of_own_files_are_one_task():
    assert FolderTask("classify", "tsv").is_same(FolderTask("classify", "jsonl"))
    assert not FolderTask("classify", "tsv").is_same(MRPC)


def test_both_tasks_are_named():
    wanted = r"/used with those of classification \(mrpc\), for SQuAD \(1.1\)\."
    with pytest.raises(ValueError, match=wanted):
        check("classify", squad_task(False))


def test_pretraining_is_not_advised_to_start_from_weights_without_its_heads():
    with pytest.raises(
        ValueError, match="Pass another --output_dir, or --overw"
    ) as caught:
        check("classify", FolderTask(PRETRAINING))
    assert "--init_checkpoint" not in str(caught.value)


def test_other_classes_are_advised_a_new_head():
    wanted = "--init_checkpoint=/used .and --new_head for other classes. to start"
    with pytest.raises(ValueError, match=wanted):
        check("classify", FolderTask("classify", "RTE"))
    with pytest.raises(ValueError, match="--init_checkpoint=/used to start"):
        check("squad", MRPC)


def test_without_training_another_folder_is_advised():
    wanted = r"Pass an --output_dir with checkpoints of classification \(MRPC\)\."
    with pytest.raises(ValueError, match=wanted):
        check("pretraining", MRPC, do_train=False)


WORDS = b"[PAD]\nthe\n"


@pytest.fixture
def files(tmp_path):
    """The files of a tiny model with a task."""
    (tmp_path / "given.txt").write_bytes(WORDS)
    settings = TokenizerSettings(True, True, True)
    tokenizer = RunTokenizer(str(tmp_path / "given.txt"), settings, [])
    return model_files(BertConfig(**TINY), tokenizer, {"task": "squad"})


def test_the_files_of_a_model_say_all_that_a_prediction_needs(files):
    assert files["vocab.txt"] == WORDS
    assert json.loads(files["bert_config.json"])["num_attention_heads"] == 2
    assert json.loads(files["task.json"]) == {"task": "squad", "do_lower_case": True}
    assert json.loads(files["tokenizer_config.json"])["do_lower_case"] is True


def test_the_words_of_a_tokenizer_are_written_as_lines(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    ids = {word: number for number, word in enumerate(words)}
    path = str(tmp_path / "tokenizer.json")
    tokenizers.Tokenizer(tokenizers.models.WordPiece(ids)).save(path)
    found = model_files(BertConfig(**TINY), RunTokenizer(path, None, []), None)
    assert found["vocab.txt"].decode() == "\n".join(words) + "\n"


def test_a_pretraining_has_no_task_and_may_have_no_vocabulary():
    found = model_files(BertConfig(**TINY), RunTokenizer("", None, []), None)
    assert found.keys() == {"task.json", "bert_config.json"}
    assert found["task.json"] is None


def test_missing_files_of_a_finished_run_are_written_again(files, tmp_path):
    (tmp_path / "bert_config.json").write_text("edited")
    write_missing_files(str(tmp_path), files | {"task.json": None})
    assert (tmp_path / "bert_config.json").read_text() == "edited"
    assert (tmp_path / "vocab.txt").read_bytes() == WORDS
    assert not (tmp_path / "task.json").exists()


def test_files_of_another_content_change_with_the_next_checkpoint(files, tmp_path):
    write_missing_files(str(tmp_path), files)
    assert changed_files(str(tmp_path), files) == {}
    (tmp_path / "bert_config.json").write_text("earlier")
    (tmp_path / "vocab.txt").unlink()
    of_pretraining = files | {"task.json": None}
    assert changed_files(str(tmp_path), of_pretraining) == {
        "bert_config.json": files["bert_config.json"],
        "vocab.txt": WORDS,
        "task.json": None,
    }


def check_files(folder, files, *, overwrite=False):
    given = types.SimpleNamespace(
        output_dir=str(folder), overwrite_output_dir=overwrite
    )
    check_model_files(types.SimpleNamespace(files=given), files)


@pytest.mark.parametrize(
    "name, content, title",
    [
        ("bert_config.json", json.dumps(TINY | {"hidden_act": "relu"}), "architecture"),
        ("bert_config.json", "not JSON", "architecture"),
        ("vocab.txt", "[PAD]\na\n", "vocabulary"),
    ],
)
def test_weights_with_other_files_are_not_trained_over(
    files, tmp_path, name, content, title
):
    (tmp_path / name).write_text(content)
    check_files(tmp_path, files)  # They describe nothing.
    checkpoints.save(str(tmp_path), {"w": tf.zeros([2])}, position())
    with pytest.raises(ValueError, match=f"{name} has another {title} than this run"):
        check_files(tmp_path, files)
    check_files(tmp_path, files, overwrite=True)


def test_weights_with_the_same_files_written_otherwise_are_no_obstacle(files, tmp_path):
    checkpoints.save(str(tmp_path), {"w": tf.zeros([2])}, position())
    (tmp_path / "bert_config.json").write_text(json.dumps(TINY, indent=7))
    (tmp_path / "vocab.txt").write_bytes(WORDS.replace(b"\n", b"\r\n"))
    check_files(tmp_path, files)


def make_caches(folder):
    for name in (".cache/windows.npz", ".record_index/offsets.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_refused_run_leaves_no_folder(tmp_path):
    folder = tmp_path / "results" / "run"
    with pytest.raises(RunError), no_traces(str(folder)):
        make_caches(folder)
        raise RunError("refused")
    assert not (tmp_path / "results").exists()


def test_a_refused_run_leaves_what_was_there(tmp_path):
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "earlier.npz").touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError), no_traces(str(tmp_path)):
        make_caches(tmp_path)
        raise RunError("refused")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"notes.txt", ".cache/earlier.npz"}


def test_a_run_that_starts_or_is_killed_keeps_its_caches(tmp_path):
    with no_traces(str(tmp_path / "run")):
        make_caches(tmp_path / "run")
    assert (tmp_path / "run" / ".cache" / "windows.npz").exists()
    with pytest.raises(KeyboardInterrupt), no_traces(str(tmp_path / "other")):
        make_caches(tmp_path / "other")
        raise KeyboardInterrupt
    assert (tmp_path / "other" / ".cache" / "windows.npz").exists()
