"""Times and flags of many workers, against figures from outside."""

import dataclasses
import math

import pytest

from bert_tf.config import PRESETS, BertConfig
from bert_tf.config.planning import RECIPES
from bert_tf.scaling import (
    Cluster,
    Device,
    Link,
    Point,
    StepTime,
    divide_recipe,
    efficiency,
    fit_allreduce,
    fit_step,
    flops_per_sequence,
    gradient_shapes,
    num_gradients,
    step_time,
)

PHASE_1 = RECIPES["phase1"]


# Turc et al. 2019 (arXiv:1908.08962), table 1, in millions; large is Devlin's.
@pytest.mark.parametrize(
    "preset, millions",
    [("tiny", 4.4), ("mini", 11.3), ("small", 29.1), ("medium", 41.7), ("base", 110.1)],
)
def test_gradients_are_as_many_as_published_weights(preset, millions):
    assert num_gradients(PRESETS[preset]) / 1e6 == pytest.approx(millions, rel=0.01)


def test_gradients_have_the_shapes_of_the_models_weights(tiny_config):
    from bert_tf.modeling.pretraining import build_pretraining_model

    model = build_pretraining_model(tiny_config)
    shapes = [tuple(v.shape) for v in model.trainable_variables]
    assert sorted(gradient_shapes(tiny_config)) == sorted(shapes)


# Worked out by hand with the published convention of MFU tables, in GFLOP.
@pytest.mark.parametrize(
    "preset, length, predictions, expected",
    [
        ("large", 128, 20, 240.6),
        ("large", 512, 80, 1020.5),
        ("base", 128, 20, 69.9),
        ("base", 512, 80, 301.4),
    ],
)
def test_flops_are_those_of_the_convention(preset, length, predictions, expected):
    flops = flops_per_sequence(PRESETS[preset], length, predictions)
    assert flops / 1e9 == pytest.approx(expected, abs=0.05)


def test_packed_sequences_share_the_tokens_of_a_row():
    bert = BertConfig(num_hidden_layers=1, hidden_size=64, num_attention_heads=1)
    alone = flops_per_sequence(bert, 256, 20)
    assert flops_per_sequence(bert, 512, 20, sequences_per_record=2.0) == alone


def host(**more):
    values = dict(
        workers_per_host=8,
        cores_per_host=8,
        local=Link(latency_seconds=1e-5, seconds_per_byte=1e-9),
        network=Link(latency_seconds=1e-4, seconds_per_byte=1e-8),
    )
    return Cluster(**values | more)


def test_one_worker_sums_nothing():
    assert host().allreduce_seconds(1e9, 1) == 0.0


def test_a_ring_sends_two_times_n_minus_one_parts():
    # Of 4 workers: 6 messages of 0.01 ms and 1/4 of 8 MB each.
    expected = 6 * 1e-5 + 6 * 2e6 * 1e-9
    assert host().allreduce_seconds(8e6, 4) == pytest.approx(expected)


def test_start_and_copies_are_added():
    cluster = host(start_seconds=0.005, copy_seconds_per_byte=2e-9)
    more = cluster.allreduce_seconds(8e6, 4) - host().allreduce_seconds(8e6, 4)
    assert more == pytest.approx(0.005 + 0.016)


def test_workers_that_share_cores_copy_add_and_answer_more_slowly():
    cluster = host(cores_per_host=2, copy_seconds_per_byte=2e-9)
    expected = 4 * (14 * 1e-5 + 8e6 * 2e-9 + 14 * 1e6 * 1e-9)
    assert cluster.allreduce_seconds(8e6, 8) == pytest.approx(expected)


def test_between_hosts_the_slowest_link_decides():
    expected = 30 * 1e-4 + 30 * 1e6 * 1e-8
    assert host().allreduce_seconds(16e6, 16) == pytest.approx(expected)


def test_shared_cores_do_not_slow_a_network_down():
    cluster = host(workers_per_host=2, cores_per_host=1)
    # Twice the latency of each message, on cores of which two workers share one.
    expected = 6 * 2e-4 + 6 * 2e6 * 1e-8
    assert cluster.allreduce_seconds(8e6, 4) == pytest.approx(expected)


