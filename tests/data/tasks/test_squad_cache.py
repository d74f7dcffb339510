import dataclasses
import os

import numpy as np
import pytest
from data.shared import arrays_of, assert_equal_windows

from bert_tf.data.tasks import squad_cache
from bert_tf.data.tasks.squad_cache import (
    load_or_build_windows,
    read_windows,
    write_windows,
)
from bert_tf.data.tasks.squad_files import SquadExample
from bert_tf.data.tasks.squad_windows import WindowSettings, build_windows
from bert_tf.data.text.tokenization import CASED, UNCASED, WordPieceTokenizer

SETTINGS = WindowSettings(max_seq_length=9, doc_stride=2, max_query_length=2)
EXAMPLES = [
    SquadExample(f"q{i}", "was it", "the cat sat on a mat and ran " * (i % 3 + 1))
    for i in range(7)
]


@pytest.fixture
def arguments(tmp_path, vocab_file):
    """What a job gives; the data file's content counts, not its form."""
    data_file = tmp_path / "squad.json"
    data_file.write_text("{}")
    own_vocab_file = tmp_path / "vocab.txt"
    with open(vocab_file, encoding="utf-8") as file:
        own_vocab_file.write_text(file.read(), encoding="utf-8")
    return {
        "data_file": str(data_file),
        "examples": EXAMPLES,
        "vocab_file": str(own_vocab_file),
        "tokenizer_settings": UNCASED,
        "settings": SETTINGS,
        "cache_dir": str(tmp_path / "cache"),
        "num_processes": 1,
    }


@pytest.fixture
def expected(vocab_file):
    return build_windows(EXAMPLES, WordPieceTokenizer(vocab_file), SETTINGS)


def forbid_building(monkeypatch):
    def build(*_):
        raise AssertionError("built again")

    monkeypatch.setattr(squad_cache, "build_windows", build)


def cached_file(arguments):
    [name] = os.listdir(arguments["cache_dir"])
    assert name.startswith("squad_windows_")
    assert name.endswith(".npz")
    return os.path.join(arguments["cache_dir"], name)


def test_windows_are_those_of_all_examples(arguments, expected):
    assert_equal_windows(load_or_build_windows(**arguments), expected)


def test_parts_make_the_same_windows(arguments, expected, monkeypatch):
    monkeypatch.setattr(squad_cache, "_EXAMPLES_PER_TASK", 3)
    assert_equal_windows(load_or_build_windows(**arguments), expected)


def test_two_processes_make_the_same_windows(arguments, expected, monkeypatch):
    monkeypatch.setattr(squad_cache, "_EXAMPLES_PER_TASK", 4)
    arguments |= {"num_processes": 2}
    assert_equal_windows(load_or_build_windows(**arguments), expected)


def test_windows_are_built_once(arguments, expected, monkeypatch):
    load_or_build_windows(**arguments)
    forbid_building(monkeypatch)
    assert_equal_windows(load_or_build_windows(**arguments), expected)


def test_the_cache_holds_one_file_that_others_may_read(arguments):
    load_or_build_windows(**arguments)
    path = cached_file(arguments)
    with np.load(path, allow_pickle=False) as file:
        assert set(file["input_ids"].shape) == set(file["char_begin"].shape)
    umask = os.umask(0)
    os.umask(umask)
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~umask


def test_without_a_cache_nothing_is_written(arguments, expected, tmp_path):
    before = sorted(os.listdir(tmp_path))
    arguments["cache_dir"] = ""
    assert_equal_windows(load_or_build_windows(**arguments), expected)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer_settings": CASED},
        {"settings": dataclasses.replace(SETTINGS, doc_stride=3)},
        {"settings": dataclasses.replace(SETTINGS, max_seq_length=10)},
        {"settings": dataclasses.replace(SETTINGS, max_query_length=1)},
        {"examples": EXAMPLES[1:]},
        {
            "examples": [
                *EXAMPLES[:-1],
                dataclasses.replace(EXAMPLES[-1], is_impossible=1),
            ]
        },
    ],
)
def test_other_settings_are_cached_elsewhere(arguments, change):
    load_or_build_windows(**arguments)
    load_or_build_windows(**arguments | change)
    assert len(os.listdir(arguments["cache_dir"])) == 2


