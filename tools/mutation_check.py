"""Breaks lines of the library one at a time, and shows that a test notices each.

python tools/mutation_check.py [NAME...]
python tools/mutation_check.py --random=100 --group=losses_and_optimizers

Works in a copy of the checkout. `mutants.toml` lists the lines, the tests, the groups
of files for random changes, and random changes that no test can notice, with reasons.
Fails if a listed change goes unnoticed, or less than 85% of random ones do not.
"""

import argparse
import ast
import dataclasses
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_name("mutants.toml")
GOAL = 0.85
# Of the processor for the tests of a change, which may loop; and of the clock, for what
# waits, also where many processes share the processor.
CPU_SECONDS, SECONDS = 180, 1800
# Imported once; each run of tests is a fork of that process.
PRELOADED = ["tensorflow", "keras", "scipy.optimize", "h5py", "hypothesis", "pytest"]
_LINKS = (".venv", ".data")  # Not copied.
_SWAPS = dict(
    pair
    for one, other in (("<", "<="), (">", ">="), ("==", "!="), ("+", "-"), ("*", "/"))
    for pair in ((one, other), (other, one))
)
_SWAPS |= {"//": "*", "**": "*", "%": "*", "&": "|", "and": "or", "or": "and"}
_SWAPS |= {"+=": "-=", "-=": "+=", "is": "is not", "is not": "is"}
_UNCHANGED = (ast.Raise, ast.JoinedStr)  # Messages.


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A change of one file.

    Attributes:
      name: What it breaks.
      file: Path from the root.
      old: Text that occurs once in the file.
      new: What replaces it.
      tests: Files or ids of tests, one of which must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: Sequence[str]

    def apply(self, text: str) -> str:
        """The changed file."""
        found = text.count(self.old)
        if found != 1:
            sys.exit(
                f"error: {TABLE.name}: {self.name!r}: its old text must occur once in "
                f"{self.file}. Found: {found} times. Correct the table."
            )
        return text.replace(self.old, self.new)


def _without_annotations(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes inside that decide what the code computes, and the node."""
    yield node
    left_out = {"annotation", "returns", "decorator_list"}
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            is_strict = isinstance(child, ast.keyword) and child.arg == "strict"
            if not isinstance(child, ast.AST) or isinstance(child, _UNCHANGED):
                continue
            if field not in left_out and not is_strict:
                yield from _without_annotations(child)


def changes_of(source: bytes) -> list[tuple[int, int, bytes]]:
    """All changes of one operator or constant: begin, end, new text."""
    lines = source.splitlines(keepends=True)
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]

    def span(node: ast.expr) -> tuple[int, int]:
        return (
            starts[node.lineno - 1] + node.col_offset,
            starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def swap(begin: int, end: int) -> None:
        """Swaps the operator between two operands, which brackets may surround."""
        words = source[begin:end].decode().strip("() \n").split()
        text = " ".join(words)
        if text in _SWAPS:
            place = source.index(words[0].encode(), begin, end)
            last = place + len(text.encode())
            changes.append((place, last, _SWAPS[text].encode()))

    changes: list[tuple[int, int, bytes]] = []
    for node in _without_annotations(ast.parse(source)):
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            swap(span(node.left)[1], span(node.comparators[0])[0])
        elif isinstance(node, ast.BinOp):
            swap(span(node.left)[1], span(node.right)[0])
        elif isinstance(node, ast.BoolOp):
            swap(span(node.values[0])[1], span(node.values[1])[0])
        elif isinstance(node, ast.AugAssign):
            swap(span(node.target)[1], span(node.value)[0])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            place = span(node)[0]
            sign = b"not" if isinstance(node.op, ast.Not) else b"-"
            changes.append((place, place + len(sign), b""))
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
            changes.append((*span(node), str(not node.value).encode()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            near = (node.value + 1, node.value - 1)
            changes += [(*span(node), f"({value!r})".encode()) for value in near]
    return changes


def random_mutants(group: dict[str, list[str]], count: int, seed: int) -> list[Mutant]:
    """Some of all changes of a group's files."""
    found = []
    for file, tests in group.items():
        source = (ROOT / file).read_bytes()
        for begin, end, new in changes_of(source):
            first = source.rfind(b"\n", 0, begin) + 1
            changed = source[:begin] + new + source[end:]
            last = source.find(b"\n", end)
            line = source.count(b"\n", 0, begin) + 1
            old = source[first:last].decode()
            text = changed[first : last + len(changed) - len(source)].decode()
            name = f"{file}:{line}: {_one_line(old)}  ->  {_one_line(text)}"
            found.append(Mutant(name, file, source.decode(), changed.decode(), tests))
    return random.Random(seed).sample(found, min(count, len(found)))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def make_copy(folder: Path) -> Path:
    """A copy of the checkout's files, and of its compiled library."""
    command = ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    )
    paths = [Path(name) for name in listed.stdout.split("\0") if name]
    fused = ROOT / "bert_tf" / "fused_ops"
    paths += [path.relative_to(ROOT) for path in fused.glob("library-*.so")]
    copy = folder / "checkout"
    for path in paths:
        if (ROOT / path).exists():  # Not one that is deleted and not committed.
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)
    for name in _LINKS:
        if (ROOT / name).exists() and not (copy / name).is_symlink():
            (copy / name).symlink_to((ROOT / name).resolve())
    return copy


