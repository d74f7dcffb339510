"""Checkpoints that Model Garden itself makes, against its own outputs."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from interop.tiny_bert import assert_equal_bytes, encoder_shapes, write_tf1

from bert_tf.interop import model_garden
from bert_tf.interop.pretrained import from_pretrained
from bert_tf.interop.weights import read_weights

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

# A process of its own: official's modules define command-line flags when loaded.
PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
from official.legacy.bert import configs
from official.nlp.modeling import layers, models, networks
from official.nlp.tools import tf2_bert_encoder_checkpoint_converter as converter

source, config_file, folder = sys.argv[1:]
config = configs.BertConfig.from_json_file(config_file)
converter.convert_checkpoint(
    config, f"{folder}/converted/bert_model.ckpt", source, "encoder"
)
ids = np.array([[2, 7, 8, 3, 9, 3, 0, 0], [2, 10, 3, 0, 0, 0, 0, 0]], np.int32)
inputs = {
    "input_word_ids": ids,
    "input_mask": (ids > 0).astype(np.int32),
    "input_type_ids": np.array([[0, 0, 0, 0, 1, 1, 0, 0], [0] * 8], np.int32),
}
older = converter._create_bert_model(config)
checkpoint = tf.train.Checkpoint(encoder=older)
checkpoint.read(f"{folder}/converted/bert_model.ckpt-1").expect_partial()
tf.random.set_seed(1)
newer = networks.BertEncoderV2(
    vocab_size=config.vocab_size,
    hidden_size=config.hidden_size,
    num_layers=config.num_hidden_layers,
    num_attention_heads=config.num_attention_heads,
    inner_dim=config.intermediate_size,
    max_sequence_length=config.max_position_embeddings,
    type_vocab_size=config.type_vocab_size,
)
head = layers.ClassificationHead(
    inner_dim=config.hidden_size, num_classes=2, name="next_sentence"
)
whole = models.BertPretrainerV2(encoder_network=newer, classification_heads=[head])
whole(whole.inputs)
for variable in whole.variables:
    variable.assign(tf.random.normal(variable.shape, stddev=0.3))
tf.train.Checkpoint(encoder=newer).save(f"{folder}/newer/ckpt")
tf.train.Checkpoint(**whole.checkpoint_items).save(f"{folder}/items/ckpt")
answers = {"ids": ids, "mask": inputs["input_mask"], "types": inputs["input_type_ids"]}
keys = ("sequence_output", "pooled_output")
newer_outputs = newer(inputs)
for name, outputs in (
    ("converted", dict(zip(keys, older(inputs)))),
    ("newer", newer_outputs),
):
    for key in keys:
        answers[f"{name}_{key}"] = outputs[key].numpy()
answers["pooler"] = head.dense.kernel.numpy()
answers["logits_bias"] = whole.masked_lm.bias.numpy()
np.savez(f"{folder}/answers.npz", **answers)
"""


@pytest.fixture(scope="module")
def garden(tmp_path_factory, tiny, tiny_tensors):
    """Folders of checkpoints, and what official says that they compute."""
    folder = tmp_path_factory.mktemp("garden")
    # Model Garden's gelu is the tanh approximation, whatever the config says.
    config = dataclasses.replace(tiny, hidden_act="gelu")
    tensors = {name: tiny_tensors[name] for name in encoder_shapes(tiny)}
    source = write_tf1(folder / "tf1", tensors, config)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM,
            source,
            folder / "tf1/bert_config.json",
            folder,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ours = json.dumps(dataclasses.asdict(tiny) | {"hidden_act": "gelu_tanh"})
    for name in ("converted", "newer", "items"):
        (folder / name / "bert_config.json").write_text(ours)
    return folder, np.load(folder / "answers.npz")


@pytest.mark.slow
def test_what_its_converter_made_of_a_checkpoint_is_that_checkpoint(
    garden, tiny, tiny_tensors
):
    folder, _ = garden
    expected = {name: tiny_tensors[name] for name in encoder_shapes(tiny)}
    assert_equal_bytes(read_weights(folder / "converted").tensors, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["converted", "newer"])
def test_outputs_are_those_of_its_encoder(garden, name):
    folder, answers = garden
    model = from_pretrained(folder / name)
    num_rows, length = answers["ids"].shape
    outputs = model(
        {
            "input_ids": answers["ids"],
            "input_mask": answers["mask"],
            "segment_ids": answers["types"],
            "positions": np.tile(np.arange(length, dtype=np.int32), (num_rows, 1)),
            "next_sentence_positions": np.zeros((num_rows, 1), np.int32),
        }
    )
    # Float32 rounds to 6e-8 of numbers of about 1; sums are of 16 of them.
    real = answers["mask"].astype(bool)
    np.testing.assert_allclose(
        outputs["sequence_output"].numpy()[real],
        answers[f"{name}_sequence_output"][real],
        atol=1e-5,
    )
    np.testing.assert_allclose(
        outputs["pooled_output"][:, 0], answers[f"{name}_pooled_output"], atol=1e-5
    )


@pytest.mark.slow
def test_a_pretraining_checkpoint_gives_its_trained_pooler_and_head(garden):
    folder, answers = garden
    tensors = read_weights(folder / "items").tensors
    np.testing.assert_array_equal(
        tensors["bert/pooler/dense/kernel"], answers["pooler"]
    )
    np.testing.assert_array_equal(
        tensors["cls/predictions/output_bias"], answers["logits_bias"]
    )
    table = read_weights(folder / "newer").tensors["bert/embeddings/word_embeddings"]
    np.testing.assert_array_equal(tensors["bert/embeddings/word_embeddings"], table)


def test_heads_of_kernels_are_joined_in_order():
    kernel = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    part = "encoder/_transformer_layers/3/_attention_layer"
    tensors = model_garden.to_original_names(
        {
            f"{part}/_query_dense/kernel{SUFFIX}": kernel,
            f"{part}/_output_dense/kernel{SUFFIX}": kernel,
            f"{part}/_key_dense/bias{SUFFIX}": kernel[0],
        }
    )
    layer = "bert/encoder/layer_3/attention"
    query = tensors[f"{layer}/self/query/kernel"]
    assert query.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    output = tensors[f"{layer}/output/dense/kernel"]
    assert output.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert tensors[f"{layer}/self/key/bias"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "name, is_weight",
    [
        (f"encoder/_pooler_layer/kernel{SUFFIX}", True),
        (f"save_counter{SUFFIX}", False),
        (f"optimizer/iter{SUFFIX}", False),
        (f"encoder/x/kernel/.OPTIMIZER_SLOT/optimizer/m{SUFFIX}", False),
        ("_CHECKPOINTABLE_OBJECT_GRAPH", False),
    ],
)
def test_state_of_its_trainer_is_left_out(name, is_weight):
    assert model_garden.is_weight(name) is is_weight


def test_other_heads_keep_their_names():
    name = f"model/classification_heads/0/out_proj/kernel{SUFFIX}"
    assert set(model_garden.to_original_names({name: np.ones((2, 2))})) == {name}
