"""What `pip install` of this project installs."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from bert_tf import fused_ops, recipes

PARTS = ("bert_tf", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, without the network: the build writes next to its source."""
    folder = tmp_path_factory.mktemp("project")
    leave_out = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=leave_out)
        else:
            shutil.copy(ROOT / part, folder / part)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index"]
    subprocess.run(
        [*command, "--no-build-isolation", "-q", "-w", "dist", "."],
        cwd=folder,
        check=True,
        timeout=120,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
    )
    [path] = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def test_the_wheel_has_every_module(wheel):
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "bert_tf").rglob("*.py")}
    assert modules <= set(wheel.namelist())


def test_the_wheel_has_sources_and_builder_of_the_fused_operations(wheel):
    names = set(wheel.namelist())
    assert {f"bert_tf/fused_ops/{path.name}" for path in fused_ops.files()} <= names
    assert "bert_tf/fused_ops/build.py" in names
    assert not [name for name in names if name.endswith(".so")]


def test_the_wheel_has_the_recipes(wheel):
    expected = {f"bert_tf/recipes/{name}.flags" for name in recipes.names()}
    assert expected and expected <= set(wheel.namelist())


def test_the_wheel_has_nothing_but_the_package(wheel):
    folders = {name.split("/")[0] for name in wheel.namelist()}
    assert len(folders) == 2 and "bert_tf" in folders
    [metadata] = folders - {"bert_tf"}
    assert metadata.endswith(".dist-info")
    entry_points = wheel.read(f"{metadata}/entry_points.txt").decode()
    assert "bert-tf = bert_tf.__main__:run" in entry_points
    needed = wheel.read(f"{metadata}/METADATA").decode().split("\n\n")[0].lower()
    requires = [x for x in needed.splitlines() if x.startswith("requires-dist")]
    assert not [line for line in requires if "horovod" in line]
