import os

import pytest

from bert_tf.data.tasks.classification import read_examples
from bert_tf.data.tasks.glue_tasks import TASK_NAMES, find_task

MNLI_HEADER = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse "
    "sentence1_parse sentence2_parse sentence1 sentence2"
).split()
STS_B_HEADER = (
    "index genre filename year old_index source1 source2 sentence1 sentence2"
).split()
XNLI_HEADER = (
    "language gold_label sentence1_binary_parse sentence2_binary_parse "
    "sentence1_parse sentence2_parse sentence1 sentence2 promptID pairID genre "
    "label1 label2 label3 label4 label5 sentence1_tokenized sentence2_tokenized match"
).split()
MRPC_HEADER = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]


def write_table(path, rows, line_end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(row) + line_end for row in rows)
    path.write_bytes(text.encode())


def contents(examples):
    """Texts and labels without locations."""
    return [tuple(example[:3]) for example in examples]


def mnli_row(number, premise, hypothesis, *labels):
    return [
        str(number),
        "7c",
        "7e",
        "letters",
        *4 * ["( )"],
        premise,
        hypothesis,
        *labels,
    ]


def xnli_row(language, label, premise, hypothesis):
    return [language, label, *4 * [""], premise, hypothesis, "1", "1", *9 * ["x"]]


@pytest.fixture
def xnli_dir(tmp_path):
    write_table(
        tmp_path / "multinli/multinli.train.zh.tsv",
        [
            ["premise", "hypo", "label"],
            ["他 说 “ 好 ” 。", '他 没 说 " 话 。', "contradictory"],
            ["雨 停 了 。", "天 晴 了 。", "neutral"],
            ["她 在 睡 觉 。", "她 没 醒 。", "entailment"],
        ],
    )
    for name in ("dev", "test"):
        rows = [
            XNLI_HEADER,
            xnli_row("en", "neutral", f"He left {name}.", "He was tired."),
            xnli_row("zh", "contradiction", f"他 走 了 {name} 。", "他 在 家 。"),
            xnli_row("zh", "entailment", "门 开 着 。", "门 没 关 。"),
        ]
        write_table(tmp_path / f"xnli.{name}.tsv", rows)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cola", "CoLA"),
        ("CoLA", "CoLA"),
        ("sst2", "SST-2"),
        ("SST-2", "SST-2"),
        ("sst-2", "SST-2"),
        ("stsb", "STS-B"),
        ("sts_b", "STS-B"),
        ("XNLI", "XNLI"),
    ],
)
def test_tasks_are_found_in_any_spelling(name, expected):
    assert find_task(name).name == expected


def test_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"CoLA, MNLI, .*XNLI.*task_name=snli\."):
        find_task("snli")


def test_unknown_language_of_xnli_is_refused():
    with pytest.raises(
        ValueError, match=r"`xnli_language` must be one of ar, .*xnli_language=xx"
    ):
        find_task("xnli", language="xx")


# As in the table of the GLUE paper (Wang et al. 2018, table 1).
@pytest.mark.parametrize(
    ("name", "metrics"),
    [
        ("CoLA", {"matthews_correlation", "accuracy"}),
        ("SST-2", {"accuracy"}),
        ("MRPC", {"accuracy", "f1"}),
        ("QQP", {"accuracy", "f1"}),
        ("STS-B", {"pearson", "spearman"}),
        ("MNLI", {"accuracy"}),
        ("QNLI", {"accuracy"}),
        ("RTE", {"accuracy"}),
        ("WNLI", {"accuracy"}),
    ],
)
def test_metrics_are_those_of_the_benchmark(name, metrics):
    assert set(find_task(name).metrics) == metrics


def test_cola_is_read_without_a_header(tmp_path):
    rows = [["gj04", "1", "", "The cat slept."], ["gj04", "0", "*", "Cat the slept."]]
    write_table(tmp_path / "CoLA/train.tsv", rows)
    examples = read_examples(find_task("cola"), str(tmp_path), "train")
    assert contents(examples) == [
        ("The cat slept.", None, 1),
        ("Cat the slept.", None, 0),
    ]
    assert examples[1].location == f"{tmp_path}/CoLA/train.tsv, line 2"


def test_a_first_line_of_cola_with_other_columns_may_be_of_another_task(tmp_path):
    write_table(tmp_path / "train.tsv", [MRPC_HEADER])
    with pytest.raises(ValueError, match=r"line 1: .*4 tab.* check --task_name\."):
        read_examples(find_task("cola"), str(tmp_path), "train")
    write_table(tmp_path / "train.tsv", [["a", "1", "", "b"], ["a", "1"]])
    with pytest.raises(ValueError, match=r"line 2: .*4 tab.*remove the line\.$"):
        read_examples(find_task("cola"), str(tmp_path), "train")


