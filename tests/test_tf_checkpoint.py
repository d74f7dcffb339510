import hashlib
import random
import struct

import google_crc32c
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from bert_tf import tf_checkpoint
from bert_tf.tf_checkpoint import load_tf
from bert_tf.tf_checkpoint_writer import save_tf, write_tensors

ARRAYS = {
    "a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a/bias": np.array([0.5, -2.0], np.float32),
    "half": np.array([1.5], np.float16),
    "upper_half": np.array([1.5, 3.0], ml_dtypes.bfloat16),
    "double": np.array([[1e300]]),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def prefix(tmp_path):
    return str(tmp_path / "model.ckpt-7")


def write(prefix, arrays):
    names = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )


def read(prefix):
    return load_tf(prefix, list)


def refusal(prefix):
    with pytest.raises(ValueError) as raised:
        read(prefix)
    message = str(raised.value)
    assert message.startswith(f"{prefix} cannot be read: ") and "\n" not in message
    return message


# An index of one block, made by hand after LevelDB's description of its format.


def varint(value):
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def masked(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def block(entries):
    content = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value
        for key, value in entries
    )
    return content + struct.pack("<II", 0, 1)


def entry(shape, size, offset=0, shard=0, crc=0, more=b""):
    sizes = b"".join(
        b"\x12" + varint(1 + len(varint(n))) + b"\x08" + varint(n) for n in shape
    )
    message = b"\x08\x01\x12" + varint(len(sizes)) + sizes
    message += b"\x18" + varint(shard) + b"\x20" + varint(offset)
    return message + b"\x28" + varint(size) + b"\x35" + struct.pack("<I", crc) + more


def write_by_hand(prefix, *tensors, header=b"\x08\x01", data=b"\0\0\x80?" * 2):
    content = block([(b"", header), *tensors])
    first = content + b"\0" + struct.pack("<I", masked(content + b"\0"))
    handle = varint(0) + varint(len(content))
    content = block([(b"z", handle)])
    second = content + b"\0" + struct.pack("<I", masked(content + b"\0"))
    handles = varint(0) + varint(0) + varint(len(first)) + varint(len(content))
    footer = handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    with open(f"{prefix}.index", "wb") as file:
        file.write(first + second + footer)
    with open(f"{prefix}.data-00000-of-00001", "wb") as file:
        file.write(data)


ONES = masked(b"\0\0\x80?" * 2)


def test_what_tensorflow_writes_is_read(prefix):
    write(prefix, ARRAYS | {"text": np.array(["strings are left out"])})
    tensors = read(prefix)
    assert tensors.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(tensors[name], values)


def test_thousands_of_names_in_many_blocks_are_read(prefix):
    arrays = {f"bert/layer_{i}/kernel": np.array([i], np.int32) for i in range(3000)}
    write(prefix, arrays)
    tensors = read(prefix)
    assert len(tensors) == 3000
    assert all(tensors[name] == values for name, values in arrays.items())


def test_only_what_is_chosen_is_read(prefix):
    write(prefix, ARRAYS)
    chosen = load_tf(prefix, lambda shapes: [n for n in shapes if shapes[n] == (2,)])
    assert set(chosen) == {"a/bias", "upper_half"}


def test_tensorflow_reads_what_is_written(prefix, tmp_path):
    save_tf(prefix, ARRAYS)
    reader = tf.train.load_checkpoint(prefix)
    assert reader.get_variable_to_shape_map().keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(reader.get_tensor(name), values)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.ckpt-7.data-00000-of-00001", "model.ckpt-7.index"]


