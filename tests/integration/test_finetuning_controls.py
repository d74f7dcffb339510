"""Early stopping, frozen layers, rates by layer and class weights, in whole runs."""

import numpy as np
import pytest
import runs
from integration import finetuning_data
from runs import checkpoint_bytes, logged_values, read_json, read_tensors

from bert_tf.errors import RunError

pytestmark = pytest.mark.slow
CONTROLS = (
    *("--frozen_layers=1", "--layerwise_lr_decay=0.8"),
    "--class_weights=weather:2,food:0.5",
)
# A rate so high that the accuracy falls again; 13 examples, so 2 steps are an epoch.
EARLY = (
    *("--do_train", "--do_eval", "--evaluate_each_epoch", "--learning_rate=0.02"),
    *("--num_warmup_steps=0", "--num_train_steps=60", "--early_stopping_patience=2"),
)


@pytest.fixture(scope="module")
def command(folder, model):
    """Makes a command line of three classes; later flags win."""

    def make(output_dir, *more):
        return [
            *model,
            f"--output_dir={output_dir}",
            "--learning_rate=1e-3",
            *finetuning_data.write_classes(folder / "classes"),
            *finetuning_data.CLASS_FLAGS,
            *more,
        ]

    return make


def run(arguments):
    return runs.run("classifier", *arguments)


@pytest.fixture(scope="module")
def controlled(command, tmp_path_factory):
    """A run of 6 steps with all controls, that saves every second step."""
    path = tmp_path_factory.mktemp("controlled") / "whole"
    more = ("--num_train_steps=6", "--save_checkpoints_steps=2")
    run(command(path, "--do_train", *more, "--keep_checkpoint_max=9", *CONTROLS))
    return path


def test_frozen_weights_keep_every_bit_and_the_others_change(controlled):
    before, after = (read_tensors(controlled / f"model.ckpt-{n}") for n in (2, 6))
    frozen = ("bert/embeddings/", "bert/encoder/layer_0/")
    weights = [n for n in before if not n.endswith(("/adam_m", "/adam_v"))]
    kept = {n for n in weights if before[n].tobytes() == after[n].tobytes()}
    assert kept == {name for name in weights if name.startswith(frozen)}
    moments = [n for n in after if n.startswith(frozen) and n not in weights]
    assert moments and not any(after[name].any() for name in moments)


def test_controls_are_logged(controlled, command, capsys):
    run(command(controlled, "--do_train", "--num_train_steps=6", *CONTROLS))
    text = capsys.readouterr().out
    assert "Frozen: the embeddings and 1 of 2 layers, " in text
    assert (
        "Learning rate by layer: 0.001 for the head, 0.8 times as much in each layer "
        "below, 0.0008 in the lowest one." in text
    )
    assert "Weights of the loss: food 0.5, travel 1, weather 2." in text


def test_a_controlled_run_that_is_resumed_was_never_stopped(
    controlled, command, tmp_path
):
    more = ("--do_train", "--num_train_steps=6", *CONTROLS)
    for steps in (1, 5):
        run(command(tmp_path, *more, f"--steps_this_run={steps}"))
    assert checkpoint_bytes(tmp_path, 6) == checkpoint_bytes(controlled, 6)


@pytest.mark.parametrize("weights", ["", "balanced", "weather:3,food:0.5"])
def test_other_class_weights_are_refused_in_a_resumed_run(
    controlled, command, tmp_path, weights
):
    more = ("--do_train", "--num_train_steps=8", *CONTROLS)
    with pytest.raises(RunError, match="training data: class_weights .*food:0.5"):
        run(command(controlled, *more, f"--class_weights={weights}"))


@pytest.fixture(scope="module")
def stopped(command, tmp_path_factory):
    """A run that stops early, and its results."""
    path = tmp_path_factory.mktemp("stopped") / "run"
    return path, run(command(path, *EARLY))


def expected_end(accuracies, patience):
    """Step of the best accuracy, and the step at which patience is over."""
    best, worse = None, 0
    for step, value in accuracies:
        if best is None or value > best[1]:
            best, worse = (step, value), 0
        else:
            worse += 1
        if worse == patience:
            return best[0], step
    return best[0], None


def test_training_ends_when_patience_is_over_and_uses_the_best(stopped):
    path, results = stopped
    found = logged_values(path, "accuracy")
    best, last = expected_end(found, 2)
    assert last == found[-1][0] < 60
    assert results["global_step"] == best
    assert read_json(path / "best/best.json")["step"] == best
    assert (path / f"model.ckpt-{last}.json").exists()
    assert logged_values(path, "total_loss")[-1][0] == last


def test_the_same_command_takes_no_further_step(stopped, command, capsys):
    path, results = stopped
    steps = len(logged_values(path, "total_loss"))
    assert run(command(path, *EARLY)) == results
    assert "stopped early" in capsys.readouterr().out
    assert len(logged_values(path, "total_loss")) == steps


def test_a_resumed_run_stops_at_the_same_step(stopped, command, tmp_path):
    path, results = stopped
    last = logged_values(path, "accuracy")[-1][0]
    for steps in (1, 2):
        run(command(tmp_path, *EARLY, f"--steps_this_run={steps}"))
    assert run(command(tmp_path, *EARLY)) == results
    assert checkpoint_bytes(tmp_path, last) == checkpoint_bytes(path, last)


def test_a_run_that_was_killed_before_its_last_checkpoint_stops_there_again(
    stopped, command, tmp_path
):
    """The note of the best one knows of later evaluations than the checkpoint."""
    path, results = stopped
    last = logged_values(path, "accuracy")[-1][0]
    run(command(tmp_path, *EARLY, "--steps_this_run=1"))
    best = tmp_path / "best"
    assert not best.exists()
    (path / "best").rename(best)
    try:
        assert run(command(tmp_path, *EARLY)) == results
    finally:
        best.rename(path / "best")
    assert checkpoint_bytes(tmp_path, last) == checkpoint_bytes(path, last)


def test_more_patience_trains_on(stopped, command, tmp_path):
    path, _ = stopped
    last = logged_values(path, "accuracy")[-1][0]
    run(command(path, *EARLY[:-1], f"--num_train_steps={last + 2}"))
    assert logged_values(path, "total_loss")[-1][0] == last + 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--frozen_layers=3",), "`frozen_layers` must be at most 2"),
        (("--class_weights=wheather:2",), "must name classes of the task"),
        (("--class_weights=food:1", "--is_regression"), "with `is_regression`"),
    ],
)
def test_controls_that_the_model_or_the_task_lacks_are_refused(
    command, tmp_path, more, message
):
    with pytest.raises((RunError, ValueError), match=message):
        run(command(tmp_path, "--do_train", "--num_train_steps=2", *more))


def test_weights_that_are_all_equal_change_nothing_but_rounding(command, tmp_path):
    losses = []
    for weights in ("", "food:1", "food:3,travel:3,weather:3"):
        more = ("--do_train", "--num_train_steps=4", f"--class_weights={weights}")
        path = tmp_path / str(len(losses))
        run(command(path, *more, "--display_loss_steps=1"))
        losses.append([loss for _, loss in logged_values(path, "total_loss")])
    assert losses[0] == losses[1]
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-5)
