"""The two functions that the package itself offers."""

import subprocess
import sys

import pytest

import bert_tf
from bert_tf.interop import pretrained


def test_models_from_files_and_to_files_are_offered_by_the_package():
    assert bert_tf.from_pretrained is pretrained.from_pretrained
    assert bert_tf.save_pretrained is pretrained.save_pretrained


def test_the_package_alone_does_not_load_tensorflow():
    code = "import bert_tf, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bert_tf.nothing
