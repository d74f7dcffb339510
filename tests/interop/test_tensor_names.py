import pytest

from bert_tf.interop import tensor_names

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
classifier.weight output_weights -
classifier.bias output_bias -
qa_outputs.weight cls/squad/output_weights -
qa_outputs.bias cls/squad/output_bias -
""".replace("\n ", " ")
    .strip()
    .splitlines()
]


@pytest.mark.parametrize("theirs, ours, axes", PAIRS, ids=[pair[0] for pair in PAIRS])
def test_each_name_has_its_counterpart(theirs, ours, axes):
    is_head = theirs.startswith(("cls.", "classifier.", "qa_outputs."))
    full = theirs if is_head else f"bert.{theirs}"
    for spelling in (theirs, full):
        assert tensor_names.from_huggingface(spelling) == (ours, axes == "T")
    assert tensor_names.to_huggingface(ours) == full


@pytest.mark.parametrize("theirs, ours, _", PAIRS, ids=[pair[0] for pair in PAIRS])
def test_older_files_call_scale_and_shift_gamma_and_beta(theirs, ours, _):
    if "LayerNorm" in theirs:
        older = theirs.replace("Norm.weight", "Norm.gamma")
        older = older.replace("Norm.bias", "Norm.beta")
        assert tensor_names.from_huggingface(older) == (ours, False)


def test_the_tied_decoder_is_the_word_table_and_the_output_bias():
    weight = tensor_names.from_huggingface("cls.predictions.decoder.weight")
    bias = tensor_names.from_huggingface("cls.predictions.decoder.bias")
    assert weight == ("bert/embeddings/word_embeddings", False)
    assert bias == ("cls/predictions/output_bias", False)


# From the trainers' own tables of what they rename.
@pytest.mark.parametrize(
    "theirs, usual",
    [
        ("attention.multi_head_attention.q_weight", "attention.self.query.weight"),
        ("attention.multi_head_attention.k_bias", "attention.self.key.bias"),
        ("attention.multi_head_attention.v_weight", "attention.self.value.weight"),
        (
            "attention.multi_head_attention.out_proj_weight",
            "attention.output.dense.weight",
        ),
        ("attention.layer_norm.bias", "attention.output.LayerNorm.bias"),
        ("intermediate.dense_act.weight", "intermediate.dense.weight"),
    ],
)
def test_fused_modules_of_mlperf_have_their_counterpart(theirs, usual):
    layer = "bert.encoder.layer.3"
    expected = tensor_names.from_huggingface(f"{layer}.{usual}")
    assert expected is not None
    for prefix in ("", "bert_model_segment."):
        assert tensor_names.from_huggingface(f"{prefix}{layer}.{theirs}") == expected


def test_segments_of_mlperf_are_passed_over():
    name = tensor_names.from_huggingface(
        "heads_only_segment.cls.seq_relationship.weight"
    )
    assert name == ("cls/seq_relationship/output_weights", False)


def test_variables_of_the_classifier_stand_in_a_scope():
    assert tensor_names.of_variable("classifier/output_bias") == "output_bias"
    assert tensor_names.of_variable("cls/squad/output_bias") == "cls/squad/output_bias"


def test_position_ids_are_ignored():
    assert tensor_names.is_ignored("embeddings.position_ids")
    assert tensor_names.is_ignored("bert.embeddings.position_ids")
    assert not tensor_names.is_ignored("embeddings.position_embeddings.weight")


@pytest.mark.parametrize(
    "name",
    [
        "bert.classifier.weight",
        "classifier.dense.weight",
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
    assert tensor_names.from_huggingface(name) is None


@pytest.mark.parametrize("name", ["bert/pooler/dense/gamma", "global_step", "*", ""])
def test_other_names_of_checkpoints_are_refused(name):
    with pytest.raises(ValueError, match="`name` must be a tensor of google-research"):
        tensor_names.to_huggingface(name)
