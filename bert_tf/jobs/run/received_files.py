"""The files that a run starts from, sent to workers on hosts that do not have them.

Checkpoints are written by the first worker alone. A host that does not share its
`output_dir`, or lacks weights, an architecture or a vocabulary that a flag names, gets
these files from the first worker, into the folder `.received/HOST` of its `output_dir`.
There all else finds them as if they were shared.
"""

import contextlib
import dataclasses
import glob
import os
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bert_tf.config.run import RunConfig
from bert_tf.data.text.tokenizer_settings import (
    TASK_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_FILE,
)
from bert_tf.distribute import Communicator
from bert_tf.errors import RunError, counted
from bert_tf.files import missing_folders, temporary_folder
from bert_tf.interop.huggingface import SHARD_INDEX
from bert_tf.interop.weight_files import (
    BEST_DIR,
    BEST_NOTE,
    HUGGINGFACE_CONFIG,
    ORIGINAL_CONFIG,
    VOCABULARY,
    Kind,
    find_source,
)
from bert_tf.jobs.run.agreement import agreement
from bert_tf.jobs.run.compute_path import worker_names
from bert_tf.jobs.run.used_folder import find_newest
from bert_tf.training import checkpoints

RECEIVED_DIR = ".received"
_OUTPUT = "output_dir"
_WEIGHTS = "init_checkpoint"
_FLAGS = (_WEIGHTS, "bert_config_file", "vocab_file")
# What is read next to weights.
_NEIGHBOURS = (
    *(ORIGINAL_CONFIG, HUGGINGFACE_CONFIG, VOCABULARY, TASK_FILE),
    *(TOKENIZER_CONFIG, TOKENIZER_FILE, "added_tokens.json"),
)
_PIECE_BYTES = 16 << 20


class _File(NamedTuple):
    """A file of the first worker.

    Attributes:
      flag: Why it is sent: output_dir, or a flag that names it.
      name: Its path within the folder of that flag.
      path: Its path on the first host.
      size: Its bytes.
    """

    flag: str
    name: str
    path: str
    size: int


@dataclasses.dataclass(frozen=True)
class Received:
    """The settings of a run on this worker, and who shares the first one's folder.

    Attributes:
      config: With paths of what was received.
      is_shared: Whether all workers see the first worker's output_dir.
      folder: Where this worker, one of its host's, keeps what was received; or empty.
      note: A line for the log, if anything was missing on a host; or empty.
    """

    config: RunConfig
    is_shared: bool = True
    folder: str = ""
    note: str = ""

    def drop_tensors(self) -> None:
        """Deletes large files, once all workers have read the weights."""
        for path in _received(self.folder) if self.folder else ():
            if os.path.isfile(path) and os.path.getsize(path) > _PIECE_BYTES:
                os.remove(path)


def receive_files(
    config: RunConfig,
    communicator: Communicator,
    hosts: Sequence[str],
    until: contextlib.ExitStack,
) -> Received:
    """Compares what the workers see, and sends what the first one's run starts from.

    Args:
      config: The settings.
      communicator: The workers; the first one's output_dir exists.
      hosts: Of the workers, by rank.
      until: Deletes what was received when it is closed.

    Raises:
      RunError: if a worker has newer checkpoints than the first one, or if a file
        cannot be sent.
      OtherWorkerFailed: then on the others.
    """
    if communicator.size == 1:
        return Received(config)
    path = os.path.abspath(config.files.output_dir)
    workers = _compare(config, path, communicator)
    wanted = [set(lacks) for lacks, _ in workers]
    own, is_shared = wanted[communicator.rank], not any(_OUTPUT in x for x in wanted)
    files, newest = _offered(config, communicator, set().union(*wanted))
    # One for each host: a shared output_dir may lack what a flag names, too.
    folder = os.path.join(path, RECEIVED_DIR, hosts[communicator.rank])
    alike = [*zip(hosts, (path for _, path in workers), map(bool, wanted), strict=True)]
    is_writer = alike.index(alike[communicator.rank]) == communicator.rank
    keeps = own if is_writer else set()
    with agreement(communicator):
        if _OUTPUT in own and not config.files.overwrite_output_dir:
            _check_age(config, newest, communicator.rank, hosts)
        if keeps:
            until.callback(_clear, folder, missing_folders(folder))
            _clear(folder)
            os.makedirs(os.path.join(folder, _OUTPUT), exist_ok=True)
    for file in files:
        target = os.path.join(folder, file.flag, file.name)
        _send(file, target if file.flag in keeps else "", communicator)
    local = _with_paths(config, own, files, folder)
    note = _describe(wanted, files, hosts)
    return Received(local, is_shared, folder if keeps else "", note)


