"""Sentence vectors: a config to a model that finds the texts that belong together."""

import dataclasses
import functools

import numpy as np

from bert_tf.config import BertConfig, checks
from bert_tf.config.sentences import SentencesConfig
from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.tasks.label_names import quoted_list
from bert_tf.data.tasks.pairs import PairColumns, encode_pairs, find_columns, read_pairs
from bert_tf.data.tasks.tables import column_names
from bert_tf.data.text.tokenization import WordPieceTokenizer
from bert_tf.distribute import Communicator
from bert_tf.errors import counted
from bert_tf.evaluation.retrieval import retrieval_metrics
from bert_tf.interop.sentence_files import EMBED
from bert_tf.jobs import finetuning
from bert_tf.jobs.run.fingerprint import example_facts
from bert_tf.jobs.run.plan import Plan, build_plan
from bert_tf.jobs.run.session import Session, open_session
from bert_tf.jobs.run.start import find_finetuning_start
from bert_tf.jobs.run.training_loop import train
from bert_tf.modeling.models import ModelOptions
from bert_tf.modeling.sentences import SentenceTask, build_sentence_model
from bert_tf.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A file of pairs, ready for the model.

    Attributes:
      examples: Its sequences, `per_example` to a row of the file.
      notes: Lines for the log.
    """

    examples: LabelledSequences
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class SentenceData:
    """The pairs of a run.

    Attributes:
      train: Those that are trained on, if there is training.
      dev: Those whose positives are searched, if there is an evaluation.
    """

    train: Pairs | None
    dev: Pairs | None


SentencePlan = Plan[SentencesConfig, SentenceData, SentenceTask]


def run(config: SentencesConfig, stop: StopRequest | None = None) -> dict[str, float]:
    """Trains and evaluates as the config says.

    Args:
      config: The settings.
      stop: A signal that ends the run early.

    Returns:
      The results of the search, as in eval_results.txt; empty without evaluation.

    Raises:
      RunError: if the run cannot start or continue.
    """
    with open_session(config, stop) as session:
        plan = session.make_plan(config, prepare)
        finetuning.describe(plan, session)
        finetuning.check_task(plan, session)
        evaluate = functools.partial(_evaluate, plan, session)
        if config.training.do_train:
            best = finetuning.keep_best(plan, session, evaluate, "mrr")
            with best as after_step:
                train(plan, session, after_step)
        if plan.data.dev is None or config.saving.benchmark:
            return {}
        results = _evaluate(plan, session, title="dev")
        return session.report_results(plan, results)


def _read(config: SentencesConfig, path: str, tokenizer: WordPieceTokenizer) -> Pairs:
    columns = find_columns(path, PairColumns(*config.pairs.columns))
    rows = read_pairs(path, columns)
    sequences, notes = encode_pairs(rows, tokenizer, config.max_seq_length)
    listed = ", ".join(columns)
    other = [name for name in column_names(path) if name not in columns]
    unread = f" Columns that are not read: {quoted_list(other)}." if other else ""
    return Pairs(
        LabelledSequences(sequences, per_example=len(columns)),
        [
            f"{path}: {counted(len(rows), 'row')} of {listed}.{unread}",
            *(f"{path}: {note}" for note in notes),
        ],
    )


def prepare(config: SentencesConfig, communicator: Communicator) -> SentencePlan:
    """Checks everything, and builds model and optimizer; see `pretraining.prepare`."""
    start, bert, tokenizer = find_finetuning_start(config, communicator.local_rank)
    words, training, pairs = tokenizer.load(), config.training, config.pairs
    data = SentenceData(
        _read(config, pairs.train_file, words) if training.do_train else None,
        _read(config, pairs.dev_file, words) if training.do_eval else None,
    )
    trained = data.train.examples if data.train else None
    texts = trained.per_example if trained else 2

    def make_task(bert: BertConfig, options: ModelOptions) -> SentenceTask:
        model = build_sentence_model(
            bert, pairs.pooling, max_seq_length=config.max_seq_length, **options
        )
        return SentenceTask(
            model,
            scale=pairs.scale,
            texts_per_example=texts,
            communicator=communicator,
        )

    plan = build_plan(
        config,
        communicator,
        start=start,
        bert=bert,
        tokenizer=tokenizer,
        training_set=finetuning.training_set(config, trained, {"columns": texts}),
        data=data,
        num_eval_records=len(data.dev.examples.sequences) if data.dev else 0,
        make_task=make_task,
        facts={
            "labels": {"pooling": pairs.pooling},
            "evaluation": example_facts(data.dev.examples) if data.dev else {},
            "losses": {"scale": pairs.scale},
        },
        description={
            "task": EMBED,
            "pooling": pairs.pooling,
            "max_seq_length": config.max_seq_length,
        },
        notes=[note for file in (data.train, data.dev) if file for note in file.notes],
    )
    size = plan.shape.global_batch_size
    checks.require(
        not training.do_train or size * (texts - 1) > 1,
        "train_batch_size",
        "give two pairs or more per step, which are each other's negatives",
        f"{config.batch.train_batch_size}, a global batch of {size}",
        "Pass a larger one.",
    )
    return plan


def _evaluate(
    plan: SentencePlan, session: Session, title: str = ""
) -> dict[str, float]:
    """Searches the positive of each anchor among all other texts of the file.

    Args:
      plan: The run.
      session: Its workers.
      title: See `finetuning.predict_logits`.
    """
    examples, size = plan.data.dev.examples, plan.config.batch.eval_batch_size
    vectors = finetuning.predict_logits(
        plan,
        session,
        examples,
        size,
        of_tokens=False,
        activity="Evaluating",
        title=title,
    )
    # Texts may occur in several rows.
    numbers: dict[bytes, int] = {}
    sequences, texts = examples.sequences, examples.per_example
    wanted, chosen = [], []
    for number in range(len(sequences)):
        if number % texts:
            ids = sequences.input_ids[sequences.span(number)].tobytes()
            if ids not in numbers:
                numbers[ids] = len(chosen)
                chosen.append(number)
            if number % texts == 1:
                wanted.append(numbers[ids])
    return retrieval_metrics(vectors[::texts], vectors[chosen], np.array(wanted))
