"""run_squad as a whole: it learns, predicts, scores, stops, resumes and packs."""

import math
import re
import shutil

import pytest
import runs
from integration import finetuning_data
from integration.launching import ROOT, run_python
from runs import (
    assert_equal_to_rounding,
    checkpoint_bytes,
    logged_values,
    read_json,
    read_results,
    read_tensors,
)

import run_squad
from bert_tf.cli import main
from bert_tf.errors import RunError
from bert_tf.jobs.run.saving import CheckpointSaver
from bert_tf.predictors import QuestionAnswerer

pytestmark = pytest.mark.slow
SCRIPT = ROOT / "run_squad.py"
STEPS = 250
# Long enough to pack two or three questions with their contexts.
LONG = "--max_seq_length=128"


@pytest.fixture(scope="module")
def command(folder, model):
    """Makes a command line; later flags win."""

    def make(output_dir, *more, data="train.json"):
        return [
            *model,
            f"--train_file={folder}/{data}",
            f"--predict_file={folder}/{data}",
            f"--output_dir={output_dir}",
            # At 3e-3 the last bits of a gradient decide whether every answer is learnt.
            "--learning_rate=2e-3",
            *finetuning_data.SQUAD_FLAGS,
            *more,
        ]

    return make


def run(arguments):
    return runs.run("squad", *arguments)


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory):
    """The folder of a training without dropout, and the scores that it ended with."""
    path = tmp_path_factory.mktemp("trained") / "run"
    more = ("--do_train", "--do_predict", "--do_eval", "--deterministic_run")
    return path, run(command(path, *more, f"--num_train_steps={STEPS}"))


def test_a_small_model_learns_its_questions_by_heart(trained):
    _, scores = trained
    assert scores["exact_match"] == scores["f1"] == 100.0
    assert scores["total"] == len(finetuning_data.answers())
    assert scores["global_step"] == STEPS


def test_the_answers_are_those_that_it_learnt(trained):
    path, _ = trained
    assert read_json(path / "predictions.json") == finetuning_data.answers()


def test_the_best_answers_begin_with_the_one_that_is_given(trained):
    path, _ = trained
    answers = read_json(path / "predictions.json")
    for question_id, entries in read_json(path / "nbest_predictions.json").items():
        shares = [entry["probability"] for entry in entries]
        assert entries[0]["text"] == answers[question_id]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0)


def test_results_are_written_in_alphabetical_order(trained):
    path, scores = trained
    written = read_results(path)
    assert list(written) == sorted(scores)
    assert written == pytest.approx(scores)


def test_version_1_has_no_odds_of_no_answer(trained):
    assert not (trained[0] / "null_odds.json").exists()


@pytest.fixture
def copied(trained, tmp_path):
    """The trained folder without what it predicted."""
    path = shutil.copytree(trained[0], tmp_path / "copied")
    for name in ("predictions.json", "nbest_predictions.json", "eval_results.txt"):
        (path / name).unlink()
    return path


@pytest.mark.parametrize(
    "more",
    [(), ("--train_batch_size=32",), ("--num_warmup_steps=25",)],
    ids=["as-trained", "other-batch", "warm-up"],
)
def test_prediction_alone_takes_the_checkpoint_of_the_folder(
    command, trained, copied, more
):
    """Flags that only training needs decide nothing."""
    assert run(command(copied, "--do_predict", *more)) == {}
    for name in ("predictions.json", "nbest_predictions.json"):
        assert (copied / name).read_text() == (trained[0] / name).read_text()
    assert not (copied / "eval_results.txt").exists()


def test_evaluation_alone_gives_the_same_scores(command, trained, copied):
    assert run(command(copied, "--do_eval")) == trained[1]
    assert read_results(copied) == read_results(trained[0])
    assert not (copied / "predictions.json").exists()


