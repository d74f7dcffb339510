import ast
import json
import os
import pickle
import random
import struct
import subprocess
import warnings
import zipfile

import ml_dtypes
import numpy as np
import pytest
from oracles import files
from oracles.legacy_torch import load_legacy

from bert_tf.interop import huggingface
from bert_tf.interop.torch_files import load_torch, save_torch

TORCH_PYTHON = files.ROOT / ".venv-bench/bin/python"
MAGIC = 0x1950A86A20F9469CFC6C
SIX = np.arange(6, dtype="<f4")  # Most storages here: 0, 1, 2, 3, 4, 5.
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


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


def refusal(path):
    """What a file is refused with: one line that names it."""
    with pytest.raises(ValueError) as raised:
        load_torch(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.fixture
def path(tmp_path):
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


def test_a_real_file_becomes_weights_of_ours():
    real = files.require(files.RXNFP / "pytorch_model.bin")
    ours = huggingface.to_original_names(load_torch(real))
    assert ours["bert/embeddings/word_embeddings"].shape == (591, 256)


def test_both_forms_hold_the_same_tensor(path, tmp_path):
    pickled = dictionary(w=tensor())
    write_zip(path, pickled)
    other = tmp_path / "legacy.pt"
    other.write_bytes(legacy(pickled))
    for file in (path, other):
        [(name, values)] = load_torch(file).items()
        assert (name, values.dtype) == ("w", np.float32)
        assert values.tolist() == [[0, 1, 2], [3, 4, 5]]


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


def test_a_compressed_file_is_read(path):
    write_zip(path, dictionary(w=tensor()), method=zipfile.ZIP_DEFLATED)
    assert load_torch(path)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_newer_pickles_are_read(path):
    # Protocol 4 in a frame: names as strings on the stack, memory without numbers.
    names = b"\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93"
    body = dictionary(w=tensor())[2:].replace(REBUILD, names)
    frame = b"\x95" + struct.pack("<Q", len(body))
    write_zip(path, b"\x80\x04" + frame + body)
    assert load_torch(path)["w"].shape == (2, 3)


# What hostile, broken and other files hold.


def calls(module, name, argument):
    return f"c{module}\n{name}\n(".encode() + plain(argument) + b"tR"


COMMAND = "touch executed"
GLOBALS_REFUSED = {
    "os.system": calls("os", "system", COMMAND),
    "posix.system": calls("posix", "system", COMMAND),
    "builtins.eval": calls("builtins", "eval", "open('executed', 'w')"),
    "builtins.exec": calls("builtins", "exec", "open('executed', 'w')"),
    "builtins.getattr": calls("builtins", "getattr", "x"),
    "subprocess.Popen": calls("subprocess", "Popen", ["touch", "executed"]),
    "numpy.core.multiarray.scalar": calls("numpy.core.multiarray", "scalar", 1),
    "torch.load": calls("torch", "load", "other.pt"),
    "torch.FloatStorage.x": b"ctorch\nFloatStorage.x\n",
    "collections.OrderedDict.fromkeys": b"ccollections\nOrderedDict.fromkeys\n",
    "posix.system ": b"cposix\nsystem \n" + plain((COMMAND,)) + b"R",
    "nt.system": plain("nt") + plain("system") + b"\x93" + plain((COMMAND,)) + b"R",
}
PICKLES_REFUSED = {
    "inst": (b"(" + plain(COMMAND) + b"iposix\nsystem\n", "instruction INST"),
    "obj": (b"(cposix\nsystem\n" + plain(COMMAND) + b"o", "'posix.system'"),
    "obj allowed": (b"(ccollections\nOrderedDict\no", "instruction OBJ"),
    "newobj": (b"ccollections\nOrderedDict\n)\x81", "instruction NEWOBJ"),
    "newobj_ex": (b"ccollections\nOrderedDict\n)}\x92", "instruction NEWOBJ_EX"),
    "ext1": (b"\x82\x01", "instruction EXT1"),
    "ext4": (b"\x84\x01\0\0\0", "instruction EXT4"),
    "persid": (b"Pposix\n", "instruction PERSID"),
    "next_buffer": (b"\x97", "instruction NEXT_BUFFER"),
    "dup": (b"}2", "instruction DUP"),
    "computed name": (plain(1) + plain([]) + b"\x93", "1 and a list as a global"),
    "build on a function": (REBUILD + b"}b", "as if it were a dict"),
    "build on a tensor": (tensor() + b"}b", "as if it were a dict"),
    "build with a tuple": (b"})b", "as the attributes"),
    "call of a dictionary": (b"})R", "calls a dict"),
    "call of a storage type": (b"ctorch\nFloatStorage\n)R", "calls a _StorageType"),
    "call without a tuple": (REBUILD + b"]R", "with a list"),
    "call without arguments": (REBUILD + b")R", "takes 6 or 7 arguments"),
    "items of a dictionary": (
        b"ccollections\nOrderedDict\n" + plain(([],)) + b"R",
        "takes 0 arguments",
    ),
    "empty stack": (b"\x86", "takes 2 objects from a stack of 0"),
    "stack below a mark": (b"}}(\x86", "takes 2 objects from a stack of 0"),
    "no mark": (b"]e", "needs a mark"),
    "mark left": (b"}(}", "more than one object"),
    "two objects": (b"}}", "more than one object"),
    "no object": (b"", "takes 1 objects"),
    "append to a tuple": (b")}a", "as if it were a list"),
    "item of a list": (b"]}}s", "as if it were a dict"),
    "key without a value": (b"}(}u", "without a value"),
    "tuple as a key": (b"})}s", "a tuple as the key"),
    "never remembered": (b"h\x05", "recalls object 5"),
    "nothing to remember": (b"q\x05", "of an empty stack"),
    "unknown protocol": (b"\x80\x09}", "protocol 9"),
    "huge integer": (b"\x8a\xff" + b"\x7f" * 255, "integer of 2039 bits"),
    "negative length": (b"\x8b\xff\xff\xff\xff", "byte count < 0"),
    "huge string": (b"\x8d" + b"\x7f" * 8, "expected .* bytes"),
    "decimal bomb": (b"I" + b"9" * 5000 + b"\n", "broken"),
    "unknown instruction": (b"\xff", "unknown"),
    "not UTF-8": (b"X\x01\0\0\0\xff", "utf-8"),
    "not a tensor": (plain(7), "must hold a dictionary of tensors, not 7"),
    "not named": (b"}" + plain(1) + tensor() + b"s", "named tensor: 1"),
    "not weights": (dictionary(epoch=plain(3))[2:-1], "named tensor: 'epoch'"),
    "without end": (b"}q\1" + plain("model") + b"h\1s", "4 dictionaries deep"),
    "names collide": (
        dictionary(**{"w": tensor(), "module.w": tensor()})[2:-1],
        "with and without",
    ),
}
TENSORS_REFUSED = {
    "offset beyond": (tensor(6, (1,), (1,)), "must lie within its storage of 6"),
    "shape beyond": (tensor(1), "must lie within"),
    "strides beyond": (tensor(0, (2, 2), (5, 1)), "must lie within"),
    "huge strides": (tensor(0, (2, 2), (1 << 62, 1)), "must lie within"),
    "huge shape": (tensor(0, (1 << 62, 4), (0, 0)), "must lie within"),
    "repeated without end": (tensor(0, (1 << 40,), (0,)), "must lie within"),
    "huge and empty": (tensor(0, (0, 1 << 62), (1, 1)), "must lie within"),
    "negative offset": (tensor(-1, (1,), (1,)), "offset must be integers >= 0"),
    "negative shape": (tensor(0, (-2, 3), (3, 1)), "shape must be integers >= 0"),
    "negative strides": (tensor(5, (6,), (-1,)), "strides must be integers >= 0"),
    "shape of truths": (tensor(0, (True,), (1,)), "integers >= 0. Received: True"),
    "shape as a list": (tensor(0, [6], (1,)), "must be a tuple"),
    "33 dimensions": (tensor(0, (1,) * 33, (1,) * 33), "tuple of at most 32"),
    "strides of another rank": (tensor(0, (6,), (1, 1)), "differ in length"),
    "no storage": (tensor(saved=plain(None)), "needs a storage. Received: None"),
    "id of another shape": (tensor(saved=plain("0") + b"Q"), "must be a tuple of 5"),
    "id of another tag": (
        tensor(saved=storage().replace(b"storage", b"stirage") + b"tQ"),
        "must be .'storage'",
    ),
    "id of another type": (tensor(kind="torch\nSize"), "Received: 'storage', a Func"),
    "id with a number": (tensor(key=0), "its key"),
    "negative count": (tensor(count=-1), "number of elements.*-1"),
    "part of a storage": (tensor(saved=storage() + plain(1) + b"tQ"), "is a part"),
    "claims of terabytes": (tensor(count=1 << 60), "must have .* Received: 24"),
    "missing storage": (tensor(key="../../etc/passwd"), "passwd' is missing"),
    "parameter of nothing": (
        b"ctorch._utils\n_rebuild_parameter\n" + plain((None, True, None)) + b"R",
        "needs a tensor",
    ),
    "negated": (tensor()[:-2] + plain({"neg": True}) + b"tR", "negated"),
}


def folder_is_untouched(path):
    return os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("form", ["zip", "legacy", "first pickle"])
@pytest.mark.parametrize("name", GLOBALS_REFUSED)
def test_a_foreign_global_is_named_and_not_called(path, monkeypatch, name, form):
    monkeypatch.chdir(path.parent)
    body = b"\x80\x04" + GLOBALS_REFUSED[name] + b"."
    if form == "zip":
        write_zip(path, body)
    else:
        path.write_bytes(legacy(body) if form == "legacy" else body)
    assert f"needs '{name}', which is refused" in refusal(path)
    assert folder_is_untouched(path)


@pytest.mark.parametrize("case", PICKLES_REFUSED)
def test_a_pickle_of_other_things_is_refused(path, monkeypatch, case):
    monkeypatch.chdir(path.parent)
    body, reason = PICKLES_REFUSED[case]
    write_zip(path, b"\x80\x02" + body + b".")
    with pytest.raises(ValueError, match=reason):
        load_torch(path)
    refusal(path)
    assert folder_is_untouched(path)


@pytest.mark.parametrize("case", TENSORS_REFUSED)
def test_a_tensor_that_lies_about_itself_is_refused(path, case):
    body, reason = TENSORS_REFUSED[case]
    write_zip(path, dictionary(w=body))
    with pytest.raises(ValueError, match=reason):
        load_torch(path)
    refusal(path)


def test_a_storage_of_two_types_is_refused(path):
    write_zip(path, dictionary(a=tensor(), b=tensor(kind="torch\nIntStorage")))
    assert "with two types or sizes" in refusal(path)


def test_many_copies_of_one_storage_are_refused(path):
    views = {f"w{i}": tensor(0, (i, 2), (0, 1)) for i in (2, 3)}
    write_zip(path, dictionary(**views))
    assert "repeat a storage" in refusal(path)


def test_a_deeply_nested_object_is_refused(path):
    write_zip(path, b"\x80\x02" + b")" + b"\x85" * 300_000 + b".")
    assert "not a tuple" in refusal(path)


def test_a_deeply_nested_key_is_refused(path):
    write_zip(path, b"\x80\x02})" + b"\x85" * 300_000 + b"}s.")
    assert "a tuple as the key" in refusal(path)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (b"\n<!DOCTYPE html>\n<html>", "a page of HTML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "git lfs pull"),
        (b"\x40\0\0\0\0\0\0\0{}", "begins with "),
        (b"PK\x03\x04 and no more", "zip archive is broken"),
        (b"\x80", "its pickle is broken"),
        (pickle.dumps({}), "its magic number must be"),
        (legacy(dictionary(w=tensor()), magic=1), "magic number .* Received: 1"),
        (legacy(dictionary(w=tensor()), little_endian=False), "little-endian"),
        (legacy(dictionary(w=tensor()), keys=[]), "Received: 0 keys"),
        (legacy(dictionary(w=tensor()), keys="00"), "Received: 2 keys"),
        (legacy(dictionary(w=tensor()), keys=[1]), "a list of strings"),
        (legacy(dictionary(w=tensor()), data=bytes(32)), "6 elements. Received: 0"),
        (legacy(dictionary(w=tensor(count=1 << 60))), "ends before storage '0'"),
    ],
)
def test_files_of_another_kind_are_refused(path, data, reason):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        load_torch(path)
    refusal(path)


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
        ({"r/data/0": b"short"}, "must have 24 bytes. Received: 5"),
        ({**DATA, "r/byteorder": b"big"}, "must be little"),
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
    pickled = dictionary(**names)
    write_zip(path, pickled, bomb, zipfile.ZIP_DEFLATED)
    assert "its entries claim 838" in refusal(path)


