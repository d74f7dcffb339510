"""The scores of a run in a model card, read as the hub's library does."""

import json

import pytest

from bert_tf.config import BertConfig
from bert_tf.interop.export import find_architecture
from bert_tf.interop.model_card import model_card
from bert_tf.interop.weight_conversion import read_scores


def test_the_hub_library_reads_the_scores():
    hub = pytest.importorskip("huggingface_hub")
    scores = {"accuracy": 0.875, "f1": 0.5, "global_step": 3, "dataset": "mrpc"}
    architecture = find_architecture({"output_weights": 0})
    card = hub.ModelCard(
        model_card(architecture, BertConfig(), 'my "run"', scores=scores)
    )
    first, second = card.data.eval_results
    assert card.data.model_name == 'my "run"'
    assert (first.metric_type, first.metric_value) == ("accuracy", 0.875)
    assert (second.metric_type, second.dataset_name) == ("f1", "mrpc")
    assert first.task_type == "text-classification"


@pytest.mark.parametrize(
    "name, expected",
    [("model.ckpt-7", 0.5), ("model.ckpt-6", None), ("model.safetensors", None)],
)
def test_scores_are_those_of_the_very_step(tmp_path, name, expected):
    results = {"accuracy": 0.5, "global_step": 7}
    (tmp_path / "eval_results.json").write_text(json.dumps(results))
    assert read_scores(str(tmp_path / name)).get("accuracy") == expected


def test_a_run_without_scores_has_none(tmp_path):
    assert read_scores(str(tmp_path / "model.ckpt-7")) == {}
    assert "model-index" not in model_card(find_architecture({}), BertConfig(), "a")
