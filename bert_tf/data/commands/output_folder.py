"""The output folder of a data command, written file by file so that it can resume.

Finished files are kept in `<output_dir>.partial`, each with a `.done` file of its size,
checksum and counts, until all are finished; then the folder is renamed.
`<output_dir>_manifest.json` has the input and the settings it was made with. A command
that is run again resumes where it stopped, and does nothing if its output is complete
and intact.
"""

import contextlib
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_tf.data.output_files import DONE_SUFFIX, OutputFile, describe_file
from bert_tf.data.records.metadata import Metadata, metadata_file, write_metadata
from bert_tf.errors import RunError
from bert_tf.files import lock, write_whole
from bert_tf.json_files import parse_json

# Names of the files that output folders of each kind hold, and that may be replaced.
RECORD_FILES = re.compile(r"part[-_]\d+[-_]of[-_]\d+\.(tfrecord|hdf5)")
TEXT_FILES = re.compile(r"part-\d+\.(txt|jsonl)")
SHARD_FILES = re.compile(r"(training|test)-\d+-of-\d+\.txt")
VOCABULARY_FILES = re.compile(r"vocab\.txt")

# Increased when the same input and settings give other bytes than before.
_VERSION = 1
_SETTINGS_FILE = "stage.json"
# Next to the output: the index of the input, and files under temporary names, those of
# earlier versions too.
_CACHE_FILES = r"[0-9a-f]{64}\.(npy|unpacked)"
_TEMPORARY = r"\.([0-9a-f]{8}\.bert_tf|[a-z0-9_]{8})\.tmp"
# Keys of the manifest that determine the bytes of the output.
_RECIPE = ("version", "step", "settings", "inputs")


def settings_of(config: object, *left_out: str) -> dict[str, Any]:
    """The settings that determine the output of a command, for its manifest.

    Args:
      config: The config of the command.
      *left_out: Fields to leave out, besides those about location and speed.
    """
    values = dataclasses.asdict(config)
    for name in (*left_out, "output_dir", "num_processes", "overwrite", "horovod"):
        values.pop(name, None)
    return values


class EarlierOutputError(FileExistsError):
    """An output folder holds earlier output, which a command may be told to replace.

    Attributes:
      found: What the folder holds.
    """

    def __init__(
        self, found: str, remedy: str = "Pass another folder, or --overwrite."
    ) -> None:
        super().__init__(f"{found} {remedy}")
        self.found = found


