"""SQuAD: a config to a trained model, its answers and their scores."""

import dataclasses
import os

from bert_tf.config import BertConfig
from bert_tf.config.finetuning import SquadConfig
from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.tasks.squad_cache import load_or_build_windows
from bert_tf.data.tasks.squad_files import SquadExample, drop_misplaced, read_squad
from bert_tf.data.tasks.squad_windows import SquadWindows, WindowSettings
from bert_tf.distribute import Communicator
from bert_tf.errors import counted
from bert_tf.evaluation.squad import (
    AnswerSettings,
    SquadPredictions,
    predict_answers,
    write_predictions,
)
from bert_tf.evaluation.squad_scores import (
    check_scorer,
    score_squad,
    wrong_answers,
)
from bert_tf.files import file_sha256
from bert_tf.interop.model_kind import SQUAD
from bert_tf.jobs import finetuning
from bert_tf.jobs.run.fingerprint import example_facts
from bert_tf.jobs.run.model_files import RunTokenizer
from bert_tf.jobs.run.output_dir import CACHE_DIR
from bert_tf.jobs.run.plan import Plan, build_plan
from bert_tf.jobs.run.reporting import NUM_HARDEST
from bert_tf.jobs.run.session import Session, open_session
from bert_tf.jobs.run.start import find_finetuning_start
from bert_tf.jobs.run.training_loop import train
from bert_tf.modeling.finetuning import SpanTask, build_span_model
from bert_tf.modeling.models import ModelOptions
from bert_tf.signals import StopRequest

# No answer depends on the pooler, and files made for SQuAD may lack it.
_HEAD = ("cls/squad/output_weights", "cls/squad/output_bias", "bert/pooler/*")
# Windows without an answer are less than half of SQuAD 2.0.
_MAX_UNANSWERED = 0.9
# Windows per question: as many as of a context of thousands of words.
_MANY_WINDOWS = 50


@dataclasses.dataclass(frozen=True)
class Questions:
    """A file of questions, ready for the model.

    Attributes:
      path: The file.
      examples: Its questions.
      windows: Their contexts, split to the model's length.
      notes: Lines for the log.
    """

    path: str
    examples: list[SquadExample]
    windows: SquadWindows
    notes: list[str] = dataclasses.field(default_factory=list)

    def labelled(self) -> LabelledSequences:
        """The windows with the positions of their answers."""
        labels = {
            "start_positions": self.windows.answer_first,
            "end_positions": self.windows.answer_last,
        }
        return LabelledSequences(self.windows.sequences, labels, tuple(labels))


@dataclasses.dataclass(frozen=True)
class SquadData:
    """The questions of a run.

    Attributes:
      train: Those that are trained on, if there is training.
      predict: Those that are answered, if there is prediction or evaluation.
    """

    train: Questions | None
    predict: Questions | None


SquadPlan = Plan[SquadConfig, SquadData, SpanTask]


def run(config: SquadConfig, stop: StopRequest | None = None) -> dict[str, float]:
    """Trains, predicts and evaluates as the config says.

    Args:
      config: The settings.
      stop: A signal that ends the run early.

    Returns:
      The scores in percent, as in eval_results.txt; empty without evaluation.

    Raises:
      RunError: if the run cannot start or continue.
    """
    with open_session(config, stop) as session:
        plan = session.make_plan(config, prepare, _write_cache)
        questions = plan.data.predict
        finetuning.describe(plan, session)
        finetuning.check_task(plan, session)

        def evaluate() -> dict[str, float]:
            return score_squad(
                questions.examples, _answers(plan, session, "Evaluating")
            )

        if config.training.do_train:
            with finetuning.keep_best(plan, session, evaluate, "f1") as after_step:
                train(plan, session, after_step)
        if questions is None or config.saving.benchmark:
            return {}
        activity = "Predicting" if config.training.do_predict else "Evaluating"
        predictions = _answers(plan, session, activity, title="prediction")
        if config.training.do_predict and session.is_first:
            write_predictions(config.files.output_dir, predictions)
            session.log.message(f"Predictions written to {config.files.output_dir}.")
        if not config.training.do_eval:
            return {}
        scores = score_squad(questions.examples, predictions)
        if session.report:
            asked = (questions.examples, predictions, NUM_HARDEST)
            session.report.add_details(lambda: {"hardest": wrong_answers(*asked)})
        return session.report_results(plan, scores)


def read_questions(
    config: SquadConfig, tokenizer: RunTokenizer, path: str, *, is_training: bool
) -> Questions:
    """Reads a file of questions and cuts their contexts into windows.

    Raises:
      FileNotFoundError, ValueError: see `read_squad`.
    """
    squad = config.squad
    examples = read_squad(
        path,
        version_2_with_negative=squad.version_2_with_negative,
        needs_answers=is_training or config.training.do_eval,
        needs_starts=is_training,
    )
    notes: list[str] = []
    if is_training:
        examples, misplaced = drop_misplaced(examples)
        if misplaced:
            notes = [
                f"warning: {path}: left out {counted(len(misplaced), 'question')} "
                f"whose answer is not at its answer_start; the first: {misplaced[0]}"
            ]
        if not examples:
            raise ValueError(
                f"{path}: each answer must be at its `answer_start`. Received: "
                f"{counted(len(misplaced), 'question')}, none of which has its answer "
                "there. Correct the file: `answer_start` counts characters of the "
                f"context from 0. The first: {misplaced[0]}"
            )
    windows = load_or_build_windows(
        path,
        examples,
        tokenizer.vocab_file,
        tokenizer.settings,
        WindowSettings(config.max_seq_length, squad.doc_stride, squad.max_query_length),
        os.path.join(config.files.output_dir, CACHE_DIR),
        squad.num_processes,
    )
    if is_training:
        notes += describe_windows(path, examples, windows)
    elif config.training.do_eval:
        notes += _placeholders(path, examples)
    if len(windows) > _MANY_WINDOWS * len(examples):
        notes.append(
            f"warning: {path}: {len(windows)} windows of "
            f"{counted(len(examples), 'question')}, which take long. A --doc_stride "
            f"larger than {squad.doc_stride} makes fewer."
        )
    return Questions(path, examples, windows, notes)


