import pytest

from bert_tf.interop import names

# Hugging Face's name, the original's name, whether the axes are swapped. Written by
# hand from google-research/bert's graph and Hugging Face's BertForPreTraining.
PAIRS = [
    line.split()
    for line in """
embeddings.word_embeddings.weight bert/embeddings/word_embeddings -
embeddings.token_type_embeddings.weight bert/embeddings/token_type_embeddings -
embeddings.position_embeddings.weight bert/embeddings/position_embeddings -
embeddings.LayerNorm.weight bert/embeddings/LayerNorm/gamma -
embeddings.LayerNorm.bias bert/embeddings/LayerNorm/beta -
encoder.layer.0.attention.self.query.weight
 bert/encoder/layer_0/attention/self/query/kernel T
encoder.layer.0.attention.self.query.bias
 bert/encoder/layer_0/attention/self/query/bias -
encoder.layer.1.attention.self.key.weight
 bert/encoder/layer_1/attention/self/key/kernel T
encoder.layer.1.attention.self.key.bias bert/encoder/layer_1/attention/self/key/bias -
encoder.layer.2.attention.self.value.weight
 bert/encoder/layer_2/attention/self/value/kernel T
encoder.layer.2.attention.self.value.bias
 bert/encoder/layer_2/attention/self/value/bias -
encoder.layer.3.attention.output.dense.weight
 bert/encoder/layer_3/attention/output/dense/kernel T
encoder.layer.3.attention.output.dense.bias
 bert/encoder/layer_3/attention/output/dense/bias -
encoder.layer.10.attention.output.LayerNorm.weight
 bert/encoder/layer_10/attention/output/LayerNorm/gamma -
encoder.layer.10.attention.output.LayerNorm.bias
 bert/encoder/layer_10/attention/output/LayerNorm/beta -
encoder.layer.11.intermediate.dense.weight
 bert/encoder/layer_11/intermediate/dense/kernel T
encoder.layer.11.intermediate.dense.bias bert/encoder/layer_11/intermediate/dense/bias -
encoder.layer.23.output.dense.weight bert/encoder/layer_23/output/dense/kernel T
encoder.layer.23.output.dense.bias bert/encoder/layer_23/output/dense/bias -
encoder.layer.4.output.LayerNorm.weight bert/encoder/layer_4/output/LayerNorm/gamma -
encoder.layer.4.output.LayerNorm.bias bert/encoder/layer_4/output/LayerNorm/beta -
pooler.dense.weight bert/pooler/dense/kernel T
pooler.dense.bias bert/pooler/dense/bias -
cls.predictions.transform.dense.weight cls/predictions/transform/dense/kernel T
cls.predictions.transform.dense.bias cls/predictions/transform/dense/bias -
cls.predictions.transform.LayerNorm.weight cls/predictions/transform/LayerNorm/gamma -
cls.predictions.transform.LayerNorm.bias cls/predictions/transform/LayerNorm/beta -
cls.predictions.bias cls/predictions/output_bias -
cls.seq_relationship.weight cls/seq_relationship/output_weights -
cls.seq_relationship.bias cls/seq_relationship/output_bias -
""".replace("\n ", " ")
    .strip()
    .splitlines()
]


@pytest.mark.parametrize("theirs, ours, axes", PAIRS, ids=[pair[0] for pair in PAIRS])
def test_each_name_has_its_counterpart(theirs, ours, axes):
    full = theirs if theirs.startswith("cls.") else f"bert.{theirs}"
    for spelling in (theirs, full):
        assert names.from_huggingface(spelling) == (ours, axes == "T")
    assert names.to_huggingface(ours) == full


@pytest.mark.parametrize("theirs, ours, _", PAIRS, ids=[pair[0] for pair in PAIRS])
def test_older_files_call_scale_and_shift_gamma_and_beta(theirs, ours, _):
    if "LayerNorm" in theirs:
        older = theirs.replace("Norm.weight", "Norm.gamma")
        older = older.replace("Norm.bias", "Norm.beta")
        assert names.from_huggingface(older) == (ours, False)


def test_the_tied_decoder_is_the_word_table_and_the_output_bias():
    weight = names.from_huggingface("cls.predictions.decoder.weight")
    bias = names.from_huggingface("cls.predictions.decoder.bias")
    assert weight == ("bert/embeddings/word_embeddings", False)
    assert bias == ("cls/predictions/output_bias", False)


def test_position_ids_are_ignored():
    assert names.is_ignored("embeddings.position_ids")
    assert names.is_ignored("bert.embeddings.position_ids")
    assert not names.is_ignored("embeddings.position_embeddings.weight")


@pytest.mark.parametrize(
    "name",
    [
        "classifier.weight",
        "roberta.pooler.dense.weight",
        "bert.cls.seq_relationship.bias",
        "bert.cls.predictions.transform.dense.bias",
        "encoder.layer.*.output.dense.bias",
        "encoder.layer.00.output.dense.bias",
        "encoder.layer.output.dense.bias",
        "encoder.layer.0.output.dense.kernel",
        "pooler.layer.0.dense.bias",
        "embeddings.word_embeddings.bias",
        "bert.bert.pooler.dense.bias",
        "",
    ],
)
def test_other_names_have_no_counterpart(name):
    assert names.from_huggingface(name) is None


@pytest.mark.parametrize("name", ["bert/pooler/dense/gamma", "global_step", "*", ""])
def test_other_names_of_checkpoints_are_refused(name):
    with pytest.raises(ValueError, match="`name` must be a tensor of google-research"):
        names.to_huggingface(name)
