"""When a pre-training evaluates, and how many sequences it counts."""

import types

import pytest

from bert_tf.config import PretrainingConfig
from bert_tf.config.pretraining import FilesConfig, TrainingConfig
from bert_tf.config.run import OptimizerConfig
from bert_tf.data.batches.record_batches import BatchShape
from bert_tf.jobs.goal import is_due, mlperf_interval
from bert_tf.jobs.run.checkpoint_policy import num_due
from bert_tf.jobs.run.plan import Plan


def make_plan(sequences_per_record=1.0, num_train_steps=100, **training):
    """What decides when to evaluate: 16 records a step."""
    names = dict.fromkeys(field for field in Plan.__dataclass_fields__)
    config = PretrainingConfig(
        files=FilesConfig(
            output_dir="out", preset="tiny", input_files_dir="in", eval_files_dir="in"
        ),
        training=TrainingConfig(do_train=True, **training),
        optimizer=OptimizerConfig(num_train_steps=num_train_steps),
    )
    records = types.SimpleNamespace(
        sequences_per_record=sequences_per_record, num_records=50
    )
    shape = BatchShape(micro_batch_size=4, num_micro_batches=2, size=2)
    return Plan(**names | dict(config=config, training_set=records, shape=shape))


def due_steps(plan, last=12):
    return [step for step in range(1, last + 1) if is_due(plan, step)]


@pytest.mark.parametrize(
    "batch, sequences",
    # 0.05 * (230.23 * 256 + 3e6) = 152946.9, which is 6.1 times 25,000; and so on.
    [(256, 150_000), (448, 150_000), (3072, 175_000), (8192, 225_000), (1, 150_000)],
)
def test_the_interval_of_mlperf(batch, sequences):
    assert mlperf_interval(batch) == sequences


@pytest.mark.parametrize(
    "samples, count", [(0, 0), (99, 0), (100, 1), (139, 1), (140, 2), (180, 3)]
)
def test_evaluations_begin_and_repeat(samples, count):
    assert num_due(samples, first=100, between=40) == count


def test_every_so_many_steps():
    assert due_steps(make_plan(eval_steps=5)) == [5, 10]


def test_from_so_many_sequences_on_every_so_many_steps():
    assert due_steps(make_plan(eval_steps=3, samples_start_eval=96)) == [6, 9, 12]


def test_each_time_so_many_sequences_are_reached():
    """40, 80, 120 and 160 sequences are reached in steps 3, 5, 8 and 10 of 16."""
    assert due_steps(make_plan(samples_between_eval=40)) == [3, 5, 8, 10]


def test_packed_records_count_as_their_sequences():
    """2.5 sequences in each of 16 records: 40 of them in a step."""
    plan = make_plan(2.5, samples_between_eval=80)
    assert due_steps(plan) == [2, 4, 6, 8, 10, 12]
    assert plan.samples(3) == 120


def test_an_interval_shorter_than_a_step_is_a_step():
    assert due_steps(make_plan(samples_between_eval=3), 3) == [1, 2, 3]


def test_a_target_alone_is_evaluated_at_mlperf_s_interval():
    plan = make_plan(10_000.0, target_mlm_accuracy=0.72)  # 160,000 sequences a step.
    # int(0.05 * (230.23 * 160,000 + 3e6) / 25,000) * 25,000 = 1,975,000.
    assert due_steps(plan, 40) == [13, 25, 38]


def test_after_each_pass_over_the_records():
    """50, 100 and 150 records are reached in steps 4, 7 and 10 of 16."""
    assert due_steps(make_plan(evaluate_each_epoch=True)) == [4, 7, 10]
    both = make_plan(evaluate_each_epoch=True, eval_steps=5)
    assert due_steps(both) == [4, 5, 7, 10]
    target = make_plan(evaluate_each_epoch=True, target_mlm_accuracy=0.7)
    assert due_steps(target) == [4, 7, 10]


def test_a_start_asks_for_mlperf_s_interval_also_beside_passes():
    plan = make_plan(10_000.0, evaluate_each_epoch=True, samples_start_eval=320_000)
    assert due_steps(plan, 15) == [2, 4, 7, 10, 13, 15]


def test_without_a_request_there_is_no_evaluation():
    assert not due_steps(make_plan())


@pytest.mark.parametrize("samples, step", [(160, 10), (161, 11), (5, 1), (10**9, 100)])
def test_the_run_ends_in_the_step_of_its_last_sequence(samples, step):
    assert make_plan(max_samples=samples).last_step == step


def test_sequences_of_packed_records_end_the_run():
    assert make_plan(2.5, max_samples=100).last_step == 3
