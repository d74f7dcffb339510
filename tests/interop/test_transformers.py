"""What transformers and PyTorch make of the folders that are written, and back."""

import json
import os
import subprocess

import numpy as np
import pytest
import runs
from interop.tiny_bert import (
    WORDS,
    assert_equal_bytes,
    encoder_shapes,
    random_tensors,
    write_tf1,
)
from oracles import files

from bert_tf.config.models import ConvertOptions
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.interop.pretrained import from_pretrained
from bert_tf.interop.weight_conversion import convert
from bert_tf.interop.weights import read_weights

TORCH_PYTHON = files.ROOT / ".venv-bench/bin/python"
TEXTS = ["a b, c.", "The cat's naïve café: 北京 [MASK]!", "x" * 200 + " y" * 3, ""]
PROGRAM = """
import sys
import json
import numpy as np
import torch
import transformers

folder = sys.argv[1]
request = json.load(open(f"{folder}/request.json"))
answers, arrays = {}, {}
torch.manual_seed(0)
for name, path in request["models"].items():
    config = transformers.AutoConfig.from_pretrained(path)
    model_class = getattr(transformers, config.architectures[0])
    model, loading = model_class.from_pretrained(path, output_loading_info=True)
    model.eval()
    keys = ("missing_keys", "unexpected_keys", "mismatched_keys")
    answers[name] = {key: sorted(map(str, loading[key])) for key in keys}
    ids = torch.tensor(request["ids"])
    with torch.no_grad():
        outputs = model(
            input_ids=ids,
            attention_mask=torch.tensor(request["mask"]),
            token_type_ids=torch.tensor(request["types"]),
        )
    for key, value in outputs.items():
        arrays[f"{name}/{key}"] = value.numpy()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    answers[name]["ids"] = tokenizer(request["texts"])["input_ids"]
    answers[name]["pair"] = dict(tokenizer("a b", "c"))
    model.save_pretrained(f"{folder}/{name}_saved")
    torch.save(model.state_dict(), f"{folder}/{name}_saved/state.bin")
np.savez(f"{folder}/arrays.npz", **arrays)
json.dump(answers, open(f"{folder}/answers.json", "w"))
"""
IDS = [[2, 7, 8, 3, 9, 3, 0, 0], [2, 10, 11, 3, 0, 0, 0, 0]]
TYPES = [[0, 0, 0, 0, 1, 1, 0, 0], [0] * 8]
HEADS = {
    "classifier": {"output_weights": (3, 8), "output_bias": (3,)},
    "squad": {"cls/squad/output_weights": (2, 8), "cls/squad/output_bias": (2,)},
}
# Float32 rounds to 6e-8 of a number; real models sum hundreds of them in 12 layers.
TOLERANCE = 1e-4

pytestmark = pytest.mark.slow


def trained_flags(folder, checkpoint, records):
    """A training of 2 steps from a checkpoint, exported after the second."""
    more = (f"--init_checkpoint={checkpoint}", "--export_steps=2")
    config_file = folder / "tf1" / "bert_config.json"
    return runs.pretraining_flags(config_file, records, folder / "run", *more, steps=2)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, tiny, tiny_tensors, tiny_records):
    """Folder of converted models, and what transformers says of them."""
    if not TORCH_PYTHON.is_file():
        pytest.skip("torch is not there: `make bench` installs it into .venv-bench")
    folder = tmp_path_factory.mktemp("transformers")
    options = ConvertOptions()
    tf1 = write_tf1(folder / "tf1", tiny_tensors, tiny)
    convert(tf1, str(folder / "pretraining"), options)
    convert(tf1, str(folder / "encoder"), ConvertOptions(encoder_only=True))
    runs.run("pretraining", *trained_flags(folder, tf1, tiny_records))
    for name, heads in HEADS.items():
        tensors = random_tensors({**encoder_shapes(tiny), **heads})
        tf1 = write_tf1(folder / f"{name}_tf1", tensors, tiny)
        convert(tf1, str(folder / name), options)
    files.require(files.MINILM / "model.safetensors")
    convert(str(files.MINILM), str(folder / "minilm"), options)
    convert(str(files.RXNFP), str(folder / "rxnfp"), options)
    names = ["pretraining", "encoder", *HEADS, "minilm", "rxnfp"]
    exported = {"exported": str(folder / "run" / "export" / "step-2")}
    request = {
        "models": {name: str(folder / name) for name in names} | exported,
        "ids": IDS,
        "mask": [[int(i > 0) for i in row] for row in IDS],
        "types": TYPES,
        "texts": TEXTS,
    }
    (folder / "request.json").write_text(json.dumps(request))
    done = subprocess.run(
        [TORCH_PYTHON, "-c", PROGRAM, folder],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": "",
            "HF_HUB_OFFLINE": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads((folder / "answers.json").read_text())
    return folder, answers, np.load(folder / "arrays.npz")


def outputs_of(folder, task):
    """What our model computes of the same inputs."""
    ids = np.array(IDS, np.int32)
    inputs = {
        "input_ids": ids,
        "input_mask": (ids > 0).astype(np.int32),
        "segment_ids": np.array(TYPES, np.int32),
        "positions": np.tile(np.arange(8, dtype=np.int32), (2, 1)),
        "next_sentence_positions": np.zeros((2, 1), np.int32),
        "masked_lm_positions": np.tile(np.arange(8, dtype=np.int32), (2, 1)),
        "dropout_seed": np.zeros((2, 3), np.int32),
    }
    model = from_pretrained(folder, task)
    wanted = {name: inputs[name] for name in model.input}
    return {name: value.numpy() for name, value in model(wanted).items()}


def assert_close(ours, expected):
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)


