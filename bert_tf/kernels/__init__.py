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

# Compute paths besides those of `_VECTORS`: products on tiles, and no library at all.
TILES, PLAIN = "AMX", "TensorFlow"
# Names by the word that Linux has for the processor's instructions; best first.
_VECTORS = {"AVX512-BF16": "avx512_bf16", "AVX-512": "avx512f", "AVX2": "avx2"}
_limit = ""  # The best path that may be used; empty: any.


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


@functools.cache
def _load(path: Path) -> ModuleType:
    return tf.load_op_library(str(path))


def _library_file() -> Path:
    """The library, or the file that the variable names."""
    wanted = os.environ.get(ENVIRONMENT_VARIABLE, "")
    return Path(wanted) if wanted else LIBRARY


def why_missing() -> str:
    """Why this machine cannot use the library; empty if it can."""
    path = _library_file()
    if str(path) == "0":
        return f"{ENVIRONMENT_VARIABLE}=0"
    if path == LIBRARY and (reason := _mismatch()):
        return reason
    try:
        _load(path)
    except tf.errors.OpError as error:
        return f"the library cannot be loaded, {error.message} (run `make kernels`)"
    return ""


def _mismatch() -> str:
    """What the library is not built for, if it is built at all."""
    try:
        receipt = json.loads(RECEIPT.read_bytes())
    except (OSError, ValueError):
        receipt = None
    if not isinstance(receipt, dict) or not LIBRARY.exists():
        return "the library is not built (run `make kernels`)"
    for name, value in recipe().items():
        if receipt.get(name) != value:
            return f"the library is built for another {name} (run `make kernels`)"
    return ""


def paths() -> dict[str, str]:
    """What this machine can compute with, best first, whatever `limit` says.

    Returns:
      Name -> what tells its code from other code of that name: equal code rounds
      equally. The last is `PLAIN`.
    """
    if why_missing():
        return {PLAIN: ""}
    path = _library_file()
    code = hashlib.sha256(path.read_bytes()).hexdigest()
    tiles = {TILES: code} if ctypes.CDLL(str(path)).bert_tf_has_tiles() else {}
    words = _processor_features().split()
    vectors = (name for name, word in _VECTORS.items() if word in words)
    return tiles | {next(vectors, os.uname().machine): code, PLAIN: ""}


def limit(path: str) -> None:
    """Computes with nothing better than `path` in what is built from now on.

    Args:
      path: A name of `paths`.
    """
    global _limit
    _limit = path
    library.cache_clear()
    has_tiles.cache_clear()


@functools.cache
def library() -> ModuleType | None:
    """The operations of the library, or None where it cannot, or must not, be used."""
    return None if _limit == PLAIN or why_missing() else _load(_library_file())


def are_in_use() -> bool:
    """Whether the library is there, and this process computes on the CPU."""
    return not tf.config.get_visible_devices("GPU") and library() is not None


@functools.cache
def has_tiles() -> bool:
    """Whether the library is there, and multiplies on the tiles of AMX."""
    if library() is None or _limit not in (TILES, ""):
        return False
    return bool(ctypes.CDLL(str(_library_file())).bert_tf_has_tiles())
