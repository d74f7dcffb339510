"""Builds Horovod against the installed TensorFlow, and installs it.

Run by `make setup` with the virtual environment's Python. The wheel is kept in
$BERT_TF_CACHE (default ~/.cache/bert_tf), so only the first set-up pays for the build.
Every HOROVOD_* variable is passed through, for instance HOROVOD_GPU_OPERATIONS=NCCL.
"""

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile

VERSION = "0.28.1"
ARCHIVE_SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"

# File -> a line that stands in it exactly once, and what takes its place.
PATCHES = {
    # GPU code for XLA, whose headers TensorFlow 2.20 no longer has.
    "horovod/tensorflow/CMakeLists.txt": (
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/'
        'xla_mpi_ops.cc")\n',
        "\n",
    ),
    # Headers that g++ 13 wants to be named.
    "horovod/common/common.h": (
        "#include <string>\n",
        "#include <stdexcept>\n#include <string>\n",
    ),
    "horovod/common/group_table.h": (
        "#include <vector>\n",
        "#include <string>\n#include <vector>\n",
    ),
    # A module that Python 3.12 no longer has.
    "horovod/runner/js_run.py": (
        "from distutils.spawn import find_executable\n",
        "from shutil import which as find_executable\n",
    ),
}

DEFAULTS = {
    "HOROVOD_WITH_TENSORFLOW": "1",
    "HOROVOD_WITHOUT_PYTORCH": "1",
    "HOROVOD_WITHOUT_MXNET": "1",
    "HOROVOD_WITH_MPI": "1",
    "HOROVOD_WITH_GLOO": "1",
    "HOROVOD_CPU_OPERATIONS": "MPI",
    "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
    "MAKEFLAGS": f"-j{os.cpu_count() or 1}",
}


class BuildError(Exception):
    """The build cannot go on; the message says why and what to do."""


def build_environment() -> dict[str, str]:
    """The defaults, overridden by the caller's environment, tools of the venv first."""
    environment = DEFAULTS | dict(os.environ)
    tools = sysconfig.get_path("scripts")
    environment["PATH"] = os.pathsep.join([tools, environment.get("PATH", "")])
    return environment


def build_key(environment: dict[str, str]) -> str:
    """Names a build by everything that it depends on."""
    parts = [VERSION, repr(sorted(PATCHES.items())), sysconfig.get_platform()]
    parts.append(sys.implementation.cache_tag)
    for package in ("tensorflow", "openmpi"):
        try:
            parts.append(f"{package}={importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            parts.append(f"{package}=none")
    options = {n: v for n, v in environment.items() if n.startswith("HOROVOD_")}
    parts.append(repr(sorted(options.items())))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def cache_dir() -> pathlib.Path:
    """Where wheels are kept between set-ups."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(os.environ.get("BERT_TF_CACHE") or f"{home}/bert_tf")


def check_tools(environment: dict[str, str]) -> None:
    """Raises `BuildError` unless compiler and MPI are there."""
    if not shutil.which("g++", path=environment["PATH"]):
        raise BuildError("There is no C++ compiler `g++`. Install one (g++ 9 or newer).")
    if not shutil.which("mpirun", path=environment["PATH"]):
        raise BuildError(
            "There is no MPI (`mpirun`). Install the `mpi` extra (`make setup` does), or "
            "a system Open MPI with its headers."
        )


def download(directory: pathlib.Path) -> pathlib.Path:
    """Fetches the source archive from the package index."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation"]
    command += ["--dest", str(directory), f"horovod=={VERSION}"]
    if subprocess.run(command).returncode:
        raise BuildError(f"The source archive of horovod {VERSION} cannot be fetched.")
    return directory / f"horovod-{VERSION}.tar.gz"


def check_archive(archive: pathlib.Path) -> None:
    """Raises `BuildError` unless the archive is the known one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != ARCHIVE_SHA256:
        raise BuildError(
            f"{archive.name} must have sha256 {ARCHIVE_SHA256}. Received: {found}. Do "
            "not use it: fetch it again, or ask where it comes from."
        )


def patch_sources(sources: pathlib.Path) -> None:
    """Applies `PATCHES`; raises `BuildError` if a line is not there exactly once."""
    for name, (old, new) in PATCHES.items():
        file = sources / name
        text = file.read_text()
        if text.count(old) != 1:
            raise BuildError(
                f"{name} must hold the line {old.strip()!r} once. Received: "
                f"{text.count(old)} times. These are not the sources of {VERSION}."
            )
        file.write_text(text.replace(old, new))


def build_wheel(target: pathlib.Path, environment: dict[str, str]) -> None:
    """Builds into a folder beside `target`, then renames it into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = pathlib.Path(name)
        archive = download(work)
        check_archive(archive)
        with tarfile.open(archive) as tar:
            tar.extractall(work, filter="data")
        sources = work / f"horovod-{VERSION}"
        patch_sources(sources)
        log = target.parent / "build.log"
        command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation"]
        command += ["--no-deps", "--wheel-dir", str(work / "wheel"), str(sources)]
        print(f"Building Horovod {VERSION} (about 2 minutes; log: {log})", flush=True)
        with open(log, "w") as output:
            streams = {"stdout": output, "stderr": subprocess.STDOUT}
            failed = subprocess.run(command, env=environment, **streams).returncode
        if failed:
            tail = "".join(log.read_text().splitlines(keepends=True)[-30:])
            raise BuildError(f"The build failed. The end of {log}:\n{tail}")
        os.replace(work / "wheel", target)


def install(wheel: pathlib.Path, environment: dict[str, str]) -> None:
    """Installs the wheel, and tries it in a process of its own."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--force-reinstall", str(wheel)], check=True)
    check = "import horovod.tensorflow as hvd; assert hvd.mpi_built() or hvd.gloo_built()"
    result = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True
    )
    if result.returncode:
        raise BuildError(f"Horovod is built but cannot be loaded:\n{result.stderr}")


def main() -> int:
    """Builds if the cache has no such wheel, and installs if it is not installed."""
    environment = build_environment()
    key = build_key(environment)
    marker = pathlib.Path(sys.prefix, "horovod-build-key")
    if marker.is_file() and marker.read_text() == key:
        return 0
    target = cache_dir() / f"horovod-{VERSION}-{key}"
    try:
        check_tools(environment)
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
