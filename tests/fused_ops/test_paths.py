"""Which instruction sets a machine has, and that they can be limited."""

import os
import pwd
import types

import pytest

from bert_tf import fused_ops

NOT_BUILT = "the library is not built (run `python -m bert_tf build`)"


@pytest.fixture(autouse=True)
def unlimited():
    """Nothing is kept of a test."""
    yield
    fused_ops.limit("")


@pytest.fixture
def library():
    if reason := fused_ops.why_missing():
        pytest.skip(reason)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine of what lacks each instruction set, as the library numbers it."""

    def make(**lacks):
        functions = types.SimpleNamespace(
            bert_tf_lacks=lambda name: lacks.get(name.decode(), 0)
        )
        path = tmp_path / "library.so"
        path.touch()
        monkeypatch.delenv(fused_ops.ENVIRONMENT_VARIABLE, raising=False)
        monkeypatch.setattr(fused_ops, "_libraries", lambda: [path])
        monkeypatch.setattr(fused_ops, "_load", lambda path: (None, functions))
        monkeypatch.setattr(fused_ops, "wrong_machine", lambda: "")

    yield make
    monkeypatch.undo()  # Before the limit is lifted.


PROCESSOR, SYSTEM, LIBRARY = 1, 2, 3


def test_the_last_path_is_without_the_library(monkeypatch):
    assert list(fused_ops.paths())[-1] == fused_ops.REFERENCE
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, fused_ops.REFERENCE)
    assert fused_ops.paths() == {fused_ops.REFERENCE: ""}
    assert fused_ops.why_missing() == "BERT_TF_ISA=reference"


def test_an_instruction_set_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, "avx3")
    with pytest.raises(ValueError, match="must be one of amx, avx512bf16, .*avx3"):
        fused_ops.paths()


@pytest.mark.parametrize("name", ["AVX2", " avx2", "avx2 ", " ", "Reference"])
def test_names_are_taken_as_they_are_written(monkeypatch, name):
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, name)
    with pytest.raises(ValueError, match=f"Received: {name!r}. Correct it, or unset"):
        fused_ops.paths()


def test_the_variable_names_the_best_that_is_used(monkeypatch, library):
    *names, _ = fused_ops.paths()
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, names[-1])
    assert list(fused_ops.paths()) == [names[-1], fused_ops.REFERENCE]
    reason = f"BERT_TF_ISA={names[-1]}" if len(names) > 1 else ""
    assert fused_ops.why_not_better() == reason == fused_ops.why_not(names[0])
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, names[0])
    assert fused_ops.why_not_better() == ""


def test_the_next_best_of_what_the_variable_names_is_used_and_reported(
    monkeypatch, machine
):
    machine(amx=PROCESSOR)
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, "amx")
    assert list(fused_ops.paths()) == ["avx512bf16", "avx512", "avx2", "reference"]
    reason = "BERT_TF_ISA=amx, but this processor has no AMX"
    assert fused_ops.why_not_better() == reason
    machine(amx=SYSTEM)
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, "amx")
    reason = "BERT_TF_ISA=amx, but the system does not let this process use AMX"
    assert fused_ops.why_not_better() == reason


def test_the_variable_on_this_processor(monkeypatch, library):
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, "amx")
    has_amx = "amx" in fused_ops.paths()
    assert bool(fused_ops.why_not_better()) != has_amx
    assert len(fused_ops.paths()) > 1


def test_an_old_processor_is_not_worth_a_line(machine):
    machine(amx=PROCESSOR, avx512bf16=PROCESSOR)
    assert next(iter(fused_ops.paths())) == "avx512"
    assert fused_ops.why_not_better() == ""
    assert fused_ops.why_not("amx") == "this processor has no AMX"


def test_tiles_that_the_system_refuses_are_reported(machine):
    machine(amx=SYSTEM)
    assert next(iter(fused_ops.paths())) == "avx512bf16"
    reason = "the system does not let this process use AMX"
    assert fused_ops.why_not_better() == reason == fused_ops.why_not("amx")


def test_what_the_library_was_built_without_is_reported(machine):
    machine(amx=PROCESSOR, avx512bf16=LIBRARY)
    assert next(iter(fused_ops.paths())) == "avx512"
    assert fused_ops.why_not_better() == (
        "the library has no AVX512-BF16, which its compiler did not know (install "
        "g++ 11 or later, and run `python -m bert_tf build`)"
    )


def test_a_processor_without_any_instruction_set_is_reported(machine):
    machine(**dict.fromkeys(fused_ops.ISA_FLAGS, PROCESSOR))
    assert list(fused_ops.paths()) == [fused_ops.REFERENCE]
    assert fused_ops.why_missing() == "this processor has no AVX2"


def test_another_kind_of_machine_is_reported(monkeypatch):
    monkeypatch.setattr(fused_ops.platform, "machine", lambda: "aarch64")
    reason = "they are for x86-64 processors, and this is aarch64"
    assert fused_ops.why_missing() == fused_ops.why_not("amx") == reason
    assert list(fused_ops.paths()) == [fused_ops.REFERENCE]


def test_a_library_that_is_not_built_is_reported(monkeypatch):
    monkeypatch.delenv(fused_ops.FILE_VARIABLE, raising=False)
    monkeypatch.setattr(fused_ops, "library_name", lambda best="": "library-other.so")
    assert fused_ops.why_missing() == NOT_BUILT


@pytest.mark.parametrize("whole", [True, False])
def test_a_library_that_cannot_be_loaded_is_reported(monkeypatch, tmp_path, whole):
    """As where the C library is older than that of the machine it was built on."""
    path = tmp_path / "library.so"
    path.write_bytes(fused_ops.seal(b"not a library") if whole else b"not a library")
    monkeypatch.delenv(fused_ops.FILE_VARIABLE, raising=False)
    monkeypatch.setattr(fused_ops, "built_libraries", lambda: [path])
    reason = fused_ops.why_missing()
    assert reason.startswith("the library cannot be loaded, ")
    assert reason.endswith(" (run `python -m bert_tf build`)")
    assert (f"{path} is damaged" in reason) != whole


def test_only_what_was_built_is_whole(tmp_path):
    path = tmp_path / "library.so"
    path.write_bytes(b"")
    assert not fused_ops.is_whole(path)
    path.write_bytes(fused_ops.seal(b"built"))
    assert fused_ops.is_whole(path)
    path.write_bytes(fused_ops.seal(b"built").replace(b"b", b"B", 1))
    assert not fused_ops.is_whole(path)


def test_a_named_library_that_cannot_be_loaded_is_to_be_unset(monkeypatch, tmp_path):
    monkeypatch.setenv(fused_ops.FILE_VARIABLE, str(tmp_path / "none.so"))
    assert fused_ops.why_missing().endswith(" (unset BERT_TF_KERNELS)")


def test_a_library_that_cannot_be_loaded_does_not_hide_another(monkeypatch, tmp_path):
    if os.environ.get(fused_ops.FILE_VARIABLE) or not fused_ops.built_libraries():
        pytest.skip("the built library is not the one in use")
    built = fused_ops.built_libraries()
    path = tmp_path / "library.so"
    path.write_bytes(built[0].read_bytes()[:100_000])  # Loading it would crash.
    monkeypatch.delenv(fused_ops.FILE_VARIABLE, raising=False)
    monkeypatch.setattr(fused_ops, "built_libraries", lambda: [path, *built])
    assert fused_ops.library_file() == built[0]
    assert fused_ops.why_missing() == ""


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the system's list of users."""

    def unknown(user):
        raise KeyError(user)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_user_without_a_home_has_no_cache(homeless):
    assert fused_ops.folders() == [fused_ops.FOLDER]


