"""The files of sentence-transformers: written, and read from others."""

import json

import pytest

from bert_tf.interop.sentence_files import (
    SentenceSettings,
    describe_prompts,
    read_settings,
    sentence_files,
)

_BASE = "sentence_transformers.base.modules"
_MODULES = "sentence_transformers.sentence_transformer.modules"
# As noted from what `SentenceTransformer.save` wrote.
SAVED_BY_6 = {
    "modules.json": json.dumps(
        [
            {"path": "", "type": f"{_BASE}.transformer.Transformer"},
            {"path": "1_Pooling", "type": f"{_MODULES}.pooling.Pooling"},
            {"path": "2_Normalize", "type": f"{_BASE}.normalize.Normalize"},
        ]
    ),
    "1_Pooling/config.json": '{"embedding_dimension": 8, "pooling_mode": "cls"}',
    "sentence_bert_config.json": '{"transformer_task": "feature-extraction"}',
    "config_sentence_transformers.json": '{"prompts": {"query": "", "document": ""}}',
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_settings_are_read_as_they_were_written(tmp_path, pooling):
    settings = SentenceSettings(pooling, 96)
    folder = write(tmp_path, sentence_files(settings, 8))
    assert read_settings(folder, {}) == settings


def test_a_folder_without_modules_says_nothing(tmp_path):
    assert read_settings(str(tmp_path), {}) == SentenceSettings("", 0)


def test_task_json_says_how_a_model_of_ours_was_trained(tmp_path):
    known = {"task": "embed", "pooling": "cls", "max_seq_length": 32}
    assert read_settings(str(tmp_path), known) == SentenceSettings("cls", 32)


@pytest.mark.parametrize("mode", ["max", "mean_tokens and max"])
def test_another_pooling_is_refused_unless_one_is_given(tmp_path, mode):
    files = sentence_files(SentenceSettings("mean", 96), 8)
    values = json.loads(files["1_Pooling/config.json"])
    values |= {
        "pooling_mode_max_tokens": True,
        "pooling_mode_mean_tokens": "and" in mode,
    }
    folder = write(tmp_path, files | {"1_Pooling/config.json": json.dumps(values)})
    with pytest.raises(ValueError, match="the pooling must be mean or cls"):
        read_settings(folder, {})
    assert read_settings(folder, {}, is_pooling_given=True).max_seq_length == 96


def write_version_6(tmp_path, length):
    """What sentence-transformers 6.2 writes: see SAVED_BY_6."""
    return write(tmp_path, SAVED_BY_6 | {"tokenizer_config.json": length})


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        ('{"model_max_length": 24}', 24),
        ('{"model_max_length": 1e+30}', int(1e30)),
        ('{"model_max_length": null}', 0),
    ],
)
def test_version_6_leaves_the_length_to_the_tokenizer(tmp_path, length, expected):
    folder = write_version_6(tmp_path, length)
    assert read_settings(folder, {}) == SentenceSettings("cls", expected)


def test_a_length_that_is_no_number_is_refused_where_it_is(tmp_path):
    folder = write_version_6(tmp_path, '{"model_max_length": "24"}')
    with pytest.raises(ValueError, match="tokenizer_config.json: model_max_length"):
        read_settings(folder, {})


def test_prompts_that_are_not_put_before_texts_are_named(tmp_path):
    folder = write_version_6(tmp_path, "{}")
    assert describe_prompts(folder) == []
    path = tmp_path / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "query: ", "document": ""}}')
    [line] = describe_prompts(folder)
    assert line.startswith("warning") and "'query: '. Put them there" in line


def test_a_layer_behind_the_pooling_is_refused(tmp_path):
    files = sentence_files(SentenceSettings("mean", 96), 8)
    modules = json.loads(files["modules.json"])
    modules.append({"path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    folder = write(tmp_path, files | {"modules.json": json.dumps(modules)})
    with pytest.raises(ValueError, match="Received: Dense. Use sentence-transformers"):
        read_settings(folder, {})


def test_modules_must_be_a_list(tmp_path):
    folder = write(tmp_path, {"modules.json": "{}"})
    with pytest.raises(ValueError, match="modules must be Transformer.*Received: None"):
        read_settings(folder, {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling": ["mean"]}, "the pooling must be mean or cls. Received: .'mean'."),
        ({"max_seq_length": True}, "max_seq_length must be a whole number"),
    ],
)
def test_values_of_another_type_are_refused(tmp_path, values, message):
    known = {"task": "embed", "pooling": "cls", "max_seq_length": 32}
    with pytest.raises(ValueError, match=message):
        read_settings(str(tmp_path), known | values)


def test_a_given_pooling_is_used_instead_of_that_of_the_task_file(tmp_path):
    known = {"task": "embed", "pooling": "max", "max_seq_length": 32}
    with pytest.raises(ValueError, match="or pass --pooling to `predict embed`"):
        read_settings(str(tmp_path), known)
    found = read_settings(str(tmp_path), known, is_pooling_given=True)
    assert found.max_seq_length == 32
