import pytest

from bert_tf.config import BertConfig
from bert_tf.jobs.restoring import compare_config

BERT = BertConfig(hidden_size=8, num_attention_heads=2)


def changed(**values):
    return BertConfig(**BERT.to_dict() | values)


def test_equal_configs_say_nothing():
    assert compare_config(BERT, BERT, "c.json") == []
    assert compare_config(None, BERT, "") == []


def test_other_heads_than_the_weights_have_are_refused():
    said = r"c.json.*num_attention_heads=2\. Received: num_attention_heads=4"
    with pytest.raises(ValueError, match=said):
        compare_config(BERT, changed(num_attention_heads=4), "c.json")


def test_another_activation_is_a_warning():
    [line] = compare_config(BERT, changed(hidden_act="relu"), "c.json")
    assert line == (
        "warning: hidden_act=relu is used; c.json beside the initial weights says gelu."
    )


def test_names_of_one_activation_are_one():
    assert not compare_config(
        changed(hidden_act="gelu_new"), changed(hidden_act="gelu_tanh"), "c.json"
    )


def test_another_dropout_is_told():
    [line] = compare_config(BERT, changed(hidden_dropout_prob=0.0), "c.json")
    assert line.startswith("hidden_dropout_prob=0.0 is used; c.json beside")
