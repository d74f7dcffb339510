"""Folders of any name: whatever can be saved can be resumed, evaluated and read."""

import shutil

import pytest
import runs
from faults.counts import count
from integration import finetuning_data
from runs import checkpoint_bytes, pretraining_flags

NAMES = [
    "[1]",
    "back\\slash",
    "new\nline",
    "a*b?",
    "comma,colon:semi;",
    "-dash",
    "ünï çødé 模型",
    " spaces at both ends ",
    "100%s %d {x}",
    "quo'te\"s`$(x)",
    "dot.",
    "..three",
    "model.ckpt-7",
    "~",
    "$HOME",
    "{a,b}",
    "[",
    "tab\there",
    "model.ckpt-3.index",
    "#hash",
    "é" * 60,
    "best",
    "x.partial",
    "emoji 🦉",
]


@pytest.fixture(scope="module")
def reference(tiny_config_file, tiny_records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    command = pretraining_flags(tiny_config_file, tiny_records, folder, steps=2)
    runs.run("pretraining", *command)
    return folder


@pytest.mark.parametrize("part", range(count(1, 4)))
def test_a_run_in_a_folder_of_any_name(
    part, tiny_config_file, tiny_records, reference, tmp_path, figure
):
    """Output, records and initial checkpoint; stopped, resumed and evaluated."""
    names = NAMES[:4] if count(True, False) else NAMES[part::4]
    for name in names:
        data = shutil.copytree(tiny_records, tmp_path / "data" / name)
        output = tmp_path / "output" / name
        command = pretraining_flags(tiny_config_file, data, output, steps=2)
        runs.run("pretraining", *command, "--steps_this_run=1")
        initial = shutil.copytree(output, tmp_path / "initial" / name)
        runs.run("pretraining", *command)
        assert checkpoint_bytes(output, 2) == checkpoint_bytes(reference, 2), name
        again = pretraining_flags(
            *(tiny_config_file, data, tmp_path / "again" / name),
            *(f"--init_checkpoint={initial}", "--resume"),
            *("--do_eval", f"--eval_files_dir={data}", "--max_eval_steps=1"),
            steps=2,
        )
        assert runs.run("pretraining", *again)["global_step"] == 2
        assert checkpoint_bytes(tmp_path / "again" / name, 2) == checkpoint_bytes(
            reference, 2
        ), name
    figure("folders of any name: saved, resumed, read", len(names), len(names))


@pytest.mark.parametrize("name", NAMES[: count(2, 8)])
def test_a_fine_tuning_in_a_folder_of_any_name(name, tmp_path, figure):
    model = finetuning_data.write_model(tmp_path / "model" / name)
    data = finetuning_data.write_classes(tmp_path / "data" / name)
    output = tmp_path / "output" / name
    command = [
        *(*model, *data, *finetuning_data.CLASS_FLAGS, "--num_train_steps=2"),
        *("--do_train", "--do_eval", "--evaluate_each_epoch"),
        f"--output_dir={output}",
    ]
    runs.run("classifier", *command, "--steps_this_run=1")
    assert runs.run("classifier", *command)["global_step"] == 2
    assert (output / "best" / "best.json").exists()
    figure("folders of any name: fine-tuning", 1, 1)
