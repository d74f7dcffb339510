"""Weights in several files: all of them, or a refusal that names what is missing."""

import json

import pytest
from interop.tiny_bert import assert_equal_bytes, write_neighbours
from safetensors.numpy import save_file

from bert_tf.interop.huggingface import to_huggingface_names
from bert_tf.interop.torch_files import save_torch
from bert_tf.interop.weights import read_weights


def write_parts(folder, tiny, tensors, stem="model", kind="safetensors", **more):
    """Two files and their index, as transformers writes them."""
    write_neighbours(folder, tiny, "config.json")
    tensors = to_huggingface_names(tensors)
    names, places = sorted(tensors), {}
    half = len(names) // 2
    for number, members in enumerate((names[:half], names[half:]), start=1):
        file = f"{stem}-{number:05d}-of-00002.{kind}"
        places |= dict.fromkeys(members, file)
        part = {name: tensors[name] for name in members}
        if kind == "safetensors":
            save_file(part, folder / file)
        else:
            save_torch(folder / file, part)
    index = folder / f"{stem}.{kind}.index.json"
    values = {"metadata": {"total_size": 1}, "weight_map": places | more}
    index.write_text(json.dumps(values))
    return index


@pytest.mark.parametrize(
    "stem, kind", [("model", "safetensors"), ("pytorch_model", "bin")]
)
@pytest.mark.parametrize("names_index", [False, True], ids=["folder", "index"])
def test_all_files_are_read(tmp_path, tiny, tiny_tensors, stem, kind, names_index):
    index = write_parts(tmp_path, tiny, tiny_tensors, stem, kind)
    read = read_weights(index if names_index else tmp_path)
    assert_equal_bytes(read.tensors, tiny_tensors)
    assert read.config == tiny


def test_a_missing_file_is_named(tmp_path, tiny, tiny_tensors):
    write_parts(tmp_path, tiny, tiny_tensors)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    pattern = "names 2 files, .* missing: model-00002-of-00002.safetensors"
    with pytest.raises(FileNotFoundError, match=pattern):
        read_weights(tmp_path)


def test_one_of_the_files_alone_is_refused(tmp_path, tiny, tiny_tensors):
    index = write_parts(tmp_path, tiny, tiny_tensors)
    with pytest.raises(ValueError, match="one of several files") as raised:
        read_weights(tmp_path / "model-00001-of-00002.safetensors")
    assert str(index) in str(raised.value)


def test_a_single_file_with_a_number_is_a_whole_one(tmp_path, tiny, tiny_tensors):
    write_neighbours(tmp_path, tiny, "config.json")
    path = tmp_path / "model-00001-of-00001.safetensors"
    save_file(to_huggingface_names(tiny_tensors), path)
    assert_equal_bytes(read_weights(path).tensors, tiny_tensors)


def test_an_index_of_other_files_is_refused(tmp_path, tiny, tiny_tensors):
    more = {"bert.other.weight": "model-00001-of-00002.safetensors"}
    write_parts(tmp_path, tiny, tiny_tensors, **more)
    with pytest.raises(ValueError, match="do not belong together.*bert.other.weight"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "place", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", 7, None]
)
def test_an_index_that_names_files_elsewhere_is_refused(
    tmp_path, tiny, tiny_tensors, place
):
    write_parts(tmp_path, tiny, tiny_tensors, x=place)
    with pytest.raises(ValueError, match="which is not a file next to it"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "it is empty"),
        ("{", "Expecting"),
        ("[]", "must hold a JSON object"),
        ('{"weight_map": {}}', "no `weight_map`"),
        ("<html></html>", "a page of HTML"),
        ("version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path, text, reason):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=f"index.json .*{reason}"):
        read_weights(tmp_path)
