import json
import os
import pickle
import random
import re
import struct
import subprocess
import tracemalloc
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from interop.torch_pickles import (
    ALSO_READ,
    COMMAND,
    GLOBALS_REFUSED,
    ORDERED,
    PICKLES_REFUSED,
    REBUILD,
    SIX,
    dictionary,
    legacy,
    plain,
    tensor,
    write_zip,
)
from oracles import files
from oracles.legacy_torch import load_legacy

from bert_tf.interop.torch_files import load_torch, save_torch

TORCH_PYTHON = files.ROOT / ".venv-bench/bin/python"


def refusal(path):
    """What a file is refused with: one short line that names it and says what to do."""
    folder = os.listdir(path.parent)
    with pytest.raises(ValueError) as raised:
        load_torch(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert len(message) < len(str(path)) + 700 and "Fetch the file again" in message
    assert os.listdir(path.parent) == folder  # Nothing was executed.
    return message


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Where the commands in these files leave a trace.
    return tmp_path / "pytorch_model.bin"


# What honest files hold.


def test_a_real_file_of_the_older_form_is_read_as_by_the_oracle():
    real = files.require(files.RXNFP / "pytorch_model.bin")
    expected = load_legacy(real)
    tensors = load_torch(real)
    assert list(tensors) == list(expected)
    for name, values in expected.items():
        assert tensors[name].dtype == values.dtype
        np.testing.assert_array_equal(tensors[name], values)


@pytest.mark.parametrize(
    "kind, data, expected",
    [
        ("Float", "0000803f000000c0", [1.0, -2.0]),
        ("Double", "000000000000f03f00000000000000c0", [1.0, -2.0]),
        ("Half", "003c00c0", [1.0, -2.0]),
        ("BFloat16", "803f00c0", [1.0, -2.0]),
        ("Long", "0100000000000000feffffffffffffff", [1, -2]),
        ("Int", "01000000feffffff", [1, -2]),
        ("Short", "0100feff", [1, -2]),
        ("Char", "01fe", [1, -2]),
        ("Byte", "01fe", [1, 254]),
        ("Bool", "0002", [False, True]),
    ],
)
def test_values_of_each_type_are_read(path, kind, data, expected):
    value = tensor(0, (2,), (1,), kind=f"torch\n{kind}Storage", count=2)
    write_zip(path, dictionary(w=value), {"r/data/0": bytes.fromhex(data)})
    values = load_torch(path)["w"]
    assert values.tolist() == expected
    assert values.itemsize * 2 == len(data) // 2


@pytest.mark.parametrize(
    "offset, shape, strides, expected",
    [
        (0, (3, 2), (1, 3), [[0, 3], [1, 4], [2, 5]]),
        (1, (2, 2), (1, 2), [[1, 3], [2, 4]]),
        (4, (), (), 4),
        (5, (1, 1), (1 << 62, 7), [[5]]),
        (3, (3,), (1,), [3, 4, 5]),
        (0, (2, 3), (0, 1), [[0, 1, 2], [0, 1, 2]]),
        (0, (2, 0), (1, 1), [[], []]),
    ],
)
def test_offsets_and_strides_are_honoured(path, offset, shape, strides, expected):
    write_zip(path, dictionary(w=tensor(offset, shape, strides)))
    values = load_torch(path)["w"]
    assert values.tolist() == expected
    assert values.flags.c_contiguous and values.flags.writeable


def test_tensors_of_one_storage_are_read_once(path):
    write_zip(path, dictionary(a=tensor(), b=tensor(), c=tensor(2, (2,), (1,))))
    tensors = load_torch(path)
    assert np.shares_memory(tensors["a"], tensors["b"])
    assert tensors["c"].tolist() == [2, 3]


@pytest.mark.parametrize("key", ["model", "state_dict", "module"])
def test_the_weights_of_a_training_checkpoint_are_found(path, key):
    weights = dictionary(w=tensor())[2:-1]
    # The optimizer's storage is not even there: only weights are read.
    optimizer = dictionary(m=tensor(key="9"))[2:-1]
    items = {"epoch": plain(3), "optimizer": optimizer, key: weights}
    write_zip(path, dictionary(**items))
    assert list(load_torch(path)) == ["w"]


def test_the_name_of_a_wrapper_is_dropped(path):
    weights = dictionary(**{"module.bert.w": tensor()})[2:-1]
    write_zip(path, dictionary(state_dict=dictionary(module=weights)[2:-1]))
    assert list(load_torch(path)) == ["bert.w"]


def test_a_dictionary_of_tensors_is_not_searched_for_weights(path):
    write_zip(path, dictionary(model=tensor(), bias=tensor()))
    assert list(load_torch(path)) == ["model", "bias"]


def test_newer_pickles_are_read(path):
    # Protocol 4 in a frame: names as strings on the stack, memo without indices.
    names = b"\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93"
    body = dictionary(w=tensor())[2:].replace(REBUILD, names)
    frame = b"\x95" + struct.pack("<Q", len(body))
    write_zip(path, b"\x80\x04" + frame + body)
    assert load_torch(path)["w"].shape == (2, 3)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", ALSO_READ)
def test_a_tensor_is_read_however_it_was_saved(path, name, form):
    pickled = dictionary(w=ALSO_READ[name])
    write_zip(path, pickled)
    if form == "legacy":
        path.write_bytes(legacy(pickled))
    [(name, values)] = load_torch(path).items()
    assert (name, values.dtype) == ("w", np.float32)
    assert values.tolist() == [[0, 1, 2], [3, 4, 5]]


# What hostile, broken and other files hold.


REASONS = [
    (b"(" + plain(COMMAND) + b"iposix\nsystem\n", "instruction INST"),
    (b"(cposix\nsystem\n" + plain(COMMAND) + b"o", "instruction OBJ"),
    (ORDERED + b")}\x92", "instruction NEWOBJ_EX"),
    (b"\x82\x01", "instruction EXT1"),
    (b"\x84\x01\0\0\0", "instruction EXT4"),
    (b"Pposix\n", "instruction PERSID"),
    (b"\x97", "byte 2: instruction NEXT_BUFFER, which no tensor needs"),
    (b"}2", "instruction DUP"),
    (b"}(}", "does not match the marks"),
    (b"}}", "2 objects instead of one"),
    (b"})}s", "it has () as the key of a dictionary"),
    (plain(7), "must hold a dictionary of tensors, not 7"),
    (b"}" + plain(1) + tensor() + b"s", "named tensor: 1"),
    (dictionary(epoch=plain(3))[2:-1], "named tensor: 'epoch'"),
    (b"}q\1" + plain("model") + b"h\1s", "4 dictionaries deep"),
    (dictionary(**{"w": tensor(), "module.w": tensor()})[2:-1], "with and without"),
    (
        dictionary(w=tensor(1))[2:-1],
        "must lie within its storage '0' of 6 float32. Received: offset 1, shape (2,",
    ),
    (dictionary(w=tensor(0, (-2, 3)))[2:-1], ">= 0. Received: a Storage, 0, (-2, 3), "),
    (tensor(saved=plain(None)), "needs a storage, an offset, and as many sizes as"),
    (tensor(saved=plain("0") + b"Q"), "'0' does not name a whole storage"),
    (dictionary(w=tensor(count=1 << 60))[2:-1], "24 bytes instead of 46116860184"),
    (dictionary(w=tensor(key="../../etc"))[2:-1], "'r/data/../../etc' is missing"),
    (
        dictionary(a=tensor(), b=tensor(kind="torch\nIntStorage"))[2:-1],
        "storage '0' of 6 int32 has another type or size elsewhere",
    ),
]


@pytest.mark.parametrize("form", ["zip", "legacy", "first pickle"])
@pytest.mark.parametrize("name", GLOBALS_REFUSED)
def test_a_foreign_global_is_named_and_not_called(path, name, form):
    module, attribute = name.encode().split(b" ", 1)
    found = b"c%s\n%s\n" % (module, attribute)
    named = b"".join(b"\x8c%c%s" % (len(x), x) for x in (module, attribute)) + b"\x93"
    call = plain((COMMAND,)) + b"R."
    for body in (found + call, named + call, found + b")\x81}b."):
        body = b"\x80\x04" + body
        if form == "zip":
            write_zip(path, body)
        else:
            path.write_bytes(legacy(body) if form == "legacy" else body)
        assert f"needs '{module.decode()}.{attribute.decode()}', wh" in refusal(path)


@pytest.mark.parametrize("case", PICKLES_REFUSED)
def test_a_pickle_of_anything_else_is_refused(path, case):
    body = PICKLES_REFUSED[case]
    write_zip(path, b"\x80\x02" + body + b".")
    refusal(path)
    write_zip(path, dictionary(w=body))
    refusal(path)


@pytest.mark.parametrize("body, reason", REASONS)
def test_a_refusal_gives_the_reason(path, body, reason):
    write_zip(path, b"\x80\x02" + body + b".")
    assert reason in refusal(path)


def test_many_copies_of_one_storage_are_refused(path):
    views = {f"w{i}": tensor(0, (i, 2), (0, 1)) for i in (2, 3)}
    write_zip(path, dictionary(**views))
    assert "repeat a storage" in refusal(path)


# Each would take more memory or time than any machine has, or the whole C stack.
DOUBLED = b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
BOMBS = {
    "memo index": (b"}r\xff\xff\xff\x7f", "memo index 2147483647"),
    "memo index as text": (b"}p2147483647\n", "instruction PUT"),
    "length of a string": (b"\x8d" + b"\x7f" * 8, "expected 9187"),
    "length of bytes": (b"\x8e\0\0\0\0\1\0\0\0", "expected 4294967296 bytes"),
    "length of a bytearray": (b"\x96\0\0\0\0\1\0\0\0", "expected 4294967296 bytes"),
    "deep tuple": (b")" + b"\x85" * 30_000, "not a tuple"),
    "deep list": (b"]" * 30_000 + b"a" * 29_999, "not a list"),
    "deep dictionary": (
        b"}" + plain("w") + b"}K\0" * 30_000 + b"}" + b"s" * 30_001,
        "named tensor: 'w'",
    ),
    "deep key": (b"})" + b"\x85" * 100_000 + b"}s", "a tuple as the key"),
    "key of 2^60 items": (b"})" + DOUBLED + b"}s", "a tuple as the key"),
    "keys of one hash": (
        b"}" + b"".join(plain(i * ((1 << 61) - 1)) + b"Ns" for i in range(1, 1000)),
        "as the key",
    ),
    "string as a tuple": (
        plain(("a" * 100_000,)) + b"q\2ctorch\nSize\nq\3" + b"h\3h\2R" * 10_000,
        "10002 objects",
    ),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_pickle_that_wants_memory_or_time_is_refused(path, case):
    body, reason = BOMBS[case]
    noise = random.Random(0).randbytes(1 << 14)  # Else the entries are a bomb already.
    write_zip(path, b"\x80\x02" + body + b".", {"r/noise": noise})
    tracemalloc.start()
    try:
        assert re.search(reason, refusal(path))
        assert tracemalloc.get_traced_memory()[1] < (8 << 20) + 64 * len(body)
    finally:
        tracemalloc.stop()


def test_a_pickle_of_too_many_instructions_is_refused(path, monkeypatch):
    monkeypatch.setattr("bert_tf.interop.torch_pickle._MAX_INSTRUCTIONS", 100)
    write_zip(path, b"\x80\x02" + b"}" * 99 + b".")
    assert "over 100 instructions" in refusal(path)


def test_a_pickle_of_many_megabytes_is_refused(path):
    write_zip(path, b"\x80\x02" + bytes(17 << 20))
    assert "has over 16777216 bytes" in refusal(path)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html>\n<html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
        (b"\x40\0\0\0\0\0\0\0{}", "begins with "),
        (b"PK\x03\x04 and no more", "zip archive is broken"),
        (b"\x80", "its pickle is refused, byte 0"),
        (pickle.dumps({}), "its magic number must be"),
        (legacy(dictionary(w=tensor()), magic=1), "magic number .* Received: 1"),
        (legacy(dictionary(w=tensor()), little_endian=False), "little-endian"),
        (legacy(dictionary(w=tensor()), keys=[]), "list its 1 storages"),
        (legacy(dictionary(w=tensor()), keys="00"), "list its 1 storages"),
        (legacy(dictionary(w=tensor()), keys=[1]), "list its 1 storages"),
        (
            legacy(dictionary(w=tensor()), data=bytes(32)),
            "'0' of 6 .* has .0. elements",
        ),
        (legacy(dictionary(w=tensor()), data=b""), "'0' of 6 .* has .. elements"),
        (
            legacy(dictionary(w=tensor(count=1 << 60)), data=bytes(7) + b"\x10"),
            "it ends before byte 46116",
        ),
    ],
)
def test_files_of_another_kind_are_refused(path, data, reason):
    path.write_bytes(data)
    assert re.search(reason, refusal(path))


