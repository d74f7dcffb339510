"""Workers without Horovod: what they send, and how they use the machine."""

import json
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import distribute
from bert_tf.distribute import Communicator, HorovodCommunicator, configure_devices
from bert_tf.errors import OtherWorkerFailed, RunError


def values_of(texts, rank=0):
    """What the worker of a rank collects where each sends its text, of JSON."""
    communicator = HorovodCommunicator.__new__(HorovodCommunicator)
    communicator.rank, communicator.size = rank, len(texts)
    data = [np.frombuffer(text.encode(), np.uint8) for text in texts]
    sizes = np.asarray([[len(row)] for row in data], np.float64)
    table = np.zeros((len(data), int(sizes.max())))
    for row, values in zip(table, data, strict=True):
        row[: len(values)] = values
    sums = iter([sizes, table])

    def add_up(tensors, name):
        [own], whole = tensors, next(sums)
        np.testing.assert_array_equal(own[rank], whole[rank])
        return [tf.constant(whole)]

    communicator.sum = add_up
    return communicator.gather_values(json.loads(texts[rank]))


def test_values_of_any_length_and_script_arrive():
    values = [{"host": "é中"}, {}, "x" * 1000, [1, ["a"]]]
    for rank in range(4):
        assert values_of([*map(json.dumps, values)], rank) == values


def test_one_process_collects_its_own_value():
    assert Communicator().gather_values("abc") == ["abc"]


@pytest.mark.parametrize("sent", ["", "\x01"])
def test_a_worker_that_sends_no_value_is_refused(sent):
    with pytest.raises(RunError, match="Worker 1 runs other code than worker 0"):
        values_of(["{}", sent])


@pytest.fixture
def threading(monkeypatch):
    """What is set of TensorFlow, without setting it."""
    found = {}
    fake = types.SimpleNamespace(
        set_intra_op_parallelism_threads=lambda n: found.update(intra=n),
        set_inter_op_parallelism_threads=lambda n: found.update(inter=n),
    )
    monkeypatch.setattr(tf.config, "threading", fake)
    monkeypatch.setattr(distribute, "available_cores", lambda size: 8 // size)
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return found


def workers(local_size):
    communicator = Communicator()
    communicator.local_size = local_size
    return communicator


def test_workers_of_a_host_share_its_cores(threading):
    assert configure_devices(workers(4), None) == 2
    assert threading["intra"] == 2


def test_the_flag_decides_the_number_of_threads(threading, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert configure_devices(workers(1), 5) == 5
    assert threading["intra"] == 5


def test_tensorflows_variables_are_obeyed(threading, monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "4")
    assert configure_devices(workers(1), None) == 3
    assert threading == {"intra": 3}


def test_products_of_float32_are_exact_on_gpus(threading, monkeypatch):
    found = {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a", "b"])
    monkeypatch.setattr(
        tf.config, "set_visible_devices", lambda gpu, kind: found.update(gpu=gpu)
    )
    fake = types.SimpleNamespace(
        set_memory_growth=lambda gpu, grows: None,
        enable_tensor_float_32_execution=lambda on: found.update(tf32=on),
    )
    monkeypatch.setattr(tf.config, "experimental", fake)
    configure_devices(workers(1), 1)
    assert found == {"gpu": "a", "tf32": False}


class FailedElsewhere(distribute.HorovodCommunicator):
    """Worker 0 of two, of which the other one failed in an agreement inside."""

    def __init__(self):
        self.rank, self.size = 0, 2

    def gather(self, values):
        return np.asarray([values, [1.0]])


def test_the_end_of_an_inner_agreement_is_not_an_error_of_this_worker():
    with pytest.raises(OtherWorkerFailed, match="Worker 1 failed"):
        FailedElsewhere().agree(OtherWorkerFailed("Worker 1 failed."))


def test_a_broadcast_replaces_values_by_those_of_the_first_worker():
    communicator = HorovodCommunicator.__new__(HorovodCommunicator)
    workers = [[[1.0, 2.0], 3.0], [[4.0, 5.0], 6.0]]  # Of each, two variables.

    def broadcast(value, root_rank, name):
        return tf.constant(workers[root_rank][int(name.rpartition(".")[2])])

    communicator._hvd = types.SimpleNamespace(broadcast=broadcast)
    variables = [tf.Variable(workers[1][0]), keras.Variable(workers[1][1])]
    communicator.broadcast(variables)
    np.testing.assert_array_equal(variables[0], [1.0, 2.0])
    assert float(variables[1]) == 3.0


class Doubling(Communicator):
    """Two workers that send the same; keeps the types that they send."""

    size = 2

    def __init__(self):
        self.sent = []

    def sum(self, tensors, name):
        self.sent += [tensor.dtype for tensor in tensors]
        return [tensor + tensor for tensor in tensors]


def test_compressed_gradients_are_sent_as_float16_and_losses_are_not():
    communicator = Doubling()
    communicator.sends_fp16 = True
    gradients = np.asarray([1.0, -3.0, 2.0**-20, 2.0**-30], np.float32)
    loss = np.float32(1 / 3)
    ours, exact = communicator.sum_gradients(
        [tf.constant(gradients)], tf.constant(loss), "gradients"
    )
    assert communicator.sent == [tf.float32, tf.float16]
    # Times 1024 all are numbers of float16, whose least is 2^-24.
    np.testing.assert_array_equal(ours, 2 * gradients)
    assert float(exact) == 2 * loss and ours.dtype == tf.float32


def test_without_compression_gradients_travel_with_the_losses():
    communicator = Doubling()
    sums = communicator.sum_gradients([tf.constant([1.0])], tf.constant(2.0), "both")
    assert communicator.sent == [tf.float32, tf.float32]
    assert [float(tf.reduce_sum(x)) for x in sums] == [2.0, 4.0]


def test_hierarchical_sums_without_nccl_are_said_to_have_no_effect(monkeypatch):
    names = {"rank": 0, "size": 1, "local_rank": 0, "local_size": 1, "init": None}
    fake = types.SimpleNamespace(
        nccl_built=lambda: 0, **{n: lambda x=x: x for n, x in names.items()}
    )
    monkeypatch.setattr(distribute.importlib, "import_module", lambda name: fake)
    for name in ("HOROVOD_HIERARCHICAL_ALLREDUCE", "HOROVOD_FUSION_THRESHOLD"):
        monkeypatch.setenv(name, "")
    communicator = distribute.connect(True, True, fusion_threshold=2)
    assert "built without NCCL" in communicator.notes[0]
    assert distribute.os.environ["HOROVOD_FUSION_THRESHOLD"] == "2097152"
    assert not distribute.connect(True).notes
