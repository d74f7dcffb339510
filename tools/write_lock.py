"""Writes requirements.lock: the exact versions of everything in this environment."""

import pathlib
import subprocess
import sys

HEADER = """\
# Exact versions of everything, made by `make lock`. Horovod is not here: it is built
# against the installed TensorFlow by tools/build_horovod.py.
"""
# Installed by venv, built here, or this package.
LEFT_OUT = ("pip", "horovod", "bert_tf", "bert-tf")


def main() -> None:
    """Writes the file next to the Makefile."""
    command = [sys.executable, "-m", "pip", "freeze", "--all", "--exclude-editable"]
    frozen = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = []
    for line in sorted(frozen.splitlines(), key=str.lower):
        name = line.split("==")[0].split(" ")[0]
        if name not in LEFT_OUT and "==" in line:
            lines.append(line)
    path = pathlib.Path(__file__).parents[1] / "requirements.lock"
    path.write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