def _compare(
    config: RunConfig, path: str, communicator: Communicator
) -> list[tuple[list[str], str]]:
    """What each worker lacks, output_dir or flags, and the path of its output_dir."""
    name = ""
    with contextlib.ExitStack() as until_seen:
        with agreement(communicator):
            if communicator.rank == 0:
                mark = temporary_folder(os.path.join(path, "shared"))
                name = until_seen.enter_context(mark).name
        name = communicator.gather_values(name)[0]
        lacks = [flag for flag in _FLAGS if not _exists(config, flag)]
        if not os.path.exists(os.path.join(path, name)):
            lacks.append(_OUTPUT)
        return communicator.gather_values([lacks, path])


def _exists(config: RunConfig, flag: str) -> bool:
    path = getattr(config.files, flag, "")
    if flag != _WEIGHTS or not path:
        return not path or os.path.exists(path)
    try:
        return bool(find_source(path).path)
    except (OSError, ValueError):
        return False


def _offered(
    config: RunConfig, communicator: Communicator, flags: set[str]
) -> tuple[list[_File], int]:
    """The files of the first worker for these flags, and its newest step, or -1."""
    found, newest = [], -1
    with agreement(communicator):
        if communicator.rank == 0 and flags:
            newest = _newest_step(config)
            resumes = config.training.do_train and newest >= 0
            if resumes:  # From its own checkpoint: it needs no first weights.
                flags = flags - {_WEIGHTS}
            for flag in sorted(flags):
                found += _files(config, flag, newest)
    files, newest = communicator.gather_values([found, newest])[0]
    return [_File(*file) for file in files], newest


def _newest_step(config: RunConfig) -> int:
    if config.files.overwrite_output_dir:
        return -1
    step = find_newest(config.files.output_dir).step
    return -1 if step is None else step


def _files(config: RunConfig, flag: str, newest: int) -> list[_File]:
    """The files of the first worker that a flag stands for."""
    path = getattr(config.files, flag, "")
    if flag == _OUTPUT:
        names = _of_output_dir(path, newest)
    elif not path or not _exists(config, flag):
        return []
    elif flag == _WEIGHTS:
        source = find_source(path)
        path, own = os.path.split(source.path)
        names = [own]
        if source.kind is Kind.TENSORFLOW:
            names = _names(path, f"{glob.escape(own)}.*")
        elif own.endswith(SHARD_INDEX):
            ending = os.path.splitext(own.removesuffix(SHARD_INDEX))[1]
            names += _names(path, f"*{ending}")
        names += _NEIGHBOURS
    else:
        path, name = os.path.split(path)
        names = [name]
    paths = {name: os.path.join(path, name) for name in names}
    return [
        _File(flag, name, path, os.path.getsize(path))
        for name, path in paths.items()
        if os.path.isfile(path)
    ]


def _of_output_dir(folder: str, newest: int) -> list[str]:
    names = [*_NEIGHBOURS]
    if newest >= 0:
        # None if a training has deleted it meanwhile: an evaluation is then refused.
        names += checkpoints.checkpoint_files(folder).get(newest, [])
        # The first worker alone reads the weights of the best checkpoint.
        names.append(f"{BEST_DIR}/{BEST_NOTE}")
    return names


def _names(folder: str, pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, root_dir=folder or "."))


