"""What scanners of pickles call dangerous is refused; what is read, they let pass."""

import io
import random

import pytest
from interop.torch_pickles import (
    ALSO_READ,
    COMMAND,
    GLOBALS_REFUSED,
    dictionary,
    plain,
    tensor,
    write_zip,
)

from bert_tf.interop.torch_files import load_torch

fickling = pytest.importorskip("fickling.fickle")
analysis = pytest.importorskip("fickling.analysis")
picklescan = pytest.importorskip("picklescan.scanner")

# Calls of functions in the ways that a pickle has: `%b %b` is a module and a name.
CALLS = [
    b"c%b\n%b\n" + plain((COMMAND,)) + b"R",
    b"(" + plain(COMMAND) + b"i%b\n%b\n",
    b"(c%b\n%b\n" + plain(COMMAND) + b"o",
    b"c%b\n%b\n)\x81" + plain({"call": COMMAND}) + b"b",
]


def is_dangerous(pickled):
    """What picklescan, or fickling beyond unknown imports such as torch's, warns of."""
    found = picklescan.scan_pickle_bytes(io.BytesIO(pickled), "data.pkl")
    if found.issues_count:
        return True
    try:
        safety = analysis.check_safety(fickling.Pickled.load(pickled))
    except fickling.PickleDecodeError:
        return False
    return safety.severity > analysis.Severity.LIKELY_UNSAFE


def is_read(path, pickled):
    write_zip(path, pickled)
    try:
        return bool(load_torch(path))
    except ValueError:
        return False


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", GLOBALS_REFUSED)
def test_a_call_that_a_scanner_warns_of_is_refused(tmp_path, name, call):
    pickled = b"\x80\x02" + call % tuple(name.encode().split(b" ", 1)) + b"."
    is_harmless = name.startswith(("torch", "collections", "numpy", "argparse"))
    assert is_dangerous(pickled) or is_harmless
    assert not is_read(tmp_path / "a.bin", pickled)


@pytest.mark.parametrize("case", ALSO_READ)
def test_what_is_read_passes_the_scanners(tmp_path, case):
    pickled = dictionary(w=ALSO_READ[case])
    assert is_read(tmp_path / "a.bin", pickled) and not is_dangerous(pickled)


def test_a_call_anywhere_in_a_pickle_is_refused(tmp_path):
    choice, num_dangerous = random.Random(0), 0
    for _ in range(300):
        items = [
            tensor(),
            plain(1),
            plain("a"),
            choice.choice(list(ALSO_READ.values())),
        ]
        name = choice.choice(GLOBALS_REFUSED).encode().split(b" ", 1)
        items.insert(choice.randrange(4), choice.choice(CALLS) % tuple(name))
        if choice.random() < 0.5:  # As an attribute, or dropped from the stack.
            items[0] += choice.choice([items.pop(1) + b"b", items.pop(1) + b"0"])
        pickled = dictionary(**{str(i): item for i, item in enumerate(items)})
        if is_dangerous(pickled):
            num_dangerous += 1
            assert not is_read(tmp_path / "a.bin", pickled)
    assert num_dangerous > 100
