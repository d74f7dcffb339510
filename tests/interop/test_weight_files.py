import json

import pytest

from bert_tf.interop.weight_files import Kind, Source, find_source


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    "spelling", ["", ".index", ".data-00000-of-00001"], ids=["prefix", "index", "data"]
)
def test_a_checkpoint_may_be_named_with_any_ending(tmp_path, spelling):
    touch(tmp_path, "bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001")
    found = find_source(tmp_path / f"bert_model.ckpt{spelling}")
    prefix = str(tmp_path / "bert_model.ckpt")
    assert found == Source(Kind.TENSORFLOW, prefix, "", "")


def test_a_dot_pt_next_to_a_checkpoint_of_the_same_step_is_itself(tmp_path):
    touch(tmp_path, "model.ckpt-28252.index", "model.ckpt-28252.apex.pt")
    assert find_source(tmp_path / "model.ckpt-28252.apex.pt").kind is Kind.TORCH


@pytest.mark.parametrize(
    "names, expected",
    [
        (["model.ckpt-9.index", "model.ckpt-10.index"], "model.ckpt-10"),
        (["bert_model.ckpt.index"], "bert_model.ckpt"),
        (["bert_model.ckpt.index", "model.ckpt-0.index"], "model.ckpt-0"),
        (["ckpt-2.index", "ctl_step_5.ckpt-1.index"], "ckpt-2"),
        (["pytorch_model.bin", "model.ckpt-10.index"], "pytorch_model.bin"),
        (["pytorch_model.bin", "model.safetensors"], "model.safetensors"),
    ],
)
def test_a_folder_is_what_is_best_in_it(tmp_path, names, expected):
    touch(tmp_path, *names)
    assert find_source(tmp_path).path == str(tmp_path / expected)


@pytest.mark.parametrize(
    "named, expected",
    [
        ("model.ckpt-3", "model.ckpt-3"),
        ("/another/machine/model.ckpt-3", "model.ckpt-3"),
        ("../../model.ckpt-3", "model.ckpt-3"),
        ("model.ckpt-4", "model.ckpt-5"),
    ],
)
def test_the_file_checkpoint_names_the_one_that_counts(tmp_path, named, expected):
    touch(tmp_path, "model.ckpt-3.index", "model.ckpt-5.index")
    state = f'model_checkpoint_path: "{named}"\nall_model_checkpoint_paths: "x"\n'
    (tmp_path / "checkpoint").write_text(state)
    assert find_source(tmp_path).path == str(tmp_path / expected)


def test_neighbours_are_found(tmp_path):
    touch(tmp_path, "model.safetensors", "m.ckpt.index")
    touch(tmp_path, "config.json", "bert_config.json", "vocab.txt")
    vocabulary = str(tmp_path / "vocab.txt")
    for name, config in (
        ("model.safetensors", "config.json"),
        ("m.ckpt", "bert_config.json"),
    ):
        found = find_source(tmp_path / name)
        assert (found.config_file, found.vocab_file) == (
            str(tmp_path / config),
            vocabulary,
        )


