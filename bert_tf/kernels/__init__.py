"""The fused operations for CPUs: a compiled library of several instruction sets.

Everything works without it, more slowly: the same formulas stand in TensorFlow in
`bert_tf.modeling`. One file serves every x86-64 processor, since it chooses among the
instruction sets when it is loaded; `bert_tf.kernels.build` compiles it.
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
# Where libraries are that were built for an installed package.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "bert_tf")

# Best first; the last is none: TensorFlow's own operations.
REFERENCE = "reference"
TITLES = {
    "amx": "AMX",
    "avx512bf16": "AVX512-BF16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    REFERENCE: "TensorFlow",
}
# Names the best instruction set that may be used.
ENVIRONMENT_VARIABLE = "BERT_TF_ISA"
# Names a library to load whatever it was made of, for tests of the operations; 0: none.
FILE_VARIABLE = "BERT_TF_KERNELS"

# No flag lets the compiler reorder sums: what may be reordered is written so.
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math"]
_AVX2 = ["-mavx2", "-mfma"]
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]
_AVX512 += ["-mprefer-vector-width=512"]
ISA_FLAGS = {
    "amx": [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    "avx512bf16": [*_AVX512, "-mavx512bf16"],
    "avx512": _AVX512,
    "avx2": _AVX2,
}
_limit = ""  # The best instruction set that may be used; empty: any.


def sources() -> list[Path]:
    """The files that are compiled."""
    return sorted(FOLDER.glob("*.cc"))


@functools.cache
def recipe() -> dict[str, str]:
    """What a library must have been made of to be loaded here."""
    files = sorted([*sources(), *FOLDER.glob("*.h"), *FOLDER.glob("*.inc")])
    source = b"".join(path.name.encode() + path.read_bytes() for path in files)
    return {
        "source": hashlib.sha256(source).hexdigest(),
        "flags": json.dumps([FLAGS, ISA_FLAGS]),
        "tensorflow": tf.version.VERSION,
    }


def library_name() -> str:
    """The file name of the library of this source, these flags and this TensorFlow."""
    key = hashlib.sha256(json.dumps(recipe()).encode()).hexdigest()
    return f"library-{key[:16]}.so"


def library_file() -> Path | None:
    """The library of this source and TensorFlow, or None where it is not built."""
    if wanted := os.environ.get(FILE_VARIABLE):
        return Path(wanted) if wanted != "0" else None
    for folder in (FOLDER, CACHE):
        if (folder / library_name()).is_file():
            return folder / library_name()
    return None


@functools.cache
def _load(path: Path) -> tuple[ModuleType, ctypes.CDLL]:
    """The operations, and the functions that choose the instruction set."""
    return tf.load_op_library(str(path)), ctypes.CDLL(str(path))


def allowed_isa() -> str:
    """What the environment variable names; empty if it is not set.

    Raises:
      ValueError: if it names no instruction set, or one that this processor lacks.
    """
    name = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if name and name not in TITLES:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(TITLES)}. Received: "
            f"{name!r}. Correct it, or unset it for the best one."
        )
    return name


def why_missing() -> str:
    """Why this machine cannot use the library; empty if it can."""
    if allowed_isa() == REFERENCE:
        return f"{ENVIRONMENT_VARIABLE}={REFERENCE}"
    path = library_file()
    if path is None and FILE_VARIABLE in os.environ:
        return f"{FILE_VARIABLE}=0"
    if path is None:
        return "the library is not built (run `python -m bert_tf build`)"
    try:
        _load(path)
    except (tf.errors.OpError, OSError) as error:
        message = getattr(error, "message", error)
        return f"the library cannot be loaded, {message} (`python -m bert_tf build`)"
    if not _supported():
        wanted = TITLES[allowed_isa() or "avx2"]
        return f"this processor has no {wanted}"
    return ""


def _supported() -> list[str]:
    """The instruction sets of this processor that the variable allows, best first."""
    _, functions = _load(library_file())
    names = [name for name in TITLES if functions.bert_tf_supports(name.encode())]
    allowed = allowed_isa()
    if allowed in names:
        return names[names.index(allowed) :]
    return [] if allowed else names


def paths() -> dict[str, str]:
    """What this machine can compute with, best first, whatever `limit` says.

    Returns:
      Name of an instruction set -> what tells its code from other code of that name:
      equal code rounds equally. The last is `REFERENCE`.
    """
    if why_missing():
        return {REFERENCE: ""}
    code = hashlib.sha256(library_file().read_bytes()).hexdigest()
    return {**dict.fromkeys(_supported(), code), REFERENCE: ""}


def limit(name: str) -> None:
    """Computes with nothing better than `name` in what is built from now on.

    Args:
      name: A name of `paths`, or empty for any.
    """
    global _limit
    _limit = name
    library.cache_clear()


@functools.cache
def library() -> ModuleType | None:
    """The operations of the library, or None where it cannot, or must not, be used."""
    if _limit == REFERENCE or why_missing():
        return None
    operations, functions = _load(library_file())
    functions.bert_tf_use((_limit or _supported()[0]).encode())
    return operations


def are_in_use() -> bool:
    """Whether the library is there, and this process computes on the CPU."""
    return not tf.config.get_visible_devices("GPU") and library() is not None
