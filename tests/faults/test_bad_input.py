"""Bad input to every command ends in one line and exit code 1, with nothing left."""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from faults import bad_input, good_input
from faults.counts import count

SECONDS = 15
_CASES = bad_input.all_cases()
# What a remedy begins with, or the rule that says what is right.
_REMEDY = re.compile(
    r"must|lists all|--help"
    r"|\b(add|check|choose|convert|correct|download|drop|fetch|give|leave|make|name"
    r"|pass|remove|replace|restore|run|store|train|try|unpack|use|write)\b",
    re.IGNORECASE,
)


class _TooLongError(BaseException):
    """Not an `Exception`, which a command may report as its own."""


def _stop(number, frame):
    raise _TooLongError


def tree(*folders):
    """Path -> size, of everything in some folders."""
    found = {}
    for folder in folders:
        for parent, inner, names in os.walk(folder):
            for name in (*inner, *names):
                path = os.path.join(parent, name)
                status = os.lstat(path)
                is_folder = os.path.isdir(path) and not os.path.islink(path)
                found[path] = 0 if is_folder else status.st_size
    return found


def problems(case, good, folder, start):
    """Runs a case in a new folder; returns what is wrong with its end, in words."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.chdir(folder)
    case.prepare(good)
    before = tree(folder, good)
    words = good_input.command_line(case.command, good, case.changes, case.words)
    begin = time.monotonic()
    code, errors = start(case.command, words, folder)
    seconds = time.monotonic() - begin
    lines = errors.splitlines()
    messages = [line for line in lines if line.startswith("error: ")]
    found = []
    if code != 1:
        found.append(f"exit code {code}")
    if len(messages) != 1 or lines[-1] != messages[0]:
        found.append(f"{len(messages)} messages")
    if "Traceback" in errors:
        found.append("a traceback")
    message = messages[0] if messages else ""
    found += [f"no {part!r}" for part in case.expected if part not in message]
    if not _REMEDY.search(message):
        found.append("no remedy")
    if seconds > SECONDS:
        found.append(f"{seconds:.0f} s")
    after = tree(folder, good)
    found += [f"left {path}" for path in sorted(after.keys() - before.keys())[:3]]
    found += [f"changed {path}" for path in before if after.get(path) != before[path]]
    return f"{case.title}: {', '.join(found)} [{errors[-600:]}]" if found else ""


def in_process(command, words, folder):
    """Runs the main function of a command here."""
    errors = io.StringIO()
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(SECONDS + 5)
    try:
        with (
            contextlib.redirect_stderr(errors),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            code = good_input.run(command, words, folder)
    except _TooLongError:
        code = "after the time limit"
    except SystemExit as error:
        code = f"of an exit: {error.code}"
    except Exception as error:
        code = f"of an exception: {error!r}"
    finally:
        signal.alarm(0)
    return code, errors.getvalue()


def as_program(command, words, folder):
    """Runs a command as a user does."""
    script = {
        "pretraining": "run_pretraining.py",
        "squad": "run_squad.py",
        "vectors": "run_sentences.py",
        **dict.fromkeys(
            ("classifier", "tags", "labels", "choices"), "run_classifier.py"
        ),
    }.get(command)
    start = [ROOT / script] if script else ["-m", "bert_tf"]
    result = subprocess.run(
        [sys.executable, *start, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=4 * SECONDS,
        stdin=subprocess.DEVNULL,
    )
    return result.returncode, result.stderr


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The good inputs."""
    folder = tmp_path_factory.mktemp("good")
    handler = signal.getsignal(signal.SIGTERM)
    with contextlib.redirect_stdout(io.StringIO()):
        good_input.make(folder)
    yield folder
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in; the working directory is restored."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "case"


def chosen(cases, number):
    """Evenly spaced ones."""
    step = max(1, len(cases) // number)
    return cases[::step][:number]


def test_bad_input_is_refused(good, folder, figure):
    cases = chosen(_CASES, count(60, len(_CASES)))
    found = [problems(case, good, folder, in_process) for case in cases]
    wrong = [text for text in found if text]
    note = "\n".join(wrong[:20])
    figure("bad input is refused", len(cases) - len(wrong), len(cases), note)


def test_bad_input_to_programs_is_refused(good, folder, figure):
    # A number that an operating system or a command line refuses is no input.
    cases = [case for case in _CASES if sum(map(len, case.words)) < 50_000]
    cases = chosen(cases[7:], count(1, 20))
    found = [problems(case, good, folder, as_program) for case in cases]
    wrong = [text for text in found if text]
    note = "\n".join(wrong)
    figure(
        "bad input to programs is refused", len(cases) - len(wrong), len(cases), note
    )


def test_the_good_inputs_are_good(good, folder):
    """So that each refusal is of what its case changes."""
    for command in count(("shard",), tuple(good_input.COMMANDS)):
        if command in ("download", *good_input.MAKERS):
            continue  # These made the good inputs, or need a network.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        os.chdir(folder)
        words = good_input.command_line(command, good, {})
        assert in_process(command, words, folder)[0] == 0, command