GOOD = dictionary(w=tensor())
DATA = {"r/data/0": SIX.tobytes()}


@pytest.mark.parametrize(
    "entries, reason",
    [
        ({**DATA, "../evil": b""}, "'../evil' is not that of a file in it"),
        ({**DATA, "/etc/passwd": b""}, "'/etc/passwd' is not"),
        ({**DATA, "r/..\\evil": b""}, "evil' is not"),
        ({**DATA, "s/data.pkl": GOOD}, "one <root>/data.pkl. Received: 2"),
        ({}, "'r/data/0' is missing"),
        ({"r/data/0": b"short"}, "5 bytes instead of 24"),
        ({**DATA, "r/byteorder": b"big"}, "'r/byteorder' is broken"),
        ({**DATA, "r/byteorder": b"biggie"}, "byte order must be little"),
    ],
)
def test_a_zip_file_with_other_entries_is_refused(path, entries, reason):
    write_zip(path, GOOD, entries)
    assert reason in refusal(path)


def test_a_zip_file_without_a_pickle_is_refused(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "")
    assert "Received: 0 in 1 entries" in refusal(path)


def test_two_entries_of_one_name_are_refused(path):
    with warnings.catch_warnings(action="ignore"):
        write_zip(path, GOOD, {**DATA, "r/data.pkl": dictionary()})
    assert "'r/data.pkl' is there twice" in refusal(path)


