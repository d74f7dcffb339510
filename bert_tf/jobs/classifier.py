"""Classes, numbers, labels, tags, choices: a config to a model and its predictions."""

import dataclasses
import functools
import zlib
from typing import NamedTuple

import numpy as np

from bert_tf.config import BertConfig, checks
from bert_tf.config.finetuning import ClassifierConfig, ClassifierDataConfig
from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.tasks.classification import ClassificationTask
from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.data.tasks.row_labels import Kind
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.distribute import Communicator
from bert_tf.interop.classifier_labels import Head, read_head
from bert_tf.interop.weight_files import find_source
from bert_tf.interop.weights import Weights, read_weights
from bert_tf.jobs import finetuning
from bert_tf.jobs.class_names import choose_task, description_of
from bert_tf.jobs.run.fingerprint import example_facts
from bert_tf.jobs.run.plan import Plan, build_plan
from bert_tf.jobs.run.session import Session, open_session
from bert_tf.jobs.run.start import find_finetuning_start
from bert_tf.jobs.run.starting_point import StartingPoint
from bert_tf.jobs.run.training_loop import train
from bert_tf.jobs.task_kinds import KINDS, Split, TaskKind
from bert_tf.modeling.finetuning import FinetuningTask, build_classifier_model
from bert_tf.modeling.models import ModelOptions
from bert_tf.signals import StopRequest
from bert_tf.tf_checkpoint import tensor_shapes