def test_a_pickle_of_too_many_instructions_is_refused(path, monkeypatch):
    monkeypatch.setattr("bert_tf.interop.pickle_walk._MAX_INSTRUCTIONS", 100)
    write_zip(path, b"\x80\x02" + b"}" * 99 + b".")
    assert "has over 100 instructions" in refusal(path)


def test_a_pickle_of_many_megabytes_is_refused(path):
    write_zip(path, b"\x80\x02" + bytes(17 << 20))
    assert "has over 16777216 bytes" in refusal(path)


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
    assert "header of 'r/data/0' says something else" in refusal(path)


def test_an_encrypted_entry_is_refused(path):
    write_zip(path, GOOD)
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refusal(path)


def test_a_changed_value_is_noticed_by_its_checksum(path):
    write_zip(path, GOOD)
    data = SIX.tobytes()
    path.write_bytes(path.read_bytes().replace(data, data[::-1]))
    assert "'r/data/0' has another length or checksum" in refusal(path)


def test_many_zeros_in_a_compressed_file_are_read(path):
    pickled = dictionary(w=tensor(0, (100_000,), (1,), count=100_000))
    write_zip(path, pickled, {"r/data/0": bytes(400_000)}, zipfile.ZIP_DEFLATED)
    assert load_torch(path)["w"].shape == (100_000,)


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


def test_the_package_cannot_unpickle():
    for module in (files.ROOT / "bert_tf").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                assert "pickle" not in [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.module != "pickle"


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_torch(path)


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a file"):
        load_torch(tmp_path)


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
    assert folder_is_untouched(path)


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