class OutputFolder:
    """The output of one command: `complete`, or a context around `begin` and `publish`.

    Attributes:
      partial_dir: The folder in which files are written.
    """

    def __init__(
        self,
        command: str,
        output_dir: str,
        kind: re.Pattern[str],
        settings: Mapping[str, Any],
        inputs: Iterable[str | Path],
    ) -> None:
        """Prepares without reading or writing any file.

        Args:
          command: Its name, which the manifest calls its step.
          output_dir: Final path of the folder.
          kind: `RECORD_FILES`, `TEXT_FILES`, ...
          settings: The result of `settings_of`.
          inputs: All files that the command reads.
        """
        self._output_dir = os.path.abspath(output_dir)
        self._kind = kind
        names = rf"({kind.pattern})({DONE_SUFFIX})?|{_SETTINGS_FILE}|{_CACHE_FILES}"
        self._own_names = re.compile(
            rf"{names}|({kind.pattern})\.tmp|\.({names}){_TEMPORARY}"
        )
        self.partial_dir = Path(f"{self._output_dir}.partial")
        self._lock: int | None = None
        self._checked: set[str] = set()
        self._command = command
        self._settings = dict(settings)
        self._inputs = list(inputs)
        self._manifest_file = Path(f"{self._output_dir}_manifest.json")

    @functools.cached_property
    def inputs(self) -> dict[str, OutputFile]:
        """Path -> what is in the file, of all files that the command reads."""
        return {str(path): describe_file(path) for path in self._inputs}

    @functools.cached_property
    def _recipe(self) -> dict[str, Any]:
        """What determines the output, as it is after a round trip through JSON."""
        inputs = [dataclasses.asdict(self.inputs[str(path)]) for path in self._inputs]
        values = (_VERSION, self._command, self._settings, inputs)
        return json.loads(json.dumps(dict(zip(_RECIPE, values, strict=True))))

    def begin(self, overwrite: bool) -> Sequence[OutputFile] | None:
        """Checks existing output, and prepares `partial_dir` for what is missing.

        Args:
          overwrite: Whether other output in the folder may be replaced in the end.

        Returns:
          The files, if the output is complete already; otherwise None.

        Raises:
          FileExistsError: if the folder holds other output, or anything else, or if
            `partial_dir` holds files of others.
          RunError: if another process is writing the same output.
        """
        self._check_inputs_are_elsewhere()
        manifest = _read_recipe(self._manifest_file)
        if manifest and all(manifest.get(key) == self._recipe[key] for key in _RECIPE):
            files = _output_files(manifest.get("files"))
            if files and self._are_intact(files):
                return files
        self._check_may_replace(overwrite, manifest)
        self.partial_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.partial_dir, os.O_RDONLY)
        try:
            lock(descriptor, f"writing {self.partial_dir}")
        except RunError:
            os.close(descriptor)
            raise
        self._lock = descriptor  # From here on, `__exit__` cleans the folder.
        self._check_partial()
        settings = self.partial_dir / _SETTINGS_FILE
        if _read_recipe(settings) != self._recipe:
            self._remove_own()
            write_whole(settings, _to_json(self._recipe))
        return None

    def complete(
        self,
        overwrite: bool,
        make: Callable[["OutputFolder"], Sequence[OutputFile]],
    ) -> Sequence[OutputFile]:
        """Makes and publishes the output, unless it is complete already.

        Args:
          overwrite: See `begin`.
          make: Writes all files that are not finished, and returns all of them.

        Returns:
          All files, in order.
        """
        with self:
            files = self.begin(overwrite)
            if files is None:
                files = make(self)
                self.publish(files)
        return files

    def _check_inputs_are_elsewhere(self) -> None:
        """Refuses an output folder that holds input: replacing it would delete that."""
        folder = os.path.realpath(self._output_dir)
        for path in map(os.path.realpath, self._inputs):
            if os.path.commonpath([folder, path]) == folder:
                raise FileExistsError(
                    "`output_dir` must not hold the input. Received: output_dir="
                    f"{self._output_dir}, which holds {path}. Pass another folder."
                )

    def _check_may_replace(
        self, overwrite: bool, manifest: Mapping[str, Any] | None
    ) -> None:
        """Refuses a folder that holds anything but replaceable earlier output."""
        folder, kind = self._output_dir, self._kind
        if not os.path.lexists(folder):
            return
        received = f"Received: output_dir={folder}"
        if not os.path.isdir(folder):
            raise FileExistsError(
                f"`output_dir` must be a folder. {received}, a file. Pass another one."
            )
        names = sorted(os.listdir(folder))
        others = [name for name in names if not kind.fullmatch(name)]
        if others:
            raise FileExistsError(
                f"`output_dir` must be new, empty or hold earlier output only. "
                f"{received}, which holds {others[0]}. Pass another folder."
            )
        if names and not overwrite:
            reason = self._difference(manifest) if manifest else ""
            raise EarlierOutputError(
                f"`output_dir` must not hold earlier output. {received}, which holds "
                f"{names[0]}. {reason}".rstrip()
            )

    def _difference(self, manifest: Mapping[str, Any]) -> str:
        """How the folder differs from the output of this command: a sentence."""
        if manifest.get("step") != self._command:
            return f"It was made by `data {manifest.get('step')}`."
        made, asked = manifest.get("settings"), self._recipe["settings"]
        if made != asked and isinstance(made, dict):
            both = made | asked
            names = [name for name in both if made.get(name) != asked.get(name)]
            values = ", ".join(f"{name}={made.get(name)}" for name in names)
            return f"It was made with {values}."
        if manifest.get("inputs") != self._recipe["inputs"]:
            return "It was made from other input."
        return "Its files have changed since it was made."

    def _are_intact(self, files: Sequence[OutputFile]) -> bool:
        folder = Path(self._output_dir)
        names = {file.name for file in files}
        if not folder.is_dir() or {path.name for path in folder.iterdir()} != names:
            return False
        return all(_is_intact(folder / file.name, file) for file in files)

    def finished(self, name: str) -> OutputFile | None:
        """The file of this name, if its `.done` file exists and is right."""
        path = self.partial_dir / name
        done = _output_files([_read_json(Path(f"{path}{DONE_SUFFIX}"))])
        if not done or not path.exists():
            return None
        [file] = done
        if name not in self._checked:  # Once: it takes as long as reading the file.
            if not _is_intact(path, file):
                return None
            self._checked.add(name)
        return file

    def finish(self, file: OutputFile) -> None:
        """Writes the `.done` file of a finished file, which later calls rely on."""
        self._checked.add(file.name)
        done = self.partial_dir / f"{file.name}{DONE_SUFFIX}"
        write_whole(done, _to_json(dataclasses.asdict(file)))

    def publish(self, files: Sequence[OutputFile]) -> None:
        """Writes the manifest, deletes earlier output, and renames the folder.

        Args:
          files: All files of the folder, in order.

        Raises:
          OSError: if files of another kind have come into the output folder.
        """
        self._check_partial()
        self._remove_own(keep={file.name for file in files})
        values = [dataclasses.asdict(file) for file in files]
        write_whole(self._manifest_file, _to_json(self._recipe | {"files": values}))
        if os.path.isdir(self._output_dir):
            for name in filter(self._kind.fullmatch, os.listdir(self._output_dir)):
                os.unlink(os.path.join(self._output_dir, name))
        os.replace(self.partial_dir, self._output_dir)

    def publish_records(self, files: Sequence[OutputFile], metadata: Metadata) -> None:
        """Publishes record files, see `publish`, and writes their metadata."""
        # Earlier metadata must never be next to new records.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(metadata_file(self._output_dir))
        self.publish(files)
        write_metadata(self._output_dir, metadata)

    def __enter__(self) -> "OutputFolder":
        """The folder itself."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Unlocks the folder, and deletes it if it has no finished file."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        if not self.partial_dir.is_dir():
            return
        names = os.listdir(self.partial_dir)
        if any(name.endswith(DONE_SUFFIX) for name in names):
            self._remove_own(keep={x for x in names if not x.endswith(".tmp")})
            return
        self._remove_own()
        with contextlib.suppress(OSError):  # It holds files of others.
            self.partial_dir.rmdir()

    def _check_partial(self) -> None:
        """Refuses a folder of unfinished output with files that others put there."""
        for name in sorted(os.listdir(self.partial_dir)):
            path = self.partial_dir / name
            if not self._own_names.fullmatch(name) or path.is_dir():
                raise FileExistsError(
                    f"{self.partial_dir}, where the output is being made, must hold "
                    f"files of this command only. Received: {path}. Move it elsewhere, "
                    "and run the same command again."
                )

    def _remove_own(self, keep: Collection[str] = ()) -> None:
        """Deletes the files of this command, and nothing else."""
        for name in os.listdir(self.partial_dir):
            path = self.partial_dir / name
            if self._own_names.fullmatch(name) and name not in keep:
                if not path.is_dir():
                    path.unlink(missing_ok=True)


def _is_intact(path: Path, file: OutputFile) -> bool:
    """Whether a file has the size and the checksum that it had when it was finished."""
    return path.stat().st_size == file.bytes and (
        describe_file(path).crc32c == file.crc32c
    )


def _output_files(values: object) -> list[OutputFile]:
    try:
        return [OutputFile(**value) for value in values or ()]
    except TypeError:
        return []


def _read_recipe(path: Path) -> dict[str, Any] | None:
    """A manifest or recipe; earlier versions wrote fewer fields of each input."""
    recipe = _read_json(path)
    if recipe:
        inputs = [dataclasses.asdict(f) for f in _output_files(recipe.get("inputs"))]
        recipe["inputs"] = json.loads(json.dumps(inputs))
    return recipe


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if it is missing, or truncated by a crash."""
    try:
        values = parse_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
