"""The table of `make mutation-check` fits the code; its tests run there."""

import importlib.util
import sys
import tomllib

import pytest
from integration.launching import ROOT


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "tools" / "mutation_check.py"
    spec = importlib.util.spec_from_file_location("mutation_check", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Where dataclasses look.
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def table(tool):
    return tomllib.loads(tool.TABLE.read_text())


def test_each_listed_line_is_in_its_file_once(tool, table):
    assert len(table["mutant"]) >= 20
    for entry in table["mutant"]:
        mutant = tool.Mutant(**entry)
        text = (ROOT / mutant.file).read_text()
        assert mutant.apply(text) != text


def test_the_tests_of_the_table_exist(table):
    listed = [test for entry in table["mutant"] for test in entry["tests"]]
    for group in table["random"].values():
        listed += [test for tests in group.values() for test in tests]
    for test in listed:
        file, _, name = test.partition("::")
        assert (ROOT / file).exists(), test
        assert not name or f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_a_reason_belongs_to_a_change_that_can_be_made(tool, table):
    changes = {
        tool._without_line(mutant.name)
        for group in table["random"].values()
        for mutant in tool.random_mutants(group, 10**6, seed=0)
    }
    for entry in table["unnoticeable"]:
        assert f"{entry['file']}: {entry['change']}" in changes