def test_test_set_of_cola_has_a_header_and_no_labels(tmp_path):
    rows = [["index", "sentence"], ["0", "Bill whistled."]]
    write_table(tmp_path / "test.tsv", rows)
    examples = read_examples(find_task("cola"), str(tmp_path), "test")
    assert contents(examples) == [("Bill whistled.", None, None)]


def test_columns_are_found_by_their_names(tmp_path):
    rows = [["label", "sentence"], ["1", "a warm film "], ["0", "a dull one "]]
    write_table(tmp_path / "dev.tsv", rows)
    examples = read_examples(find_task("sst-2"), str(tmp_path), "dev")
    assert contents(examples) == [("a warm film ", None, 1), ("a dull one ", None, 0)]


@pytest.mark.parametrize("kind", ["matched", "mismatched"])
def test_mnli_has_two_dev_and_two_test_sets(tmp_path, kind):
    split = "" if kind == "matched" else "_mismatched"
    labels = [f"label{number}" for number in range(1, 6)]
    write_table(
        tmp_path / f"MNLI/dev_{kind}.tsv",
        [
            [*MNLI_HEADER, *labels, "gold_label"],
            mnli_row(0, kind, "All agree.", *5 * ["neutral"], "contradiction"),
        ],
    )
    write_table(
        tmp_path / f"MNLI/test_{kind}.tsv",
        [MNLI_HEADER, mnli_row(0, kind, "Few agree.")],
    )
    task = find_task("mnli")
    dev = read_examples(task, str(tmp_path), f"dev{split}")
    test = read_examples(task, str(tmp_path), f"test{split}")
    assert contents(dev) == [(kind, "All agree.", 0)]
    assert contents(test) == [(kind, "Few agree.", None)]


def test_mnli_trains_with_the_gold_label(tmp_path):
    rows = [
        [*MNLI_HEADER, "label1", "gold_label"],
        mnli_row(0, "It rained.", "It was wet.", "neutral", "entailment"),
    ]
    write_table(tmp_path / "train.tsv", rows)
    examples = read_examples(find_task("mnli"), str(tmp_path), "train")
    assert contents(examples) == [("It rained.", "It was wet.", 1)]


def test_unbalanced_quotes_are_plain_text(tmp_path):
    rows = [
        MRPC_HEADER,
        ["1", "10", "11", '"We won, he said.', 'He said "we won"'],
        ["0", "20", "21", 'It is 3" wide.', '" "'],
    ]
    write_table(tmp_path / "MRPC/train.tsv", rows)
    examples = read_examples(find_task("mrpc"), str(tmp_path), "train")
    assert contents(examples) == [
        ('"We won, he said.', 'He said "we won"', 1),
        ('It is 3" wide.', '" "', 0),
    ]


@pytest.fixture
def mrpc_dir(tmp_path):
    """The corpus's own files, with byte order marks and CRLF."""
    header = ["\ufeffQuality", *MRPC_HEADER[1:]]
    rows = [
        header,
        ["1", "10", "11", "Rain fell.", "It rained."],
        ["0", "20", "21", "Prices rose.", "Prices fell."],
        ["1", "11", "10", "It rained.", "Rain fell."],
    ]
    write_table(tmp_path / "msr_paraphrase_train.txt", rows, "\r\n")
    test = [header, ["1", "40", "41", "He sang.", "He did sing."]]
    write_table(tmp_path / "msr_paraphrase_test.txt", test, "\r\n")
    write_table(tmp_path / "mrpc_dev_ids.tsv", [["20", "21"]], "\r\n")
    return tmp_path


def test_dev_of_mrpc_are_the_listed_pairs_of_the_corpus(mrpc_dir):
    examples = read_examples(find_task("mrpc"), str(mrpc_dir), "dev")
    assert contents(examples) == [("Prices rose.", "Prices fell.", 0)]
    assert examples[0].location.endswith("msr_paraphrase_train.txt, line 3")


def test_train_of_mrpc_are_the_other_pairs_of_the_corpus(mrpc_dir):
    examples = read_examples(find_task("mrpc"), str(mrpc_dir), "train")
    assert contents(examples) == [
        ("Rain fell.", "It rained.", 1),
        ("It rained.", "Rain fell.", 1),
    ]


def test_test_of_mrpc_has_no_labels_in_the_corpus_either(mrpc_dir):
    examples = read_examples(find_task("mrpc"), str(mrpc_dir), "test")
    assert contents(examples) == [("He sang.", "He did sing.", None)]


def test_files_of_glue_come_before_those_of_the_corpus(mrpc_dir):
    write_table(mrpc_dir / "dev.tsv", [MRPC_HEADER, ["1", "1", "2", "One.", "1."]])
    examples = read_examples(find_task("mrpc"), str(mrpc_dir), "dev")
    assert contents(examples) == [("One.", "1.", 1)]