def test_a_bomb_of_zeros_is_refused(path):
    bomb = {f"r/data/{key}": bytes(1 << 20) for key in range(8)}
    bomb_tensor = {"shape": (1 << 18,), "strides": (1,), "count": 1 << 18}
    names = {f"w{key}": tensor(key=str(key), **bomb_tensor) for key in range(8)}
    write_zip(path, dictionary(**names), bomb, zipfile.ZIP_DEFLATED)
    assert "its entries claim 838" in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_torch_does_not_use_are_refused(path, method):
    write_zip(path, GOOD, method=method)
    assert "'r/data.pkl' has an unknown compression" in refusal(path)


def test_overlapping_entries_are_refused(path):
    # The entry `inner` holds a whole second entry, and the list points to that.
    write_zip(path, GOOD)
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("r/data/0").header_offset
        header = path.read_bytes()[begin : archive.start_dir]
    write_zip(path, GOOD, {"r/inner": header, **DATA})
    data = bytearray(path.read_bytes())
    listed = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, listed + 42, data.index(header))
    path.write_bytes(data)
    assert "overlaps another" in refusal(path)


def test_an_entry_with_two_names_is_refused(path):
    write_zip(path, GOOD)
    path.write_bytes(path.read_bytes().replace(b"r/data/0", b"r/data/1", 1))
    assert "'r/data/0' is broken (File name in directory" in refusal(path)


