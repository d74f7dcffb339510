"""Fixtures of the tests of whole fine-tunings."""

import pytest
from integration import finetuning_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A vocabulary and an architecture, questions of both versions, and classes."""
    path = tmp_path_factory.mktemp("finetuning")
    finetuning_data.write_model(path / "model")
    finetuning_data.write_squad(path / "train.json")
    finetuning_data.write_squad(path / "train2.json", is_version_2=True)
    finetuning_data.write_classes(path / "classes")
    return path


@pytest.fixture(scope="module")
def model(folder):
    """The flags of that vocabulary and architecture."""
    return [
        f"--bert_config_file={folder}/model/bert_config.json",
        f"--vocab_file={folder}/model/vocab.txt",
    ]