def test_question_of_qnli_comes_first(tmp_path):
    rows = [
        ["index", "question", "sentence", "label"],
        ["0", "Who sang?", "Ann sang.", "entailment"],
        ["1", "Who ran?", "It rained.", "not_entailment"],
    ]
    write_table(tmp_path / "QNLI/dev.tsv", rows)
    examples = read_examples(find_task("qnli"), str(tmp_path), "dev")
    assert contents(examples) == [
        ("Who sang?", "Ann sang.", 0),
        ("Who ran?", "It rained.", 1),
    ]


QQP_ROWS = [
    ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
    ["1", "11", "12", "How far is it?", "What is the distance?", "1"],
    ["2", "21", "22", "Why do I have to"],
    ["pay?", "How much is it?", "0"],
    ["3", "31", "32", "Is it new?", "", "0"],
]


def test_broken_rows_of_qqp_are_skipped_and_counted(tmp_path, caplog):
    write_table(tmp_path / "QQP/train.tsv", QQP_ROWS)
    examples = read_examples(find_task("qqp"), str(tmp_path), "train")
    assert contents(examples) == [
        ("How far is it?", "What is the distance?", 1),
        ("Is it new?", "", 0),
    ]
    assert "QQP/train.tsv: skipped 2 lines" in caplog.text


def test_broken_rows_of_other_tasks_are_refused(tmp_path):
    rows = [["index", "sentence1", "sentence2", "label"], ["0", "Ann sang.", "0"]]
    write_table(tmp_path / "train.tsv", rows)
    with pytest.raises(
        ValueError,
        match=r"train\.tsv, line 2: .* 4 tab-separated columns\. Received: 3\.",
    ):
        read_examples(find_task("wnli"), str(tmp_path), "train")


def test_labels_of_sts_b_are_numbers(tmp_path):
    rows = [
        [*STS_B_HEADER, "score"],
        ["0", "news", "x", "2012", "1", "a", "b", "A dog ran.", "A dog runs.", "4.250"],
        ["1", "news", "x", "2012", "2", "a", "b", "A dog ran.", "It rained.", "0"],
    ]
    write_table(tmp_path / "STS-B/train.tsv", rows)
    task = find_task("sts-b")
    examples = read_examples(task, str(tmp_path), "train")
    assert task.is_regression
    assert contents(examples) == [
        ("A dog ran.", "A dog runs.", 4.25),
        ("A dog ran.", "It rained.", 0.0),
    ]


@pytest.mark.parametrize("score", ["5.5", "-1", "nan", "high", ""])
def test_scores_of_sts_b_outside_their_range_are_refused(tmp_path, score):
    rows = [[*STS_B_HEADER, "score"], ["x"] * 9 + [score]]
    write_table(tmp_path / "dev.tsv", rows)
    with pytest.raises(
        ValueError, match=rf"dev\.tsv, line 2: .*from 0 to 5\. Received: '{score}'"
    ):
        read_examples(find_task("sts-b"), str(tmp_path), "dev")


def test_xnli_trains_on_the_translation_of_multinli(xnli_dir):
    examples = read_examples(find_task("xnli"), xnli_dir, "train")
    assert contents(examples) == [
        ("他 说 “ 好 ” 。", '他 没 说 " 话 。', 0),
        ("雨 停 了 。", "天 晴 了 。", 2),
        ("她 在 睡 觉 。", "她 没 醒 。", 1),
    ]


def test_xnli_is_evaluated_in_one_language(xnli_dir):
    task = find_task("xnli", language="zh")
    assert contents(read_examples(task, xnli_dir, "dev")) == [
        ("他 走 了 dev 。", "他 在 家 。", 0),
        ("门 开 着 。", "门 没 关 。", 1),
    ]
    task = find_task("xnli", language="en")
    assert contents(read_examples(task, xnli_dir, "test")) == [
        ("He left test.", "He was tired.", 2)
    ]


def test_byte_order_mark_and_crlf_are_accepted(tmp_path):
    rows = [["\ufeffsentence", "label"], ["a warm film", "1"]]
    write_table(tmp_path / "dev.tsv", rows, "\r\n")
    examples = read_examples(find_task("sst2"), str(tmp_path), "dev")
    assert contents(examples) == [("a warm film", None, 1)]


def test_characters_that_end_lines_elsewhere_are_part_of_the_text(tmp_path):
    text = "one\rtwo\u2028three\x85four\x0bfive"
    write_table(tmp_path / "dev.tsv", [["sentence", "label"], [text, "1"]])
    examples = read_examples(find_task("sst2"), str(tmp_path), "dev")
    assert contents(examples) == [(text, None, 1)]


