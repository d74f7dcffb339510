"""Builds the library of fused operations in bert_tf/kernels, in some 20 seconds.

Run by `make setup`, and again after a change of source, TensorFlow or processor. With
--sanitized it builds another that watches over what it reads and writes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from bert_tf.kernels import FLAGS, FOLDER, LIBRARY, RECEIPT, SOURCES, recipe

# Alignment is not among them: vectors are read from anywhere on purpose.
SANITIZERS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address")
SANITIZERS += (
    "-fsanitize=signed-integer-overflow,shift,bounds,integer-divide-by-zero",
)
SANITIZERS += ("-fno-sanitize-recover=all",)
SANITIZED_HELP = (
    "compile with AddressSanitizer into this file, for `make test-sanitize`"
)


def is_built() -> bool:
    """Whether the library is there, for this source, TensorFlow and processor."""
    try:
        return LIBRARY.exists() and json.loads(RECEIPT.read_bytes()) == recipe()
    except (OSError, ValueError):
        return False


def compile_library(compiler: str, file: Path, more_flags: Sequence[str] = ()) -> None:
    """Compiles the library.

    Raises:
      SystemExit: if the compiler fails.
    """
    command = [compiler, "-shared", "-w", *FLAGS, *more_flags]
    command += tf.sysconfig.get_compile_flags()
    command += [str(FOLDER / name) for name in SOURCES]
    command += ["-o", str(file), *tf.sysconfig.get_link_flags()]
    result = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER)
    if result.returncode:
        sys.exit(f"error: {compiler} failed:\n{result.stderr[-3000:]}")


def build(compiler: str) -> None:
    """Compiles, and gives library and receipt their names."""
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".build-") as folder:
        built = Path(folder, LIBRARY.name)
        compile_library(compiler, built)
        RECEIPT.unlink(missing_ok=True)
        os.replace(built, LIBRARY)
        note = Path(folder, RECEIPT.name)
        note.write_text(json.dumps(recipe(), indent=2) + "\n")
        os.replace(note, RECEIPT)


def main() -> None:
    """Builds what is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sanitized", type=Path, metavar="FILE", help=SANITIZED_HELP)
    sanitized = parser.parse_args().sanitized
    if not sanitized and is_built():
        return
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if not compiler:
        sys.exit(
            "error: no C++ compiler. Install g++, or set CXX; without it training is "
            "slower."
        )
    if sanitized:
        sanitized.parent.mkdir(parents=True, exist_ok=True)
        print(f"Compiling {sanitized} (about 40 s)", flush=True)
        compile_library(compiler, sanitized.resolve(), SANITIZERS)
        return
    print("Compiling the fused operations (about 20 s)", flush=True)
    build(compiler)


if __name__ == "__main__":
    main()