@pytest.mark.parametrize(
    ("kind", "has_text", "name"),
    [
        ("WordPiece", False, "tokenizer.json"),
        ("WordPiece", True, "vocab.txt"),
        ("BPE", False, ""),
    ],
)
def test_a_tokenizer_of_wordpiece_is_the_vocabulary_where_there_is_no_other(
    tmp_path, kind, has_text, name
):
    touch(tmp_path, "model.safetensors", *["vocab.txt"] * has_text)
    model = {"type": kind, "continuing_subword_prefix": "##"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    expected = str(tmp_path / name) if name else ""
    assert find_source(tmp_path).vocab_file == expected


@pytest.mark.parametrize(
    "name, reason",
    [
        ("tf_model.h5", "can contain code .* save the weights as model.safetensors"),
        ("model.keras", "can contain code"),
        ("saved_model.pb", "can contain code"),
        ("weights.pkl", "can contain code"),
        ("uncased_L-12_H-768_A-12.zip", "is an archive: unpack it"),
        ("bert.tar.gz", "is an archive"),
        ("flax_model.msgpack", "is of an unknown kind"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, reason):
    touch(tmp_path, name)
    with pytest.raises(ValueError, match=f"{name} must be .* {reason}"):
        find_source(tmp_path / name)


def test_a_folder_without_weights_is_refused(tmp_path):
    touch(tmp_path, "tf_model.h5", "config.json")
    with pytest.raises(FileNotFoundError, match="holds no weights: neither model.safe"):
        find_source(tmp_path)


def test_nothing_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="There are no weights at .*/none. There is no such file or folder",
    ):
        find_source(tmp_path / "none")


def test_other_weights_of_a_folder_are_noted(tmp_path):
    touch(tmp_path, "model.safetensors", "pytorch_model.bin", "model.ckpt-7.index")
    found = find_source(tmp_path)
    assert found.notes == ("pytorch_model.bin, model.ckpt-7 next to it: not read",)


def test_a_missing_named_checkpoint_is_noted(tmp_path):
    touch(tmp_path, "model.ckpt-3.index")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    [note] = find_source(tmp_path).notes
    assert note == "the file checkpoint names model.ckpt-9, which does not exist"


def test_other_best_weights_of_a_run_are_noted(tmp_path):
    best = tmp_path / "best"
    best.mkdir()
    touch(tmp_path, "model.ckpt-9.index")
    touch(best, "model.ckpt-3.index", "best.json")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    (best / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    [note] = find_source(tmp_path).notes
    assert note.startswith(f"model.ckpt-9 is the newest checkpoint. {best} holds model")
    assert (
        not find_source(best).notes and not find_source(tmp_path / "model.ckpt-9").notes
    )
    (best / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-9"\n')
    assert not find_source(tmp_path).notes
    (best / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    (best / "best.json").unlink()  # A new run has begun in the folder.
    assert not find_source(tmp_path).notes


def test_the_choice_of_the_newest_is_noted(tmp_path):
    touch(tmp_path, "model.ckpt-3.index", "model.ckpt-5.index")
    [note] = find_source(tmp_path).notes
    assert (
        note
        == "there is no file checkpoint: this is the checkpoint with the most steps"
    )


def test_the_file_checkpoint_means_its_folder(tmp_path):
    touch(tmp_path, "model.ckpt-3.index")
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    assert find_source(tmp_path / "checkpoint").path == str(tmp_path / "model.ckpt-3")


def test_a_checkpoint_may_be_named_by_its_meta_file(tmp_path):
    touch(tmp_path, "bert_model.ckpt.index", "bert_model.ckpt.meta")
    found = find_source(tmp_path / "bert_model.ckpt.meta")
    assert found.path == str(tmp_path / "bert_model.ckpt")


def test_a_missing_index_is_named(tmp_path):
    touch(tmp_path, "bert_model.ckpt.data-00000-of-00001")
    prefix = tmp_path / "bert_model.ckpt"
    with pytest.raises(FileNotFoundError, match=f"but no {prefix}.index"):
        find_source(prefix)


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / "model.safetensors").symlink_to("blobs/gone")
    with pytest.raises(
        FileNotFoundError, match="is a link to blobs/gone, which does not exist"
    ):
        find_source(tmp_path)
    with pytest.raises(
        FileNotFoundError, match="is a link to blobs/gone, which does not exist"
    ):
        find_source(tmp_path / "model.safetensors")


def test_a_folder_of_other_files_lists_them(tmp_path):
    touch(tmp_path, "config.json", "tf_model.h5")
    with pytest.raises(
        FileNotFoundError, match=r"Received: config.json, tf_model.h5\."
    ):
        find_source(tmp_path)


def test_a_checkpoint_of_tensorflow_in_one_file_is_refused(tmp_path):
    (tmp_path / "bert_model.ckpt").write_bytes(b"\x00\x01")
    with pytest.raises(ValueError, match="bert_model.ckpt.index"):
        find_source(tmp_path / "bert_model.ckpt")


def test_a_checkpoint_of_a_pytorch_trainer_is_one(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"PK\x03\x04")
    assert find_source(tmp_path / "last.ckpt").kind is Kind.TORCH