def test_empty_lines_at_the_end_are_no_examples(tmp_path):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na film\t1\n\n\n")
    examples = read_examples(find_task("sst2"), str(tmp_path), "dev")
    assert contents(examples) == [("a film", None, 1)]


def test_missing_column_is_refused_with_the_existing_ones(tmp_path):
    write_table(tmp_path / "dev.tsv", [["text", "label"], ["a film", "1"]])
    with pytest.raises(
        ValueError, match=r"dev\.tsv, line 1: .*'sentence'.*Received: 'text', 'label'"
    ):
        read_examples(find_task("sst2"), str(tmp_path), "dev")


def test_unknown_class_is_refused_with_the_known_ones(tmp_path):
    rows = [["index", "sentence1", "sentence2", "label"], ["0", "a", "b", "neutral"]]
    write_table(tmp_path / "dev.tsv", rows)
    with pytest.raises(
        ValueError,
        match=r"dev\.tsv, line 2: .*'entailment', 'not_entailment'.*'neutral'",
    ):
        read_examples(find_task("rte"), str(tmp_path), "dev")


def test_file_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\ncaf\xe9\t1\n")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 2: not UTF-8 \(byte 3: 0xe9"):
        read_examples(find_task("sst2"), str(tmp_path), "dev")


def test_empty_file_is_refused(tmp_path):
    (tmp_path / "dev.tsv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"dev\.tsv, line 1: the file is empty"):
        read_examples(find_task("sst2"), str(tmp_path), "dev")


def test_file_without_examples_is_refused(tmp_path):
    write_table(tmp_path / "dev.tsv", [["sentence", "label"]])
    with pytest.raises(ValueError, match=r"dev\.tsv: there are no examples for SST-2"):
        read_examples(find_task("sst2"), str(tmp_path), "dev")


@pytest.mark.parametrize("folder", ["", "RTE"])
def test_missing_file_is_refused_with_the_command_that_fetches_it(tmp_path, folder):
    data_dir = os.path.join(tmp_path, folder) if folder else str(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        read_examples(find_task("rte"), data_dir, "train")
    command = f"`python -m bert_tf data download --name=rte --output_dir={tmp_path}`"
    assert os.path.join(data_dir, "train.tsv") in str(error.value)
    assert command in str(error.value)


def test_missing_split_is_refused_with_those_of_the_task(tmp_path):
    with pytest.raises(
        ValueError, match=r"train, dev, test for RTE\. .*split=dev_mismatched"
    ):
        read_examples(find_task("rte"), str(tmp_path), "dev_mismatched")


@pytest.mark.parametrize("name", [name for name in TASK_NAMES if name != "XNLI"])
def test_download_knows_the_task_and_its_folder(name):
    from bert_tf.download.catalogue import CATALOGUE

    task = find_task(name)
    assert CATALOGUE[task.download_name].folder == task.folder


@pytest.fixture(scope="module")
def processors():
    """Model Garden's classes that know the tasks."""
    from official.nlp.data import classifier_data_lib

    return classifier_data_lib


@pytest.mark.slow
def test_classes_have_the_numbers_of_model_garden(processors):
    expected = {
        "CoLA": processors.ColaProcessor,
        "MNLI": processors.MnliProcessor,
        "MRPC": processors.MrpcProcessor,
        "QNLI": processors.QnliProcessor,
        "QQP": processors.QqpProcessor,
        "RTE": processors.RteProcessor,
        "SST-2": processors.SstProcessor,
        "WNLI": processors.WnliProcessor,
        "XNLI": processors.XnliProcessor,
    }
    assert {*expected, "STS-B"} == set(TASK_NAMES)
    for name, processor in expected.items():
        # Without an instance: to make one, some want the network.
        assert list(find_task(name).label_names) == processor.get_labels(None)


@pytest.mark.slow
def test_xnli_is_read_as_in_model_garden(processors, xnli_dir):
    processor = processors.XnliProcessor(language="zh")
    names = processor.get_labels()
    task = find_task("xnli", language="zh")
    pairs = {
        "train": processor.get_train_examples(xnli_dir),
        "test": processor.get_test_examples(xnli_dir)["zh"],
    }
    for split, theirs in pairs.items():
        assert contents(read_examples(task, xnli_dir, split)) == [
            (example.text_a, example.text_b, names.index(example.label))
            for example in theirs
        ]


@pytest.mark.parametrize(
    "text",
    ["a\rb", "a\0b", "x" * 200_000, '"a', "a\u2028b"],
    ids=["carriage return", "zero byte", "long", "quote", "line separator"],
)
def test_texts_that_a_reader_of_csv_would_change_are_kept(tmp_path, text):
    write_table(tmp_path / "dev.tsv", [["sentence", "label"], [text, "1"]])
    examples = read_examples(find_task("sst-2"), str(tmp_path), "dev")
    assert contents(examples) == [(text, None, 1)]
