"""Fine-tuning under mpirun: two workers do what one does."""

import json

import numpy as np
import pytest
from integration import finetuning_data
from integration.finetuning_worker import run_job
from integration.launching import ROOT, mpirun, run_workers
from runs import UNSEEN, assert_equal_to_rounding, assert_same_bytes, read_log

pytestmark = [pytest.mark.slow, pytest.mark.horovod]
STEPS = 10
LONG = ["--pack_sequences", "--max_seq_length=128"]
# 11 questions and 13 sentences: two workers divide neither, nor do batches of 5 rows.
RUNS = {
    "questions": ("squad", []),
    "packed-questions": ("squad", LONG),
    "classes": ("classes", []),
    "packed-classes": ("classes", LONG),
    "tags": ("tags", []),
    "packed-labels": ("labels", LONG),
    "packed-choices": ("choices", LONG),
    "pairs": ("sentences", []),
    "packed-pairs": ("sentences", LONG),
    "best": ("classes", ["--evaluate_each_epoch"]),
    "controlled": (
        "classes",
        [
            *("--frozen_layers=1", "--layerwise_lr_decay=0.8"),
            *("--class_weights=weather:2,food:0.5", "--evaluate_each_epoch"),
            *("--early_stopping_patience=1", *LONG),
        ],
    ),
}
NAMES = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def runs(folder, model):
    """(name of the run's folder, examples of each worker) -> {name: (job, command)}."""

    def make(number, batch):
        data = {
            "squad": [
                f"--train_file={folder}/train.json",
                f"--predict_file={folder}/train.json",
                *finetuning_data.SQUAD_FLAGS,
            ],
            "sentences": [
                *finetuning_data.write_pairs(folder / "pairs.tsv"),
                *finetuning_data.CLASS_FLAGS,
                *("--nodo_predict", "--num_accumulation_steps=2"),
            ],
        }
        for task in ("classes", "tags", "labels", "choices"):
            written = getattr(finetuning_data, f"write_{task}")(folder / task)
            data[task] = [*written, *finetuning_data.CLASS_FLAGS]
        common = [
            *model,
            "--do_train",
            "--do_predict",
            "--do_eval",
            "--learning_rate=1e-3",
            f"--num_train_steps={STEPS}",
            "--eval_batch_size=5",
            "--predict_batch_size=5",
        ]
        own = [f"--train_batch_size={batch}"]
        return {
            name: (
                task if task in ("squad", "sentences") else "classifier",
                [
                    *common,
                    *data[task],
                    *own,
                    *more,
                    f"--output_dir={folder}/{number}/{name}",
                ],
            )
            for name, (task, more) in RUNS.items()
        }

    return make


@pytest.fixture(scope="module")
def two(runs, one, folder):
    """All runs on two workers, in one launch; what each rank ended with.

    The last one answers with the weights that one worker has trained.
    """
    prediction = [
        f"--init_checkpoint={folder}/one/questions",
        f"--predict_file={folder}/train.json",
        f"--output_dir={folder}/two/answers",
        "--do_predict",
        "--predict_batch_size=5",
        *finetuning_data.SQUAD_FLAGS,
    ]
    commands = runs("two", 4) | {"answers": ("squad", prediction)}
    commands["mapped"] = ("classifier", mapped(folder, "two"))
    job, [*words, _] = commands["best"]
    words.append(f"--output_dir={folder}/apart-RANK")
    commands["apart-half"] = (job, [*words, f"--steps_this_run={STEPS // 2}"])
    commands["apart"] = (job, words)
    return run_workers("finetuning_worker.py", commands, folder, ["-np", "2"])


def mapped(folder, number):
    """Evaluates on labels of another spelling, which the model's head names."""
    rows = [(text, label.upper()) for text, label in finetuning_data.class_rows()]
    rows = [("text", "label"), *rows[:7]]
    finetuning_data.write_table(folder / "mapped" / "dev.tsv", rows)
    return [
        f"--init_checkpoint={folder}/one/classes",
        f"--data_dir={folder}/mapped",
        f"--output_dir={folder}/{number}/mapped",
        "--task_name=tsv",
        "--do_eval",
        "--eval_batch_size=2",
        *finetuning_data.CLASS_FLAGS,
    ]


