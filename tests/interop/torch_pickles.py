"""Pickles and files as torch writes them, and as attackers do."""

import pickle
import struct
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
SIX = np.arange(6, dtype="<f4")  # Most storages here: 0, 1, 2, 3, 4, 5.
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
PARAMETER = b"ctorch._utils\n_rebuild_parameter"
ORDERED = b"ccollections\nOrderedDict\n"


def plain(value):
    """The instructions that push a plain value."""
    return pickle.dumps(value, protocol=2)[2:-1]


def storage(key="0", kind="torch\nFloatStorage", count=6):
    name = b"c" + kind.encode() + b"\n"
    return b"(" + plain("storage") + name + plain(key) + plain("cpu") + plain(count)


def tensor(offset=0, shape=(2, 3), strides=(3, 1), saved=None, **of_storage):
    """The instructions that push a tensor."""
    saved = storage(**of_storage) + b"tQ" if saved is None else saved
    place = plain(offset) + plain(shape) + plain(strides)
    return REBUILD + b"(" + saved + place + plain(False) + b"}tR"


def dictionary(**items):
    """A pickle of names and instructions."""
    pairs = b"".join(plain(name) + value for name, value in items.items())
    return b"\x80\x02}(" + pairs + b"u."


def write_zip(path, data_pkl, entries=None, method=zipfile.ZIP_STORED):
    entries = {"r/data/0": SIX.tobytes()} if entries is None else entries
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("r/data.pkl", data_pkl)
        for name, data in entries.items():
            archive.writestr(name, data)


def legacy(data_pkl, keys=("0",), data=None, magic=MAGIC, little_endian=True):
    """The bytes of a file of the older form."""
    parts = [magic, 1001, {"little_endian": little_endian}]
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    data = struct.pack("<q", 6) + SIX.tobytes() if data is None else data
    return head + data_pkl + pickle.dumps(list(keys), protocol=2) + data


# All are tensors of two rows.
ALSO_READ = {
    "as torch does now": tensor(),
    "versions of layers": tensor()[:-2] + ORDERED + b")R" + plain({"": {}}) + b"btR",
    "parameter": PARAMETER + b"\n(" + tensor() + b"\x88" + ORDERED + b")RtR",
    "parameter with a state": (
        PARAMETER + b"_with_state\n(" + tensor() + b"\x88" + ORDERED + b")R}tR"
    ),
    "older function": tensor().replace(b"_v2", b"").replace(plain(False) + b"}t", b"t"),
    "metadata": tensor()[:-2] + b"}tR",
    "whole storage": tensor(saved=storage() + b"NtQ"),
    "strings of Python 2": tensor(
        saved=storage().replace(plain("0"), b"U\x010") + b"tQ"
    ),
    "size as an object": tensor().replace(
        plain((2, 3)), b"ctorch\nSize\n" + plain(((2, 3),)) + b"R"
    ),
}

COMMAND = "touch executed"
GLOBALS_REFUSED = (
    "os system,posix system,posix system ,nt system,subprocess Popen,builtins eval,"
    "builtins exec,builtins getattr,__builtin__ eval,torch load,torch FloatStorage.x,"
    "collections OrderedDict.fromkeys,numpy.core.multiarray scalar,argparse Namespace"
).split(",")
STORAGE_TYPE = b"ctorch\nFloatStorage\n"
# What is refused alone and as the value of a dictionary.
PICKLES_REFUSED = {
    "build a function": REBUILD + plain((None, {"__defaults__": (1, 2)})) + b"b",
    "build a function's attributes": REBUILD + plain({"call": 1}) + b"b",
    "build a tensor": tensor() + plain({"offset": 1 << 40}) + b"b",
    "build a tensor's slots": tensor() + plain((None, {"offset": 1 << 40})) + b"b",
    "build a storage": storage() + b"tQ" + plain({"num_elements": 1 << 40}) + b"b",
    "build a storage type": STORAGE_TYPE + plain({"dtype": 1}) + b"b",
    "build with a tuple": b"})b",
    "newobj": ORDERED + b")\x81",
    "computed name": plain(1) + plain([]) + b"\x93",
    "call of a dictionary": b"})R",
    "call of a storage type": STORAGE_TYPE + b")R",
    "call without a tuple": REBUILD + b"]R",
    "call without arguments": REBUILD + b")R",
    "items of a dictionary": ORDERED + plain(([],)) + b"R",
    "empty stack": b"\x86",
    "stack below a mark": b"}}(\x86",
    "no mark": b"]e",
    "no object": b"",
    "append to a tuple": b")}a",
    "append to a dictionary": ORDERED + b")R}a",
    "item of a list": b"]}}s",
    "item of a tensor": tensor() + b"K\0K\1s",
    "key without a value": b"}(}u",
    "never remembered": b"h\x05",
    "nothing to remember": b"q\x00",
    "unknown protocol": b"\x80\x09}",
    "huge integer": b"\x8a\xff" + b"\x7f" * 255,
    "negative length": b"\x8b\xff\xff\xff\xff",
    "decimal bomb": b"I" + b"9" * 5000 + b"\n",
    "megabytes in a message": b"F" + b"9x" * 100_000 + b"\n",
    "unknown instruction": b"\xff",
    "not UTF-8": b"X\x01\0\0\0\xff",
    # Tensors.
    "offset beyond": tensor(6, (1,), (1,)),
    "strides beyond": tensor(0, (2, 2), (5, 1)),
    "huge strides": tensor(0, (2, 2), (1 << 62, 1)),
    "strides that overflow": tensor(0, (5, 1), (1 << 60, 1)),
    "huge shape": tensor(0, (1 << 62, 4), (0, 0)),
    "repeated without end": tensor(0, (1 << 40,), (0,)),
    "huge and empty": tensor(0, (0, 1 << 62), (1, 1)),
    "huger and empty": tensor(0, (0, 1 << 80), (1, 1)),
    "negative offset": tensor(-1, (1,), (1,)),
    "negative strides": tensor(5, (6,), (-1,)),
    "shape of truths": tensor(0, (True,), (1,)),
    "shape as a list": tensor(0, [6], (1,)),
    "33 dimensions": tensor(0, (1,) * 33, (1,) * 33),
    "strides of another rank": tensor(0, (6,), (1, 1)),
    "id of another tag": tensor(saved=storage().replace(b"age", b"age ") + b"tQ"),
    "id of another type": tensor(kind="torch\nSize"),
    "id with a number": tensor(key=0),
    "negative count": tensor(count=-1),
    "part of a storage": tensor(saved=storage() + plain(1) + b"tQ"),
    "parameter of nothing": PARAMETER + b"\n" + plain((None, True, None)) + b"R",
    "negated": tensor()[:-2] + plain({"neg": True}) + b"tR",
}
