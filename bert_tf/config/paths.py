"""Checks of paths that need no other module, before TensorFlow is loaded."""

import dataclasses
import glob
import os
import re
import stat
import tempfile
from pathlib import Path

from bert_tf.config.record_sets import split_weight
from bert_tf.config.run import RunConfig
from bert_tf.errors import similar_path
from bert_tf.launch import launched_size

# What must be regular files or folders; a run reads the folders only for some jobs.
_FILES = (
    "bert_config_file",
    "bf16_config_path",
    "checksum_file",
    "dev_file",
    "predict_file",
    "train_file",
    "vocab_file",
)
_FOLDERS = ("data_dir", "folder")
# What is looked for in a folder that is passed instead of the file.
_VOCABULARIES = ("vocab.txt", "tokenizer.json")
# An address, also as one of several parts.
_ADDRESS = re.compile(r"(?:^|,)\s*([A-Za-z][A-Za-z0-9+.-]*)://")
_COPY = {
    "gs": "gcloud storage cp -r",
    **dict.fromkeys(("s3", "s3a", "s3n"), "aws s3 cp --recursive"),
    "hdfs": "hdfs dfs -get",
    "hf": "python -m bert_tf convert",
}
_RECORDS = {"input_files_dir": "do_train", "eval_files_dir": "evaluates"}


def check_run(config: RunConfig) -> None:
    """Checks the paths of a training or an evaluation by one process.

    Several workers compare what they find: see `jobs.run.session`.

    Raises:
      OSError: if a path to read does not exist or is of the wrong kind, or a folder to
        write to cannot exist.
      ValueError: if the folder to write to holds the records.
    """
    _refuse_output_among_records(config)
    if launched_size() > 1:
        return
    for field in dataclasses.fields(config):
        check_paths(getattr(config, field.name))
    # A resumed run needs its first weights no more, a finished one no records either.
    output = Path(config.files.output_dir)
    if output.is_dir() and any(output.glob("model.ckpt-*.json")):
        return
    for name, job in _RECORDS.items():
        if hasattr(config.files, name) and getattr(config.training, job):
            path = getattr(config.files, name)
            # A weight after it is checked with the records.
            require_match(name, path if _expand(path) else split_weight(path)[0])
    if config.files.init_checkpoint:
        require_exists("init_checkpoint", config.files.init_checkpoint)


def _refuse_output_among_records(config: RunConfig) -> None:
    """The files of a run would be read as records, by it when it resumes too."""
    output_dir = config.files.output_dir
    for name in _RECORDS:
        for part in getattr(config.files, name, "").split(","):
            for path in _expand(part.strip()) or [split_weight(part.strip())[0]]:
                if path and os.path.realpath(path) == os.path.realpath(output_dir):
                    raise ValueError(
                        "`output_dir` must be another folder than the records'. "
                        f"Received: output_dir={output_dir}, which `{name}` names. "
                        "Pass another --output_dir."
                    )


def check_paths(config: object) -> None:
    """Checks the paths of one config class; empty ones are left out.

    Args:
      config: A dataclass.

    Raises:
      OSError: see `check_run`.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if not isinstance(value, str) or not value:
            continue
        require_local(field.name, value)
        if field.name in _FILES:
            require_file(field.name, value)
        elif field.name in _FOLDERS:
            require_folder(field.name, value)
        elif field.name == "input_dir":
            require_match(field.name, value)
        elif field.name == "output_dir":
            require_possible(field.name, value)
        elif field.name == "dllog_path":
            require_output_file(field.name, value)


def _error(
    name: str,
    rule: str,
    path: str,
    reason: str,
    remedy: str = "another path",
    ending: str = "",
) -> OSError:
    kind, question = OSError, ""
    if reason == "does not exist":
        kind, question = FileNotFoundError, similar_path(path, ending)
    received = f"Received: {name}={path}, which {reason}. {question}".rstrip()
    return kind(f"`{name}` must {rule}. {received} Pass {remedy}.")


def require_local(name: str, path: str) -> None:
    """A setting must not be an address, such as gs://bucket/folder."""
    found = _ADDRESS.search(path)
    if not found:
        return
    scheme = found[1].lower()
    remedy = "Pass a folder or a file of this machine, also a mounted one"
    if scheme in _COPY:
        remedy += f"; `{_COPY[scheme]}` copies from there, and back"
    if scheme == "file":
        remedy = "Pass the path alone, without file://"
    raise OSError(
        f"`{name}` must be a path. Received: {name}={path}, an address of {scheme}. "
        f"{remedy}."
    )


def _mode(path: str) -> int | str:
    """The mode of what is at a path, or why there is nothing."""
    if found := _ADDRESS.search(path):
        return f"is an address of {found[1]}, not of a file of this machine"
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            return f"is a link to {os.readlink(path)}, which does not exist"
        return "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return f"is no path: {error}"


def require_file(name: str, path: str) -> None:
    """A setting must be a regular file."""
    mode = _mode(path)
    if not isinstance(mode, str):
        if stat.S_ISREG(mode):
            return
        mode = "is a folder" if stat.S_ISDIR(mode) else "is a pipe or a device"
    inner = [os.path.join(path, each) for each in _VOCABULARIES]
    present = [each for each in inner if name == "vocab_file" and os.path.isfile(each)]
    raise _error(name, "be a file", path, mode, *present[:1])


def require_folder(name: str, path: str) -> None:
    """A setting must be a folder."""
    mode = _mode(path)
    if isinstance(mode, str) or not stat.S_ISDIR(mode):
        reason = mode if isinstance(mode, str) else "is not a folder"
        raise _error(name, "be a folder", path, reason)


def require_exists(name: str, path: str) -> None:
    """Weights must be a folder, a file, or what several files begin with."""
    if path.startswith("hf://"):  # It is looked for when it is read.
        return
    mode = _mode(path)
    if isinstance(mode, str) and not _expand(f"{glob.escape(path)}.*"):
        rule = "be a checkpoint, or a folder or a file of weights"
        raise _error(name, rule, path, mode, ending=".index")


def require_match(name: str, pattern: str) -> None:
    """A path or a pattern must match something; of several, this is checked later."""
    mode = _mode(pattern)
    if isinstance(mode, str) and "," not in pattern and not _expand(pattern):
        raise _error(name, "be a folder, or match one", pattern, mode)


def _expand(pattern: str) -> list[str]:
    try:
        return glob.glob(pattern) or glob.glob(pattern.replace("[", "[[]"))
    except ValueError:
        return []


def require_output_file(name: str, path: str) -> None:
    """A setting must be a file, which may be new, where one can be written."""
    require_local(name, path)
    if not path or os.path.isdir(path):
        raise _error(name, "be a file", path, "is a folder" if path else "is empty")
    require_possible(name, os.path.dirname(path) or ".")


def require_possible(name: str, path: str) -> None:
    """A setting must be a folder, or a path where one can be made."""
    rule, reason = "be a folder that can be written", ""
    present = os.path.abspath(path)
    while not os.path.lexists(present):
        try:
            os.stat(present)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise _error(name, rule, path, f"is no path: {reason}") from None
        present = os.path.dirname(present)
    mode = _mode(present)
    if isinstance(mode, str):
        reason = mode
    elif not stat.S_ISDIR(mode):
        reason = "is a file" if present == os.path.abspath(path) else "is under a file"
    else:
        try:
            with tempfile.TemporaryFile(dir=present):
                pass
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
    if reason:
        raise _error(name, rule, path, reason)
