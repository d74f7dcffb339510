"""Files made to do harm: each gets one line, and nothing of it is executed."""

import ast
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
from oracles import files

from bert_tf.cli import main

PACKAGE = sorted((files.ROOT / "bert_tf").rglob("*.py"))
FORBIDDEN_MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "joblib",
    "shelve",
    "torch",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "load_model"}
FORBIDDEN_CALLS |= {".load_model", ".load_weights", ".system", ".popen", ".extractall"}


class Harm:
    """Unpickling one makes a file that tells of it."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin, end, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


NAME = "pooler.dense.bias"


def keras_file():
    config = {"class_name": "Lambda", "config": {"function": "os.mkdir('harm')"}}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return content.getvalue()


def hdf5_file():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Lambda"})
        file["outside"] = h5py.ExternalLink("/etc/passwd", "/")
        file["soft"] = h5py.SoftLink("/nowhere")
    return content.getvalue()


def archive_file():
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        member = tarfile.TarInfo("../../harm")
        archive.addfile(member, io.BytesIO())
    return content.getvalue()


def zip_of_torch(pickled):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return content.getvalue()


MALICIOUS = {
    "header of 1 GiB/model.safetensors": safetensors(b"{}", length=1 << 30),
    "header of 2^63 bytes/model.safetensors": safetensors(b"{}", length=1 << 63),
    "header that is no json/model.safetensors": safetensors(b"{" * 1000),
    "header deep in lists/model.safetensors": safetensors(b"[" * 100_000),
    "tensor beyond the end/model.safetensors": safetensors({NAME: entry(0, 8)}),
    "huge tensor/model.safetensors": safetensors(
        {NAME: entry(0, 8, (1 << 40,))}, bytes(8)
    ),
    "overflowing shape/model.safetensors": safetensors(
        {NAME: entry(0, 8, (1 << 62, 1 << 62))}, bytes(8)
    ),
    "overlapping tensors/model.safetensors": safetensors(
        {NAME: entry(0, 8), "pooler.dense.weight": entry(4, 12)}, bytes(12)
    ),
    "negative offset/model.safetensors": safetensors({NAME: entry(-8, 0)}, bytes(8)),
    "unknown type/model.safetensors": safetensors(
        {NAME: entry(0, 8, dtype="OBJECT")}, bytes(8)
    ),
    "type of 8 bits/model.safetensors": safetensors(
        {NAME: entry(0, 8, (8,), "F8_E4M3")}, bytes(8)
    ),
    "complex/model.safetensors": safetensors(
        {NAME: entry(0, 8, (1,), "C64")}, bytes(8)
    ),
    "scalar/model.safetensors": safetensors({NAME: entry(0, 4, ())}, bytes(4)),
    "four axes/model.safetensors": safetensors(
        {"pooler.dense.weight": entry(0, 8, (1, 1, 1, 2))}, bytes(8)
    ),
    "classifier of no shape/model.safetensors": safetensors(
        {"classifier.bias": entry(0, 4, ()), NAME: entry(4, 8, (1,))}, bytes(8)
    ),
    "empty but huge/model.safetensors": safetensors(
        {NAME: entry(0, 0, (1 << 60, 0))}, b""
    ),
    "empty/model.safetensors": b"",
    "page/model.safetensors": b"<!DOCTYPE html><html></html>",
    "pickle/pytorch_model.bin": pickle.dumps(Harm()),
    "pickle in a zip/pytorch_model.bin": zip_of_torch(pickle.dumps(Harm())),
    "pickle in a dictionary/model.pt": zip_of_torch(pickle.dumps({"a": Harm()}, 2)),
    "empty/pytorch_model.bin": b"",
    "pointer/pytorch_model.bin": b"version https://git-lfs.github.com/spec/v1\n",
    "lambda/model.keras": keras_file(),
    "links/tf_model.h5": hdf5_file(),
    "outside/bert.tar.gz": archive_file(),
    "objects/weights.npy": np.lib.format.magic(1, 0) + b"garbage",
    "pickle/weights.pkl": pickle.dumps(Harm()),
    "empty/bert_model.ckpt.index": b"",
    "garbage/bert_model.ckpt.index": b"\xff" * 4096,
    "all zeros/bert_model.ckpt.index": bytes(4096),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_file_gets_one_line_and_does_nothing(
    tmp_path, monkeypatch, capsys, name
):
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(MALICIOUS[name])
    (path.parent / "config.json").write_text('{"vocab_size": 8}')
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["convert", name, "out"]) == 1
    output = capsys.readouterr()
    [line] = output.err.splitlines()
    assert line.startswith("error: ") and name.removesuffix(".index") in line
    assert output.out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_enough_malicious_files():
    assert len(MALICIOUS) >= 25


# The package itself.


def imported_modules(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def called_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield f".{node.func.attr}"


def true_keywords(tree):
    """Names of arguments of calls that are anything but `False`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and getattr(node.value, "value", True):
            yield node.arg


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: path.name)
def test_the_package_cannot_run_what_it_reads(path):
    tree = ast.parse(path.read_text())
    imported = set(imported_modules(tree))
    if path.name == "torch_pickle.py":
        imported.remove("pickle")  # See the next test.
    assert not FORBIDDEN_MODULES & imported
    assert not FORBIDDEN_CALLS & set(called_names(tree))
    assert not {"shell", "allow_pickle"} & set(true_keywords(tree))


def test_what_unpickles_imports_nothing_that_a_pickle_names():
    path = files.ROOT / "bert_tf/interop/torch_pickle.py"
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "pickle"
    }
    assert used == {"Unpickler", "UnpicklingError", "MARK", "dumps"}
    [unpickler] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and "pickle.Unpickler" in map(ast.unparse, node.bases)
    ]
    methods = {node.name: node for node in unpickler.body}
    assert {"find_class", "persistent_load"} <= methods.keys()
    assert "super" not in ast.unparse(methods["find_class"])