def test_an_index_made_by_hand_is_read(prefix):
    write_by_hand(prefix, (b"w", entry((2,), 8, crc=ONES)))
    assert read(prefix)["w"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "tensor, reason",
    [
        (entry((2,), 8, offset=1), "'w' ends at byte 9 of a data file with 8"),
        (entry((2,), 8, offset=1 << 62), "ends at byte 4611686018427387912"),
        (entry((2,), 8), "'w' is damaged: its checksum differs"),
        (entry((3,), 8), r"'w' of shape \(3,\) must have 12 bytes, not 8"),
        (entry((1 << 40,), 8), "must have 4398046511104 bytes, not 8"),
        (entry((1 << 40,), 1 << 42), "its tensors are larger than"),
        (entry((1 << 62,) * 4, 8), "must have"),
        (entry((2,), 8, shard=3), "a tensor lies in data file 3 of 1"),
        (entry((1,) * 9, 4), "a tensor of 9 dimensions"),
        (entry((2,), (1 << 64) - 8), "a count is negative"),
        (entry((2,), 8, crc=ONES, more=b"\x3a\x00"), "'w' is stored in pieces"),
        (b"\x08\x01\x12\x7f", "its index is damaged"),
        (b"\x0b", "its index is damaged"),
        (b"\x08\x01\x10\x02", r"'w' of shape \(\) must have 4 bytes, not 0"),
        (b"\x08" + b"\xff" * 11, "its index is damaged"),
        (b"\x08\x01\x35\x01", "its index is damaged"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(prefix, tensor, reason):
    write_by_hand(prefix, (b"w", tensor))
    with pytest.raises(ValueError, match=reason):
        read(prefix)


def test_many_tensors_of_the_same_bytes_are_refused(prefix):
    same = entry((2,), 8, crc=ONES)
    write_by_hand(prefix, *((f"w{i}".encode(), same) for i in range(3)))
    with pytest.raises(ValueError, match="its tensors are larger than"):
        read(prefix)


def test_a_big_endian_checkpoint_is_refused(prefix):
    write_by_hand(prefix, header=b"\x08\x01\x10\x01")
    assert "big-endian" in refusal(prefix)


@pytest.mark.parametrize("content", [b"", b"x" * 47, b"x" * 5000, b"\0" * 100])
def test_a_file_that_is_no_index_is_refused(prefix, content):
    with open(f"{prefix}.index", "wb") as file:
        file.write(content)
    refusal(prefix)


def test_any_damage_is_refused_or_harmless(prefix):
    write(prefix, ARRAYS)
    expected = read(prefix)
    with open(f"{prefix}.index", "rb") as file:
        whole = file.read()
    rng = random.Random(1)
    num_refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        with open(f"{prefix}.index", "wb") as file:
            file.write(damaged)
        try:
            tensors = read(prefix)
        except ValueError:
            num_refused += 1
            continue
        # Only padding and the unused table of other blocks are not checked.
        assert all(np.array_equal(tensors[n], expected[n]) for n in expected)
    assert num_refused > 300


def test_a_damaged_data_file_is_refused(prefix):
    write(prefix, ARRAYS)
    path = f"{prefix}.data-00000-of-00001"
    with open(path, "r+b") as file:
        file.write(b"\xff")
    assert "its checksum differs" in refusal(prefix)


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_a_missing_file_is_named(prefix, tmp_path, ending):
    write(prefix, ARRAYS)
    (tmp_path / f"model.ckpt-7{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=f"has no file .*7{ending}"):
        read(prefix)


def test_a_checkpoint_that_cannot_be_written_leaves_nothing(prefix, tmp_path):
    (tmp_path / "model.ckpt-7.index").mkdir()
    with pytest.raises(OSError):
        save_tf(prefix, ARRAYS)
    assert not list(tmp_path.glob("*.tmp*"))


def test_the_reader_does_not_use_tensorflows_own():
    assert "tensorflow" not in vars(tf_checkpoint).values()
    assert not hasattr(tf_checkpoint, "tf")


MANY = {
    f"bert/layer_{i}/kernel{slot}": np.full([2, i % 3], i, np.float32)
    for i in range(150)
    for slot in ("", "/adam_m", "/adam_v")
}


@pytest.mark.parametrize("arrays", [ARRAYS, MANY, {"w": np.ones(1, np.int32)}])
def test_bytes_are_those_that_tensorflow_writes(prefix, tmp_path, arrays):
    write(prefix, arrays)
    (tmp_path / "ours").mkdir()
    files = write_tensors(str(tmp_path / "ours/model.ckpt-7"), arrays)
    assert len(files) == 2
    for name, sha256 in files.items():
        content = (tmp_path / "ours" / name).read_bytes()
        assert content == (tmp_path / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256


def test_thousands_of_names_are_read_by_tensorflow(prefix):
    """TensorFlow's own index of so many has several blocks, ours one large one."""
    arrays = {f"bert/layer_{i}/kernel": np.array([i], np.int32) for i in range(9000)}
    save_tf(prefix, arrays)
    reader = tf.train.load_checkpoint(prefix)
    assert len(reader.get_variable_to_shape_map()) == 9000
    for name in ("bert/layer_0/kernel", "bert/layer_8999/kernel"):
        assert reader.get_tensor(name) == arrays[name]


def test_a_variable_is_written(prefix):
    save_tf(prefix, {"w": tf.Variable([1.0, 2.0])})
    assert read(prefix)["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("name", ["[1]", "a*b", "back\\slash", "new\nline", " ", "%s"])
def test_folders_and_files_may_have_any_name(tmp_path, name):
    (tmp_path / name).mkdir()
    save_tf(str(tmp_path / name / name), ARRAYS)
    assert read(str(tmp_path / name / name)).keys() == ARRAYS.keys()
    assert len(list((tmp_path / name).iterdir())) == 2
