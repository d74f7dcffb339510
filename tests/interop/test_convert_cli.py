import os

import pytest

from bert_tf.cli import main
from bert_tf.config.models import FORMS
from bert_tf.interop.export import Form


def test_it_says_what_it_read_and_wrote(tf1, tmp_path, capsys):
    vocabulary = os.path.join(os.path.dirname(tf1), "vocab.txt")
    assert main(["convert", tf1, str(tmp_path / "out")]) == 0
    first, *notes, last = capsys.readouterr().out.splitlines()
    assert notes == [
        f"Tokenizer: lower-case, accents stripped, by the letters of {vocabulary}.",
    ]
    assert first == f"read 46 tensors of the TensorFlow checkpoint {tf1}"
    assert last == (
        f"wrote 46 tensors to {tmp_path}/out/model.safetensors; beside it: "
        "config.json, vocab.txt, tokenizer_config.json, README.md, tokenizer.json"
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "source, destination"),
        (["a"], "destination"),
        (["a", "b", "--form=gguf"], "Received: 'gguf'"),
        (["a", "b", "--do_lower_case=perhaps"], "must be true or false"),
        (["a", "b", "--vocab=c"], "unrecognized arguments: --vocab=c"),
        (["/none", "b"], "source=/none, which does not exist"),
    ],
)
def test_wrong_options_get_one_line(capsys, arguments, message):
    assert main(["convert", *arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_every_form_can_be_chosen():
    assert set(FORMS) == {form.value for form in Form}


def test_a_chosen_form_wins_over_the_name(tf1, tmp_path):
    path = tmp_path / "weights"
    assert main(["convert", tf1, str(path), "--form=safetensors"]) == 0
    assert path.is_file()


def test_the_tokenizer_is_as_asked(tf1, tmp_path):
    main(["convert", tf1, str(tmp_path / "out"), "--do_lower_case=false"])
    config = (tmp_path / "out" / "tokenizer_config.json").read_text()
    assert '"do_lower_case": false' in config


def describe(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.fixture
def other(tf1, tmp_path):
    """Weights of a model whose config and tokenizer differ from those of `tf1`."""
    out = str(tmp_path / "other/bert_model.ckpt")
    assert main(["convert", tf1, out, "--encoder_only", "--do_lower_case=false"]) == 0
    return out


@pytest.mark.parametrize("name", ["b.safetensors", "b.tflite", "b.bin"])
def test_a_single_file_leaves_the_companions_of_another_model(
    tf1, other, tmp_path, capsys, name
):
    mine = tmp_path / "mine"
    to = ["--to=litert"] * name.endswith(".tflite")
    assert main(["convert", tf1, f"{mine}/a.safetensors"]) == 0
    before = describe(mine)
    for more in ([], ["--overwrite"]):
        assert main(["convert", other, f"{mine}/{name}", *to, *more]) == 1
        [line] = capsys.readouterr().err.splitlines()
        for part in (
            f"{mine}/{name}, but these differ from the model's: {mine}/config.json, ",
            f"{mine}/tokenizer_config.json; other files there: {mine}/a.safetensors. G",
            f"its own folder, such as {mine}/b/{name}",
        ):
            assert part in line
        assert ("--weights_only" in line) == (name == "b.tflite")
        assert "--overwrite" not in line
        assert describe(mine) == before
    assert main(["convert", other, f"{mine}/b/{name}", *to]) == 0  # As advised.
    if to:
        assert main(["convert", other, f"{mine}/{name}", *to, "--weights_only"]) == 0
        assert describe(mine).items() > before.items()


def test_single_files_of_one_model_share_their_companions(tf1, tmp_path, capsys):
    mine = tmp_path / "mine"
    assert main(["convert", tf1, f"{mine}/a.safetensors"]) == 0
    assert main(["convert", tf1, f"{mine}/a.bin"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"wrote 46 tensors to {mine}/a.bin; beside it: config.json, vocab.txt, "
        "tokenizer_config.json"
    )


def test_a_single_file_gets_no_model_card(tf1, tmp_path, capsys):
    path = tmp_path / "mine/a.tflite"
    assert main(["convert", tf1, str(path), "--to=litert"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        f"wrote 46 tensors to {path}; beside it: config.json, tokenizer.json, "
        "tokenizer_config.json, vocab.txt"
    )
    assert {*describe(path.parent)} == {path.name, *last.split(": ")[1].split(", ")}


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_overwrite_replaces_a_single_file_with_its_companions(
    tf1, other, tmp_path, name
):
    mine = tmp_path / "mine"
    assert main(["convert", tf1, f"{mine}/{name}"]) == 0
    assert main(["convert", other, f"{mine}/{name}"]) == 1
    assert main(["convert", other, f"{mine}/{name}", "--overwrite"]) == 0
    assert '"do_lower_case": false' in (mine / "tokenizer_config.json").read_text()


def test_companions_without_weights_may_be_replaced(tf1, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    command = ["convert", tf1, f"{tmp_path}/a.bin"]
    assert main(command) == 1
    assert "a/a.bin, or pass --overwrite to replace" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == "{}"
    assert main([*command, "--overwrite"]) == 0
