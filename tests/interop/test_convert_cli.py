import os

import pytest

from bert_tf.cli import convert, main
from bert_tf.interop.export import Form
from bert_tf.interop.model_card import GELU_NOTE


def test_it_says_what_it_read_and_wrote(tf1, tmp_path, capsys):
    vocabulary = os.path.join(os.path.dirname(tf1), "vocab.txt")
    assert main(["convert", tf1, str(tmp_path / "out")]) == 0
    first, *notes, last = capsys.readouterr().out.splitlines()
    assert notes == [
        f"Tokenizer: lower-case, accents stripped, by the letters of {vocabulary}.",
        GELU_NOTE,
    ]
    assert first == f"read 46 tensors of the TensorFlow checkpoint {tf1}"
    assert last.startswith(f"wrote 46 tensors to {tmp_path}/out/model.safetensors, ")


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
    assert set(convert._FORMS) == {form.value for form in Form}


def test_a_chosen_form_wins_over_the_name(tf1, tmp_path):
    path = tmp_path / "weights"
    assert main(["convert", tf1, str(path), "--form=safetensors"]) == 0
    assert path.is_file()


def test_the_tokenizer_is_as_asked(tf1, tmp_path):
    main(["convert", tf1, str(tmp_path / "out"), "--do_lower_case=false"])
    config = (tmp_path / "out" / "tokenizer_config.json").read_text()
    assert '"do_lower_case": false' in config