# Masked LMs have no pooler.
_HEAD = ("output_weights", "output_bias", "bert/pooler/*")
_TRAIN, _DEV, _TEST = "train", "dev", "test"
# MNLI has two dev and two test sets; the second's metrics begin with its name.
_MISMATCHED = "_mismatched"


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a task by split, ready for the model.

    Attributes:
      task: The task.
      splits: Name -> examples, of the splits that the run needs.
    """

    task: ClassificationTask
    splits: dict[str, Split]

    @property
    def kind(self) -> TaskKind:
        """The steps of the kind of task."""
        return KINDS[self.task.kind]

    @property
    def trained(self) -> LabelledSequences | None:
        """What is trained on; None without training."""
        return self.splits[_TRAIN].labelled if _TRAIN in self.splits else None


ClassifierPlan = Plan[ClassifierConfig, Examples, FinetuningTask]


def run(config: ClassifierConfig, stop: StopRequest | None = None) -> dict[str, float]:
    """Trains, predicts and evaluates as the config says.

    Args:
      config: The settings.
      stop: A signal that ends the run early.

    Returns:
      The metrics of the task, as in eval_results.txt; empty without evaluation.

    Raises:
      RunError: if the run cannot start or continue.
    """
    with open_session(config, stop) as session:
        plan = session.make_plan(config, prepare)
        task = plan.data.task
        finetuning.describe(plan, session)
        finetuning.check_task(plan, session)
        evaluate = functools.partial(_evaluate, plan, session)
        if config.training.do_train:
            best = finetuning.keep_best(plan, session, evaluate, task.metrics[0])
            with best as after_step:
                train(plan, session, after_step)
        if config.saving.benchmark:
            return {}
        if config.training.do_predict:
            _predict_tests(plan, session)
        if not config.training.do_eval:
            return {}
        results = _evaluate(plan, session, is_timed=True)
        return session.report_results(plan, results)


def _read_splits(
    config: ClassifierConfig, task: ClassificationTask, tokenizer: WordPieceTokenizer
) -> tuple[Examples, list[str]]:
    """The examples, and lines for the log."""
    folder = config.task.data_dir
    splits = [
        name
        for split in config.training.splits
        for name in (split, split + _MISMATCHED)
        if name == split or name in task.files
    ]
    kind, found, notes = KINDS[task.kind], {}, []
    for split in splits:
        needs_labels = not split.startswith(_TEST)
        examples = kind.read(task, folder, split, needs_labels=needs_labels)
        found[split] = kind.encode(task, examples, tokenizer, config.max_seq_length)
        notes += [f"{split}: {note}." for note in found[split].notes]
    return Examples(task, found), notes


class _Start(NamedTuple):
    """What a classification starts from.

    Attributes:
      head: The classifier's head; without outputs if it is new.
      weights: Those of another run; without its head, if --new_head was passed.
      notes: Lines about --new_head.
      seed: Added to the run's seed for the initial weights. The encoder is trained
        with the head that is replaced: the same seed would initialise a similar one.
    """

    head: Head
    weights: Weights | None
    notes: list[str]
    seed: int = 0


def _read_start(config: ClassifierConfig, start: StartingPoint) -> _Start:
    """Reads the head that the run starts from, and the weights of another run."""
    is_new = config.task.new_head
    if not start.prefix:
        notes = ["--new_head has no effect: all weights are new."]
        return _Start(Head(), None, notes if is_new else [])
    source = find_source(start.prefix)
    if start.is_own:
        [size] = tensor_shapes(start.prefix).get(_HEAD[1], (0,))
        notes = ["--new_head has no effect: a resumed run keeps its head."]
        return _Start(read_head(source, size), None, notes if is_new else [])
    weights = read_weights(start.prefix)
    head = read_head(source, int(np.size(weights.tensors.get(_HEAD[1], ()))))
    if not is_new:
        return _Start(head, weights, [])
    kept = {name: t for name, t in weights.tensors.items() if name not in _HEAD}
    known = f" (classes {', '.join(head.names)})" if head.names else ""
    notes = [f"--new_head: the head of {source.path}{known} is not used."]
    if not head.num_outputs:
        notes = [f"--new_head has no effect: {source.path} has no classifier."]
    old = weights.tensors.get(_HEAD[0], np.zeros(0))
    seed = zlib.crc32(np.ascontiguousarray(old).tobytes())
    return _Start(Head(), dataclasses.replace(weights, tensors=kept), notes, seed)


def class_weights(
    config: ClassifierDataConfig, task: ClassificationTask, labels: np.ndarray
) -> dict[str, float]:
    """The weight of each class in the loss; empty without any.

    Args:
      config: The value of `class_weights`.
      task: Its classes.
      labels: [n] numbers of the classes of the examples.

    Returns:
      Class -> weight: of `balanced`, n / (C n_c), and 1 for a class without examples.

    Raises:
      ValueError: if a class is unknown, or the task has none.

    Source of `balanced`: King and Zeng 2001, as in scikit-learn.
    """
    if not config.class_weights:
        return {}
    given, names = config.weight_by_class(), task.label_names
    unknown = ", ".join(name for name in given if name not in names)
    checks.require(
        bool(names) and not unknown,
        "class_weights",
        f"name classes of the task: {quoted_list(names) if names else 'it has none'}",
        unknown or ",".join(config.class_weights),
    )
    if given:
        return dict.fromkeys(names, 1.0) | given
    counts = np.bincount(labels, minlength=len(names))
    return {
        name: len(labels) / (len(names) * count) if count else 1.0
        for name, count in zip(names, counts.tolist(), strict=True)
    }


def _weighted(
    config: ClassifierDataConfig, task: ClassificationTask, data: Examples
) -> tuple[Examples, list[str], list[str]]:
    """The examples with weights, CLASS:WEIGHT of each class, and lines for the log."""
    trained = data.trained
    if trained is None:
        notes = ["--class_weights has no effect without --do_train."]
        return data, [], notes if config.class_weights else []
    checks.require(
        not config.class_weights or task.kind in (Kind.CLASSES, Kind.NUMBERS),
        "class_weights",
        f"be left out: the task predicts {task.kind.value}",
        ",".join(config.class_weights),
    )
    labels = trained.labels.get("labels")
    weights = class_weights(config, task, labels)
    if not weights:
        return data, [], []
    values = np.array([weights[name] for name in task.label_names], np.float32)
    trained = dataclasses.replace(trained, weights=values[labels])
    listed = ", ".join(f"{name} {weight:.4g}" for name, weight in weights.items())
    stated = [f"{name}:{weight!r}" for name, weight in weights.items()]
    split = data.splits[_TRAIN]._replace(labelled=trained)
    data = dataclasses.replace(data, splits=data.splits | {_TRAIN: split})
    return data, stated, [f"Weights of the loss: {listed}."]


def prepare(config: ClassifierConfig, communicator: Communicator) -> ClassifierPlan:
    """Checks everything, and builds model and optimizer; see `pretraining.prepare`."""
    start, bert, tokenizer = find_finetuning_start(config, communicator.local_rank)
    head, weights, notes, head_seed = _read_start(config, start)
    task, more = choose_task(config, head, is_own=start.is_own)
    data, found = _read_splits(config, task, tokenizer.load())
    for split in data.splits.values():
        split.labelled.sequences.check_segments(bert.type_vocab_size)
    data, weighting, lines = _weighted(config.task, task, data)
    num_outputs, kind = len(task.label_names) or 1, data.kind
    # Rows are longer by the number of choices, which differs between splits.
    length = None if task.kind is Kind.CHOICES else config.max_seq_length
    has_dropout = not config.training.deterministic_run
    rate = config.task.dropout_before_logits if has_dropout else 0.0

    def make_task(bert: BertConfig, options: ModelOptions) -> FinetuningTask:
        options = options | {"seed": (options["seed"] + head_seed) % 2**31}
        given = {"of_tokens": kind.of_tokens, "max_seq_length": length, **options}
        return kind.make_task(build_classifier_model(bert, num_outputs, rate, **given))

    evaluated = {n: x.labelled for n, x in data.splits.items() if n != _TRAIN}
    classes = ", ".join(task.label_names) or task.kind.value
    return build_plan(
        config,
        communicator,
        start=start,
        bert=bert,
        tokenizer=tokenizer,
        training_set=finetuning.training_set(
            config, data.trained, {"class_weights": weighting}
        ),
        data=data,
        num_eval_records=sum(map(len, evaluated.values())),
        make_task=make_task,
        facts={
            "labels": {"classes": list(task.label_names) or task.kind.value},
            "evaluation": {split: example_facts(x) for split, x in evaluated.items()},
        },
        description=description_of(task) | {"max_seq_length": config.max_seq_length},
        head=_HEAD,
        weights=weights,
        notes=[
            f"Task {task.name}, predicting {classes}.",
            *(*notes, *more, *found, *lines),
        ],
    )


def _evaluate(
    plan: ClassifierPlan, session: Session, *, is_timed: bool = False
) -> dict[str, float]:
    """The metrics and the loss of the dev sets; logs its speed if it `is_timed`."""
    metrics: dict[str, float] = {}
    for split in (_DEV, _DEV + _MISMATCHED):
        if split in plan.data.splits:
            size = plan.config.batch.eval_batch_size
            logits = _logits(plan, session, split, size, is_timed=is_timed)
            data, given = plan.data, (plan.data.task, logits, plan.data.splits[split])
            found = data.kind.metrics(*given)
            prefix = "mismatched_" if split.endswith(_MISMATCHED) else ""
            metrics |= {prefix + name: value for name, value in found.items()}
            if is_timed and session.report and split == _DEV:
                words = plan.tokenizer.vocab_file
                find = functools.partial(data.kind.details, words, *given)
                session.report.add_details(find)
    return metrics


def _predict_tests(plan: ClassifierPlan, session: Session) -> None:
    """Writes the predictions for the test sets."""
    for split in (_TEST, _TEST + _MISMATCHED):
        if split not in plan.data.splits:
            continue
        size = plan.config.batch.predict_batch_size
        logits = _logits(plan, session, split, size, is_timed=True)
        if session.is_first:
            folder, name = plan.config.files.output_dir, split.removeprefix(_TEST)
            data = plan.data
            given = (folder, name, data.task, logits, data.splits[split])
            for line in data.kind.write(*given):
                session.log.message(line)


def _logits(
    plan: ClassifierPlan,
    session: Session,
    split: str,
    batch_size: int,
    *,
    is_timed: bool,
) -> np.ndarray:
    return finetuning.predict_logits(
        plan,
        session,
        plan.data.splits[split].labelled,
        batch_size,
        of_tokens=plan.data.kind.of_tokens,
        activity="Predicting" if split.startswith(_TEST) else "Evaluating",
        title=f"prediction of {split}" if is_timed else "",
    )
