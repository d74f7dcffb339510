import json
import struct
import subprocess
import sys

import numpy as np
import pytest
from oracles import files
from safetensors.numpy import save_file

from bert_tf.config import BertConfig
from bert_tf.interop import huggingface
from bert_tf.interop.weights import read_weights


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def load(path):
    return huggingface.to_original_names(huggingface.read_safetensors(path))


def numbers(*shape, dtype=np.float32):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def test_kernels_are_transposed_and_contiguous(path):
    save_file({"pooler.dense.weight": numbers(2, 3)}, path)
    [(name, kernel)] = load(path).items()
    assert name == "bert/pooler/dense/kernel"
    assert kernel.tolist() == [[0, 3], [1, 4], [2, 5]]
    assert kernel.flags.c_contiguous and kernel.dtype == np.float32


def test_tables_and_heads_keep_their_layout(path):
    theirs = {
        "bert.embeddings.word_embeddings.weight": numbers(4, 2),
        "cls.seq_relationship.weight": numbers(2, 3),
    }
    save_file(theirs, path)
    ours = load(path)
    np.testing.assert_array_equal(
        ours["bert/embeddings/word_embeddings"], numbers(4, 2)
    )
    np.testing.assert_array_equal(
        ours["cls/seq_relationship/output_weights"], numbers(2, 3)
    )


def test_half_precision_becomes_float32(path):
    save_file({"pooler.dense.bias": np.array([0.5, 3.0], np.float16)}, path)
    bias = load(path)["bert/pooler/dense/bias"]
    assert bias.dtype == np.float32 and bias.tolist() == [0.5, 3.0]


def test_bfloat16_becomes_float32_before_tensorflow_is_loaded(path):
    # By hand: bfloat16 is the upper half of float32, 1.0 = 3f80 and 3.0 = 4040.
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}
    header = json.dumps({"pooler.dense.bias": entry}).encode()
    values = bytes.fromhex("803f4040")
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)
    # A process of its own: here another test may have taught NumPy the type.
    program = (
        "import sys\n"
        "from bert_tf.interop import huggingface\n"
        "tensors = huggingface.read_safetensors(sys.argv[1])\n"
        "[bias] = huggingface.to_original_names(tensors).values()\n"
        "print(bias.dtype, bias.tolist(), 'tensorflow' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        cwd=files.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "float32 [1.0, 3.0] False\n", done.stderr


def test_position_ids_are_passed_over(path):
    save_file({"embeddings.position_ids": numbers(1, 4, dtype=np.int64)}, path)
    assert load(path) == {}


def test_a_tied_decoder_may_be_there_if_it_is_equal():
    tensors = {
        "bert.embeddings.word_embeddings.weight": numbers(4, 2),
        "cls.predictions.decoder.weight": numbers(4, 2),
        "cls.predictions.bias": numbers(4),
        "cls.predictions.decoder.bias": numbers(4),
    }
    names = {"bert/embeddings/word_embeddings", "cls/predictions/output_bias"}
    assert set(huggingface.to_original_names(tensors)) == names


def test_a_decoder_that_is_not_tied_is_refused():
    tensors = {
        "bert.embeddings.word_embeddings.weight": numbers(4, 2),
        "cls.predictions.decoder.weight": numbers(4, 2) + 1,
    }
    with pytest.raises(ValueError, match=r"decoder.* must equal .* different"):
        huggingface.to_original_names(tensors)


def test_a_file_of_unknown_tensors_is_refused(path):
    save_file({"b.weight": numbers(1), "a.weight": numbers(1)}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*: a\.weight, b\.we"):
        read_weights(path)


def test_unknown_tensors_next_to_a_bert_are_kept_as_they_are(path):
    save_file({"b.weight": numbers(2, 3), "pooler.dense.bias": numbers(1)}, path)
    found = load(path)
    assert list(found) == ["bert/pooler/dense/bias", "b.weight"]
    np.testing.assert_array_equal(found["b.weight"], numbers(2, 3))


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=str(path)):
        load(path)


def test_a_cut_file_is_refused(path):
    save_file({"pooler.dense.bias": numbers(100)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        load(path)


def test_published_configs_give_their_architecture():
    config = huggingface.bert_config_from_huggingface(files.read_config(files.RXNFP))
    assert config == BertConfig(
        vocab_size=591,
        hidden_size=256,
        num_hidden_layers=12,
        num_attention_heads=4,
        intermediate_size=512,
    )
    config = huggingface.bert_config_from_huggingface(files.read_config(files.MINILM))
    assert (config.hidden_size, config.num_hidden_layers) == (384, 6)
    assert config.hidden_act == "gelu"  # The error function here and there.


@pytest.mark.parametrize(
    "key, value",
    [
        ("model_type", "roberta"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("pruned_heads", {"0": [1]}),
    ],
)
def test_models_that_are_not_berts_encoder_are_refused(key, value):
    with pytest.raises(ValueError, match=f"`{key}` must be .* Received: {key}="):
        huggingface.bert_config_from_huggingface({key: value})
