"""README and docs are true: commands run or can be parsed, files and links exist."""

import re
import tomllib

import pytest
from conftest import ROOT
from pages import PAGES, fences

from bert_tf import flags
from bert_tf.cli import (
    convert,
    data,
    evaluate,
    launch,
    predict,
    report,
    train,
    vocab,
)
from bert_tf.cli.arguments import parse_config
from bert_tf.cli.pipeline import plan
from bert_tf.config.options import options_of
from bert_tf.config.planning import PlanConfig
from bert_tf.errors import _OF_TRANSFORMERS

# The tests that execute the commands of a page which are not marked needs=...
EXECUTED_BY = {
    "README.md": "integration/test_pages.py",
    "docs/checkpoints.md": "interop/test_checkpoints_page.py",
    "docs/data.md": "integration/test_data_documents.py",
    "docs/finetuning.md": "integration/test_pages.py",
    "docs/installing.md": "integration/test_pages.py",
    "docs/planning.md": "integration/test_pages.py",
    "docs/pretraining.md": "integration/test_pages.py",
    "docs/reports.md": "integration/test_pages.py",
}
# What no test executes, by page: the options of these are parsed.
MARKED = {
    "README.md": ["network", "network", "cluster", "network"],
    "docs/checkpoints.md": ["data", "data", "network"],
    "docs/coming_from.md": ["data", "data"],
    "docs/data.md": ["data", "network"],
    "docs/evaluate.md": ["network", "data"],
    "docs/finetuning.md": ["network", "network", "data", "data", "data"],
    "docs/installing.md": ["network", "data"],
    "docs/keras.md": ["cluster"],
    "docs/operations.md": ["cluster"],
    "docs/planning.md": ["cluster"],
    "docs/pretraining.md": ["data", "cluster", "data", "data"],
    "docs/results.md": ["data"] * 6,
    "docs/scaling.md": ["cluster"],
}
SCRIPTS = {
    "run_pretraining.py": "pretrain",
    "run_squad.py": "squad",
    "run_classifier.py": "classify",
    "run_sentences.py": "sentences",
}
OTHER_PROGRAMS = ("source", "echo", "pip")
COMMANDS = [(fence, words) for fence in fences() for words in fence.commands]


def parse(words):
    """Parses a command line as its program does; returns its settings, if any."""
    program, *rest = words
    is_python = bool(re.search("python3?$", program))
    if program == "mpirun":
        start = next(n for n, w in enumerate(rest) if re.search("(python|bert-tf)$", w))
        if rest[start + 1] == "train.py":  # The example of docs/keras.md.
            return None
        settings = parse(rest[start:])
        assert getattr(settings, "runtime", settings).horovod
        return settings
    if program == "bert-tf" or (is_python and rest[:2] == ["-m", "bert_tf"]):
        return parse_command(*rest[2 * is_python :])
    if is_python and rest[0] in SCRIPTS:
        return parse_command(SCRIPTS[rest[0]], *rest[1:])
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert re.search(rf"^{rest[0]}:", makefile, re.MULTILINE), rest[0]
    elif is_python and rest[0].endswith(".py"):
        text = (ROOT / rest[0]).read_text()
        for option in (word.partition("=")[0] for word in rest if word[:2] == "--"):
            assert f'"{option}"' in text, option
    else:
        assert is_python or program in OTHER_PROGRAMS, program
    return None


def parse_command(name, *words):
    """Parses what follows `bert-tf`."""
    if name in train.JOBS:
        config = flags.parse(train.JOBS[name][0], [name, *words])
        assert config.training.do_train
        return config
    if name == "data" and words[0] == "all":
        path = words[words.index("--config") + 1]
        for command, options in plan(tomllib.loads((ROOT / path).read_text()), path):
            parse_command("data", command, *(f"--{k}={v}" for k, v in options.items()))
    elif name == "data":
        return parse_config(data.SUBCOMMANDS[words[0]][0], words[1:], "data")
    elif name == "predict":
        assert predict.make_parser().parse_intermixed_args(words).model
    elif name == "evaluate":
        assert evaluate.make_parser().parse_intermixed_args(words).model
    elif name == "convert":
        assert convert.make_parser().parse_args(words).source
    elif name == "vocab":
        assert vocab.make_parser().parse_args(words).input
    elif name == "plan":
        return parse_config(PlanConfig, words, "plan")
    elif name == "report":
        assert report.make_parser().parse_args(words).folders
    elif name == "launch":
        assert words[0] in ("--", "--restarts")
        return parse(launch._split(list(words))[1])
    else:
        assert name in ("--version", "build", "recipes") and not words, name
    return None


@pytest.mark.parametrize("fence, words", COMMANDS, ids=range(len(COMMANDS)))
def test_commands_can_be_parsed(fence, words):
    parse(words)


def test_flags_of_transformers_are_answered_and_those_beside_them_exist():
    table = PAGES["docs/coming_from.md"].partition("\n| theirs | here |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    known = {name for job in train.JOBS.values() for name in flags.make_flags(job[0])}
    for config, _ in data.SUBCOMMANDS.values():
        known |= set(options_of(config))
    # A used folder resumes without a flag, and mpirun has no part in the settings.
    answered = known | set(_OF_TRANSFORMERS) | {"resume_from_checkpoint"}
    for row in rows:
        _, theirs, ours, remark, _ = row.split("|")
        assert set(re.findall(r"--(\w+)", theirs)) <= answered | {"nproc_per_node"}
        for name in re.findall(r"--(\w+)", ours + remark):
            assert known & {name, name.removeprefix("no")}, row
    assert len(rows) > 25


def test_all_commands_were_found():
    assert len(COMMANDS) > 50
    assert sum("mpirun" in words for _, words in COMMANDS) >= 5


def test_every_command_is_executed_or_marked():
    marked = {}
    for fence in fences():
        if fence.needs:
            assert set(fence.needs.split(",")) <= {"network", "gpu", "cluster", "data"}
            marked.setdefault(fence.page, []).append(fence.needs)
        else:
            test = ROOT / "tests" / EXECUTED_BY[fence.page]
            assert test.is_file() and fence.page.split("/")[-1] in test.read_text()
    assert marked == MARKED


def test_placeholders_look_like_placeholders():
    """A path is of this checkout, of its results, of a download, or in <...>."""
    for fence, words in COMMANDS:
        for word in words:
            value = word.partition("=")[2] or word
            assert not re.match(r"(\./|\.\.\.|/(?!tmp/)|YOUR|[A-Z_]{6,}$)", value), (
                f"{fence.page}: {word}"
            )


def anchors(path):
    """Those that a page gets from its headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_links_lead_to_files_and_headings():
    for page, text in PAGES.items():
        for name, heading in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", text):
            target = (ROOT / page).parent / name if name else ROOT / page
            assert target.exists(), f"{page}: {name}"
            if heading:
                assert heading in anchors(target), f"{page}: {name}#{heading}"
