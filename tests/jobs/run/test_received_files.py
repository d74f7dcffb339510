"""Workers that do not see the first one's folder get what the run starts from."""

import contextlib
import os
import threading

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY
from runs import parse, position

from bert_tf.distribute import Communicator
from bert_tf.errors import OtherWorkerFailed, RunError
from bert_tf.interop.weight_files import find_source
from bert_tf.jobs.run import received_files
from bert_tf.jobs.run.received_files import receive_files
from bert_tf.training import checkpoints


class InThreads(Communicator):
    """Workers that are threads of this process and meet at a barrier."""

    def __init__(self, rank, table, barrier):
        self.rank, self.size = rank, len(table)
        self._table, self._barrier = table, barrier

    def _exchange(self, value):
        self._table[self.rank] = value
        self._barrier.wait(20)
        values = [*self._table]
        self._barrier.wait(20)
        return values

    def sum(self, tensors, name):
        rows = self._exchange([x.numpy() for x in tensors])
        return [tf.constant(sum(column)) for column in zip(*rows, strict=True)]


def meet(folders, *more, hosts=None, look=lambda received: None):
    """What each worker receives, or its error, and what `look` then sees."""
    table, results = [None] * len(folders), [None] * len(folders)
    barrier = threading.Barrier(len(folders))
    hosts = hosts or [f"node{rank}" for rank in range(len(folders))]

    def work(rank):
        flags = [x[rank] if isinstance(x, list) else x for x in more]
        config = parse("pretraining", f"--output_dir={folders[rank]}", *flags)
        with contextlib.ExitStack() as until:
            try:
                communicator = InThreads(rank, table, barrier)
                received = receive_files(config, communicator, hosts, until)
                results[rank] = received, look(received)
            except RunError as error:
                results[rank] = error, None
            except BaseException:
                barrier.abort()  # The others wait for this one.
                raise

    threads = [
        threading.Thread(target=work, args=[rank]) for rank in range(len(folders))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def save(folder, step):
    folder.mkdir(exist_ok=True)
    kernel = np.arange(12, dtype=np.float32)
    checkpoints.save(str(folder), {"bert/kernel": kernel}, position(step))


@pytest.fixture
def apart(tmp_path):
    """Folders of two hosts; the first one has a checkpoint of step 3."""
    save(tmp_path / "first", 3)
    (tmp_path / "first" / "bert_config.json").write_text(str(TINY))
    return tmp_path / "first", tmp_path / "second"


FLAGS = ("--do_train", "--preset=tiny", "--input_files_dir=records")


def content(folder):
    return {
        name: open(os.path.join(folder, name), "rb").read()
        for name in sorted(os.listdir(folder))
        if os.path.isfile(os.path.join(folder, name))
    }


def test_a_worker_without_the_checkpoint_receives_its_bytes(apart, monkeypatch):
    monkeypatch.setattr(received_files, "_PIECE_BYTES", 7)  # Several pieces each.
    first, second = meet(
        apart, *FLAGS, look=lambda x: content(x.config.files.output_dir)
    )
    sent = content(apart[0])
    del sent["checkpoint"]
    assert second[1] == sent and {"model.ckpt-3.json", "bert_config.json"} < {*sent}
    assert not first[0].is_shared and first[0].config.files.output_dir == str(apart[0])
    assert "worker 1 (node1): --output_dir of the first worker" in first[0].note


def test_what_was_received_is_deleted_at_the_end(apart):
    meet(apart, *FLAGS)
    assert not apart[1].exists()


def test_caches_of_a_host_stay(apart):
    cache = apart[1] / ".received" / "node1" / "output_dir" / ".record_index" / "a.npy"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"index")
    (apart[1] / ".received" / "node1" / "output_dir" / "model.ckpt-9.json").write_text(
        "old"
    )
    [_, (_, seen)] = meet(
        apart, *FLAGS, look=lambda x: os.listdir(x.config.files.output_dir)
    )
    assert "model.ckpt-9.json" not in seen and "model.ckpt-3.json" in seen
    assert cache.read_bytes() == b"index"


