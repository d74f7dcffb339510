"""Standard output and errors that cannot be written, in a process of their own."""

import os
import subprocess
import sys
import sysconfig

import pytest
from conftest import ROOT

PROGRAM = """
import sys
from bert_tf.standard_streams import keep_printing
keep_printing()
keep_printing()
with open({path!r}, "w") as file:
    file.write(str(file.fileno()))
for number in range(5):
    print("line", number, "\u00fc", flush=number % 2 == 0)
print("an error", file=sys.stderr)
sys.stdout.write("the rest")
"""
WARNING = (
    "warning: standard output cannot be written ({}): what is printed from here on is "
    "lost.\n"
)
# Without `site`, which opens files.
PATHS = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
LINES = "".join(f"line {number} \u00fc\n" for number in range(5)) + "the rest"


def run(redirection, tmp_path, **environment):
    """Exit code, output, errors, and the number of the first file that was opened."""
    program = PROGRAM.format(path=str(tmp_path / "file"))
    (tmp_path / "program.py").write_text(program)
    line = f"{sys.executable} -S {tmp_path}/program.py {redirection}"
    result = subprocess.run(
        ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)} | environment,
        capture_output=True,
        text=True,
    )
    number = int((tmp_path / "file").read_text())
    return result.returncode, result.stdout, result.stderr, number


def test_streams_that_can_be_written_are(tmp_path):
    assert run("", tmp_path)[:3] == (0, LINES, "an error\n")


@pytest.mark.parametrize(
    "redirection, errors",
    [
        (">/dev/full", WARNING.format("No space left on device") + "an error\n"),
        ("| true", None),  # Whether the reader is gone already is not known.
        ("2>/dev/full", ""),
        (">/dev/full 2>/dev/full", ""),
        (">&-", "an error\n"),
        (">&- 2>&-", ""),
        ("<&- >&- 2>&-", ""),
    ],
)
def test_streams_that_cannot_be_written_are_no_error(redirection, errors, tmp_path):
    code, _, found, number = run(redirection, tmp_path)
    assert code == 0
    assert found == errors or errors is None
    assert "ignored" not in found
    assert number > 2  # No file is mistaken for a standard stream.


def test_letters_that_an_encoding_lacks_are_escaped(tmp_path):
    _, text, _, _ = run("", tmp_path, PYTHONIOENCODING="ascii")
    assert text.startswith("line 0 \\xfc\n")


def test_streams_that_somebody_else_has_replaced_stay(capsys):
    from bert_tf.standard_streams import keep_printing

    before = sys.stdout, sys.stderr
    keep_printing()
    assert (sys.stdout, sys.stderr) == before
