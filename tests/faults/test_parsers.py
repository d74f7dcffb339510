"""Parsers of configurations and data refuse anything they cannot read, and only so."""

import json

import pytest
from conftest import TINY
from faults.counts import count
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from integration import finetuning_data

from bert_tf import flags
from bert_tf.cli.arguments import parse_config
from bert_tf.config import BertConfig, CreateDataConfig, PretrainingConfig
from bert_tf.config.finetuning import ClassifierConfig, SquadConfig
from bert_tf.config.options import options_of
from bert_tf.config.text import ShardConfig
from bert_tf.data.tasks.squad_files import read_squad
from bert_tf.data.tasks.tables import column_names, read_rows
from bert_tf.errors import one_line
from bert_tf.json_files import parse_json
from bert_tf.precision import read_rules

EXAMPLES = count(60, 5000)
PARSER = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

texts = st.text(max_size=20) | st.sampled_from(
    ["", "nan", "-1", "1e400", "inf", "9" * 400, "\ud800", "a\nb", "\0", "(", "true"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63, 0, -1])
    | st.floats()
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def parses_or_refuses(parse):
    """Whether it was parsed; a refusal is one printable line."""
    try:
        parse()
    except (ValueError, OSError) as error:
        assert not isinstance(error, UnicodeError), error
        line = one_line(error)
        assert line.isprintable() and 10 < len(line) <= 2100
        return False
    return True


def dumped(value):
    """JSON as other programs write it, with their NaN and halves of pairs."""
    return json.dumps(value).encode()


@st.composite
def damaged(draw, good):
    """Bytes of a good file, with some of them changed, removed or added."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 6))
        data[place : place + length] = draw(
            st.binary(max_size=6)
            | st.sampled_from(
                [b"NaN", b"{", b"]", b"\xff", b'"', b"\t", b"\n", b"1e999"]
            )
        )
    return bytes(data)


@st.composite
def altered(draw, good):
    """A JSON value, with some of its inner values replaced or removed."""
    value = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        inner = value
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            is_container = isinstance(inner[key], dict | list)
            if is_container and draw(st.integers(0, 3)):
                inner = inner[key]
                continue
            if draw(st.booleans()):
                inner[key] = draw(values)
            else:
                del inner[key]
            break
    return value


@PARSER
@given(data=st.binary(max_size=60) | damaged(dumped(TINY)))
def any_json(folder, data):
    parses_or_refuses(lambda: parse_json(data))


@PARSER
@given(
    config=altered(TINY | {"hidden_act": "gelu", "layer_norm_eps": 1e-12})
    | st.dictionaries(st.sampled_from([*TINY, "x"]), values)
)
def architectures(folder, config):
    if parses_or_refuses(lambda: BertConfig.from_dict(config)):
        read = BertConfig.from_dict(config)
        assert read.hidden_size % read.num_attention_heads == 0
        assert read.vocab_size == config["vocab_size"]


@st.composite
def command_lines(draw):
    """A script's config class, and flags of it with any values."""
    config, needed = draw(
        st.sampled_from(
            [
                (PretrainingConfig, ["--input_files_dir=/i", "--preset=tiny"]),
                (SquadConfig, ["--train_file=/t"]),
                (ClassifierConfig, ["--task_name=tsv", "--data_dir=/d"]),
            ]
        )
    )
    names = sorted(flags.make_flags(config))
    words = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(names) | st.text(max_size=10))
        value = draw(texts | st.integers().map(str) | st.floats().map(str))
        form = draw(
            st.sampled_from(["--{}={}", "-{}={}", "--no{}", "--{}", "{}", "--"])
        )
        words.append(form.format(name, value))
    return config, ["run", "--output_dir=/o", "--do_train", *needed, *words]


@PARSER
@given(line=command_lines())
def command_flags(folder, line):
    config_class, words = line
    try:
        parses_or_refuses(lambda: flags.parse(config_class, words))
    except flags.HelpRequest:
        assert any("h" in word for word in words)


@PARSER
@given(
    config=st.sampled_from([CreateDataConfig, ShardConfig]),
    picks=st.lists(st.tuples(st.integers(0, 30), texts), min_size=1, max_size=4),
)
def options_of_commands(folder, config, picks):
    names = list(options_of(config))
    words = [f"--{names[pick % len(names)]}={value}" for pick, value in picks]
    good = ["--input=i", "--output_dir=o"]
    parses_or_refuses(lambda: parse_config(config, [*good, *words], "data"))


@PARSER
@given(data=altered(finetuning_data.squad(is_version_2=True)), flag=st.booleans())
def questions(folder, data, flag):
    path = folder / "squad.json"
    path.write_bytes(dumped(data))

    def parse():
        return read_squad(
            str(path), version_2_with_negative=flag, needs_answers=not flag
        )

    if parses_or_refuses(parse):
        for example in parse():
            assert isinstance(example.question, str) and example.question_id
            example.context.encode()


@PARSER
@given(data=damaged(dumped(finetuning_data.squad())))
def damaged_questions(folder, data):
    path = folder / "squad.json"
    path.write_bytes(data)
    parses_or_refuses(
        lambda: read_squad(str(path), version_2_with_negative=False, needs_answers=True)
    )


TABLE = b"text\tlabel\na cat sat\tfood\nit rained\tweather\n"
LINES = b'{"text": "a cat", "label": "food"}\n{"text": "b", "label": 1}\n'


@PARSER
@given(
    data=damaged(TABLE) | damaged(LINES) | st.binary(max_size=60),
    ending=st.sampled_from(["tsv", "jsonl"]),
)
def tables(folder, data, ending):
    path = folder / f"train.{ending}"
    path.write_bytes(data)
    parses_or_refuses(lambda: column_names(str(path)))

    def parse():
        for row in read_rows(str(path), ["text", "label"]):
            assert row.values.keys() == {"text", "label"}

    parses_or_refuses(parse)


RULES = {
    "allowlist": ["MatMul", "BatchMatMulV2"],
    "conditional_list": ["Add"],
    "strict_conditional_list": [],
    "non_convertible_exceptions": [["pooler.*", "MatMul"]],
    "convertible_exceptions": [["bert", ""]],
}


@PARSER
@given(data=altered(RULES).map(dumped) | damaged(dumped(RULES)))
def precision_files(folder, data):
    path = folder / "precision.json"
    path.write_bytes(data)
    if parses_or_refuses(lambda: read_rules(str(path))):
        assert read_rules(str(path)).allows(("MatMul", "bert/x")) in (True, False)


PARSERS = [
    any_json,
    architectures,
    command_flags,
    options_of_commands,
    questions,
    damaged_questions,
    tables,
    precision_files,
]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_a_parser_reads_or_refuses(parser, tmp_path, figure):
    parser(tmp_path)
    figure("examples that parsers read or refuse", EXAMPLES, EXAMPLES)