@pytest.mark.parametrize("name", ["data_file", "vocab_file"])
def test_a_changed_file_is_cached_elsewhere(arguments, name):
    load_or_build_windows(**arguments)
    with open(arguments[name], "a") as file:
        file.write("word\n")
    load_or_build_windows(**arguments)
    assert len(os.listdir(arguments["cache_dir"])) == 2


def test_a_changed_vocabulary_is_read_again(arguments, expected):
    load_or_build_windows(**arguments)
    with open(arguments["vocab_file"], encoding="utf-8") as file:
        words = file.read().replace("\ncat\n", "\nkitten\n")
    with open(arguments["vocab_file"], "w", encoding="utf-8") as file:
        file.write(words)
    ids = load_or_build_windows(**arguments).sequences.input_ids
    assert not np.array_equal(ids, expected.sequences.input_ids)


def test_a_renamed_file_is_found_in_the_cache(arguments, monkeypatch):
    load_or_build_windows(**arguments)
    renamed = arguments["data_file"] + ".copy"
    os.rename(arguments["data_file"], renamed)
    forbid_building(monkeypatch)
    load_or_build_windows(**arguments | {"data_file": renamed})


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:900] + bytes([data[900] ^ 1]) + data[901:],
        lambda data: b"not a cache",
        lambda data: b"\x80\x04]\x94.",
    ],
    ids=["empty", "cut", "a flipped bit", "text", "a pickle"],
)
def test_a_damaged_file_is_built_again_with_a_warning(arguments, expected, damage):
    load_or_build_windows(**arguments)
    path = cached_file(arguments)
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(damage(data))
    with pytest.warns(UserWarning, match="is damaged .* and built again"):
        assert_equal_windows(load_or_build_windows(**arguments), expected)
    assert_equal_windows(read_windows(path, len(EXAMPLES)), expected)


@pytest.mark.parametrize(
    "name, value",
    [
        ("answer_first", np.zeros(2, np.int32)),
        ("char_end", np.zeros(3, np.int32)),
        ("is_max_context", np.zeros((2, 2), np.bool_)),
        ("char_begin", "as int64"),
        ("example_index", "all zero"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, expected, name, value):
    if isinstance(value, str):
        array = getattr(expected, name)
        value = array.astype(np.int64) if value == "as int64" else array * 0
    path = str(tmp_path / "windows.npz")
    write_windows(path, dataclasses.replace(expected, **{name: value}))
    with pytest.raises(ValueError, match=f"`{name}` must"):
        read_windows(path, len(EXAMPLES))


def test_pickled_objects_are_refused(tmp_path, expected):
    path = str(tmp_path / "windows.npz")
    np.savez(path, **arrays_of(expected) | {"char_begin": np.array([{}], object)})
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_windows(path, len(EXAMPLES))


def test_a_failed_write_leaves_nothing(tmp_path, expected, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_windows(str(tmp_path / "cache" / "windows.npz"), expected)
    assert os.listdir(tmp_path / "cache") == []


def test_a_missing_vocabulary_is_named(arguments):
    arguments["vocab_file"] += ".gone"
    with pytest.raises(FileNotFoundError, match="vocab_file=.*gone"):
        load_or_build_windows(**arguments)


def test_windows_that_memory_does_not_hold_are_refused(arguments, monkeypatch):
    """Each piece fits, but not all of them together."""
    monkeypatch.setattr(squad_cache, "_EXAMPLES_PER_TASK", 2)
    monkeypatch.setattr(squad_cache, "memory_total", lambda: 96 * 150)
    with pytest.raises(
        ValueError, match=r"squad\.json: The windows of \d .* 150 tokens"
    ):
        load_or_build_windows(**arguments)
    assert not os.path.exists(arguments["cache_dir"])
