"""Building the library: with which compiler, where, and what becomes of a failure."""

import concurrent.futures
import fnmatch
import os
import shutil
import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT

from bert_tf import fused_ops
from bert_tf.errors import RunError
from bert_tf.fused_ops import build as building
from bert_tf.fused_ops.build import (
    build,
    build_at_first_use,
    find_compiler,
    known_isas,
)

# A compiler that refuses some flags, fails for some files, and writes what it is.
COMPILER = """#!/bin/sh
[ "$*" = --version ] && echo "c++ {version}" && exit 0
echo "$@" >> {log}
case " $* " in *" "{refused}" "*) echo "error: unknown flag" >&2; exit 1;; esac
case " $* " in *{failing}*) echo "x.cc:1: error: no good" >&2; exit 1;; esac
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo compiled > "$2"; shift; done
exit 0
"""


@pytest.fixture(autouse=True)
def x86(monkeypatch):
    monkeypatch.setattr(fused_ops, "wrong_machine", lambda: "")
    monkeypatch.delenv(fused_ops.FILE_VARIABLE, raising=False)
    monkeypatch.delenv(fused_ops.ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """The folders for libraries: that of the package, which exists, and a cache."""
    found = [tmp_path / "package", tmp_path / "home" / "cache"]
    found[0].mkdir()
    monkeypatch.setattr(fused_ops, "folders", lambda: found)
    return found


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    """Libraries that are whole load, but for those of this list."""
    unloadable = []

    def load(path):
        if path in unloadable or not fused_ops.is_whole(path):
            raise OSError(f"{path} is no good")

    monkeypatch.setattr(fused_ops, "_load", load)
    return unloadable


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Makes a compiler that CXX names, and returns the file with its calls."""

    def make(refused="-mno-such-flag", failing="no-such-file", version="1"):
        path, log = tmp_path / "c++", tmp_path / "calls"
        names = {"refused": refused, "failing": failing, "version": version}
        path.write_text(COMPILER.format(log=log, **names))
        path.chmod(0o755)
        log.write_text("")
        monkeypatch.setenv("CXX", str(path))
        return log

    return make


def test_an_installed_package_has_all_that_a_library_is_made_of():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["bert_tf"]
    assert len(fused_ops.files()) > 15
    for path in fused_ops.files():
        name = f"fused_ops/{path.name}"
        assert any(fnmatch.fnmatch(name, pattern) for pattern in patterns), name


def test_every_included_file_is_in_the_recipe():
    included = {
        line.split('"')[1]
        for path in fused_ops.files()
        for line in path.read_text().splitlines()
        if line.startswith('#include "')
    }
    ours = {name for name in included if "/" not in name}
    assert ours and ours <= {path.name for path in fused_ops.files()}


def test_the_name_depends_on_what_the_library_is_made_of(monkeypatch):
    names = {fused_ops.library_name(isa) for isa in fused_ops.ISA_FLAGS}
    assert len(names) == len(fused_ops.ISA_FLAGS)
    for part in fused_ops.recipe():
        changed = fused_ops.recipe() | {part: "another"}
        monkeypatch.setattr(fused_ops, "recipe", lambda changed=changed: changed)
        assert fused_ops.library_name() not in names
        monkeypatch.undo()


def test_the_recipe_is_of_a_tensorflow_and_not_of_its_folder(monkeypatch):
    def recipe(flags):
        monkeypatch.setattr(
            fused_ops.tf.sysconfig, "get_compile_flags", lambda: flags.split()
        )
        return fused_ops.recipe.__wrapped__()

    one = recipe("-I/a/include -D_GLIBCXX_USE_CXX11_ABI=1")
    assert recipe("-I/b/include -D_GLIBCXX_USE_CXX11_ABI=1") == one
    assert recipe("-I/a/include -D_GLIBCXX_USE_CXX11_ABI=0") != one


def test_the_words_of_the_variable_are_a_command(monkeypatch):
    monkeypatch.setenv("CXX", f"{sys.executable} 'a b' -c")
    assert find_compiler() == [sys.executable, "a b", "-c"]


@pytest.mark.parametrize("text", ["no-such-compiler", "no-such-ccache g++", 'g++ "'])
def test_a_compiler_that_is_not_there_is_refused_and_not_replaced(monkeypatch, text):
    monkeypatch.setenv("CXX", text)
    with pytest.raises(RunError, match="CXX must be .* Received: CXX=") as caught:
        find_compiler()
    assert f"CXX={text}" in str(caught.value)


def test_the_first_compiler_that_is_installed_is_taken(monkeypatch):
    monkeypatch.setenv("CXX", "")
    monkeypatch.setattr(shutil, "which", lambda name: name != "g++")
    assert find_compiler() == ["c++"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RunError, match="There is no C[+][+] compiler. Install g"):
        find_compiler()


@pytest.mark.parametrize(
    "refused, best",
    [
        ("-mno-such-flag", "amx"),
        ("-mamx-tile", "avx512bf16"),
        ("-mavx512bf16", "avx512"),
        ("-mavx512f", "avx2"),
    ],
)
def test_what_the_compiler_knows_is_built_and_the_rest_is_named(
    folders, compiler, capsys, refused, best
):
    calls = compiler(refused)
    path = build()
    assert path == folders[0] / fused_ops.library_name(best)
    names = list(fused_ops.ISA_FLAGS)
    known = names[names.index(best) :]
    compiled = {
        word.rsplit("isa_")[1].removesuffix(".cc")
        for word in calls.read_text().split()
        if "/isa_" in word and word.endswith(".cc")
    }
    assert compiled == set(known)
    [*lines, last] = capsys.readouterr().err.splitlines()
    assert last == "Compiling the fused operations (half a minute on two cores)"
    missing = [fused_ops.TITLES[name] for name in names if name not in known]
    assert len(lines) == bool(missing)
    if missing:
        assert f"does not know {', '.join(missing)}: " in lines[0]


def test_a_better_compiler_builds_what_was_left_out(folders, compiler):
    compiler("-mamx-tile")
    partial = build()
    assert build() == partial  # Not again.
    compiler()
    assert build() == folders[0] / fused_ops.library_name("amx")
    assert fused_ops.library_file() == folders[0] / fused_ops.library_name("amx")


def test_a_compiler_that_knows_nothing_is_refused(folders, compiler):
    compiler("-mavx2")
    with pytest.raises(RunError, match="for AVX2: error: unknown flag. Install g"):
        build()


def test_a_compiler_that_writes_nothing_is_refused(folders, monkeypatch):
    monkeypatch.setenv("CXX", "true")
    with pytest.raises(RunError, match="^true wrote nothing"):
        build()


def test_an_error_in_a_source_is_a_line_and_its_output_a_file(
    folders, compiler, capsys
):
    compiler(failing="isa_avx512.cc")
    with pytest.raises(RunError) as caught:
        build()
    log = folders[0] / "library.log"
    assert f"failed: x.cc:1: error: no good. Its output is in {log}." in str(
        caught.value
    )
    assert "isa_avx512.cc" in log.read_text() and "no good" in log.read_text()
    assert not fused_ops.built_libraries()


def test_a_failure_is_not_repeated_until_it_is_asked_for(folders, compiler, capsys):
    """Half a minute at each start; another compiler is tried at once."""
    failing = {"failing": "isa_avx512.cc"}

    def start(**more):
        calls = compiler(**failing, **more)
        build_at_first_use()
        return capsys.readouterr().err.splitlines(), "/isa_avx512" in calls.read_text()

    [_, warning], compiles = start()
    assert compiles
    assert warning.startswith("warning: ") and "failed: x.cc:1: error" in warning
    [line], compiles = start()
    assert not compiles
    assert line == f"{warning} `python -m bert_tf build` tries again."
    calls = compiler(**failing)
    with pytest.raises(RunError, match="failed: x.cc:1: error"):
        build()
    assert "/isa_avx512" in calls.read_text()
    assert start(version="2")[1]  # A newer one under the same name.
    compiler()
    build()
    assert names_in(folders[0]) == {fused_ops.library_name(), ".build-lock"}


def names_in(folder):
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_nothing_else_is_left_behind(folders, compiler):
    compiler()
    name = fused_ops.library_name()
    (
        folders[0] / f".{name}.0123abcd.bert_tf.tmp"
    ).mkdir()  # Of a build that was killed.
    path = build()
    assert names_in(folders[0]) == {name, ".build-lock"}
    assert names_in(folders[1]) == set()
    assert path.read_bytes() == fused_ops.seal(b"compiled\n")


def test_one_of_several_callers_compiles(folders, compiler):
    calls = compiler()
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        paths = set(executor.map(lambda _: build(), range(4)))
    assert paths == {folders[0] / fused_ops.library_name()}
    links = [x for x in calls.read_text().splitlines() if x.startswith("-shared ")]
    assert len(links) == 1


def test_no_folder_of_this_host_is_in_the_library(folders, compiler):
    """__FILE__ is: equal compilers on hosts with other folders make equal files."""
    calls = compiler()
    build()
    compiled = [x for x in calls.read_text().splitlines() if " -c " in x]
    ours = [x for x in compiled if f"{fused_ops.FOLDER}/" in x]
    assert ours and all(
        f"-ffile-prefix-map={fused_ops.FOLDER}=fused_ops" in x for x in ours
    )


def test_what_is_there_is_taken(folders, compiler):
    calls = compiler()
    for folder in folders[::-1]:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / fused_ops.library_name()
        path.write_bytes(fused_ops.seal(b"here"))
        assert build() == path
        build_at_first_use()
    assert not calls.read_text()


@pytest.mark.parametrize(
    "damage",
    [b"", b"half of", fused_ops.seal(b"other")[:-1]],
    ids=["empty", "short", "one byte less"],
)
@pytest.mark.parametrize("action", [build, build_at_first_use])
def test_a_damaged_library_is_built_again(folders, compiler, damage, action):
    compiler()
    path = folders[0] / fused_ops.library_name()
    path.write_bytes(damage)
    action()
    assert path.read_bytes() == fused_ops.seal(b"compiled\n")
    assert fused_ops.library_file() == path


def test_a_damaged_library_that_cannot_be_replaced_is_built_in_the_cache(
    folders, compiler, monkeypatch
):
    compiler()
    (folders[0] / fused_ops.library_name()).write_bytes(b"half of")
    refuse_writing(monkeypatch, folders[0])
    path = build()
    assert path == folders[1] / fused_ops.library_name() == fused_ops.library_file()
    assert build() == path


def test_a_library_that_cannot_be_loaded_is_built_again_when_asked(
    folders, compiler, loaded, monkeypatch
):
    """As one of a host with a newer C library; at first use nobody has asked."""
    calls = compiler()
    path = folders[0] / fused_ops.library_name()
    path.write_bytes(fused_ops.seal(b"newer"))
    loaded.append(path)
    build_at_first_use()
    assert not calls.read_text()
    with pytest.raises(RunError, match="was built, but cannot be loaded: .* no good"):
        build()
    assert path.read_bytes() == fused_ops.seal(b"compiled\n")


def refuse_writing(monkeypatch, folder):
    """Makes a folder one that says it can be written, and cannot."""
    real = building.whole_file

    def refuse(path):
        if path.parent == folder:
            raise OSError(28, "No space left on device")
        return real(path)

    monkeypatch.setattr(building, "whole_file", refuse)


def test_a_folder_that_cannot_be_written_leads_to_the_cache(
    folders, compiler, monkeypatch
):
    compiler()
    refuse_writing(monkeypatch, folders[0])
    assert build() == folders[1] / fused_ops.library_name()


def test_without_a_folder_that_can_be_written_all_are_named(folders, compiler):
    compiler()
    folders[0].rmdir()
    for folder in folders:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("a file")
    with pytest.raises(RunError, match="cannot be written") as caught:
        build()
    assert all(f"{folder}: File exists" in str(caught.value) for folder in folders)


def test_another_kind_of_machine_is_refused_and_not_warned_of(
    folders, compiler, monkeypatch, capsys
):
    monkeypatch.setattr(fused_ops, "wrong_machine", lambda: "this is another")
    calls = compiler()
    with pytest.raises(RunError, match="cannot be built: this is another. TensorFlow"):
        build()
    build_at_first_use()
    assert not calls.read_text() and not capsys.readouterr().err


def test_nothing_is_built_at_first_use_that_nobody_wants(
    folders, compiler, monkeypatch
):
    calls = compiler()
    monkeypatch.setenv(fused_ops.ENVIRONMENT_VARIABLE, fused_ops.REFERENCE)
    build_at_first_use()
    monkeypatch.delenv(fused_ops.ENVIRONMENT_VARIABLE)
    monkeypatch.setenv(fused_ops.FILE_VARIABLE, "0")
    build_at_first_use()
    assert not calls.read_text()
    monkeypatch.delenv(fused_ops.FILE_VARIABLE)
    build_at_first_use()
    assert fused_ops.library_file()


def test_this_compiler_knows_a_part_of_the_instruction_sets_from_one_on():
    if not shutil.which("g++"):
        pytest.skip("there is no g++")
    known = known_isas(["g++"])
    assert known and known == list(fused_ops.ISA_FLAGS)[-len(known) :]


def test_a_flag_that_the_compiler_refuses_leaves_its_instruction_set_out(tmp_path):
    if not shutil.which("g++"):
        pytest.skip("there is no g++")
    known = known_isas(["g++"])
    refusing = tmp_path / "c++"
    refusing.write_text(
        '#!/bin/sh\ncase " $* " in *" -mavx512bf16 "*) exit 1;; esac\nexec g++ "$@"\n'
    )
    refusing.chmod(0o755)
    expected = [name for name in known if name in ("avx512", "avx2")]
    assert known_isas([str(refusing)]) == expected


# Of AVX2 alone, and faster than it should be.
OLD = """#!/bin/sh
case " $* " in *" -mavx512f "*) echo "error: unknown flag" >&2; exit 1;; esac
exec g++ "$@" -O0
"""
CHECK = """
from bert_tf import fused_ops
library = fused_ops.library()
x = [[-1.0, 0.0, 1.0] + [2.0] * 13]
y = library.bert_bias_gelu(x=x, bias=[0.0] * 16, approximate=False)
print(*fused_ops.paths(), float(y[0, 2]), fused_ops.why_not("avx512"), sep="|")
"""


@pytest.mark.slow
def test_an_installed_package_with_a_damaged_library_and_an_old_compiler(tmp_path):
    """The real compiler and loader, and the files that a wheel has."""
    program = ["grep", "-qw", "avx2", "/proc/cpuinfo"]
    if not shutil.which("g++") or subprocess.run(program, check=False).returncode:
        pytest.skip("there is no g++, or no AVX2")
    package = tmp_path / "site" / "bert_tf"
    shutil.copytree(
        ROOT / "bert_tf",
        package,
        ignore=shutil.ignore_patterns("__pycache__", "library*", ".*"),
    )
    target = package / "fused_ops" / fused_ops.library_name("avx2")
    target.write_bytes(b"\x7fELF" + bytes(10_000))
    compiler = tmp_path / "old-c++"
    compiler.write_text(OLD)
    compiler.chmod(0o755)

    def run(*arguments):
        variables = {"CXX": str(compiler), "PYTHONPATH": str(package.parent)}
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=package.parent,
            env=os.environ | variables | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            timeout=500,
        )

    built = run("-m", "bert_tf", "build")
    assert built.returncode == 0, built.stderr
    assert built.stdout.strip() == str(target)
    assert "does not know AMX, AVX512-BF16, AVX-512: " in built.stderr
    checked = run("-c", CHECK)
    *paths, gelu, why_not = checked.stdout.strip().split("|")
    assert paths == ["avx2", "reference"], checked.stderr
    assert abs(float(gelu) - 0.8413447) < 1e-5  # The normal distribution's, at 1.
    assert why_not.endswith("has no AVX-512") or why_not.startswith(
        "the library has no AVX-512, which its compiler did not know"
    )
