import os
import pickle

import numpy as np
import pytest
from oracles import files, legacy_torch


class _Call:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def _header():
    facts = {"little_endian": True}
    values = (0x1950A86A20F9469CFC6C, 1001, facts)
    return b"".join(pickle.dumps(value, protocol=2) for value in values)


def test_code_in_the_pickle_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "weights.bin", tmp_path / "trace"
    content = pickle.dumps({"x": _Call(os.mkdir, str(trace))}, protocol=2)
    path.write_bytes(_header() + content)
    with pytest.raises(pickle.UnpicklingError, match="mkdir is refused"):
        legacy_torch.load_legacy(path)
    assert not trace.exists()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(pickle.dumps(1, protocol=2) + pickle.dumps(2, protocol=2))
    with pytest.raises(ValueError, match="not of the legacy format"):
        legacy_torch.load_legacy(path)


def test_a_view_beyond_its_storage_is_refused():
    storage = legacy_torch._Storage("0", np.dtype("<f4"), 4)
    tensor = legacy_torch._Tensor(storage, 1, (2, 2), (2, 1))
    with pytest.raises(ValueError, match="beyond its storage"):
        legacy_torch._view(np.zeros(4, "<f4"), tensor)


def test_a_transposed_view_is_read_by_its_strides():
    storage = legacy_torch._Storage("0", np.dtype("<f4"), 6)
    tensor = legacy_torch._Tensor(storage, 0, (3, 2), (1, 3))
    view = legacy_torch._view(np.arange(6, dtype="<f4"), tensor)
    np.testing.assert_array_equal(view, [[0, 3], [1, 4], [2, 5]])


def test_tied_tensors_of_a_real_file_are_the_same_numbers():
    path = files.require(files.RXNFP / "pytorch_model.bin")
    tensors = legacy_torch.load_legacy(path)
    table = tensors["bert.embeddings.word_embeddings.weight"]
    assert table.shape == (591, 256)
    np.testing.assert_array_equal(tensors["cls.predictions.decoder.weight"], table)


def test_a_real_file_with_a_tail_is_refused(tmp_path):
    path = tmp_path / "weights.bin"
    content = files.require(files.RXNFP / "pytorch_model.bin").read_bytes()
    path.write_bytes(content + b"x")
    with pytest.raises(ValueError, match="goes on after"):
        legacy_torch.load_legacy(path)