REAL = np.array(IDS) > 0  # What padding computes is nobody's business.


@pytest.mark.parametrize(
    "name",
    ["pretraining", "exported", "encoder", "classifier", "squad", "minilm", "rxnfp"],
)
def test_transformers_finds_every_tensor(theirs, name):
    _, answers, _ = theirs
    assert answers[name]["missing_keys"] == []
    assert answers[name]["mismatched_keys"] == []
    # Its model for questions has no pooler.
    is_pooler = name == "squad"
    unexpected = ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert answers[name]["unexpected_keys"] == (unexpected if is_pooler else [])


@pytest.mark.parametrize("name", ["encoder", "minilm"])
def test_hidden_states_are_equal(theirs, name):
    folder, _, arrays = theirs
    outputs = outputs_of(folder / name, "encoder")
    hidden = arrays[f"{name}/last_hidden_state"]
    assert_close(outputs["sequence_output"][REAL], hidden[REAL])
    assert_close(outputs["pooled_output"][:, 0], arrays[f"{name}/pooler_output"])


@pytest.mark.parametrize("name", ["pretraining", "rxnfp"])
def test_logits_of_pretraining_are_equal(theirs, name):
    folder, _, arrays = theirs
    outputs = outputs_of(folder / name, "pretraining")
    logits = arrays[f"{name}/prediction_logits"]
    assert_close(outputs["masked_lm_logits"][REAL], logits[REAL])
    expected = arrays[f"{name}/seq_relationship_logits"]
    assert_close(outputs["next_sentence_logits"][:, 0], expected)


def test_an_exported_step_has_the_logits_of_its_checkpoint(theirs):
    folder, _, arrays = theirs
    outputs = outputs_of(folder / "run" / "model.ckpt-2", "pretraining")
    logits = arrays["exported/prediction_logits"]
    assert_close(outputs["masked_lm_logits"][REAL], logits[REAL])
    expected = arrays["exported/seq_relationship_logits"]
    assert_close(outputs["next_sentence_logits"][:, 0], expected)


def test_logits_of_fine_tuning_are_equal(theirs):
    folder, _, arrays = theirs
    logits = outputs_of(folder / "classifier", "classifier")["class_logits"]
    assert_close(logits[:, 0], arrays["classifier/logits"])
    spans = outputs_of(folder / "squad", "squad")["span_logits"]
    both = [arrays[f"squad/{end}_logits"] for end in ("start", "end")]
    assert_close(spans[REAL], np.stack(both, axis=-1)[REAL])


@pytest.mark.parametrize("name", ["encoder", "minilm"])
def test_its_tokenizer_gives_our_ids(theirs, name):
    folder, answers, _ = theirs
    tokenizer = WordPieceTokenizer(str(folder / name / "vocab.txt"))
    special = tokenizer.special
    # Special tokens in a text are special tokens there, and plain text here.
    texts = [text.replace("[MASK]", "") for text in TEXTS]
    for text, ids, pieces in zip(
        TEXTS, answers[name]["ids"], tokenizer.encode(texts), strict=True
    ):
        ids = [i for i in ids if i != special.mask or "[MASK]" not in text]
        assert ids == [special.cls, *pieces, special.sep]


def test_its_tokenizer_joins_pairs_as_bert_does(theirs):
    _, answers, _ = theirs
    a, b, c = (WORDS.index(letter) for letter in "abc")
    assert answers["encoder"]["pair"] == {
        "input_ids": [2, a, b, 3, c, 3],
        "token_type_ids": [0, 0, 0, 0, 1, 1],
        "attention_mask": [1] * 6,
    }


@pytest.mark.parametrize("name", ["pretraining", "encoder", "classifier", "rxnfp"])
@pytest.mark.parametrize("file", ["model.safetensors", "state.bin"])
def test_what_transformers_saves_is_read_as_it_was(theirs, name, file):
    folder, _, _ = theirs
    expected = read_weights(folder / name).tensors
    again = read_weights(folder / f"{name}_saved" / file)
    assert_equal_bytes(again.tensors, expected)
    assert again.config == read_weights(folder / name).config
