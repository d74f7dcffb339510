"""Converted models compute the formulas of BERT in their runtimes, without bert_tf."""

import dataclasses
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import TINY
from interop.tiny_bert import (
    encoder_shapes,
    pretraining_shapes,
    random_tensors,
    write_tf1,
)
from oracles.numpy_bert import NumpyBert

from bert_tf.cli import main
from bert_tf.config import BertConfig

# What must be installed, by --to.
MODULES = {
    "savedmodel": (),
    "litert": ("ai_edge_litert",),
    "onnx": ("tf2onnx", "onnxruntime"),
    "openvino": ("openvino", "nncf"),
}
# What holds the weights, of those that have int8.
FILES = {
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "openvino_model.bin",
}
LABELS = ["a", "b", "c"]
CLASSES = {"output_weights": (3, 8), "output_bias": (3,)}
SPANS = {"cls/squad/output_weights": (2, 8), "cls/squad/output_bias": (2,)}
SCORE = {"output_weights": (1, 8), "output_bias": (1,)}
MULTI_LABEL = {"problem_type": "multi_label_classification", "label_names": LABELS}


class Case(NamedTuple):
    """A model: shapes of its head, task.json, and its outputs by the formulas.

    `outputs` takes a NumpyBert and the hidden states [S, H] of one sequence.
    """

    head: dict[str, tuple[int, ...]]
    task: dict[str, Any]
    outputs: Callable


def dense(bert, x, scope=""):
    weights = bert.weights
    return x @ weights[f"{scope}output_weights"].T + weights[f"{scope}output_bias"]


def of_texts(bert, hidden):
    return {"logits": dense(bert, bert.pool(hidden))}


def of_tokens(bert, hidden):
    return {"logits": dense(bert, hidden)}


def of_words(bert, hidden):
    return {"logits": bert.masked_lm_logits(hidden, np.arange(len(hidden)))}


def of_spans(bert, hidden):
    start, end = dense(bert, hidden, "cls/squad/").T
    return {"start_logits": start, "end_logits": end}


def of_encoder(bert, hidden):
    return {"last_hidden_state": hidden, "pooler_output": bert.pool(hidden)}


def mean(bert, hidden):
    return {"sentence_embedding": hidden.mean(axis=0)}


def first(bert, hidden):
    return {"sentence_embedding": hidden[0]}


CASES = {
    "encoder": Case({}, {}, of_encoder),
    "embed": Case({}, {"task": "embed", "pooling": "mean", "max_seq_length": 9}, mean),
    "cls": Case({}, {"task": "embed", "pooling": "cls", "max_seq_length": 9}, first),
    "classify": Case(CLASSES, {}, of_texts),
    "labels": Case(CLASSES, {"task": "classify", **MULTI_LABEL}, of_texts),
    "tag": Case(CLASSES, {"task": "tag", "label_names": LABELS}, of_tokens),
    "choose": Case(SCORE, {"task": "choose"}, of_texts),
    "squad": Case(SPANS, {}, of_spans),
    "fill-mask": Case({}, {}, of_words),
}
# Batches of different sizes and lengths: padded rows, a short row, full rows.
LENGTHS = {"padded": (9, 5, 1), "short": (4,), "full": (16, 16, 16, 16, 3)}


@pytest.fixture(scope="module")
def batches():
    """Of random words: batch -> input -> [B, S]."""
    found, rng = {}, np.random.default_rng(3)
    for batch, lengths in LENGTHS.items():
        mask = np.arange(max(lengths)) < np.array(lengths)[:, None]
        found[batch] = {
            # Padding is not always 0.
            "input_ids": rng.integers(0, 30, mask.shape),
            "attention_mask": mask.astype(int),
            "token_type_ids": rng.integers(0, 2, mask.shape),
        }
    return found


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """Name -> the weights' file and the formulas with its weights."""
    found = {}
    for number, (name, case) in enumerate(CASES.items()):
        of_base = pretraining_shapes if name == "fill-mask" else encoder_shapes
        tensors = random_tensors(of_base(tiny) | case.head, seed=number)
        # As they are, all outputs are near 0 and so within any tolerance.
        tensors = {n: np.float32(5) * x for n, x in tensors.items()}
        folder = tmp_path_factory.mktemp(name)
        path = write_tf1(folder, tensors, tiny, with_slots=False)
        if case.task:
            (folder / "task.json").write_text(json.dumps(case.task))
        found[name] = path, NumpyBert(tensors, dataclasses.asdict(tiny))
    return found


def run_outside(to, folder, batches):
    """The outputs of the models in a folder: MODEL/BATCH/OUTPUT -> numbers."""
    inputs = {f"{b}/{n}": x for b, more in batches.items() for n, x in more.items()}
    np.savez(folder / "inputs.npz", **inputs)
    worker = pathlib.Path(__file__).with_name("runtime_worker.py")
    command = [sys.executable, "-P", worker, to, folder]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return dict(np.load(folder / "outputs.npz"))