def test_the_cache_is_where_the_user_wants_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert list(map(str, fused_ops.folders()[1:])) == ["/home/a/.cache/bert_tf"]
    monkeypatch.setenv("XDG_CACHE_HOME", "/big/cache")
    assert list(map(str, fused_ops.folders()[1:])) == ["/big/cache/bert_tf"]


def test_a_limit_is_obeyed_and_can_be_lifted(library):
    fused_ops.limit(fused_ops.REFERENCE)
    assert fused_ops.library() is None
    assert not fused_ops.are_in_use()
    assert len(fused_ops.paths()) > 1  # What the machine has, whatever the limit.
    fused_ops.limit(next(iter(fused_ops.paths())))
    assert fused_ops.library() is not None


def test_a_limit_that_cannot_be_kept_is_refused(machine):
    machine(amx=PROCESSOR)
    with pytest.raises(ValueError, match="one of avx512bf16, .* Received: 'amx'"):
        fused_ops.limit("amx")


def test_a_named_library_that_is_cut_off_is_reported(monkeypatch, library, tmp_path):
    """Loading it would end the process by SIGBUS."""
    whole = fused_ops.library_file().read_bytes()
    for share in (0.3, 0.9):
        path = tmp_path / f"{share}.so"
        path.write_bytes(whole[: int(share * len(whole))])
        monkeypatch.setenv(fused_ops.FILE_VARIABLE, str(path))
        assert f"{path} is damaged (unset BERT_TF_KERNELS)" in fused_ops.why_missing()
