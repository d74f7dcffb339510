"""A small compiled library of fused operations for CPUs, built by `make setup`.

Everything works without it, more slowly: the same formulas stand in TensorFlow beside
each use. It is compiled for the processor that it is built on, so a library of another
machine, source or TensorFlow is not loaded.
"""

import ctypes
import functools
import hashlib
import json
import os
from pathlib import Path
from types import ModuleType

import tensorflow as tf

FOLDER = Path(__file__).parent
SOURCES = ("attention.cc", "fused.cc", "optimizer.cc", "products.cc")
HEADERS = ("arithmetic.h", "checks.h", "parallel.h", "tiles.h")
# Sums may be taken in another order and divisions be products, so that loops become
# vector code; what is not finite must stay so, since training stops at it. Not
# -ffast-math: linked with it, a library turns denormal numbers off for all of Python.
FLAGS = ["-O3", "-march=native", "-fPIC", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"]
FLAGS += ["-mprefer-vector-width=512"] if os.uname().machine == "x86_64" else []
LIBRARY = FOLDER / "library.so"
RECEIPT = FOLDER / "library.json"
# Set to 0: as if the library were not there. Set to a file: that library, whatever it
# was made of; for tests of the operations.
ENVIRONMENT_VARIABLE = "BERT_TF_KERNELS"


def recipe() -> dict[str, str]:
    """What a library must have been made of to be loaded here."""
    names = (*SOURCES, *HEADERS)
    source = b"".join((FOLDER / name).read_bytes() for name in names)
    return {
        "source": hashlib.sha256(source).hexdigest(),
        "flags": " ".join(FLAGS),
        "tensorflow": tf.version.VERSION,
        "processor": hashlib.sha256(_processor_features().encode()).hexdigest(),
    }


def _processor_features() -> str:
    """The instructions that this processor has, as Linux lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _library_file() -> Path | None:
    """The library to load, or None where none is built for this machine."""
    wanted = os.environ.get(ENVIRONMENT_VARIABLE)
    if wanted:
        return Path(wanted) if wanted != "0" else None
    try:
        receipt = json.loads(RECEIPT.read_bytes())
    except (OSError, ValueError):
        return None
    return LIBRARY if receipt == recipe() and LIBRARY.exists() else None


@functools.cache
def library() -> ModuleType | None:
    """The operations of the library, or None where it is not built for this machine."""
    file = _library_file()
    return tf.load_op_library(str(file)) if file else None


def are_in_use() -> bool:
    """Whether the library is there, and this process computes on the CPU."""
    return not tf.config.get_visible_devices("GPU") and library() is not None


@functools.cache
def has_tiles() -> bool:
    """Whether the library is there, and multiplies on the tiles of AMX."""
    if library() is None:
        return False
    return bool(ctypes.CDLL(str(_library_file())).bert_tf_has_tiles())
