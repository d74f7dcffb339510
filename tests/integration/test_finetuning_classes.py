"""run_classifier as a whole: classes, numbers, pairs, two dev sets; packed or not."""

import re

import numpy as np
import pytest
import runs
from integration import finetuning_data
from integration.launching import ROOT, run_python
from runs import (
    assert_equal_to_rounding,
    checkpoint_bytes,
    read_json,
    read_results,
    read_tensors,
)

pytestmark = pytest.mark.slow
SCRIPT = ROOT / "run_classifier.py"
STEPS = 100
ALL = ("--do_train", "--do_predict", "--do_eval", "--deterministic_run")


@pytest.fixture(scope="module")
def command(folder, model):
    """Makes a command line of a task; later flags win."""

    def make(task, output_dir, *more):
        write = getattr(finetuning_data, f"write_{task}")
        return [
            *model,
            f"--output_dir={output_dir}",
            f"--num_train_steps={STEPS}",
            "--learning_rate=3e-3",
            *write(folder / task),
            *finetuning_data.CLASS_FLAGS,
            *more,
        ]

    return make


def run(arguments):
    return runs.run("classifier", *arguments)


def read_table(path):
    return np.loadtxt(path, delimiter="\t", ndmin=2)


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """Three classes, and the scores at the end."""
    path = tmp_path_factory.mktemp("trained") / "run"
    return path, run(command("classes", path, *ALL))


def test_a_small_model_learns_three_classes_by_heart(trained):
    path, scores = trained
    assert scores["accuracy"] == 1.0
    # The mean of -log p where every p is far above one half.
    assert 0 < scores["loss"] < 0.1
    assert read_results(path) == pytest.approx(scores)
    assert list(read_results(path)) == ["accuracy", "global_step", "loss"]


def test_test_results_are_the_shares_of_the_classes(trained):
    """A line for each example of the test file; the classes in alphabetical order."""
    table = read_table(trained[0] / "test_results.tsv")
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-5)
    names = sorted(finetuning_data.CLASSES)
    expected = [names.index(name) for _, name in finetuning_data.class_rows()]
    assert table.argmax(axis=1).tolist() == expected
    assert table.max(axis=1).min() > 0.9


def test_the_folder_says_what_its_classes_are(trained):
    task = read_json(trained[0] / "task.json")
    assert task["label_names"] == ["food", "travel", "weather"]
    assert task["do_lower_case"] is True


def test_prediction_alone_from_the_folder(command, trained, tmp_path):
    expected = read_table(trained[0] / "test_results.tsv")
    before = (trained[0] / "eval_results.txt").read_bytes()
    assert run(command("classes", trained[0], "--do_predict")) == {}
    ours = read_table(trained[0] / "test_results.tsv")
    np.testing.assert_array_equal(ours, expected)
    assert (trained[0] / "eval_results.txt").read_bytes() == before


@pytest.mark.parametrize("batch", ["--eval_batch_size=8", "--eval_batch_size=5"])
def test_evaluation_alone_from_a_checkpoint(folder, trained, tmp_path, batch):
    """Architecture and vocabulary lie beside it; 13 examples fill no last batch."""
    scores = run(
        [
            f"--init_checkpoint={trained[0]}",
            f"--output_dir={tmp_path}",
            f"--data_dir={folder}/classes",
            "--task_name=tsv",
            "--do_eval",
            batch,
            *finetuning_data.CLASS_FLAGS,
        ]
    )
    # Batches of other sizes may round otherwise.
    assert scores == pytest.approx(trained[1], rel=1e-5)
    assert not (tmp_path / "test_results.tsv").exists()


def test_packed_evaluation_is_that_of_single_rows(command, trained, tmp_path, capsys):
    more = ("--do_eval", "--do_predict", f"--init_checkpoint={trained[0]}")
    scores = run(command("classes", tmp_path, *more, "--pack_sequences"))
    stages = re.findall(r"(?m)^(\w+) \.\.\.$", capsys.readouterr().out)
    assert stages == ["Predicting", "Evaluating"]
    assert scores == pytest.approx(trained[1], rel=1e-4)
    np.testing.assert_allclose(
        read_table(tmp_path / "test_results.tsv"),
        read_table(trained[0] / "test_results.tsv"),
        rtol=1e-3,  # Of shares of 0.0001, as exp magnifies the rounding of logits.
    )


@pytest.mark.parametrize("task", ["classes", "sts_b"])
def test_packed_training_is_training_on_single_rows(command, task, tmp_path, capsys):
    more = ("--do_train", "--deterministic_run", "--num_train_steps=20")
    more += ("--max_seq_length=64", "--learning_rate=1e-3")
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    run(command(task, plain, *more))
    capsys.readouterr()
    run(command(task, packed, *more, "--pack_sequences"))
    [density] = re.findall(r"Packed: about (\S+) sequences", capsys.readouterr().out)
    assert float(density) > 2.0
    ours, expected = (read_tensors(path / "model.ckpt-20") for path in (packed, plain))
    assert_equal_to_rounding(ours, expected, 1e-4)