def test_an_encrypted_entry_is_refused(path):
    write_zip(path, GOOD)
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_changed_value_is_noticed_by_its_checksum(path, method):
    write_zip(path, GOOD, method=method)
    listed = bytearray(path.read_bytes())
    listed[listed.rindex(b"PK\x01\x02") + 16] ^= 1  # Of the checksum in the list.
    path.write_bytes(listed)
    assert "'r/data/0' is broken" in refusal(path)


def test_a_compressed_file_of_zeros_is_read(path):
    pickled = dictionary(w=tensor(0, (100_000,), (1,), count=100_000))
    write_zip(path, pickled, {"r/data/0": bytes(400_000)}, zipfile.ZIP_DEFLATED)
    assert load_torch(path)["w"].tolist() == [0] * 100_000


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_cut_anywhere_is_refused(path, form):
    write_zip(path, GOOD)
    whole = path.read_bytes() if form == "zip" else legacy(GOOD)
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        refusal(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("form", ["zip", "pickle in a zip", "legacy"])
def test_a_file_changed_anywhere_is_read_or_refused(path, form):
    write_zip(path, GOOD)
    wholes = {"zip": path.read_bytes(), "legacy": legacy(GOOD)}
    whole = wholes.get(form, GOOD)
    choice = random.Random(0)
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(choice.randint(1, 4)):
            changed[choice.randrange(len(changed))] = choice.randrange(256)
        if form in wholes:
            path.write_bytes(changed)
        else:
            write_zip(path, bytes(changed))
        try:
            load_torch(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)


def test_a_missing_file_or_a_folder_is_named(path, tmp_path):
    for missing in (path, tmp_path):
        with pytest.raises(FileNotFoundError, match=f"be a file.*{missing}"):
            load_torch(missing)


# What is written.

WRITTEN = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "float64": np.array([1e300]),
    "float16": np.array([0.5, -2], np.float16),
    "bfloat16": np.array([[1.5]], ml_dtypes.bfloat16),
    "int64": np.array([-1, 1 << 40]),
    "int32": np.array(7, np.int32),
    "uint8": np.array([255], np.uint8),
    "bool": np.array([True, False]),
    "empty": np.empty((0, 1 << 33), np.int8),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "big-endian": np.array([1, 2], ">i2"),
    "ünï.weight": np.zeros(2, np.float32),
}


