"""Which compute paths a machine has, and that they can be limited."""

import json

import pytest

from bert_tf import kernels


@pytest.fixture(autouse=True)
def unlimited():
    """Nothing is kept of a test."""
    yield
    kernels.limit("")


@pytest.fixture
def library():
    if reason := kernels.why_missing():
        pytest.skip(reason)


def test_the_last_path_is_without_the_library(monkeypatch):
    assert list(kernels.paths())[-1] == kernels.PLAIN
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
    assert kernels.paths() == {kernels.PLAIN: ""}


def test_the_variable_is_the_reason(monkeypatch):
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")
    assert kernels.why_missing() == "BERT_TF_KERNELS=0"


def test_a_library_that_is_not_built_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "RECEIPT", tmp_path / "library.json")
    reason = "the library is not built (run `make kernels`)"
    assert kernels.why_missing() == reason
    (tmp_path / "library.json").write_text("[]")
    assert kernels.why_missing() == reason


@pytest.mark.parametrize("name", ["source", "tensorflow", "processor"])
def test_what_a_library_is_built_for_instead_is_said(monkeypatch, tmp_path, name):
    monkeypatch.setattr(kernels, "RECEIPT", tmp_path / "library.json")
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "library.so")
    (tmp_path / "library.so").write_bytes(b"")
    receipt = json.dumps(kernels.recipe() | {name: "other"})
    (tmp_path / "library.json").write_text(receipt)
    assert kernels.why_missing() == (
        f"the library is built for another {name} (run `make kernels`)"
    )


def test_a_library_that_cannot_be_loaded_is_said(monkeypatch, tmp_path):
    """As where the C library is older than that of the machine it was built on."""
    monkeypatch.setattr(kernels, "RECEIPT", tmp_path / "library.json")
    monkeypatch.setattr(kernels, "LIBRARY", tmp_path / "library.so")
    (tmp_path / "library.so").write_bytes(b"not a library")
    (tmp_path / "library.json").write_text(json.dumps(kernels.recipe()))
    kernels._load.cache_clear()
    assert kernels.why_missing().startswith("the library cannot be loaded, ")
    assert kernels.library() is None


def test_a_limit_is_obeyed_and_can_be_lifted(library):
    kernels.limit(kernels.PLAIN)
    assert kernels.library() is None
    assert not kernels.are_in_use()
    assert not kernels.has_tiles()
    assert len(kernels.paths()) > 1  # What the machine has, whatever the limit.
    kernels.limit(next(iter(kernels.paths())))
    assert kernels.library() is not None
    assert kernels.has_tiles() == (kernels.TILES in kernels.paths())


def test_tiles_are_not_used_where_another_worker_has_none(library):
    kernels.limit(list(kernels.paths())[-2])
    assert kernels.library() is not None
    assert not kernels.has_tiles() or kernels.TILES == list(kernels.paths())[-2]
