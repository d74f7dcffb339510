"""`make fused_ops`: a second call starts no Python, unless something has changed."""

import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT

STUB = f"""#!/bin/sh
case "$1" in tools/*) exec {sys.executable} "$@";; esac
echo built >>calls
touch library.so
echo "$PWD/library.so"
"""


@pytest.fixture
def folder(tmp_path):
    """A checkout with a Python that notes its calls, and one source."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/progress_lines.py", tmp_path / "tools")
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "bert_tf/fused_ops").mkdir(parents=True)
    (tmp_path / "bert_tf/fused_ops/a.cc").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").write_text(STUB)
    (tmp_path / ".venv/bin/python").chmod(0o755)
    (tmp_path / ".venv/environment-stamp").touch()
    return tmp_path


def make(folder):
    """Runs make; returns how often the library has been built."""
    command = ["make", "fused_ops", "REQUIRE_HOROVOD="]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    calls = folder / "calls"
    return calls.read_text().count("built") if calls.exists() else 0


def touch_later(path):
    later = time.time() + 10
    path.touch()
    os.utime(path, (later, later))


def test_the_library_is_looked_for_again_only_after_a_change(folder):
    assert make(folder) == 1
    assert make(folder) == 1
    (folder / "library.so").unlink()
    assert make(folder) == 2
    touch_later(folder / "bert_tf/fused_ops/a.cc")
    assert make(folder) == 3


def test_another_environment_is_a_change(folder):
    assert make(folder) == 1
    touch_later(folder / ".venv/environment-stamp")
    assert make(folder) == 2


def test_a_failed_build_is_tried_again(folder, capfd):
    (folder / ".venv/bin/python").write_text(STUB.replace("touch library.so", "exit 1"))
    assert make(folder) == 1
    assert "without the fused operations training is slower" in capfd.readouterr().out
    assert make(folder) == 2