def test_what_is_written_is_read_back(path):
    save_torch(path, WRITTEN)
    tensors = load_torch(path)
    assert list(tensors) == list(WRITTEN)
    for name, values in WRITTEN.items():
        assert tensors[name].dtype == values.dtype.newbyteorder("=")
        assert tensors[name].shape == values.shape
        np.testing.assert_array_equal(tensors[name], values)


def test_no_tensors_are_written_and_read(path):
    save_torch(path, {})
    assert load_torch(path) == {}


def test_the_same_tensors_make_the_same_bytes(tmp_path):
    for name in ("a.bin", "b.pt"):
        save_torch(tmp_path / name, WRITTEN)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.pt").read_bytes()


def test_values_stand_where_memory_is_aligned(path):
    markers = {f"w{i}": np.full(5, 1000.5 + i, np.float32) for i in range(3)}
    save_torch(path, markers)
    data = path.read_bytes()
    assert [data.index(v.tobytes()) % 64 for v in markers.values()] == [0, 0, 0]


@pytest.mark.parametrize(
    "tensors",
    [{"w": np.zeros(1, np.complex64)}, {"w": [1.0]}, {1: SIX}, {"w": np.array("x")}],
)
def test_what_torch_files_cannot_hold_is_refused(path, tensors):
    with pytest.raises(ValueError, match=f"{path}: tensors must be arrays of float32"):
        save_torch(path, tensors)
    assert os.listdir(path.parent) == []


