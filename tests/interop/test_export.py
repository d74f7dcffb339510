import json

import numpy as np
import pytest
from interop.tiny_bert import WORDS
from oracles import files
from tokenizers import Tokenizer

from bert_tf.config import BertConfig
from bert_tf.data.text.tokenization import CASED, UNCASED, WordPieceTokenizer
from bert_tf.interop.classifier_labels import Head
from bert_tf.interop.export import (
    Form,
    Model,
    find_architecture,
    huggingface_config,
    model_card,
    write_model,
)
from bert_tf.interop.tokenizer_files import tokenizer_files

# What the original treats as the library does; see `tokenization` for the others.
TEXTS = [
    "The cat was running, unaffable dogs!",
    "Café naïve ÀÉÎÕÜ 北京mat",
    "x" * 200 + " " + "x" * 201,
    "a\u00a0b\tc\u0000d",
    "",
]


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return str(path)


@pytest.mark.parametrize("settings", [UNCASED, CASED])
def test_tokenizer_json_splits_as_training_did(settings):
    vocab_file = str(files.require(files.VOCAB_FILE))
    written = tokenizer_files(vocab_file, settings, 512)
    theirs = Tokenizer.from_str(written["tokenizer.json"])
    ours = WordPieceTokenizer(vocab_file, settings)
    cls, sep = ours.special.cls, ours.special.sep
    for text, ids in zip(TEXTS, ours.encode(TEXTS), strict=True):
        assert theirs.encode(text).ids == [cls, *ids, sep]


def test_tokenizer_json_numbers_the_segments_of_a_pair(vocab_file):
    written = tokenizer_files(vocab_file, UNCASED, 16)
    pair = Tokenizer.from_str(written["tokenizer.json"]).encode("a b", "c")
    assert pair.tokens == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1]


def test_special_tokens_and_length_are_written(vocab_file):
    written = tokenizer_files(vocab_file, UNCASED, 16)
    config = json.loads(written["tokenizer_config.json"])
    assert config["mask_token"] == "[MASK]" and config["cls_token"] == "[CLS]"
    assert config["model_max_length"] == 16 and config["do_lower_case"] is True


@pytest.mark.parametrize(
    "tensor, name",
    [
        ("output_weights", "BertForSequenceClassification"),
        ("cls/squad/output_weights", "BertForQuestionAnswering"),
        ("cls/seq_relationship/output_weights", "BertForPreTraining"),
        ("cls/predictions/output_bias", "BertForMaskedLM"),
        ("bert/pooler/dense/bias", "BertModel"),
    ],
)
def test_the_heads_tell_the_class_of_transformers(tensor, name):
    assert find_architecture({tensor: np.zeros(2)}).name == name


@pytest.mark.parametrize(
    "kind, name",
    [
        ("tag", "BertForTokenClassification"),
        ("choose", "BertForMultipleChoice"),
        ("classify", "BertForSequenceClassification"),
        ("", "BertForSequenceClassification"),
    ],
)
def test_the_kind_of_a_head_tells_the_class_too(kind, name):
    tensors = {"output_weights": np.zeros((3, 2))}
    assert find_architecture(tensors, Head(3, kind=kind)).name == name
    assert find_architecture({}, Head(kind=kind)).name == "BertModel"


def test_the_tanh_activation_has_the_name_that_transformers_knows():
    config = BertConfig(hidden_act="gelu_tanh")
    values = huggingface_config(config, find_architecture({}), {})
    assert values["hidden_act"] == "gelu_pytorch_tanh"
    assert values["model_type"] == "bert"


def test_the_card_begins_with_what_the_hub_reads():
    card = model_card(find_architecture({}), BertConfig(), "a|b")
    lines = card.splitlines()
    assert lines[:3] == [
        "---",
        "library_name: transformers",
        "pipeline_tag: feature-extraction",
    ]
    assert lines[5] == "---"
    assert "| source | a\\|b |" in lines
    assert "sentence_transformers" in card


def test_the_same_model_makes_the_same_bytes(tmp_path, tiny, tiny_tensors, vocab_file):
    model = Model(tiny_tensors, tiny, vocab_file)
    for folder in ("a", "b"):
        write_model(model, str(tmp_path / folder), Form.TRANSFORMERS)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_temporary_file_is_left(tmp_path, tiny, tiny_tensors, vocab_file):
    model = Model(tiny_tensors, tiny, vocab_file)
    write_model(model, str(tmp_path / "out"), Form.TRANSFORMERS)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