def test_a_fit_of_2_and_4_workers_predicts_8():
    machine = host(
        cores_per_host=2,
        start_seconds=0.004,
        copy_seconds_per_byte=3e-10,
        local=Link(latency_seconds=0.0, seconds_per_byte=7e-10),
    )
    points = [
        Point(workers, size, machine.allreduce_seconds(size, workers))
        for workers in (1, 2, 4)
        for size in (17_500_000, 45_000_000, 115_000_000)
    ]
    found = fit_allreduce(points, cores=2)
    found = dataclasses.replace(found, workers_per_host=8)
    for size in (17_500_000, 440_000_000):
        expected = machine.allreduce_seconds(size, 8)
        assert found.allreduce_seconds(size, 8) == pytest.approx(expected, rel=1e-6)


def test_noise_of_small_sums_does_not_become_latency():
    # 8 ms of delay for 4 workers must not become 8 x 56 / 12 ms for 8.
    machine = host(
        cores_per_host=2,
        copy_seconds_per_byte=3e-10,
        local=Link(latency_seconds=0.0, seconds_per_byte=7e-10),
    )
    points = [
        Point(n, size, machine.allreduce_seconds(size, n) + 0.008 * (n == 4))
        for n in (2, 4)
        for size in (17_500_000, 45_000_000, 115_000_000, 440_000_000)
    ]
    found = dataclasses.replace(fit_allreduce(points, cores=2), workers_per_host=8)
    expected = machine.allreduce_seconds(17_500_000, 8)
    assert found.allreduce_seconds(17_500_000, 8) == pytest.approx(expected, rel=0.3)


def test_no_coefficient_of_a_fit_is_negative():
    points = [Point(n, size, 0.01) for n in (2, 4) for size in (10**6, 10**8)]
    found = fit_allreduce(points, cores=2)
    values = (found.start_seconds, found.copy_seconds_per_byte)
    assert min(*values, *dataclasses.astuple(found.local)) >= 0.0


def test_one_number_of_workers_is_too_few_for_a_fit():
    points = [Point(n, size, 0.01) for n in (1, 2) for size in (1, 2, 3, 4)]
    with pytest.raises(ValueError, match="two numbers of workers above 1"):
        fit_allreduce(points, cores=2)


def test_steps_of_one_and_two_micro_batches_give_both_parts():
    assert fit_step([1, 2], [0.5, 0.8]) == pytest.approx([0.3, 0.2])


def test_the_parts_of_a_step_are_not_negative():
    micro_batch, rest = fit_step([1, 2], [0.5, 1.1])
    assert rest == 0.0 and micro_batch == pytest.approx(0.54)


def test_a_step_computes_sums_and_updates():
    device = Device(seconds_per_sequence=0.01, update_seconds=0.2)
    cluster = host(cores_per_host=4, start_seconds=0.005)
    sums = sum(cluster.allreduce_seconds(size, 8) for size in (4e8, 8))
    step = step_time(device, cluster, 8, 64, 4e8)
    assert step == StepTime(compute=1.28, allreduce=sums, update=0.4)


def test_a_worker_of_several_cores_shares_them_earlier():
    device = Device(seconds_per_sequence=0.01, update_seconds=0.0, cores=2)
    assert step_time(device, host(), 8, 100, 0).compute == pytest.approx(2.0)


def test_efficiency_compares_with_a_worker_that_trains_alone():
    recipe = dataclasses.replace(PHASE_1, global_batch_size=64)
    division = divide_recipe(recipe, 2, 32)
    device = Device(seconds_per_sequence=0.1, update_seconds=0.6)
    step = StepTime(compute=3.2, allreduce=0.2, update=0.6)
    # Alone 64 sequences in 7 s; two workers take 4 s for them: 7 / (2 * 4).
    assert efficiency(device, 64, division, step) == pytest.approx(0.875)


@pytest.mark.parametrize(
    "workers, accumulation, rate",
    # The commands that Habana and NVIDIA publish for phase 1.
    [(1, 1024, 0.006), (8, 128, 0.00075)],
)
def test_flags_are_those_of_published_commands(workers, accumulation, rate):
    found = divide_recipe(PHASE_1, workers, 64)
    assert (found.train_batch_size, found.num_accumulation_steps) == (64, accumulation)
    assert found.learning_rate == rate
    assert found.sequences == 65_536


