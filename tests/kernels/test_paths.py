"""Which instruction sets a machine has, and that they can be limited."""

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
    assert list(kernels.paths())[-1] == kernels.REFERENCE
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, kernels.REFERENCE)
    assert kernels.paths() == {kernels.REFERENCE: ""}
    assert kernels.why_missing() == "BERT_TF_ISA=reference"


def test_an_instruction_set_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "avx3")
    with pytest.raises(ValueError, match="must be one of amx, avx512bf16, .*avx3"):
        kernels.paths()


def test_the_variable_names_the_best_that_is_used(monkeypatch, library):
    *names, _ = kernels.paths()
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, names[-1])
    assert list(kernels.paths()) == [names[-1], kernels.REFERENCE]


def test_an_instruction_set_that_the_processor_lacks_is_said(monkeypatch, library):
    lacking = [name for name in kernels.TITLES if name not in kernels.paths()]
    if not lacking:
        pytest.skip("this processor has all of them")
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, lacking[0])
    title = kernels.TITLES[lacking[0]]
    assert kernels.why_missing() == f"this processor has no {title}"


def test_a_library_that_is_not_built_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv(kernels.FILE_VARIABLE, raising=False)
    monkeypatch.setattr(kernels, "library_name", lambda: "library-other.so")
    reason = "the library is not built (run `python -m bert_tf build`)"
    assert kernels.why_missing() == reason


def test_a_library_that_cannot_be_loaded_is_said(monkeypatch, tmp_path):
    """As where the C library is older than that of the machine it was built on."""
    path = tmp_path / "library.so"
    path.write_bytes(b"not a library")
    monkeypatch.setattr(kernels, "library_file", lambda: path)
    assert kernels.why_missing().startswith("the library cannot be loaded, ")


def test_a_limit_is_obeyed_and_can_be_lifted(library):
    kernels.limit(kernels.REFERENCE)
    assert kernels.library() is None
    assert not kernels.are_in_use()
    assert len(kernels.paths()) > 1  # What the machine has, whatever the limit.
    kernels.limit(next(iter(kernels.paths())))
    assert kernels.library() is not None
