"""Presets of keras-hub: the layout that keras-hub 0.32 writes, and its logits."""

import json
import pathlib
import subprocess

import h5py
import numpy as np
import pytest
from interop.tiny_bert import (
    assert_equal_bytes,
    pretraining_shapes,
    random_tensors,
    write_tf1,
)
from oracles import files

from bert_tf.cli import main
from bert_tf.interop.pretrained import from_pretrained
from bert_tf.interop.ready_model import load_tokenizer
from bert_tf.interop.weights import read_weights

PEER = files.ROOT / ".venv-bench/bin/python"
# Noted from what BertMaskedLM.save_to_preset wrote: H=8, N=2, I=16, 30 words.
LAYER = {
    "_self_attention_layer/query_dense/vars/0": (8, 2, 4),
    "_self_attention_layer/query_dense/vars/1": (2, 4),
    "_self_attention_layer/output_dense/vars/0": (2, 4, 8),
    "_self_attention_layer/output_dense/vars/1": (8,),
    "_self_attention_layer_norm/vars/1": (8,),
    "_feedforward_intermediate_dense/vars/0": (8, 16),
    "_feedforward_output_dense/vars/0": (16, 8),
    "_feedforward_layer_norm/vars/0": (8,),
}
MODEL = {
    "layers/reversible_embedding/vars/0": (30, 8),
    "layers/position_embedding/vars/0": (16, 8),
    "layers/embedding/vars/0": (2, 8),
    "layers/layer_normalization/vars/1": (8,),
    "layers/dense/vars/0": (8, 8),
    **{f"layers/transformer_encoder/{n}": s for n, s in LAYER.items()},
    **{f"layers/transformer_encoder_1/{n}": s for n, s in LAYER.items()},
}
TASK = {
    "layers/masked_lm_head/_intermediate_dense/vars/0": (8, 8),
    "layers/masked_lm_head/_intermediate_layer_norm/vars/0": (8,),
    "layers/masked_lm_head/vars/0": (30,),
}


@pytest.fixture
def preset(tf1, tmp_path):
    assert main(["convert", tf1, str(tmp_path / "preset"), "--to=keras_hub"]) == 0
    return tmp_path / "preset"


@pytest.mark.parametrize(
    "name, shapes", [("model.weights.h5", MODEL), ("task.weights.h5", TASK)]
)
def test_the_weights_lie_where_keras_hub_has_them(preset, name, shapes):
    with h5py.File(preset / name) as file:
        assert {path: file[path].shape for path in shapes} == shapes


def test_the_configs_name_keras_hub_classes(preset):
    config = json.loads((preset / "config.json").read_text())
    assert config["registered_name"] == "keras_hub>BertBackbone"
    assert config["config"]["vocabulary_size"] == 30
    task = json.loads((preset / "task.json").read_text())
    assert task["registered_name"] == "keras_hub>BertMaskedLM"
    words = (preset / "assets/tokenizer/vocabulary.txt").read_text().split()
    assert words[:2] == ["[PAD]", "[UNK]"]


def test_it_says_that_keras_hub_approximates_gelu(tf1, tmp_path, capsys):
    main(["convert", tf1, str(tmp_path / "out"), "--to=keras_hub"])
    assert "keras-hub always approximates" in capsys.readouterr().out


def test_a_preset_is_read_to_the_byte(preset, tiny_tensors, tiny):
    weights = read_weights(preset)
    expected = {
        n: x for n, x in tiny_tensors.items() if not n.startswith("cls/seq_relat")
    }
    assert_equal_bytes(weights.tensors, expected)
    assert weights.config == tiny  # gelu is exact again.


def test_a_preset_of_keras_hub_itself_has_the_tanh_gelu(preset):
    (preset / "bert_config.json").unlink()
    config = read_weights(preset).config
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu_tanh", 1e-12)
    assert from_pretrained(preset).output["pooled_output"].shape[-1] == 8