@pytest.mark.parametrize("packing", [(), ("--pack_sequences", "--max_seq_length=64")])
def test_stopped_and_resumed_is_never_stopped(command, tmp_path, packing):
    """With dropout, also that before the logits."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    more = ("--do_train", "--num_train_steps=9", *packing)
    run(command("classes", whole, *more))
    run(command("classes", stopped, *more, "--steps_this_run=4"))
    run(command("classes", stopped, *more))
    assert checkpoint_bytes(stopped, 9) == checkpoint_bytes(whole, 9)


def test_each_epoch_is_evaluated_and_the_best_is_kept(command, tmp_path, capsys):
    more = ("--do_train", "--do_eval", "--evaluate_each_epoch")
    more += ("--num_train_steps=30", "--learning_rate=0.01")
    scores = run(command("classes", tmp_path, *more))
    lines = re.findall(r"After step \d+: accuracy = (\S+)", capsys.readouterr().out)
    # 30 steps of 8 are 18 times 13 examples; the eighteenth ends with the last step.
    assert len(lines) == 18
    assert scores["accuracy"] == pytest.approx(max(map(float, lines)), rel=1e-5)


def test_numbers_are_learnt(command, tmp_path):
    """STS-B: a test result for each pair, a number near the one of training."""
    scores = run(command("sts_b", tmp_path, *ALL, "--num_train_steps=300"))
    assert scores.keys() == {"pearson", "spearman", "loss", "global_step"}
    assert scores["pearson"] > 0.99
    table = read_table(tmp_path / "test_results.tsv")
    assert table.shape == (8, 1)
    expected = np.array([score for *_, score in finetuning_data.PAIRS])
    np.testing.assert_allclose(table[:, 0], expected, atol=0.6)


def test_numbers_of_ones_own_are_predicted(command, tmp_path):
    """The loss is the mean of the squared errors of what is predicted."""
    data = tmp_path / "own"
    rows = [(first, score) for first, _, score in finetuning_data.PAIRS]
    for split in ("train", "dev", "test"):
        finetuning_data.write_table(data / f"{split}.tsv", [("text", "label"), *rows])
    more = ("--is_regression", "--task_name=tsv", f"--data_dir={data}")
    more += ("--num_train_steps=3", "--learning_rate=1e-4")
    scores = run(command("sts_b", tmp_path / "run", *ALL, *more))
    table = read_table(tmp_path / "run" / "test_results.tsv")
    expected = np.mean(np.square(table[:, 0] - [score for _, score in rows]))
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)
    assert scores["loss"] > 1.0


@pytest.fixture(scope="module")
def mnli(command, tmp_path_factory):
    path = tmp_path_factory.mktemp("mnli") / "run"
    return path, run(command("mnli", path, *ALL, "--num_train_steps=100"))


def test_mnli_is_evaluated_on_both_dev_sets(mnli):
    """The second one's labels are all wrong."""
    path, scores = mnli
    assert scores["accuracy"] == 1.0
    assert scores["mismatched_accuracy"] == 0.0
    assert scores["mismatched_loss"] > scores["loss"]
    assert read_results(path)["mismatched_accuracy"] == 0.0


def test_mnli_has_two_files_of_test_results(mnli):
    matched = read_table(mnli[0] / "test_results.tsv")
    mismatched = read_table(mnli[0] / "test_results_mismatched.tsv")
    assert matched.shape == (8, 3)
    # The same texts as the first four of the other.
    np.testing.assert_allclose(mismatched, matched[:4], rtol=1e-4)


@pytest.mark.parametrize("data_flag", ["data_dir", "dataset_path"])
def test_the_published_command_runs(folder, tmp_path, data_flag):
    finetuning_data.write_mrpc(folder / "MRPC")
    result = run_python(
        SCRIPT,
        "--task_name=MRPC",
        "--do_train=true",
        "--do_eval=true",
        f"--{data_flag}={folder}/MRPC",
        f"--vocab_file={folder}/model/vocab.txt",
        f"--bert_config_file={folder}/model/bert_config.json",
        "--max_seq_length=128",
        "--train_batch_size=32",
        "--learning_rate=2e-5",
        "--num_train_epochs=3.0",
        f"--output_dir={tmp_path}",
        "--use_horovod=false",
        "--enable_scoped_allocator=False",
        "--horovod_hierarchical_allreduce=0",
    )
    assert result.returncode == 0, result.stderr
    names = ["accuracy", "f1", "global_step", "loss"]
    assert list(read_results(tmp_path)) == names