def test_micro_batches_are_the_largest_ones_that_keep_the_recipe():
    assert divide_recipe(PHASE_1, 1, 312).train_batch_size == 256
    assert divide_recipe(PHASE_1, 2048, 64).train_batch_size == 32


@pytest.mark.parametrize("average", [1.1, 1.2, 1.99, 2.0, 2.7])
@pytest.mark.parametrize("workers", [1, 7, 8, 256, 1024])
def test_packed_records_keep_the_recipe_within_2_percent(workers, average):
    found = divide_recipe(PHASE_1, workers, 64, average)
    # What training does with the flag: see docs/pretraining.md.
    count = max(1, round(found.num_accumulation_steps / average))
    sequences = count * found.train_batch_size * workers * average
    assert sequences == pytest.approx(65_536, rel=0.02)
    assert found.sequences == sequences
    assert found.num_micro_batches == count


@pytest.mark.parametrize(
    "workers, size, average",
    [
        (3, 65_536, 1.0),
        (12, 65_536, 1.0),
        (100_000, 65_536, 1.0),
        (60_000, 65_536, 1.9),
    ],
)
def test_a_refused_number_of_workers_comes_with_one_that_is_not(workers, size, average):
    recipe = dataclasses.replace(PHASE_1, global_batch_size=size)
    with pytest.raises(ValueError, match="cannot keep the recipe") as caught:
        divide_recipe(recipe, workers, 64, average)
    advice = str(caught.value).rpartition("--workers=")[2].partition(",")[0]
    assert divide_recipe(recipe, int(advice), 64, average).workers < workers


# NVIDIA's DeepLearningExamples, TensorFlow2/LanguageModeling/BERT, pre-training of
# BERT-Large on DGX A100 in mixed precision, steady state: length, GPUs, sequences/s.
# One GPU: 485.59 of 128 tokens, 96.52 of 512. Global batches 79,872 and 30,720.
PUBLISHED = [
    (128, 8, 3799.24),
    (128, 16, 7551.37),
    (128, 64, 29_711.11),
    (128, 256, 110_280.73),
    (512, 8, 749.73),
    (512, 16, 1491.87),
    (512, 64, 5870.83),
    (512, 256, 22_506.23),
    pytest.param(
        *(512, 8, 649.69),
        marks=pytest.mark.xfail(
            strict=True,
            reason="the table of one node and that of several contradict each other "
            "(649.69 and 749.73): this one is 84% of 8 lone GPUs, without cause",
        ),
    ),
]
ALONE = {128: 485.59, 512: 96.52}
GLOBAL_BATCH = {128: 79_872, 512: 30_720}
MICRO_BATCH = {128: 312, 512: 40}


@pytest.mark.parametrize("length, gpus, published", PUBLISHED)
def test_published_scaling_is_reproduced_within_15_percent(length, gpus, published):
    bert = PRESETS["large"]
    # A100: NVLink of 300 GB/s each way, memory of 1.5 TB/s. A host has 8 adapters of
    # 200 Gb/s. Horovod's cycle is 1 ms. Gradients travel as float16.
    cluster = Cluster(
        workers_per_host=8,
        cores_per_host=128,
        local=Link(latency_seconds=3e-6, seconds_per_byte=1 / 300e9),
        network=Link(latency_seconds=5e-6, seconds_per_byte=1 / (8 * 25e9)),
        start_seconds=0.001,
        copy_seconds_per_byte=4 / 1.5e12,
    )
    device = Device(
        seconds_per_sequence=1 / ALONE[length],
        update_seconds=36 * num_gradients(bert) / 1.5e12,
    )
    recipe = dataclasses.replace(PHASE_1, global_batch_size=GLOBAL_BATCH[length])
    division = divide_recipe(recipe, gpus, MICRO_BATCH[length])
    assert division.train_batch_size == MICRO_BATCH[length]
    share = division.sequences / gpus
    step = step_time(device, cluster, gpus, share, 2 * num_gradients(bert))
    rate = division.sequences / step.total
    assert math.isclose(rate, published, rel_tol=0.15), f"{rate:.0f}"