@pytest.mark.parametrize("name", ["", f"model.ckpt-{STEPS}"])
def test_an_initial_checkpoint_is_all_that_a_prediction_needs(
    folder, trained, tmp_path, name
):
    """Architecture and vocabulary lie beside it."""
    run(
        [
            f"--init_checkpoint={trained[0] / name}",
            f"--predict_file={folder}/train.json",
            f"--output_dir={tmp_path}",
            "--do_predict",
            "--do_eval",
            *finetuning_data.SQUAD_FLAGS,
        ]
    )
    assert read_json(tmp_path / "predictions.json") == finetuning_data.answers()
    assert read_results(tmp_path) == read_results(trained[0])


def test_packed_predictions_are_those_of_single_rows(command, trained, copied):
    run(command(copied, "--do_predict", "--pack_sequences", LONG))
    packed = read_json(copied / "nbest_predictions.json")
    run(command(copied, "--do_predict", LONG))
    plain = read_json(copied / "nbest_predictions.json")
    for question_id, entries in plain.items():
        ours = packed[question_id]
        assert ours[0]["text"] == entries[0]["text"]
        for name in ("start_logit", "end_logit"):
            # As of numbers below 20 in float32.
            assert ours[0][name] == pytest.approx(entries[0][name], abs=1e-4)


def test_a_checkpoint_starts_another_training(command, trained, tmp_path):
    """Its steps count from 0, and it still answers what it knew."""
    more = ("--do_train", "--do_eval", "--num_train_steps=2", "--learning_rate=1e-6")
    scores = run(command(tmp_path, *more, f"--init_checkpoint={trained[0]}"))
    assert scores["global_step"] == 2
    assert scores["exact_match"] == 100.0


def test_packed_training_is_training_on_single_rows(command, tmp_path, capsys):
    more = ("--do_train", "--do_predict", "--deterministic_run", LONG)
    more += ("--num_train_steps=30", "--learning_rate=1e-3")
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    run(command(plain, *more))
    capsys.readouterr()
    run(command(packed, *more, "--pack_sequences"))
    [density] = re.findall(r"Packed: about (\S+) sequences", capsys.readouterr().out)
    assert float(density) > 1.5
    ours, expected = (read_tensors(path / "model.ckpt-30") for path in (packed, plain))
    assert_equal_to_rounding(ours, expected, 1e-4)
    ours, expected = (read_json(p / "predictions.json") for p in (packed, plain))
    assert ours == expected


@pytest.mark.parametrize("packing", [(), ("--pack_sequences", LONG)])
def test_stopped_and_resumed_is_never_stopped(command, tmp_path, packing):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    more = ("--do_train", "--num_train_steps=9", *packing)
    run(command(whole, *more))
    for steps in (2, 5):
        run(command(stopped, *more, f"--steps_this_run={steps}"))
    assert not (stopped / "model.ckpt-9.index").exists()
    run(command(stopped, *more))
    assert checkpoint_bytes(stopped, 9) == checkpoint_bytes(whole, 9)


def test_a_finished_run_predicts_without_training(command, copied, capsys):
    more = ("--do_train", "--do_predict", f"--num_train_steps={STEPS}")
    run(command(copied, *more, "--deterministic_run"))
    assert f"All steps are done: {STEPS} of {STEPS}" in capsys.readouterr().out
    assert read_json(copied / "predictions.json") == finetuning_data.answers()


EACH_EPOCH = ("--do_train", "--do_eval", "--do_predict", "--evaluate_each_epoch")


@pytest.fixture(scope="module")
def best(command, tmp_path_factory):
    """A rate so high that the model gets worse on the way, and its score."""
    path = tmp_path_factory.mktemp("best") / "run"
    more = ("--num_train_steps=40", "--learning_rate=0.02", "--num_warmup_steps=0")
    return path, run(command(path, *EACH_EPOCH, *more))


def evaluations(folder):
    """Step -> f1, of the evaluations between the steps."""
    return dict(logged_values(folder, "f1"))