@pytest.fixture(scope="module")
def one(runs):
    return {name: run_job(*command) for name, command in runs("one", 8).items()}


def parted(arrays):
    """Weights, and scores."""
    scores = {n: float(x) for n, x in arrays.items() if n.startswith("score ")}
    return {n: x for n, x in arrays.items() if n not in scores}, scores


@NAMES
def test_both_workers_end_with_the_same_bytes(two, name):
    assert_same_bytes(*two[name])


def test_workers_without_a_shared_folder_resume_and_end_with_the_same_bytes(two):
    """Also with the best weights, which the first worker alone has saved."""
    assert_same_bytes(two["best"][0], *two["apart"])


@NAMES
def test_two_workers_train_as_one_does(two, one, name):
    """With dropout: it follows a row's place in the global batch."""
    ours, expected = (parted(arrays)[0] for arrays in (two[name][0], one[name]))
    assert any(part in path for part in UNSEEN for path in expected)
    if "choices" in name:  # Its bias is added to all scores of a softmax.
        ours.pop("output_bias")
        del expected["output_bias"]
    assert_equal_to_rounding(ours, expected, 1e-4)


@NAMES
def test_two_workers_score_as_one_does(two, one, name):
    ours, expected = (parted(arrays)[1] for arrays in (two[name][0], one[name]))
    assert ours == pytest.approx(expected, rel=1e-4)
    if name not in ("best", "controlled"):  # The step is that of the best weights.
        assert ours["score global_step"] == STEPS


def test_two_workers_find_labels_by_name_as_one_does(two, one, folder):
    expected = parted(run_job("classifier", mapped(folder, "one")))[1]
    for arrays in two["mapped"]:
        assert parted(arrays)[1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["questions", "packed-questions"])
def test_two_workers_answer_as_one_does(two, one, folder, name):
    answers = [
        json.loads((folder / number / name / "predictions.json").read_text())
        for number in ("two", "one")
    ]
    assert answers[0] == answers[1]
    assert answers[0].keys() == finetuning_data.answers().keys()


@pytest.mark.parametrize("name", ["predictions.json", "nbest_predictions.json"])
def test_with_the_same_weights_two_workers_write_the_same_bytes(two, folder, name):
    ours = (folder / "two" / "answers" / name).read_bytes()
    assert ours == (folder / "one" / "questions" / name).read_bytes()


@pytest.mark.parametrize("name", ["classes", "packed-classes"])
def test_two_workers_predict_as_one_does(two, one, folder, name):
    ours, expected = (
        np.loadtxt(folder / number / name / "test_results.tsv")
        for number in ("two", "one")
    )
    assert ours.shape == (13, 3)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["questions", "classes"])
def test_the_speed_of_both_workers_is_logged(two, folder, name):
    last = [e["data"] for e in read_log(folder / "two" / name) if e.get("step") == []]
    assert any(data.get("latency_p99", 0) > 0 for data in last)
    assert any(data.get("throughput_val", 0) > 0 for data in last)


def test_two_workers_find_the_same_best_step(two, one, folder):
    notes = [
        json.loads((folder / number / "best" / "best" / "best.json").read_text())
        for number in ("two", "one")
    ]
    assert notes[0]["step"] == notes[1]["step"]
    assert notes[0]["accuracy"] == notes[1]["accuracy"]


def test_two_workers_say_once_what_is_wrong(folder, tmp_path):
    (tmp_path / "cut.json").write_text('{"data": [')
    result = mpirun(
        2,
        ROOT / "run_squad.py",
        f"--bert_config_file={folder}/model/bert_config.json",
        f"--vocab_file={folder}/model/vocab.txt",
        f"--train_file={tmp_path}/cut.json",
        f"--output_dir={tmp_path}/run",
        "--do_train",
        "--horovod",
        timeout=90,
    )
    assert result.returncode == 1  # 124 would be the time limit.
    text = result.stdout + result.stderr
    assert text.count("error: ") == text.count("not JSON") == 1
    assert "Traceback" not in text