def test_nothing_is_sent_where_the_folder_is_shared(apart):
    results = meet([apart[0], apart[0]], *FLAGS)
    for received, _ in results:
        assert received.is_shared and not received.note
        assert received.config.files.output_dir == str(apart[0])
    assert sorted(content(apart[0])) == sorted(os.listdir(apart[0]))


def test_one_worker_of_a_host_keeps_the_files_for_all(apart):
    folders = [apart[0], apart[1], apart[1]]
    results = meet(folders, *FLAGS, hosts=["node0", "node1", "node1"])
    assert [bool(received.folder) for received, _ in results] == [False, True, False]
    paths = [received.config.files.output_dir for received, _ in results]
    assert paths[1] == paths[2] != paths[0]


def test_a_file_of_a_flag_is_sent_where_it_is_missing(apart, tmp_path):
    here = tmp_path / "config.json"
    here.write_text("{}")
    names = [f"--bert_config_file={here}", f"--bert_config_file={tmp_path}/no.json"]
    flags = ("--do_train", "--input_files_dir=records", names)
    [_, (_, seen)] = meet(
        [apart[0]] * 2,
        *flags,
        look=lambda x: open(x.config.files.bert_config_file).read(),
    )
    assert seen == "{}"


def test_first_weights_are_sent_with_what_lies_next_to_them(tmp_path):
    save(tmp_path / "phase_1", 5)
    (tmp_path / "phase_1" / "vocab.txt").write_text("[PAD]\n")
    (tmp_path / "out").mkdir()
    prefix = tmp_path / "phase_1" / "model.ckpt-5"
    flags = [f"--init_checkpoint={prefix}", f"--init_checkpoint={tmp_path}/no/ckpt-5"]
    [_, (received, seen)] = meet(
        [tmp_path / "out", tmp_path / "other"],
        *(*FLAGS, flags),
        look=lambda x: content(
            os.path.dirname(find_source(x.config.files.init_checkpoint).path)
        ),
    )
    assert received.config.files.init_checkpoint.startswith(f"{tmp_path}/other/")
    expected = content(tmp_path / "phase_1")
    del expected["checkpoint"]
    assert seen == expected


def test_a_newer_checkpoint_of_another_host_is_never_left_behind(apart):
    save(apart[1], 4)
    first, second = meet(apart, *FLAGS)
    assert isinstance(first[0], OtherWorkerFailed)
    assert "worker 1 on node1 has model.ckpt-4 in its own" in str(second[0])
    assert "Name node1 as the first host" in str(second[0])
    assert (apart[1] / "model.ckpt-4.json").exists()


def test_an_older_checkpoint_of_another_host_is_not_touched(apart):
    save(apart[1], 2)
    before = content(apart[1])
    [_, (received, _)] = meet(apart, *FLAGS)
    assert received.config.files.output_dir.startswith(str(apart[1]))
    assert content(apart[1]) == before


def test_a_folder_that_cannot_be_written_fails_on_all_workers(apart, tmp_path):
    (tmp_path / "file").write_text("")
    first, second = meet([apart[0], tmp_path / "file" / "out"], *FLAGS)
    assert isinstance(first[0], OtherWorkerFailed)
    assert "file/out" in str(second[0])


@pytest.mark.parametrize("lost", ["first", "second"])
def test_a_file_that_cannot_be_read_or_written_fails_on_all(apart, monkeypatch, lost):
    def refuse(path, mode):
        if str(apart[lost == "second"]) in path and path.endswith(".index"):
            raise OSError(28, "No space left on device", path)
        return open(path, mode)

    monkeypatch.setattr(received_files, "open", refuse, raising=False)
    results = [error for error, _ in meet(apart, *FLAGS)]
    own, other = results if lost == "first" else reversed(results)
    assert "No space left on device" in str(own)
    assert isinstance(other, OtherWorkerFailed)
    assert not apart[1].exists()
