"""Builds the library of fused operations in bert_tf/kernels, in some 20 seconds.

Run by `make setup`, and again after a change of source, TensorFlow or processor.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from bert_tf.kernels import FLAGS, FOLDER, LIBRARY, RECEIPT, SOURCES, recipe


def is_built() -> bool:
    """Whether the library is there, for this source, TensorFlow and processor."""
    try:
        return LIBRARY.exists() and json.loads(RECEIPT.read_bytes()) == recipe()
    except (OSError, ValueError):
        return False


def build(compiler: str) -> None:
    """Compiles, and gives library and receipt their names.

    Raises:
      SystemExit: if the compiler fails.
    """
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=".build-") as folder:
        built = Path(folder, LIBRARY.name)
        command = [compiler, "-shared", "-w", *FLAGS]
        command += tf.sysconfig.get_compile_flags()
        command += [str(FOLDER / name) for name in SOURCES]
        command += ["-o", str(built), *tf.sysconfig.get_link_flags()]
        result = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER)
        if result.returncode:
            sys.exit(f"error: {compiler} failed:\n{result.stderr[-3000:]}")
        RECEIPT.unlink(missing_ok=True)
        os.replace(built, LIBRARY)
        note = Path(folder, RECEIPT.name)
        note.write_text(json.dumps(recipe(), indent=2) + "\n")
        os.replace(note, RECEIPT)


def main() -> None:
    """Builds what is not there."""
    if is_built():
        return
    compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")
    if not compiler:
        sys.exit(
            "error: no C++ compiler. Install g++, or set CXX; without it training is "
            "slower."
        )
    print("Compiling the fused operations (about 20 s)", flush=True)
    build(compiler)


if __name__ == "__main__":
    main()
