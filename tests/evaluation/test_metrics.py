"""The files of an evaluation's results."""

import json

from bert_tf.evaluation.metrics import write_results


def test_results_are_written_as_text_and_as_json(tmp_path):
    write_results(str(tmp_path / "eval_results.txt"), {"loss": 1 / 3, "f1": 50.0})
    text = (tmp_path / "eval_results.txt").read_text()
    assert text == "f1 = 50\nloss = 0.33333333\n"
    content = (tmp_path / "eval_results.json").read_text()
    assert json.loads(content) == {"f1": 50.0, "loss": 1 / 3}


def test_json_has_null_for_what_is_not_a_finite_number(tmp_path):
    write_results(str(tmp_path / "eval_results.txt"), {"pearson": float("nan")})
    assert (tmp_path / "eval_results.txt").read_text() == "pearson = nan\n"
    content = (tmp_path / "eval_results.json").read_text()
    assert json.loads(content) == {"pearson": None}
