"""Questions and answers: a config to a trained, predicting and scored model."""

import dataclasses

from bert_tf.config.finetuning import SquadConfig
from bert_tf.data.batches.example_batches import LabelledSequences
from bert_tf.data.tasks.squad_cache import load_or_build_windows
from bert_tf.data.tasks.squad_files import SquadExample, drop_misplaced, read_squad
from bert_tf.data.tasks.squad_windows import SquadWindows, WindowSettings
from bert_tf.distribute import Communicator
from bert_tf.evaluation.squad import (
    AnswerSettings,
    SquadPredictions,
    predict_answers,
    write_predictions,
)
from bert_tf.evaluation.squad_scores import check_scorer, score_squad
from bert_tf.jobs import finetuning, results
from bert_tf.jobs.finetuning import FinetuningPlan
from bert_tf.jobs.folder_task import require_same_task, squad_task
from bert_tf.jobs.reporting import report_results
from bert_tf.jobs.running import run_job
from bert_tf.jobs.starting_point import StartingPoint, find_starting_point
from bert_tf.jobs.tokenizer import RunTokenizer
from bert_tf.modeling.finetuning import SpanTask, build_span_model
from bert_tf.training.runlog import RunLog

# No answer is read from the pooler, and files made for questions may lack it.
_HEAD = ("cls/squad/output_weights", "cls/squad/output_bias", "bert/pooler/*")
# Of SQuAD 2.0, with as many questions without an answer, it is less than half.
_MAX_UNANSWERED = 0.9
# On average for a question: a context of thousands of words has as many.
_MANY_WINDOWS = 50


@dataclasses.dataclass(frozen=True)
class Questions:
    """A file of questions, ready for the model.

    Attributes:
      path: The file.
      examples: Its questions.
      windows: Their contexts, cut to the model's length.
      notes: What is to be told of the file.
    """

    path: str
    examples: list[SquadExample]
    windows: SquadWindows
    notes: list[str] = dataclasses.field(default_factory=list)

    def labelled(self) -> LabelledSequences:
        """The windows and where their answers begin and end."""
        labels = {
            "start_positions": self.windows.answer_first,
            "end_positions": self.windows.answer_last,
        }
        return LabelledSequences(self.windows.sequences, labels, tuple(labels))


def run(config: SquadConfig) -> dict[str, float]:
    """Trains, predicts and evaluates as the config says.

    Args:
      config: The settings.

    Returns:
      The scores in percent, as in eval_results.txt; empty without evaluation.

    Raises:
      RunError: if the run cannot begin or go on.
    """
    return run_job(config, _prepare, _act, _prefetch)


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
                f"warning: {path}: {len(misplaced)} questions are left out, whose "
                f"answer does not stand where the file says; the first: {misplaced[0]}"
            ]
        if not examples:
            raise ValueError(
                f"{path} must have a question whose answer stands where the file says. "
                f"Received none; the first: {misplaced[0]}"
            )
    windows = load_or_build_windows(
        path,
        examples,
        tokenizer.vocab_file,
        tokenizer.settings,
        WindowSettings(config.max_seq_length, squad.doc_stride, squad.max_query_length),
        config.files.output_dir,
        squad.num_processes,
    )
    if is_training:
        notes += describe_windows(path, examples, windows)
    if len(windows) > _MANY_WINDOWS * len(examples):
        notes.append(
            f"warning: {path}: {len(examples)} questions make {len(windows)} windows, "
            f"which takes long. With a --doc_stride larger than {squad.doc_stride} "
            "there are fewer."
        )
    return Questions(path, examples, windows, notes)


def describe_windows(
    path: str, examples: list[SquadExample], windows: SquadWindows
) -> list[str]:
    """How many windows there are to train on, and how many of them hold no answer.

    Args:
      path: The file, for messages.
      examples: Its questions.
      windows: Theirs.
    """
    count, empty = len(windows), windows.num_unanswered
    share = empty / count
    notes = [
        f"{path}: {len(examples)} questions; {empty} of {count} windows have no answer "
        f"({share:.1%})."
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
            "a larger --max_seq_length, or cut the contexts shorter."
        )
    return notes


def _read_all(
    config: SquadConfig, tokenizer: RunTokenizer
) -> tuple[Questions | None, Questions | None]:
    """What is trained on, and what is answered."""
    train = questions = None
    if config.training.do_train:
        path = config.squad.train_file
        train = read_questions(config, tokenizer, path, is_training=True)
    if config.training.do_predict or config.training.do_eval:
        path = config.squad.predict_file
        questions = read_questions(config, tokenizer, path, is_training=False)
    return train, questions


def _prefetch(config: SquadConfig) -> None:
    """Writes the windows' cache, from which all workers read."""
    _, tokenizer = finetuning.load_model_files(config, _find_start(config))
    _read_all(config, tokenizer)


def _find_start(config: SquadConfig) -> StartingPoint:
    start = find_starting_point(config, own_first=True)
    require_same_task(config, start, squad_task(config.squad.version_2_with_negative))
    return start


def _prepare(config: SquadConfig, communicator: Communicator) -> FinetuningPlan:
    start = _find_start(config)
    bert, tokenizer = finetuning.load_model_files(config, start)
    if config.training.do_eval:
        check_scorer(is_version_2=config.squad.version_2_with_negative)
    train, questions = _read_all(config, tokenizer)
    return finetuning.make_plan(
        config,
        communicator,
        start,
        bert,
        tokenizer,
        train.labelled() if train else None,
        lambda bert, settings: SpanTask(build_span_model(bert, **settings)),
        head=_HEAD,
        data=questions,
        num_eval_records=len(questions.examples) if questions else 0,
        notes=[note for file in (train, questions) if file for note in file.notes],
    )


def _act(
    plan: FinetuningPlan, communicator: Communicator, threads: int, log: RunLog
) -> dict[str, float]:
    config = plan.config
    finetuning.describe(plan, threads, log)
    task = {"task": "squad", "max_seq_length": config.max_seq_length}
    task |= dataclasses.asdict(config.squad)
    results.keep_description(plan, task, communicator)

    def evaluate() -> dict[str, float]:
        return score_squad(plan.data.path, _answers(plan, communicator))

    finetuning.train(plan, communicator, log, evaluate, criterion="f1")
    if plan.data is None:
        return {}
    predictions = _answers(plan, communicator)
    if config.training.do_predict and communicator.rank == 0:
        write_predictions(config.files.output_dir, predictions)
        log.message(f"Predictions written to {config.files.output_dir}.")
    if not config.training.do_eval:
        return {}
    scores = score_squad(plan.data.path, predictions)
    return report_results(plan, scores, communicator, log)


def _answers(plan: FinetuningPlan, communicator: Communicator) -> SquadPredictions:
    """The model's answers to all questions, on every worker."""
    questions, config = plan.data, plan.config
    logits = results.predict_logits(
        plan,
        LabelledSequences(questions.windows.sequences),
        config.batch.predict_batch_size,
        communicator,
        of_tokens=True,
    )
    squad = config.squad
    settings = AnswerSettings(
        n_best_size=squad.n_best_size,
        max_answer_length=squad.max_answer_length,
        version_2_with_negative=squad.version_2_with_negative,
        null_score_diff_threshold=squad.null_score_diff_threshold,
    )
    return predict_answers(
        questions.examples, questions.windows, logits[:, 0], logits[:, 1], settings
    )
