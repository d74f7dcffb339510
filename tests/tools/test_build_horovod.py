"""The Horovod build: what it refuses, what it patches, what names a build."""

import fcntl
import hashlib
import os
import pathlib
import subprocess
import tarfile
import time

import pytest

from tools import build_horovod
from tools.build_horovod import BuildError

GPU_LINE = (
    'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")'
)
SOURCES = {
    "horovod/tensorflow/CMakeLists.txt": f"# TF SOURCES\n{GPU_LINE}\n# Library\n",
    "horovod/common/common.h": "#include <memory>\n#include <string>\n",
    "horovod/common/group_table.h": "#include <mutex>\n#include <queue>\n",
    "horovod/runner/js_run.py": "from distutils.spawn import find_executable\n",
}


@pytest.fixture
def sources(tmp_path):
    """A tree with the lines of Horovod 0.28.1 that are patched."""
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_an_unknown_archive_is_refused_with_both_hashes(tmp_path):
    archive = tmp_path / build_horovod.ARCHIVE
    archive.write_bytes(b"something else")
    with pytest.raises(BuildError) as error:
        build_horovod.check_archive(archive)
    assert build_horovod.ARCHIVE_SHA256 in str(error.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(error.value)


def test_a_wrong_archive_in_the_cache_is_not_unpacked(tmp_path):
    (tmp_path / build_horovod.ARCHIVE).write_bytes(b"something else")
    with pytest.raises(BuildError, match="sha256"):
        build_horovod.build_wheel(tmp_path / "wheel", {})
    assert [path.name for path in tmp_path.iterdir()] == [build_horovod.ARCHIVE]


def test_patches_change_only_what_they_name(sources):
    build_horovod.patch_sources(sources)
    texts = {name: (sources / name).read_text().split("\n") for name in SOURCES}
    assert texts == {
        "horovod/tensorflow/CMakeLists.txt": ["# TF SOURCES", "", "# Library", ""],
        "horovod/common/common.h": [
            "#include <memory>",
            "#include <stdexcept>",
            "#include <string>",
            "",
        ],
        "horovod/common/group_table.h": [
            "#include <mutex>",
            "#include <string>",
            "#include <queue>",
            "",
        ],
        "horovod/runner/js_run.py": ["from shutil import which as find_executable", ""],
    }


def test_the_wheel_of_a_faster_set_up_is_kept(sources, tmp_path_factory, monkeypatch):
    cache = tmp_path_factory.mktemp("cache")
    with tarfile.open(cache / build_horovod.ARCHIVE, "w:gz") as tar:
        tar.add(sources, f"horovod-{build_horovod.VERSION}")
    target = cache / "horovod-key"

    def build(command, **_):
        for directory in (command[command.index("--wheel-dir") + 1], target):
            pathlib.Path(directory).mkdir()
        (target / "theirs.whl").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(build_horovod, "check_archive", lambda archive: None)
    monkeypatch.setattr(subprocess, "run", build)
    build_horovod.build_wheel(target, {})
    assert [path.name for path in target.iterdir()] == ["theirs.whl"]
    names = {build_horovod.ARCHIVE, "horovod-key", "horovod-key.log"}
    assert {path.name for path in cache.iterdir()} == names


def test_folders_of_killed_builds_are_deleted_and_those_of_running_ones_stay(tmp_path):
    killed, running = (
        tmp_path / f".horovod-key.0123456{n}.bert_tf.tmp" for n in range(2)
    )
    old, new, other = (tmp_path / n for n in (".build-old", ".build-new", "horovod-1"))
    for folder in (killed, running, old, new, other):
        (folder / "horovod").mkdir(parents=True)
    long_ago = time.time() - 2 * build_horovod.OLD_SECONDS
    os.utime(old, (long_ago, long_ago))
    held = os.open(running, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        build_horovod.remove_leftovers(tmp_path)
    finally:
        os.close(held)
    assert {*tmp_path.iterdir()} == {running, new, other}


@pytest.mark.parametrize(("text", "times"), [("", 0), (f"{GPU_LINE}\n" * 2, 2)])
def test_sources_without_exactly_one_gpu_line_are_refused(sources, text, times):
    (sources / "horovod/tensorflow/CMakeLists.txt").write_text(text)
    with pytest.raises(BuildError, match=f"Received: {times} times"):
        build_horovod.patch_sources(sources)


def test_the_real_sources_take_the_patches(tmp_path):
    archive = build_horovod.cache_dir() / build_horovod.ARCHIVE
    if not archive.is_file():
        pytest.skip("the archive of Horovod is not in the cache")
    build_horovod.check_archive(archive)
    top = f"horovod-{build_horovod.VERSION}"
    with tarfile.open(archive) as tar:
        for name in build_horovod.PATCHES:
            tar.extract(f"{top}/{name}", tmp_path, filter="data")
    build_horovod.patch_sources(tmp_path / top)
    cmake = (tmp_path / top / "horovod/tensorflow/CMakeLists.txt").read_text()
    assert "xla_mpi_ops" not in cmake
    assert "tensorflow/mpi_ops.cc" in cmake


def test_options_of_the_caller_override_the_defaults_and_name_another_build(
    monkeypatch,
):
    monkeypatch.setenv("MAKEFLAGS", "s -- REQUIRE_HOROVOD=1")
    default = build_horovod.build_environment()
    monkeypatch.setenv("HOROVOD_CPU_OPERATIONS", "GLOO")
    monkeypatch.setenv("HOROVOD_GPU_OPERATIONS", "NCCL")
    other = build_horovod.build_environment()
    assert default["HOROVOD_CPU_OPERATIONS"] == "MPI"
    assert other["HOROVOD_CPU_OPERATIONS"] == "GLOO"
    assert other["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert default["MAKEFLAGS"].startswith("-j")
    key = build_horovod.build_key
    assert key(default, "Open MPI 5") == key(dict(default), "Open MPI 5")
    builds = [(default, "Open MPI 5"), (default, "Open MPI 4"), (other, "Open MPI 5")]
    assert len({key(environment, mpi) for environment, mpi in builds}) == 3


@pytest.mark.parametrize(
    ("tools", "missing"), [((), r"C\+\+ compiler"), (("c++",), "MPI")]
)
def test_what_to_install_is_reported_in_one_line(tmp_path, tools, missing):
    for name in tools:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(BuildError, match=f"There is no {missing}") as error:
        build_horovod.check_tools({"PATH": str(tmp_path)})
    assert "\n" not in str(error.value)