def _placeholders(path: str, examples: list[SquadExample]) -> list[str]:
    """A line about questions that no answer can be right for, as in test files."""
    answerable = [each for each in examples if each.answers]
    wrong = [
        each
        for each in answerable
        if not any(_holds(each.context, answer.text) for answer in each.answers)
    ]
    if not wrong:
        return []
    return [
        f"warning: {path}: {len(wrong)} of {len(answerable)} questions with an answer "
        "have none that is in the context, so predictions count as wrong; the first: "
        f"question {wrong[0].question_id!r}. Where answers are placeholders, leave out "
        "--do_eval."
    ]


def _holds(context: str, answer: str) -> bool:
    found, wanted = (" ".join(text.casefold().split()) for text in (context, answer))
    return wanted in found


def describe_windows(
    path: str, examples: list[SquadExample], windows: SquadWindows
) -> list[str]:
    """Lines about the windows to train on, and those without an answer.

    Args:
      path: The file, for messages.
      examples: Its questions.
      windows: Their windows.
    """
    count, empty = len(windows), windows.num_unanswered
    share = empty / count
    notes = [
        f"{path}: {counted(len(examples), 'question')}; {empty} of {count} windows "
        f"have no answer ({share:.1%})."
    ]
    answerable = {n for n, each in enumerate(examples) if each.answers}
    held = {*windows.example_index[windows.answer_last > 0].tolist()}
    if answerable - held:
        example = examples[min(answerable - held)]
        notes.append(
            f"warning: {path}: no window holds the whole answer of "
            f"{len(answerable - held)} of {len(answerable)} questions with an answer, "
            "which are trained as if they had none; the first: question "
            f"{example.question_id!r}. A smaller --doc_stride or a larger "
            "--max_seq_length lets windows overlap more."
        )
    if answerable and share > _MAX_UNANSWERED:
        notes.append(
            f"warning: {path}: {share:.1%} of the windows have no answer, more than "
            f"{_MAX_UNANSWERED:.0%}: the model may learn to answer nothing. Train with "
            "a larger --max_seq_length, or with shorter contexts."
        )
    return notes


def _read_data(config: SquadConfig, tokenizer: RunTokenizer) -> SquadData:
    train = questions = None
    if config.training.do_train:
        path = config.squad.train_path
        train = read_questions(config, tokenizer, path, is_training=True)
    if config.training.do_predict or config.training.do_eval:
        path = config.squad.predict_path
        questions = read_questions(config, tokenizer, path, is_training=False)
    return SquadData(train, questions)


def _write_cache(config: SquadConfig) -> None:
    """Writes the cache of the windows, which all workers then read."""
    _, _, tokenizer = find_finetuning_start(config)
    _read_data(config, tokenizer)


def prepare(config: SquadConfig, communicator: Communicator) -> SquadPlan:
    """Checks everything, and builds model and optimizer; see `pretraining.prepare`."""
    squad = config.squad
    start, bert, tokenizer = find_finetuning_start(config, communicator.local_rank)
    if config.training.do_eval:
        check_scorer(is_version_2=squad.version_2_with_negative)
    data = _read_data(config, tokenizer)
    files = [file for file in (data.train, data.predict) if file]
    for file in files:
        file.windows.sequences.check_segments(bert.type_vocab_size)

    def make_task(bert: BertConfig, options: ModelOptions) -> SpanTask:
        length = config.max_seq_length
        return SpanTask(build_span_model(bert, max_seq_length=length, **options))

    return build_plan(
        config,
        communicator,
        start=start,
        bert=bert,
        tokenizer=tokenizer,
        training_set=finetuning.training_set(
            config,
            data.train.labelled() if data.train else None,
            {
                "doc_stride": squad.doc_stride,
                "max_query_length": squad.max_query_length,
            },
        ),
        data=data,
        num_eval_records=len(data.predict.examples) if data.predict else 0,
        make_task=make_task,
        facts={
            "labels": {"version_2_with_negative": squad.version_2_with_negative},
            "evaluation": _evaluation_facts(data.predict),
        },
        description={
            "task": SQUAD,
            "max_seq_length": config.max_seq_length,
            **dataclasses.asdict(squad),
        },
        head=_HEAD,
        notes=[note for file in files for note in file.notes],
    )


def _evaluation_facts(questions: Questions | None) -> dict[str, object]:
    """The file with the answers that are scored, and its windows."""
    if questions is None:
        return {}
    file = {"file_sha256": file_sha256(questions.path)}
    return file | example_facts(questions.labelled())


def _answers(
    plan: SquadPlan, session: Session, activity: str, title: str = ""
) -> SquadPredictions:
    """The model's answers to all questions, on every worker."""
    questions, squad = plan.data.predict, plan.config.squad
    logits = finetuning.predict_logits(
        plan,
        session,
        LabelledSequences(questions.windows.sequences),
        plan.config.batch.predict_batch_size,
        of_tokens=True,
        activity=activity,
        title=title,
    )
    settings = AnswerSettings(
        n_best_size=squad.n_best_size,
        max_answer_length=squad.max_answer_length,
        version_2_with_negative=squad.version_2_with_negative,
        null_score_diff_threshold=squad.null_score_diff_threshold,
    )
    return predict_answers(
        questions.examples, questions.windows, logits[:, 0], logits[:, 1], settings
    )
