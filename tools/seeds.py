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
import functools
import http.server
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

from seed_commands import LEFT_OUT, Command, commands
from seed_inputs import LARGE, ROOT, prepare

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
_SECONDS = 900


def number(name: str, output: str) -> str:
    """The last number after a name, or before a plural; empty if there is none."""
    name = re.escape(name)
    found = re.findall(rf"(?<!\w){name}[ :=]+([\d.]+)|([\d,]+) {name}", output)
    return "".join(found[-1]) if found else ""


def run(command: Command, work: pathlib.Path, server: str) -> bool:
    """Runs a command and prints its line; returns whether it succeeded."""
    tools = pathlib.Path(sys.executable).parent
    environment = os.environ | {
        "ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "VOCAB_FILE": f"{LARGE}/vocab.txt",
        "N_SHARDS": "1",
        "SERVER": server,
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


@contextlib.contextmanager
def serving(folder: pathlib.Path) -> Iterator[str]:
    """Serves a folder to this machine; yields its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


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
        prepare(options.folder)
    with serving(options.folder / "served") as server:
        failed = [c for c in chosen if not run(c, options.folder, server)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} commands succeeded.")
    print(f"Left out, for they need the network: {'; '.join(LEFT_OUT)}.")
    return int(bool(failed) or not chosen)


if __name__ == "__main__":
    sys.exit(main())