def _check_age(config: RunConfig, newest: int, rank: int, hosts: Sequence[str]) -> None:
    """Refuses to leave a checkpoint that is newer than those of the first worker.

    Raises:
      RunError: if this host's output_dir, which is its own, has one.
    """
    folder = config.files.output_dir
    own = max(checkpoints.committed_steps(folder), default=-1)
    if own <= newest:
        return
    of_first = f"model.ckpt-{newest} there" if newest >= 0 else "no checkpoint there"
    raise RunError(
        f"`output_dir` {folder} is not shared: worker {rank} on {hosts[rank]} has "
        f"model.ckpt-{own} in its own, and the first worker, on {hosts[0]}, has "
        f"{of_first}, where the run would start. Name {hosts[rank]} as the first host, "
        "or move these files elsewhere, or pass another --output_dir."
    )


def _send(file: _File, target: str, communicator: Communicator) -> None:
    """Sends a file in pieces; a worker with a target keeps it.

    Raises:
      RunError: if it cannot be read or written.
      OtherWorkerFailed: then on the others.
    """
    is_first = communicator.rank == 0
    with agreement(communicator), contextlib.ExitStack() as opened:
        error = source = copy = None
        try:
            if is_first:
                source = opened.enter_context(open(file.path, "rb"))
            elif target:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                copy = opened.enter_context(open(target, "wb"))
        except OSError as caught:
            error = caught
        for start in range(0, file.size, _PIECE_BYTES):
            data = np.zeros(min(_PIECE_BYTES, file.size - start), np.uint8)
            try:
                if source and source.readinto(data) < len(data):
                    raise OSError(f"{file.path} has become shorter")
            except OSError as caught:
                error, source = caught, None
            # The others add zeros. After an error too, they wait for all pieces.
            [data] = communicator.sum([tf.constant(data)], "file")
            try:
                if copy:
                    copy.write(data.numpy())
            except OSError as caught:
                error, copy = caught, None
        if error:
            raise error


def _with_paths(
    config: RunConfig, own: set[str], files: Sequence[_File], folder: str
) -> RunConfig:
    """The settings of a worker that lacks files, with the paths of its copies."""
    changed = {}
    if _OUTPUT in own:
        changed[_OUTPUT] = os.path.join(folder, _OUTPUT)
    for file in files:
        # The first file of a flag is the one that it names, or a part of it.
        if file.flag in own and file.flag != _OUTPUT and file.flag not in changed:
            changed[file.flag] = os.path.join(folder, file.flag, file.name)
    if not changed:
        return config
    return dataclasses.replace(
        config, files=dataclasses.replace(config.files, **changed)
    )


def _describe(
    wanted: Sequence[set[str]], files: Sequence[_File], hosts: Sequence[str]
) -> str:
    """A line for the log; empty if nothing is missing anywhere."""
    workers = [{"host": host} for host in hosts]
    lines = []
    for flag in (_OUTPUT, *_FLAGS):
        ranks = [rank for rank, each in enumerate(wanted) if flag in each]
        sent = [file for file in files if file.flag == flag]
        if not ranks or not (sent or flag == _OUTPUT):
            continue
        size = sum(file.size for file in sent)
        names = [os.path.basename(f.path) for f in sent if f.size > _PIECE_BYTES]
        what = f"{counted(len(sent), 'file')}, {size:,} bytes" if sent else "no files"
        lines.append(
            f"{worker_names(ranks, workers)}: --{flag} of the first worker is not "
            f"there; sent: {what}{' with ' * bool(names)}{', '.join(names)}."
        )
    return " ".join(lines)


def _received(folder: str) -> list[str]:
    """What was received; hidden folders are caches, which later runs use."""
    return glob.glob(os.path.join(glob.escape(folder), "*", "*"))


def _clear(folder: str, made: Sequence[str] = ()) -> None:
    """Deletes what was received, and then folders that are empty."""
    for path in _received(folder):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    inside = glob.glob(os.path.join(glob.escape(folder), "*"))
    for path in [*inside, folder, os.path.dirname(folder), *made]:
        with contextlib.suppress(OSError):  # Not empty.
            os.rmdir(path)
