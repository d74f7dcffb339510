"""Every command of docs/checkpoints.md runs, on tiny weights under its names."""

import dataclasses
import re
import runpy
import shlex
import sys

import numpy as np
import pytest
import tensorflow as tf
from interop.tiny_bert import (
    assert_equal_bytes,
    pretraining_shapes,
    random_tensors,
    write_neighbours,
    write_tf1,
)
from oracles import files

from bert_tf.cli import main
from bert_tf.config.models import KINDS, ConvertOptions
from bert_tf.interop.weight_conversion import convert
from bert_tf.interop.weights import read_weights

PAGE = (files.ROOT / "docs/checkpoints.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def write_garden(folder, config):
    """A checkpoint as Model Garden's encoder leaves it."""
    h, i, heads = config.hidden_size, config.intermediate_size, 2
    shapes = {
        "_embedding_layer/embeddings": (config.vocab_size, h),
        "_position_embedding_layer/embeddings": (config.max_position_embeddings, h),
        "_type_embedding_layer/embeddings": (2, h),
        "_embedding_norm_layer/gamma": (h,),
        "_embedding_norm_layer/beta": (h,),
        "_pooler_layer/kernel": (h, h),
        "_pooler_layer/bias": (h,),
    }
    for number in range(config.num_hidden_layers):
        layer = f"_transformer_layers/{number}"
        for part in ("query", "key", "value"):
            scope = f"{layer}/_attention_layer/_{part}_dense"
            shapes[f"{scope}/kernel"] = (h, heads, h // heads)
            shapes[f"{scope}/bias"] = (heads, h // heads)
        shapes[f"{layer}/_attention_layer/_output_dense/kernel"] = (
            heads,
            h // heads,
            h,
        )
        shapes[f"{layer}/_attention_layer/_output_dense/bias"] = (h,)
        shapes[f"{layer}/_intermediate_dense/kernel"] = (h, i)
        shapes[f"{layer}/_intermediate_dense/bias"] = (i,)
        shapes[f"{layer}/_output_dense/kernel"] = (i, h)
        shapes[f"{layer}/_output_dense/bias"] = (h,)
        for norm in ("_attention_layer_norm", "_output_layer_norm"):
            shapes[f"{layer}/{norm}/gamma"] = (h,)
            shapes[f"{layer}/{norm}/beta"] = (h,)
    tensors = random_tensors({f"encoder/{n}{SUFFIX}": s for n, s in shapes.items()})
    write_neighbours(folder, config, "bert_config.json")
    tf.raw_ops.SaveV2(
        prefix=str(folder / "bert_model.ckpt-1"),
        tensor_names=sorted(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=[tf.constant(tensors[name]) for name in sorted(tensors)],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """What the page's examples begin with."""
    folder = tmp_path_factory.mktemp("page")
    # The vocabulary that the page pads, but narrow.
    config = dataclasses.replace(tiny, vocab_size=30522)
    tensors = random_tensors(pretraining_shapes(config))
    write_tf1(folder / "uncased", tensors, config)
    write_tf1(folder / "mlperf", tensors, config, name="model.ckpt-28252")
    write_tf1(folder / "results/pretraining", tensors, config, name="model.ckpt-9")
    mlperf = f"{folder}/mlperf/model.ckpt-28252"
    convert(mlperf, f"{mlperf}.pt", ConvertOptions(weights_only=True))
    for name in ("minilm", ".data/models/minilm"):  # In the table, in a command.
        convert(mlperf, f"{folder}/{name}", ConvertOptions(encoder_only=True))
    write_garden(folder / "garden", config)
    return folder


def run(command):
    """Runs the arguments of python in this process."""
    if command[:2] == ["-m", "bert_tf"]:
        assert main(command[2:]) == 0
        return
    script, *sys.argv[1:] = command
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(files.ROOT / script), run_name="__main__")
    assert ended.value.code == 0


def test_all_commands_run_in_their_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["python"])
    assert len(COMMANDS) == 10
    for command in COMMANDS:
        run(command)
        assert "wrote " in capsys.readouterr().out
    expected = read_weights("uncased").tensors
    for path in ("results/again", "results/cut", "results/pytorch_model.bin"):
        assert_equal_bytes(read_weights(path).tensors, expected)
    padded = read_weights("results/mlperf.pt").tensors
    assert padded["cls/predictions/output_bias"].shape == (30528,)
    assert len(read_weights("results/encoder").tensors) == 39


def test_the_python_of_the_page_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    [program] = PYTHON
    exec(program, names)
    table = names["encoder"].get_layer("bert").embeddings.word_embeddings
    expected = read_weights("uncased").tensors["bert/embeddings/word_embeddings"]
    np.testing.assert_array_equal(table, expected)


def test_the_sources_of_the_table_are_those_of_the_commands(folder, monkeypatch):
    monkeypatch.chdir(folder)
    examples = re.findall(r"\| `(\S+)` \|\n", PAGE.split("## Destinations")[0])
    assert len(examples) == 7
    for path in examples:
        assert read_weights(path).tensors


def test_the_table_of_kinds_has_those_of_the_command():
    table = PAGE.partition("| `--kind` | outputs |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE)
    assert {*rows} == {*KINDS} and len(rows) == len(KINDS)
