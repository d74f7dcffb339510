"""A step that is left between two micro-batches changes nothing."""

import numpy as np
import pytest
import tensorflow as tf
from training.test_gradients import cut

from bert_tf.config import BertConfig
from bert_tf.data.records.record_set import open_records
from bert_tf.data.records.schema import ValueLimits
from bert_tf.distribute import Communicator
from bert_tf.modeling.pretraining import PretrainingTask, build_pretraining_model
from bert_tf.training.gradients import GradientSettings
from bert_tf.training.optimizers import build_optimizer
from bert_tf.training.trainer import Trainer


class Sums(Communicator):
    """Notes the sums, and what they add up of whether to stop."""

    def __init__(self, asked_elsewhere=0.0):
        self.names = []
        self.asked_elsewhere = asked_elsewhere

    def sum(self, tensors, name):
        self.names.append(name)
        if name == "micro_batch_gradients":
            return [*tensors[:-1], tensors[-1] + self.asked_elsewhere]
        return list(tensors)


@pytest.fixture(scope="module")
def parser(tiny_records):
    return open_records(tiny_records, ValueLimits(30, 2)).parser


@pytest.fixture(scope="module")
def make(tiny_config):
    """Makes a trainer of a fixed model."""

    def make(communicator=None, **settings):
        assert isinstance(tiny_config, BertConfig)
        model = build_pretraining_model(
            tiny_config, max_seq_length=16, seed=1, seeded_dropout=True
        )
        return Trainer(
            PretrainingTask(model),
            build_optimizer("lamb", 0.1),
            communicator or Communicator(),
            GradientSettings(**settings),
        )

    return make


def weights(trainer):
    return [v.numpy() for v in trainer.task.model.trainable_variables]


@pytest.mark.parametrize("post", [True, False], ids=["once", "each micro-batch"])
def test_a_step_that_is_left_changes_nothing(make, parser, post):
    trainer = make(allreduce_post_accumulation=post)
    batch = cut(parser(np.arange(16)), 4)
    trainer.train_step(batch)
    before = weights(trainer)
    trainer.ask_to_stop()
    result = trainer.train_step(batch)
    assert result.is_dropped and result.must_stop and result.step == 1
    for ours, theirs in zip(weights(trainer), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_only_the_micro_batch_under_way_is_finished(make, parser):
    trainer = make()
    batch = cut(parser(np.arange(16)), 16)
    done = []
    loss_sums = trainer.task.loss_sums

    def counted(features, *, training):
        sums = loss_sums(features, training=training)
        tf.py_function(lambda: done.append(trainer.ask_to_stop()), [], [])
        return sums

    trainer.task.loss_sums = counted
    assert trainer.train_step(batch).is_dropped
    assert len(done) == 1


def test_a_step_of_one_micro_batch_is_finished(make, parser):
    trainer = make()
    trainer.ask_to_stop()
    result = trainer.train_step(cut(parser(np.arange(8)), 1))
    assert result.must_stop and not result.is_dropped and result.step == 1


def test_workers_that_sum_each_micro_batch_leave_together(make, parser):
    """Otherwise one would wait in a sum that the other has left."""
    trainer = make(Sums(asked_elsewhere=1.0), allreduce_post_accumulation=False)
    result = trainer.train_step(cut(parser(np.arange(16)), 4))
    assert result.is_dropped and result.step == 0


def test_the_request_travels_with_the_gradients(make, parser):
    workers = Sums()
    make(workers).train_step(cut(parser(np.arange(16)), 4))
    assert workers.names == ["counts", "gradients"]