def test_a_failed_write_leaves_the_older_file(path, monkeypatch):
    def fail(_):
        raise OSError("disk full")

    save_torch(path, {"w": SIX})
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_torch(path, {"w": SIX + 1})
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# Against torch itself, in an environment of its own.

PROGRAM = """
import json, sys
import torch
folder = sys.argv[1]
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.AdamW(model.parameters())
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
base = torch.arange(24).reshape(2, 3, 4)
tensors = {
    f"{name}.{view}": change(base.to(getattr(torch, name)))
    for name in (
        "float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8",
        "uint8", "bool",
    )
    for view, change in {
        "whole": lambda t: t,
        "transposed": lambda t: t.transpose(0, 2),
        "slice": lambda t: t[1, 1:, ::2],
        "scalar": lambda t: t[1, 2, 3],
        "empty": lambda t: t[:0],
    }.items()
}
tensors["parameter"] = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
tensors["tied"] = tensors["parameter"]
parameter = torch.nn.Parameter(torch.tensor([3.0]))
parameter.note = "an attribute"
tensors["annotated"] = parameter
checkpoint = {
    "model": {f"module.{k}": v for k, v in model.state_dict().items()},
    "optimizer": optimizer.state_dict(),
    "master params": list(model.parameters()),
    "epoch": 3,
    "files": ["a", "b"],
    "size": torch.Size([1, 2]),
}
for name, value in {
    "tensors": tensors, "checkpoint": checkpoint, "state": model.state_dict()
}.items():
    torch.save(value, f"{folder}/{name}.zip.pt")
    torch.save(value, f"{folder}/{name}.protocol4.pt", pickle_protocol=4)
    old = {"_use_new_zipfile_serialization": False}
    torch.save(value, f"{folder}/{name}.legacy.pt", **old)
describe = lambda values: {
    name: [str(v.dtype).split(".")[1], list(v.shape), v.double().flatten().tolist()]
    for name, v in values.items()
}
answers = {
    "tensors": describe(tensors),
    "state": describe(model.state_dict()),
    "checkpoint": describe(model.state_dict()),
    "ours": describe(torch.load(f"{folder}/ours.pt", weights_only=True)),
    "mapped": describe(torch.load(f"{folder}/ours.pt", weights_only=True, mmap=True)),
}
json.dump(answers, open(f"{folder}/answers.json", "w"))
"""


def describe(tensors):
    return {
        name: [values.dtype.name, list(values.shape), values.astype(float).ravel()]
        for name, values in tensors.items()
    }


def assert_same(tensors, expected):
    described = describe(tensors)
    assert list(described) == list(expected)
    for name, (dtype, shape, values) in expected.items():
        assert described[name][:2] == [dtype, shape]
        np.testing.assert_array_equal(described[name][2], values)


@pytest.fixture(scope="module")
def torch_folder(tmp_path_factory):
    """Files that torch wrote, and what it says of them and of one of ours."""
    if not TORCH_PYTHON.is_file():
        pytest.skip("torch is not there: `make bench` installs it into .venv-bench")
    folder = tmp_path_factory.mktemp("torch")
    save_torch(folder / "ours.pt", WRITTEN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [TORCH_PYTHON, "-c", PROGRAM, folder],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "answers.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "protocol4", "legacy"])
@pytest.mark.parametrize("name", ["tensors", "state", "checkpoint"])
def test_files_of_torch_hold_what_torch_says(torch_folder, name, form):
    folder, answers = torch_folder
    assert_same(load_torch(folder / f"{name}.{form}.pt"), answers[name])


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ours", "mapped"])
def test_torch_reads_what_is_written(torch_folder, way):
    _, answers = torch_folder
    assert_same(WRITTEN, answers[way])