def require_modules(to):
    for module in MODULES[to]:
        if not importlib.util.find_spec(module):
            pytest.skip(f"--to={to} needs {module}, which is not installed")


@pytest.fixture(scope="module", params=MODULES)
def converted(request, models, batches, tmp_path_factory):
    """A folder with all models in one format, and their outputs in its runtime."""
    to = request.param
    require_modules(to)
    folder = tmp_path_factory.mktemp(to)
    for name, (path, _) in models.items():
        assert main(["convert", path, f"{folder}/{name}", f"--to={to}"]) == 0
    return folder, run_outside(to, folder, batches)


def expected_rows(case, bert, inputs):
    """The outputs of each row by the formulas, without padding."""
    for ids, mask, segments in zip(*inputs.values(), strict=True):
        length = mask.sum()
        yield length, case.outputs(bert, bert.encode(ids[:length], segments[:length]))


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_in_the_runtime_are_those_of_the_formulas(
    name, converted, models, batches
):
    case, (_, bert) = CASES[name], models[name]
    found = {p: x for p, x in converted[1].items() if p.startswith(f"{name}/")}
    sizes = []
    for batch, inputs in batches.items():
        width = inputs["input_ids"].shape[1]
        for row, (length, wanted) in enumerate(expected_rows(case, bert, inputs)):
            assert len(found) == len(batches) * len(wanted)
            for output, x in wanted.items():
                y = found[f"{name}/{batch}/{output}"][row]
                y = y[:length] if len(y) == width else y
                np.testing.assert_allclose(y, x, rtol=0, atol=1e-4, err_msg=output)
                sizes.append(np.abs(x).mean())
    assert np.mean(sizes) > 0.1  # A thousand times the tolerance.


def test_the_files_beside_a_model_name_its_labels(converted):
    config = json.loads((converted[0] / "labels/config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}
    beside = {"config.json", "vocab.txt", "tokenizer.json", "README.md"}
    assert beside <= {path.name for path in (converted[0] / "labels").iterdir()}


def run_card(folder):
    """Runs the Python code of a model card in its folder, as it is printed.

    Returns:
      Its inputs, and `logits` of its outputs.
    """
    [code] = re.findall("```python\n(.*?)```", (folder / "README.md").read_text(), re.S)
    code = f"""import sys
sys.modules["bert_tf"] = None
{code}
logits = outputs[0] if isinstance(outputs, list) else outputs["logits"]
np.savez("card.npz", **inputs, logits=logits)
"""
    command = [sys.executable, "-P", "-c", code]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return dict(np.load(folder / "card.npz"))


def check_card(found, bert):
    logits = found.pop("logits")
    rows = expected_rows(CASES["classify"], bert, found)
    for row, (_, wanted) in zip(logits, rows, strict=True):
        np.testing.assert_allclose(row, wanted["logits"], rtol=0, atol=1e-4)


def test_the_code_of_the_card_computes_the_outputs_of_its_texts(converted, models):
    found = run_card(converted[0] / "classify")
    assert found["attention_mask"].sum(axis=1).tolist() == [5, 7]  # A padded row.
    check_card(found, models["classify"][1])


def test_the_code_of_the_card_runs_without_a_vocabulary(models, tmp_path):
    path, bert = models["classify"]
    source = shutil.copytree(pathlib.Path(path).parent, tmp_path / "source")
    (source / "vocab.txt").unlink()
    command = ["convert", str(source), str(tmp_path / "saved"), "--to=savedmodel"]
    assert main(command) == 0
    check_card(run_card(tmp_path / "saved"), bert)


@pytest.mark.parametrize("to", FILES)
def test_int8_takes_a_byte_for_a_weight_and_stays_close(to, batches, tmp_path):
    require_modules(to)
    # LiteRT leaves arrays of less than 1,024 numbers as they are.
    wide = BertConfig(**TINY | {"hidden_size": 64, "intermediate_size": 256})
    tensors = random_tensors(encoder_shapes(wide), seed=1)
    path = write_tf1(tmp_path / "source", tensors, wide, with_slots=False)
    folder = tmp_path / "int8"
    command = ["convert", path, f"{folder}/wide", f"--to={to}", "--int8"]
    assert main([*command, "--kind=embed"]) == 0
    size = (folder / "wide" / FILES[to]).stat().st_size
    assert size < 2 * sum(x.size for x in tensors.values())
    found = run_outside(to, folder, batches)
    bert = NumpyBert(tensors, dataclasses.asdict(wide))
    for batch, inputs in batches.items():
        rows = expected_rows(CASES["embed"], bert, inputs)
        for y, (_, wanted) in zip(
            found[f"wide/{batch}/sentence_embedding"], rows, strict=True
        ):
            x = wanted["sentence_embedding"]
            assert x @ y > 0.99 * np.linalg.norm(x) * np.linalg.norm(y)
