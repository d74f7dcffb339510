"""The fused operations for CPUs: a compiled library with several instruction sets.

Training works without it, more slowly: `bert_tf.modeling.backends.reference` has the
same formulas as TensorFlow operations. One file serves every x86-64 processor: it
selects an instruction set when it is loaded. `bert_tf.fused_ops.build` compiles it.
"""

import ctypes
import functools
import hashlib
import itertools
import json
import os
import platform
from pathlib import Path
from types import ModuleType

import tensorflow as tf

FOLDER = Path(__file__).parent

REFERENCE = "reference"
# The instruction sets, best first; the last path is TensorFlow's own operations.
TITLES = {
    "amx": "AMX",
    "avx512bf16": "AVX512-BF16",
    "avx512": "AVX-512",
    "avx2": "AVX2",
    REFERENCE: "TensorFlow",
}
# The best path that may be used; a processor without it uses its next best.
ENVIRONMENT_VARIABLE = "BERT_TF_ISA"
# The path of a library to load, whatever its source, for tests; 0: none.
FILE_VARIABLE = "BERT_TF_KERNELS"

# No flag allows reordering of sums: where that is safe, the source does it.
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
# Reasons, by the number that the library's bert_tf_lacks returns.
_OF_PROCESSOR = 1
_LACKING = (
    "",
    "this processor has no {}",
    "the system does not let this process use {}",
    "the library has no {}, which its compiler did not know (install g++ 11 or later, "
    "and run `python -m bert_tf build`)",
)
_DIGEST_SIZE = hashlib.sha256().digest_size
_limit = ""  # The path to use; empty: the best.


def files() -> list[Path]:
    """The source files of a library."""
    patterns = ("*.cc", "*.h", "*.inc")
    return sorted(path for pattern in patterns for path in FOLDER.glob(pattern))


@functools.cache
def recipe() -> dict[str, str]:
    """The source, flags and TensorFlow that a library must match to be loaded here."""
    source = b"".join(path.name.encode() + path.read_bytes() for path in files())
    # Without the folders, which differ between hosts.
    of_tensorflow = [f for f in tf.sysconfig.get_compile_flags() if f[:2] != "-I"]
    version = [tf.version.VERSION, tf.version.GIT_VERSION, *of_tensorflow]
    return {
        "source": hashlib.sha256(source).hexdigest(),
        "flags": json.dumps([FLAGS, ISA_FLAGS]),
        "tensorflow": json.dumps(version),
    }


def library_name(best: str = "amx") -> str:
    """The file name of the library of this source, these flags and this TensorFlow.

    Args:
      best: Its best instruction set; it also has those listed after that.
    """
    key = hashlib.sha256(json.dumps([recipe(), best]).encode()).hexdigest()
    return f"library-{key[:16]}.so"


