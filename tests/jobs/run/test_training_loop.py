"""From a script to a step: the frames that a reader of the code must know."""

import traceback

import pytest
from conftest import ROOT
from integration import finetuning_data
from runs import pretraining_flags

import run_classifier
import run_pretraining
import run_squad
from bert_tf.training.trainer import Trainer

BERT_TF = str(ROOT / "bert_tf")
MOST_FRAMES = 5


class Reached(BaseException):
    """Ends a run in its first step."""


@pytest.fixture
def frames(monkeypatch):
    """Runs a script to its first step; returns its frames and those of the package."""

    def train_step(self, batch, **_):
        raise Reached

    monkeypatch.setattr(Trainer, "train_step", train_step)

    def run(script, arguments):
        with pytest.raises(Reached) as caught:
            script.main(["run", *map(str, arguments)])
        stack = traceback.extract_tb(caught.value.__traceback__)
        ours = [f for f in stack if f.filename.startswith((script.__file__, BERT_TF))]
        return [frame.name for frame in ours] + ["train_step"]

    return run


def test_pretraining_has_few_frames_from_script_to_step(
    frames, tiny_config_file, tiny_records, tmp_path
):
    found = frames(
        run_pretraining, pretraining_flags(tiny_config_file, tiny_records, tmp_path)
    )
    assert found == ["main", "run_script", "run", "train", "train_step"]
    assert len(found) <= MOST_FRAMES


@pytest.mark.parametrize("script", [run_squad, run_classifier])
def test_fine_tuning_has_as_few(frames, script, tmp_path):
    command = finetuning_data.write_model(tmp_path / "model")
    command += [f"--output_dir={tmp_path}/run", "--do_train", "--do_eval"]
    command += ["--evaluate_each_epoch"]
    if script is run_squad:
        data = finetuning_data.write_squad(tmp_path / "train.json")
        command += [f"--train_file={data}", f"--predict_file={data}"]
        command += finetuning_data.SQUAD_FLAGS
    else:
        command += finetuning_data.write_classes(tmp_path / "classes")
        command += finetuning_data.CLASS_FLAGS
    found = frames(script, command)
    assert found == ["main", "run_script", "run", "train", "train_step"]
    assert len(found) <= MOST_FRAMES