def test_each_epoch_is_evaluated(best):
    # Steps of 8 of 18 windows: epoch e ends with the first step that has seen 18 e of
    # them. The last step is the fortieth, with 320.
    ends = {math.ceil(18 * epoch / 8) for epoch in range(1, 320 // 18 + 1)}
    assert list(evaluations(best[0])) == sorted(ends | {40})


def test_the_run_ends_with_its_best_weights(best):
    path, scores = best
    found = evaluations(path)
    assert len(set(found.values())) > 1
    assert scores["f1"] == pytest.approx(max(found.values()))
    note = read_json(path / "best" / "best.json")
    first = min(step for step, f1 in found.items() if f1 == max(found.values()))
    value = pytest.approx(max(found.values()))
    assert note == {"step": first, "f1": value, "last_step": 40}
    assert scores["global_step"] == first
    [kept] = (path / "best").glob("model.ckpt-*.index")
    assert kept.name == f"model.ckpt-{first}.index"


def test_other_commands_name_the_folder_of_the_best_weights(
    best, tmp_path, capsys, caplog
):
    path, scores = best
    named = f"{path}/best holds model.ckpt-{scores['global_step']}, which has the best"
    assert main(["convert", str(path), str(tmp_path / "converted")]) == 0
    assert capsys.readouterr().out.count(named) == 1
    QuestionAnswerer(str(path))
    assert caplog.text.count(named) == 1
    QuestionAnswerer(f"{path}/best")
    assert caplog.text.count(named) == 1


def test_a_model_is_not_used_with_another_case_than_it_was_trained(best, command):
    with pytest.raises(RunError, match="do_lower_case true -> false"):
        run(command(best[0], "--do_predict", "--nodo_lower_case"))


def test_the_best_weights_give_the_best_score_again(best, command, tmp_path):
    path, scores = best
    again = run(command(tmp_path, "--do_eval", f"--init_checkpoint={path}/best"))
    assert again["f1"] == scores["f1"]


def test_the_best_weights_need_no_other_flags(best, folder, tmp_path):
    path, scores = best
    flags_ = [f"--predict_file={folder}/train.json", f"--output_dir={tmp_path}"]
    flags_ += [f"--init_checkpoint={path}/best", "--do_eval"]
    assert run([*flags_, *finetuning_data.SQUAD_FLAGS])["f1"] == scores["f1"]


def test_the_best_of_an_overwritten_run_is_forgotten(best, command, tmp_path):
    path = shutil.copytree(best[0], tmp_path / "run")
    more = ("--num_train_steps=4", "--learning_rate=1e-6")
    run(
        command(
            path, *EACH_EPOCH, *more, "--overwrite_output_dir", "--steps_this_run=1"
        )
    )
    scores = run(command(path, *EACH_EPOCH, *more))
    assert read_json(path / "best" / "best.json")["step"] in (3, 4)
    assert scores["f1"] < best[1]["f1"]


def test_the_best_of_a_run_stays_until_another_run_has_a_checkpoint(
    best, command, tmp_path, monkeypatch
):
    path = shutil.copytree(best[0], tmp_path / "run")

    def kill(saver, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckpointSaver, "save_first", kill)
    with pytest.raises(KeyboardInterrupt):
        run(command(path, *EACH_EPOCH, "--num_train_steps=4", "--overwrite_output_dir"))
    more = ("--num_train_steps=40", "--learning_rate=0.02", "--num_warmup_steps=0")
    assert run(command(path, *EACH_EPOCH, *more)) == best[1]


def test_an_evaluation_that_was_cut_off_is_made_when_the_run_is_resumed(
    best, command, tmp_path
):
    path = shutil.copytree(best[0], tmp_path / "run")
    for file in (path / "best").iterdir():
        file.unlink()  # As if the run had been stopped before it evaluated its end.
    run(command(path, *EACH_EPOCH, "--num_train_steps=40", "--learning_rate=0.01"))
    assert read_json(path / "best" / "best.json")["last_step"] == 40


@pytest.fixture(scope="module")
def version_2(command, tmp_path_factory):
    path = tmp_path_factory.mktemp("version_2") / "run"
    more = ("--do_train", "--do_predict", "--do_eval", "--deterministic_run")
    more += ("--version_2_with_negative", f"--num_train_steps={STEPS}")
    return path, run(command(path, *more, data="train2.json"))


def test_questions_without_an_answer_are_learnt(version_2):
    path, scores = version_2
    answers = read_json(path / "predictions.json")
    unanswered = {f"n{number}": "" for number in range(4)}
    assert answers == finetuning_data.answers() | unanswered
    assert scores["NoAns_exact"] == scores["HasAns_exact"] == 100.0
    assert scores["NoAns_total"] == 4


def test_the_odds_of_no_answer_tell_both_kinds_apart(version_2):
    odds = read_json(version_2[0] / "null_odds.json")
    assert odds.keys() == read_json(version_2[0] / "predictions.json").keys()
    assert all((value > 0) == name.startswith("n") for name, value in odds.items())


def test_the_best_thresholds_are_among_the_results(version_2):
    path, scores = version_2
    odds = read_json(path / "null_odds.json")
    assert scores["best_exact"] == scores["best_f1"] == 100.0
    answered = max(odds[name] for name in odds if name.startswith("q"))
    # The scorer may take any of the odds, or 0, that parts the two kinds.
    assert scores["best_exact_thresh"] in (0.0, pytest.approx(answered))
    assert {"best_exact_thresh", "best_f1_thresh"} <= read_results(path).keys()


def test_a_threshold_decides_between_an_answer_and_none(version_2, command, tmp_path):
    more = ("--do_predict", "--version_2_with_negative")
    more += (f"--init_checkpoint={version_2[0]}", "--null_score_diff_threshold=1000")
    run(command(tmp_path, *more, data="train2.json"))
    assert "" not in read_json(tmp_path / "predictions.json").values()


def test_a_cased_vocabulary_and_lower_case_text_make_a_warning(
    command, tmp_path, capsys
):
    finetuning_data.write_model(tmp_path / "cased", is_cased=True)
    model = [
        f"--bert_config_file={tmp_path}/cased/bert_config.json",
        f"--vocab_file={tmp_path}/cased/vocab.txt",
        "--do_train",
        "--num_train_steps=1",
    ]
    run(command(tmp_path / "lower", *model, "--do_lower_case"))
    assert "for a cased model pass --do_lower_case=false" in capsys.readouterr().out
    run(command(tmp_path / "cased_text", *model))
    told = capsys.readouterr().out
    assert "pass --do_lower_case" not in told
    assert f"Tokenizer: cased, accents kept, by the letters of {tmp_path}" in told


def test_the_published_command_runs(trained, folder, tmp_path):
    """Every flag of the two systems, their values the published ones."""
    result = run_python(
        SCRIPT,
        f"--bert_config_file={folder}/model/bert_config.json",
        f"--vocab_file={folder}/model/vocab.txt",
        f"--init_checkpoint={trained[0]}/model.ckpt-{STEPS}",
        "--do_train=True",
        f"--train_file={folder}/train.json",
        "--do_predict=True",
        f"--predict_file={folder}/train.json",
        "--do_eval=True",
        "--train_batch_size=24",
        "--learning_rate=3e-5",
        "--num_train_epochs=2",
        "--max_seq_length=384",
        "--doc_stride=128",
        f"--output_dir={tmp_path}",
        "--use_horovod=false",
        "--enable_scoped_allocator=False",
        f"--bf16_config_path={ROOT}/bf16_config/bert.json",
        "--horovod_hierarchical_allreduce=0",
    )
    assert result.returncode == 0, result.stderr
    assert "precision bf16" in result.stdout
    assert set(read_json(tmp_path / "predictions.json")) == set(
        finetuning_data.answers()
    )
    assert {"exact_match", "f1", "global_step", "total"} == set(read_results(tmp_path))


def test_the_script_says_what_its_flags_are(capsys):
    assert run_squad.main(["run_squad.py", "--helpfull"]) == 0
    text = capsys.readouterr().out
    assert "--doc_stride=N [128]" in text
    assert "--version_2_with_negative" in text
