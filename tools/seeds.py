"""Runs the commands of five published BERT trainers on small real data, in order.

Run by `make seeds`. Each command is the one of that system's README, with its names and
flags; sizes, steps and paths are small. What installs packages, starts containers or
sets up ssh is left out, and so are downloads of gigabytes. Prints a line for each
command: system, numbers under the names of that README, seconds, command. A command
that does not print them has failed.

    python tools/seeds.py [SYSTEM...] [--only=TEXT] [--folder=FOLDER] [--list]
"""

import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import time

from seed_commands import LEFT_OUT, Command, commands
from seed_inputs import LARGE, ROOT, prepare

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_SECONDS = 900


def number(name: str, output: str) -> str:
    """The last number after a name, or before a plural; empty if there is none."""
    name = re.escape(name)
    after, before = rf"(?<!\w){name}[ :=]+([\d.]+)", rf"([\d,]+) {name}(?=:| in )"
    found = re.findall(f"{after}|{before}", output)
    return "".join(found[-1]) if found else ""


def run(command: Command, work: pathlib.Path) -> bool:
    """Runs a command and prints its line; returns whether it succeeded."""
    tools = pathlib.Path(sys.executable).parent
    environment = os.environ | {
        "ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "VOCAB_FILE": f"{LARGE}/vocab.txt",
        "N_SHARDS": "1",
        "MPI_ROOT": str(tools.parent),
    }
    started = time.monotonic()
    words = ["timeout", "--kill-after=10", str(_SECONDS), "bash", "-c", command.line]
    result = subprocess.run(
        words, cwd=work, env=environment, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    output = result.stdout + result.stderr
    values = {name: number(name, output) for name in command.names}
    value = ", ".join(f"{name} {value}" for name, value in values.items()) or "done"
    missing = [name for name, value in values.items() if not value]
    if result.returncode:
        value = f"FAILED with exit code {result.returncode}"
    elif missing:
        value = f"FAILED, no {', '.join(missing)}"
    line = textwrap.shorten(command.line, 88, placeholder=" ...")
    print(f"{command.system:14} {value}  {seconds:.1f} s  {line}", flush=True)
    if result.returncode or missing:
        print(f"    {command.line}")
        print(*(f"    {line}" for line in output.splitlines()[-8:]), sep="\n")
    return not (result.returncode or missing)


def main() -> int:
    """Runs the commands of all systems, or of those that are named."""
    found = commands()
    systems = list(dict.fromkeys(command.system for command in found))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(systems)}")
    add("--only", default="", help="commands that contain this text")
    add("--folder", type=pathlib.Path, default=ROOT / "results" / "seeds")
    add("--keep", action="store_true", help="keep what an earlier run left there")
    add("--list", action="store_true", help="print the commands and end")
    options = parser.parse_args()
    if unknown := set(options.systems) - set(systems):
        parser.error(f"systems are {', '.join(systems)}, not {', '.join(unknown)}")
    chosen = [
        command
        for command in found
        if command.system in (options.systems or systems)
        and options.only in command.line
    ]
    if options.list:
        print(*(f"{c.system}: {c.line}" for c in chosen), sep="\n")
        return 0
    if not options.keep:
        with contextlib.redirect_stdout(sys.stderr):
            prepare(options.folder)
    failed = [command for command in chosen if not run(command, options.folder)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} commands succeeded.")
    print(f"Left out, for they need the network: {'; '.join(LEFT_OUT)}.")
    return int(bool(failed) or not chosen)


if __name__ == "__main__":
    sys.exit(main())
