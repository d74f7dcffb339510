"""Settings made before TensorFlow loads."""

import importlib
import sys
import types

import pytest

from bert_tf import launch


def test_optional_packages_are_missing_only_meanwhile(monkeypatch):
    loaded = types.ModuleType("pandas")
    monkeypatch.setitem(sys.modules, "pandas", loaded)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with launch.without_optional_packages():
        with pytest.raises(ImportError):
            importlib.import_module("cv2")
        assert importlib.import_module("pandas") is loaded
    assert "cv2" not in sys.modules