def test_its_tokenizer_has_the_settings_of_the_preset(preset):
    (preset / "tokenizer_config.json").unlink()
    path = preset / "tokenizer.json"
    values = json.loads(path.read_text())
    values["config"] |= {"lowercase": True, "strip_accents": False}
    path.write_text(json.dumps(values))
    settings = load_tokenizer(preset).settings
    assert settings.do_lower_case and not settings.strip_accents


def test_it_is_converted_without_task_json_of_keras_hub(preset, tmp_path):
    out = tmp_path / "again" / "bert_model.ckpt"
    assert main(["convert", str(preset), str(out)]) == 0
    assert not (out.parent / "task.json").exists()


def link_outside(file, name):
    del file[name]
    file[name] = h5py.ExternalLink("/etc/passwd", "/x")


def cut_shape(file, name):
    del file[name]
    file.create_dataset(name, (30, 8), np.float32, chunks=(30, 8), compression="gzip")


@pytest.mark.parametrize(
    "harm, message",
    [(link_outside, "Received: a link"), (cut_shape, "Received: chunks")],
)
def test_arrays_are_in_the_file(preset, harm, message):
    with h5py.File(preset / "model.weights.h5", "a") as file:
        harm(file, "layers/reversible_embedding/vars/0")
    with pytest.raises(ValueError, match=message):
        read_weights(preset)


def test_a_damaged_preset_gets_one_line(preset, tmp_path, capsys):
    (preset / "model.weights.h5").write_bytes(b"no HDF5")
    capsys.readouterr()
    assert main(["convert", str(preset), str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "model.weights.h5 cannot be read as HDF5" in line


COMPARE = """
import json, sys
import keras, keras_hub, numpy as np
preset, activation = sys.argv[1:]
model = keras_hub.models.BertMaskedLM.from_preset(preset)
exact = lambda x: keras.activations.gelu(x, approximate=False)
tanh = lambda x: keras.activations.gelu(x, approximate=True)
head = model.masked_lm_head
head._intermediate_layer_norm.epsilon = 1e-12
if activation == "gelu":
    for layer in model.backbone.transformer_layers:
        layer._feedforward_intermediate_dense.activation = exact
else:
    head.intermediate_activation = tanh
    head._intermediate_dense.activation = tanh
ids = np.arange(16).reshape(2, 8) % 30
mask = np.ones_like(ids)
mask[1, 5:] = 0
inputs = {"token_ids": ids, "segment_ids": ids % 2, "padding_mask": mask}
inputs["mask_positions"] = np.tile(np.arange(8), (2, 1))
np.save(f"{preset}/logits.npy", model(inputs))
"""


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_keras_hub_computes_the_same_logits(tmp_path, tiny, activation):
    if not PEER.exists():
        pytest.skip("keras-hub is in .venv-bench, which `make bench` makes")
    config = type(tiny)(**tiny.to_dict() | {"hidden_act": activation})
    tensors = random_tensors(pretraining_shapes(config))
    source = write_tf1(tmp_path / "source", tensors, config)
    preset = pathlib.Path(tmp_path / "preset")
    assert main(["convert", source, str(preset), "--to=keras_hub"]) == 0
    command = [PEER, "-c", COMPARE, preset, activation]
    subprocess.run(command, check=True, timeout=600, capture_output=True)
    ids = np.arange(16).reshape(2, 8) % 30
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    ours = from_pretrained(preset, "pretraining", do_nsp=False)(
        {
            "input_ids": ids,
            "input_mask": mask,
            "segment_ids": ids % 2,
            "masked_lm_positions": np.tile(np.arange(8), (2, 1)),
        }
    )["masked_lm_logits"].numpy()
    theirs = np.load(preset / "logits.npy")
    seen = mask.astype(bool)
    np.testing.assert_allclose(ours[seen], theirs[seen], rtol=0, atol=1e-5)