def folders() -> list[Path]:
    """The folders of libraries: next to the source, and in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # As its specification asks.
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    # A user without an entry in the system's list, as in a container, has no home.
    return [FOLDER, *([Path(cache, "bert_tf")] if os.path.isabs(cache) else [])]


def built_libraries() -> list[Path]:
    """The libraries of this source and TensorFlow, best first."""
    paths = (folder / library_name(isa) for isa in ISA_FLAGS for folder in folders())
    return [path for path in paths if path.is_file()]


def _libraries() -> list[Path]:
    """The libraries that may be loaded, best first."""
    if named := os.environ.get(FILE_VARIABLE):
        return [] if named == "0" else [Path(named)]
    return built_libraries()


def library_file() -> Path | None:
    """The library to use, or None where there is none that can be loaded."""
    return next((path for path in _libraries() if not why_not_loadable(path)), None)


def seal(library: bytes) -> bytes:
    """Appends the checksum that `is_whole` looks for; loaders ignore it."""
    return library + hashlib.sha256(library).digest()


def is_whole(path: Path) -> bool:
    """Whether a library is undamaged: loading a damaged one can end the process.

    Raises:
      OSError: if the file cannot be read.
    """
    data = path.read_bytes()
    return seal(data[:-_DIGEST_SIZE]) == data


@functools.cache
def _load(path: Path) -> tuple[ModuleType, ctypes.CDLL]:
    """The operations, and the functions that choose the instruction set."""
    if not is_whole(path):
        raise OSError(f"{path} is damaged")
    operations, functions = tf.load_op_library(str(path)), ctypes.CDLL(str(path))
    if not hasattr(functions, "bert_tf_lacks"):
        raise OSError(f"{path} is not of this version")
    return operations, functions


def why_not_loadable(path: Path) -> str:
    """Why a library cannot be loaded; empty if it can."""
    try:
        _load(path)
    except (tf.errors.OpError, OSError) as error:
        return str(getattr(error, "message", error))
    return ""


def allowed_isa() -> str:
    """The path that the environment variable names; empty if it is not set.

    Raises:
      ValueError: if no path has that name. One that this processor lacks is accepted:
        it uses its next best, and `why_not_better` reports it.
    """
    name = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if name and name not in TITLES:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(TITLES)}. Received: "
            f"{name!r}. Correct it, or unset it for the best one."
        )
    return name


def wrong_machine() -> str:
    """Why no library can be built for this kind of machine; empty if one can."""
    machine = platform.machine()
    if machine in ("x86_64", "AMD64"):
        return ""
    return f"they are for x86-64 processors, and this is {machine}"


def why_missing() -> str:
    """Why this machine cannot use the library; empty if it can."""
    if allowed_isa() == REFERENCE:
        return f"{ENVIRONMENT_VARIABLE}={REFERENCE}"
    if reason := wrong_machine():
        return reason
    named = os.environ.get(FILE_VARIABLE)
    if named == "0":
        return f"{FILE_VARIABLE}=0"
    found = _libraries()
    if not found:
        return "the library is not built (run `python -m bert_tf build`)"
    reasons = [why_not_loadable(path) for path in found]
    if all(reasons):
        advice = f"unset {FILE_VARIABLE}" if named else "run `python -m bert_tf build`"
        return f"the library cannot be loaded, {reasons[0]} ({advice})"
    return "" if _usable() else _lacking("avx2")


def _lacks(name: str) -> int:
    """Whether processor, system or library lack an instruction set; see `_LACKING`."""
    return _load(library_file())[1].bert_tf_lacks(name.encode())


def _lacking(name: str) -> str:
    """Why the library cannot use an instruction set here; empty if it can."""
    return _LACKING[_lacks(name)].format(TITLES[name])


def _usable() -> list[str]:
    """The instruction sets that can be used here and that are allowed, best first."""
    names = list(ISA_FLAGS)
    if allowed := allowed_isa():
        names = names[names.index(allowed) :]
    return [name for name in names if not _lacks(name)]


def why_not(name: str) -> str:
    """Why an instruction set of `ISA_FLAGS` is not in `paths`; empty if it is."""
    if reason := why_missing():
        return reason
    names, allowed = list(ISA_FLAGS), allowed_isa()
    if allowed and names.index(name) < names.index(allowed):
        return f"{ENVIRONMENT_VARIABLE}={allowed}"
    return _lacking(name)


def why_not_better() -> str:
    """Why a better path than the one in use is not used.

    Returns:
      A reason if the variable names a path that is not used, or one that is not the
      best, if the processor has a better one than the first of `paths`, or if the
      library is missing; else empty.
    """
    if reason := why_missing():
        return reason
    best, allowed = _usable()[0], allowed_isa()
    better = list(itertools.takewhile(lambda name: name != best, ISA_FLAGS))
    if allowed and allowed != best:
        return f"{ENVIRONMENT_VARIABLE}={allowed}, but {why_not(allowed)}"
    if allowed:
        is_limit = not all(_lacks(name) for name in better)
        return f"{ENVIRONMENT_VARIABLE}={allowed}" if is_limit else ""
    reasons = (_lacking(name) for name in better if _lacks(name) != _OF_PROCESSOR)
    return next(reasons, "")


def paths() -> dict[str, str]:
    """The paths that this machine can use, best first, regardless of `limit`.

    Returns:
      Name of an instruction set -> the checksum of its code: equal code rounds equally.
      The last is `REFERENCE`.
    """
    if why_missing():
        return {REFERENCE: ""}
    code = hashlib.sha256(library_file().read_bytes()).hexdigest()
    return {**dict.fromkeys(_usable(), code), REFERENCE: ""}


def limit(name: str) -> None:
    """Uses one path of `paths` from now on, also in existing models.

    A model is built with or without the fused operations: `REFERENCE` changes nothing
    in one that has them.

    Args:
      name: A name of `paths`, or empty for the best one.

    Raises:
      ValueError: if this machine cannot use it.
    """
    global _limit
    if name and name not in paths():
        raise ValueError(
            f"`name` must be one of {', '.join(paths())}. Received: {name!r}."
        )
    _limit = name
    library.cache_clear()
    library()


@functools.cache
def library() -> ModuleType | None:
    """The operations of the library, or None if it cannot or must not be used."""
    if _limit == REFERENCE or why_missing():
        return None
    operations, functions = _load(library_file())
    name = _limit or _usable()[0]
    if not functions.bert_tf_use(name.encode()):
        raise RuntimeError(
            f"{library_file()} cannot use {name}, which it reported as usable."
        )
    return operations


def are_in_use() -> bool:
    """Whether the library is loaded, and this process computes on the CPU."""
    return not tf.config.get_visible_devices("GPU") and library() is not None


def in_use() -> str:
    """The path that this process uses."""
    return (_limit or _usable()[0]) if are_in_use() else REFERENCE
