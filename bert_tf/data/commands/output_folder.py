"""The output folder of a data command, written part by part so that it can resume.

Finished parts are kept in `<output_dir>.partial`, each with a `.done` file of its size,
checksum and counts, until all are finished; then the folder is renamed.
`<output_dir>_manifest.json` has the input and the settings it was made with. A command
that is run again resumes where it stopped, and does nothing if its output is complete
and intact.
"""

import dataclasses
import functools
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bert_tf.data import output
from bert_tf.data.records.shards import Part, describe_file
from bert_tf.errors import RunError
from bert_tf.files import lock, write_whole

# Increased when the same input and settings give other bytes than before.
_VERSION = 1
_SETTINGS_FILE = "stage.json"
_NOTE_SUFFIX = ".done"
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


class Stage:
    """The output of one command; a context manager around `begin` and `publish`.

    Attributes:
      folder: The folder in which parts are written.
    """

    def __init__(
        self,
        step: str,
        output_dir: str,
        kind: re.Pattern[str],
        settings: Mapping[str, Any],
        inputs: Iterable[str | Path],
    ) -> None:
        """Prepares without reading or writing any file.

        Args:
          step: Name of the command, which the manifest calls its step.
          output_dir: Final path of the folder.
          kind: Names of its files, see `output`.
          settings: The result of `settings_of`.
          inputs: All files that the command reads.
        """
        self._output_dir = os.path.abspath(output_dir)
        self._kind = kind
        self.folder = Path(f"{self._output_dir}.partial")
        self._lock: int | None = None
        self._checked: set[str] = set()
        self._step = step
        self._settings = dict(settings)
        self._inputs = list(inputs)

    @functools.cached_property
    def _recipe(self) -> dict[str, Any]:
        """What determines the output, as it is after a round trip through JSON."""
        inputs = [dataclasses.asdict(describe_file(path)) for path in self._inputs]
        values = (_VERSION, self._step, self._settings, inputs)
        return json.loads(json.dumps(dict(zip(_RECIPE, values, strict=True))))

    @property
    def manifest_file(self) -> Path:
        """Path of the manifest, next to the folder."""
        return Path(f"{self._output_dir}_manifest.json")

    def begin(self, overwrite: bool) -> Sequence[Part] | None:
        """Checks existing output, and prepares `folder` for the parts that are missing.

        Args:
          overwrite: Whether other output in the folder may be replaced in the end.

        Returns:
          The parts, if the output is complete already; otherwise None.

        Raises:
          FileExistsError: if the folder holds other output, or anything else.
          RunError: if another process is writing the same output.
        """
        self._check_inputs_are_elsewhere()
        manifest = _read_recipe(self.manifest_file)
        if manifest and all(manifest.get(key) == self._recipe[key] for key in _RECIPE):
            parts = _parts(manifest.get("files"))
            if parts and self._are_intact(parts):
                return parts
        reason = self._difference(manifest) if manifest else ""
        output.check_output_dir(
            "output_dir", self._output_dir, self._kind, overwrite, reason
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            lock(descriptor, f"writing {self.folder}")
        except RunError:
            os.close(descriptor)
            raise
        self._lock = descriptor  # From here on, `__exit__` cleans the folder.
        settings = self.folder / _SETTINGS_FILE
        if _read_recipe(settings) != self._recipe:
            for entry in self.folder.iterdir():
                entry.unlink()
            write_whole(settings, _to_json(self._recipe))
        return None

    def _check_inputs_are_elsewhere(self) -> None:
        """Refuses an output folder that holds input: replacing it would delete that."""
        folder = os.path.realpath(self._output_dir)
        for path in map(os.path.realpath, self._inputs):
            if os.path.commonpath([folder, path]) == folder:
                raise FileExistsError(
                    "`output_dir` must not hold the input. Received: output_dir="
                    f"{self._output_dir}, which holds {path}. Pass another folder."
                )

    def _difference(self, manifest: Mapping[str, Any]) -> str:
        """How the folder differs from the output of this command: a sentence."""
        if manifest.get("step") != self._step:
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

    def _are_intact(self, parts: Sequence[Part]) -> bool:
        folder = Path(self._output_dir)
        if not folder.is_dir() or {p.name for p in folder.iterdir()} != {
            part.name for part in parts
        }:
            return False
        return all(
            (folder / part.name).stat().st_size == part.bytes
            and describe_file(folder / part.name).crc32c == part.crc32c
            for part in parts
        )

    def finished(self, name: str) -> Part | None:
        """The part with this file name, if its `.done` file exists and is right."""
        note = _read_json(self.folder / f"{name}{_NOTE_SUFFIX}")
        if not note or not (self.folder / name).exists():
            return None
        part = Part(**note)
        if name not in self._checked:  # Once: it takes as long as reading the file.
            found = describe_file(self.folder / name)
            if (found.bytes, found.crc32c) != (part.bytes, part.crc32c):
                return None
            self._checked.add(name)
        return part

    def finish(self, part: Part) -> None:
        """Writes the `.done` file of a finished part, which later calls rely on."""
        self._checked.add(part.name)
        note = self.folder / f"{part.name}{_NOTE_SUFFIX}"
        write_whole(note, _to_json(dataclasses.asdict(part)))

    def publish(self, parts: Sequence[Part]) -> None:
        """Writes the manifest, and renames the folder.

        Args:
          parts: All files of the folder, in order.
        """
        names = {part.name for part in parts}
        for entry in self.folder.iterdir():
            if entry.name not in names:
                entry.unlink()
        files = [dataclasses.asdict(part) for part in parts]
        write_whole(self.manifest_file, _to_json(self._recipe | {"files": files}))
        output.move_into_place(self.folder, self._output_dir, self._kind)

    def __enter__(self) -> "Stage":
        """The stage itself."""
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Unlocks the folder, and deletes it if it has no finished part."""
        if self._lock is None:
            return
        os.close(self._lock)
        self._lock = None
        for unfinished in self.folder.glob("*.tmp"):
            unfinished.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.glob(f"*{_NOTE_SUFFIX}")):
            shutil.rmtree(self.folder)


def _parts(values: object) -> list[Part]:
    try:
        return [Part(**value) for value in values or ()]
    except TypeError:
        return []


def _read_recipe(path: Path) -> dict[str, Any] | None:
    """A manifest or recipe; earlier versions wrote fewer fields of each input."""
    recipe = _read_json(path)
    if recipe:
        inputs = [dataclasses.asdict(part) for part in _parts(recipe.get("inputs"))]
        recipe["inputs"] = json.loads(json.dumps(inputs))
    return recipe


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if it is missing, or truncated by a crash."""
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True) + "\n"
