"""Builds Horovod against the installed TensorFlow, and installs it.

`make setup` runs it with the Python of the virtual environment. The wheel is kept in
$BERT_TF_CACHE (by default ~/.cache/bert_tf), so only the first set-up pays for the
build. HOROVOD_* variables of the caller reach the build and override the defaults here,
for instance HOROVOD_GPU_OPERATIONS=NCCL.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

VERSION = "0.28.1"
ARCHIVE = f"horovod-{VERSION}.tar.gz"
ARCHIVE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"
PIP = [sys.executable, "-m", "pip"]

# File, a line that stands in it exactly once, and what takes its place.
PATCHES = [
    # GPU code for XLA, whose headers TensorFlow 2.20 no longer has.
    (
        "horovod/tensorflow/CMakeLists.txt",
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/'
        'xla_mpi_ops.cc")\n',
        "",
    ),
    # Headers that g++ 13 no longer brings along unasked.
    (
        "horovod/common/common.h",
        "#include <string>\n",
        "#include <stdexcept>\n#include <string>\n",
    ),
    (
        "horovod/common/group_table.h",
        "#include <mutex>\n",
        "#include <mutex>\n#include <string>\n",
    ),
    # A module that Python 3.12 no longer has.
    (
        "horovod/runner/js_run.py",
        "from distutils.spawn import find_executable\n",
        "from shutil import which as find_executable\n",
    ),
]
DEFAULTS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_CPU_OPERATIONS": "MPI",
    "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
}
# The MPI of the virtual environment, seen from site-packages/horovod/tensorflow:
# without it, the wheel would look for MPI where it was built, for ever.
RUNPATH = "-Wl,-rpath,$ORIGIN/../../../.."
CHECK = "import horovod.tensorflow as hvd; assert hvd.mpi_built(), 'It lacks MPI.'"


class BuildError(Exception):
    """Horovod cannot be built; the message says why and what to do."""


def run(command: list[str], environment: dict[str, str], problem: str) -> str:
    """Returns what a command prints; raises `BuildError` if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise BuildError(f"{problem} It says:\n{result.stderr.strip()}")
    return result.stdout


def build_environment(caller: dict[str, str]) -> dict[str, str]:
    """Adds what the build needs to the caller's environment variables."""
    environment = DEFAULTS | caller
    paths = [sysconfig.get_path("scripts"), caller.get("PATH", "")]
    environment["PATH"] = os.pathsep.join(paths)
    environment["LDFLAGS"] = f"{caller.get('LDFLAGS', '')} {RUNPATH}".strip()
    # One compiler for 2 GiB of memory; what an outer `make` left here is not meant.
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**31
    jobs = max(1, min(8, memory, len(os.sched_getaffinity(0))))
    environment["MAKEFLAGS"] = f"-j{jobs}"
    return environment


def find_mpi(environment: dict[str, str]) -> str:
    """Checks that compiler and MPI are there, and returns what MPI says it is."""
    path = environment["PATH"]
    compiler = environment.get("CXX") or "c++"
    if not shutil.which(compiler.split()[0], path=path):
        raise BuildError(
            f"Horovod needs a C++ compiler. Received: no `{compiler}` on PATH. Do "
            "install one (Debian: `apt-get install g++`), then run `make horovod`."
        )
    mpirun = shutil.which("mpirun", path=path)
    if not mpirun or not shutil.which("mpicxx", path=path):
        raise BuildError(
            "Horovod needs MPI. Received: no `mpirun` and `mpicxx` on PATH. Do install "
            "the `mpi` extra (`make setup` does), or Open MPI 4 or 5 with its headers."
        )
    version = run([mpirun, "--version"], environment, f"`{mpirun}` does not run.")
    return version.partition("\n")[0]