class _FirstFailure:
    """A plugin of pytest."""

    name = ""

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    pytest_collectreport = pytest_runtest_logreport


def _run_pytest(
    copy: Path, tests: Sequence[str], is_mutated: bool, result: Connection
) -> None:
    """Sends pytest's exit code and the first test that failed; in a process."""
    import pytest

    os.setsid()
    os.chdir(copy)
    if is_mutated:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    sys.path.insert(0, str(copy))
    # Python tells files apart by size and second: what was changed is compiled anew.
    sys.dont_write_bytecode = is_mutated
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1" if is_mutated else ""
    log = os.open(copy.parent / "tests.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    first = _FirstFailure()
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={copy.parent}/tmp"]
    code = pytest.main([*options, *tests], plugins=[first])
    sys.stdout.flush()
    result.send((int(code), first.name))
    result.close()
    os._exit(0)


def run_tests(copy: Path, tests: Sequence[str], is_mutated: bool = True) -> str:
    """What noticed that the copy is broken; empty if all tests passed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    arguments = (copy, tests, is_mutated, sender)
    process = context.Process(target=_run_pytest, args=arguments)
    process.start()
    sender.close()
    try:
        if not receiver.poll(SECONDS if is_mutated else None):
            return f"time: no result after {SECONDS} s"
        code, name = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return f"time: more than {CPU_SECONDS} s of the processor"
        return f"the end of the process, with exit status {process.exitcode}"
    finally:
        try:  # With what it has started.
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.join()
    if code and not name:
        sys.exit(f"error: pytest ended with {code}: {copy.parent / 'tests.log'}")
    return name


def try_mutant(copy: Path, mutant: Mutant) -> str:
    """Breaks the copy, tests it, and restores it; returns what noticed it."""
    path = copy / mutant.file
    original = shutil.copy2(path, copy.parent / "original")
    path.write_text(mutant.apply(path.read_text()))
    try:
        if path.suffix == ".py":
            return run_tests(copy, mutant.tests)
        subprocess.run(
            [sys.executable, "-m", "bert_tf", "build"],
            cwd=copy,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            check=True,
            capture_output=True,
        )
        return run_tests(copy, mutant.tests)
    finally:
        shutil.copy2(original, path)


def selected(arguments: argparse.Namespace) -> tuple[list[Mutant], dict[str, str]]:
    """The mutants to try, and the reasons of those that no test can notice, by name."""
    table = tomllib.loads(TABLE.read_text())
    if arguments.random:
        groups = table["random"]
        if arguments.group not in groups:
            sys.exit(f"error: --group must be one of {', '.join(groups)}.")
        group = groups[arguments.group]
        return random_mutants(group, arguments.random, arguments.seed), {
            f"{entry['file']}: {entry['change']}": entry["reason"]
            for entry in table.get("unnoticeable", [])
        }
    mutants = [Mutant(**entry) for entry in table["mutant"]]
    for mutant in mutants:
        mutant.apply((ROOT / mutant.file).read_text())
    names = {mutant.name for mutant in mutants}
    if unknown := set(arguments.names) - names:
        sys.exit(f"error: no mutant is named {', '.join(unknown)}: {', '.join(names)}")
    wanted = arguments.names or names
    return [mutant for mutant in mutants if mutant.name in wanted], {}


def _without_line(name: str) -> str:
    """The name of a random mutant without its line number, which changes often."""
    return re.sub(r":\d+:", ":", name, count=1)


def main() -> None:
    """Tries them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all listed")
    parser.add_argument("--random", type=int, metavar="COUNT", help="random changes")
    parser.add_argument("--group", help="files of random changes, in mutants.toml")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    # Ends the tests, too, and removes the copy.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("error: terminated"))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    mutants, reasons = selected(arguments)
    noticed = unnoticeable = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = make_copy(Path(folder))
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        print(f"Unchanged: {len(tests)} test files or tests", end=" ", flush=True)
        if failed := run_tests(copy, tests, is_mutated=False):
            print((copy.parent / "tests.log").read_text()[-3000:])
            sys.exit(f"error: without a change {failed} fails. Fix it first.")
        print("pass")
        for number, mutant in enumerate(mutants, 1):
            start = time.monotonic()
            by = try_mutant(copy, mutant)
            reason = reasons.get(_without_line(mutant.name), "")
            noticed += bool(by)
            unnoticeable += bool(reason and not by)
            result = f"noticed by {by}" if by else "SURVIVED"
            if reason and not by:
                result = f"cannot be noticed: {reason}"
            taken = time.monotonic() - start
            print(f"{number:3} {mutant.name}: {result} ({taken:.0f} s)")
    total = len(mutants) - unnoticeable
    more = f", {unnoticeable} more cannot be" if unnoticeable else ""
    print(f"{noticed} of {total} noticed ({noticed / total:.0%}){more}")
    sys.exit(noticed < (GOAL if arguments.random else 1.0) * total)


if __name__ == "__main__":
    main()