def build_key(environment: dict[str, str], mpi: str) -> str:
    """Names a build by everything that it depends on."""
    options = sorted(i for i in environment.items() if i[0].startswith("HOROVOD_"))
    parts = [VERSION, PATCHES, RUNPATH, options, environment.get("CXX"), mpi]
    parts += [importlib.metadata.version("tensorflow"), sysconfig.get_platform()]
    parts += [sys.implementation.cache_tag]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def cache_dir() -> Path:
    """The folder that keeps the archive, the wheels and the log between set-ups."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BERT_TF_CACHE") or Path(home, "bert_tf"), "horovod")


def check_archive(archive: Path, expected: str = ARCHIVE_SHA256) -> None:
    """Raises `BuildError` unless the archive is the known one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise BuildError(
            f"`{archive}` must have the sha256 {expected}. Received: {found}. Do "
            "delete it, and run `make horovod`, which fetches it again."
        )


def fetch_archive(cache: Path, work: Path) -> Path:
    """Takes the source archive from the cache, or downloads it; checks it."""
    archive = cache / ARCHIVE
    problem = f"{ARCHIVE} cannot be fetched. Check the network, or put it into {cache}."
    if not archive.is_file():
        # The hash stands here too: pip runs code of the archive when it fetches it.
        wanted = work / "horovod.txt"
        wanted.write_text(f"horovod=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n")
        command = [*PIP, "download", "-qq", "--no-deps", "--no-binary", ":all:"]
        command += ["--no-build-isolation", "--require-hashes", "-r", str(wanted)]
        run([*command, "--dest", str(work)], dict(os.environ), problem)
        os.replace(work / ARCHIVE, archive)
    check_archive(archive)
    return archive


def patch_sources(sources: Path) -> None:
    """Applies `PATCHES`; raises `BuildError` if a line is not there exactly once."""
    for name, old, new in PATCHES:
        text = (sources / name).read_text()
        if text.count(old) != 1:
            raise BuildError(
                f"`{name}` must hold the line `{old.strip()}` once. Received: "
                f"{text.count(old)} times. Do use the sources of Horovod {VERSION}."
            )
        (sources / name).write_text(text.replace(old, new))


def build_wheel(target: Path, environment: dict[str, str]) -> None:
    """Builds in a temporary folder, and moves the wheel to `target` when it is done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as name:
        work = Path(name)
        with tarfile.open(fetch_archive(target.parent, work)) as archive:
            archive.extractall(work, filter="data")
        sources = work / f"horovod-{VERSION}"
        patch_sources(sources)
        log = target.parent / f"{target.name}.log"
        command = [*PIP, "wheel", "-v", "--no-build-isolation", "--no-deps"]
        command += ["--wheel-dir", str(work / "wheel"), str(sources)]
        print(f"Building Horovod (about 2 minutes, only once; log: {log})", flush=True)
        with open(log, "wb") as output:
            result = subprocess.run(
                command, env=environment, stdout=output, stderr=output
            )
        if result.returncode:
            lines = log.read_text(errors="replace").splitlines()[-30:]
            tail = "\n".join(line[:300] for line in lines)
            raise BuildError(
                f"The build of Horovod failed. The end of its log:\n{tail}\nDo look "
                f"for the first `error:` in {log}, mend that, then `make horovod`."
            )
        if not target.is_dir():  # Another set-up may have been faster.
            os.rename(work / "wheel", target)


def install(wheel: Path, environment: dict[str, str]) -> None:
    """Installs the wheel, and tries it in a process of its own."""
    command = [*PIP, "install", "-qq", "--no-deps", "--force-reinstall", str(wheel)]
    run(command, environment, "The Horovod wheel cannot be installed.")
    problem = f"Horovod does not load. Delete {wheel.parent}, and run `make horovod`."
    run([sys.executable, "-c", CHECK], environment, problem)


def main() -> int:
    """Builds if the cache has no such wheel, and installs if it is not installed."""
    environment = build_environment(dict(os.environ))
    marker = Path(sys.prefix, "horovod-build-key")
    try:
        key = build_key(environment, find_mpi(environment))
        installed = importlib.util.find_spec("horovod") and marker.is_file()
        if installed and marker.read_text() == key:
            return 0
        marker.unlink(missing_ok=True)
        target = cache_dir() / key
        if not target.is_dir():
            build_wheel(target, environment)
        [wheel] = target.glob("*.whl")
        install(wheel, environment)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    marker.write_text(key)
    print(f"Horovod {VERSION} is installed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
