"""run_sentences as a whole, and `predict embed` with what it has trained."""

import io
import json
import shutil

import numpy as np
import pytest
from integration import finetuning_data
from runs import read_results, run

import run_sentences
from bert_tf.cli import main
from bert_tf.features import Embedder
from bert_tf.interop.pretrained import from_pretrained, save_pretrained

pytestmark = pytest.mark.slow
TEXTS = ["The lamp is dark.", "A man plays the guitar."]


@pytest.fixture(scope="module")
def flags(folder, model):
    """The command line of a short training, without an output_dir."""
    return [
        *model,
        *finetuning_data.write_pairs(folder / "pairs.tsv"),
        *("--max_seq_length=32", "--train_batch_size=19", "--seed=3"),
        *("--learning_rate=2e-3", "--do_eval"),
    ]


@pytest.fixture(scope="module")
def trained(folder, flags):
    """The output_dir of a training, and its results."""
    output = folder / "trained"
    more = ["--do_train", "--num_train_steps=40", "--export_steps=40"]
    more += ["--evaluate_each_epoch", "--pack_sequences"]
    return output, run("sentences", *flags, *more, f"--output_dir={output}")


def predict(capsys, monkeypatch, *words, text=""):
    """Exit code, lines of JSON and the last error of `predict`."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code = main(["predict", *map(str, words)])
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    return code, lines, (captured.err.splitlines() or [""])[-1]


def test_a_training_finds_the_texts_that_belong_together(flags, folder, trained):
    more = ["--do_train", "--num_train_steps=1", "--learning_rate=1e-9"]
    before = run("sentences", *flags, *more, f"--output_dir={folder}/untrained")
    _, after = trained
    assert before["mrr"] < 0.5 < 0.9 < after["mrr"]
    assert read_results(folder / "trained")["mrr"] == pytest.approx(after["mrr"])


def test_the_results_are_those_of_the_vectors(trained):
    output, results = trained
    rows = (output.parent / "pairs.tsv").read_text().splitlines()[1:]
    anchors, positives = zip(*(row.split("\t") for row in rows), strict=True)
    embed = Embedder(str(output / "best"))
    scores = embed(anchors) @ embed(positives).T
    ranks = (scores >= np.diag(scores)[:, None]).sum(axis=1)
    assert results["mrr"] == pytest.approx(np.mean(1 / ranks), abs=1e-5)


def test_embed_prints_vectors_of_length_1_or_writes_a_matrix(
    trained, tmp_path, capsys, monkeypatch
):
    model = f"--model={trained[0]}"
    code, lines, _ = predict(
        *(capsys, monkeypatch, "embed", model), text="\n".join(TEXTS)
    )
    assert code == 0 and [line["text_a"] for line in lines] == TEXTS
    vectors = np.array([line["embedding"] for line in lines])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    rows = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    (tmp_path / "x.tsv").write_text(
        "\n".join(["id\tsentence"] + [f"1\t{t}" for t in TEXTS])
    )
    for name in ("x.jsonl", "x.tsv"):
        words = ["embed", model, f"--input={tmp_path}/{name}"]
        words.append(f"--output={tmp_path}/x.npy")
        assert predict(capsys, monkeypatch, *words)[:2] == (0, [])
        matrix = np.load(tmp_path / "x.npy")
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, vectors, atol=1e-6)


def test_the_folder_for_sentence_transformers_says_how_it_pools(trained):
    folder = trained[0] / "export" / "step-40"
    modules = json.loads((folder / "modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == [
        *("Transformer", "Pooling", "Normalize"),
    ]
    pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text())
    assert pooling["word_embedding_dimension"] == 32
    assert [name for name, value in pooling.items() if value is True] == [
        "pooling_mode_mean_tokens"
    ]
    length = json.loads((folder / "sentence_bert_config.json").read_text())
    assert length["max_seq_length"] == 32
    ours, theirs = Embedder(str(trained[0])), Embedder(str(folder))
    assert theirs.max_seq_length == 32
    np.testing.assert_allclose(theirs(TEXTS), ours(TEXTS), atol=1e-6)


def test_prompts_of_a_model_are_named(trained, tmp_path, caplog):
    folder = tmp_path / "with-prompts"
    shutil.copytree(trained[0] / "export" / "step-40", folder)
    path = folder / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "query: "}}')
    Embedder(str(folder))
    assert f"{path} has prompts, which are not put before texts" in caplog.text


def test_converted_and_saved_models_are_such_folders_too(trained, tmp_path):
    assert main(["convert", str(trained[0]), f"{tmp_path}/converted"]) == 0
    model = from_pretrained(trained[0], "sentences", pooling="cls", max_seq_length=24)
    save_pretrained(model, tmp_path / "saved", vocab_file=f"{trained[0]}/vocab.txt")
    for name, expected in (("converted", ("mean", 32)), ("saved", ("cls", 24))):
        found = Embedder(str(tmp_path / name))
        assert (found.pooling, found.max_seq_length) == expected


def test_the_model_is_refused_for_another_prediction(trained, capsys, monkeypatch):
    code, _, error = predict(
        *(capsys, monkeypatch, "classify", "a text", f"--model={trained[0]}")
    )
    assert code == 1 and "Use `python -m bert_tf predict embed` for it" in error


def test_another_pooling_or_task_is_refused_in_its_folder(trained, flags, capsys):
    output = f"--output_dir={trained[0]}"
    for more, message in (
        (["--pooling=cls"], "pooling"),
        (["--scale=10", "--do_train"], "scale"),
    ):
        assert run_sentences.main(["run", *flags, *more, output]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, message",
    [
        (["--train_file="], "`train_file` must be given with `do_train`"),
        (["--dev_file=missing.tsv"], "missing.tsv, which does not exist"),
        (["--do_predict"], "`python -m bert_tf predict embed` makes vectors"),
        (["--loss_normalization=micro_batch"], "`loss_normalization` must be global"),
        (["--scale=0"], "`scale` must be"),
        (["--pooling=max"], "`pooling` must be one of mean, cls"),
        (["--anchor_column=anchor"], "be given together with `positive_column`"),
        (["--train_batch_size=1"], "two pairs or more per step"),
        (["--dev_file={folder}/train.json"], "train.json, line 1"),
        (["--dev_file={folder}/classes/dev.tsv"], "columns anchor and positive"),
        (["--dev_file={folder}/empty.tsv"], "empty.tsv, line 1: the file is empty"),
        (["--dev_file={folder}/latin.tsv"], "latin.tsv, line 2: not UTF-8"),
    ],
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(
    flags, folder, more, message, capsys
):
    (folder / "empty.tsv").write_text("")
    (folder / "latin.tsv").write_bytes(b"anchor\tpositive\ncaf\xe9\tbar\n")
    more = [word.replace("{folder}", str(folder)) for word in more]
    output = folder / "refused"
    command = ["run", *flags, "--do_train", *more, f"--output_dir={output}"]
    assert run_sentences.main(command) == 1
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert not output.exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--output=x.txt"], "`output` must be a file in .npy"),
        (["--pooling=max"], "must be one of mean, cls"),
        (["--max_seq_length=600"], "must be from 3 to the model's"),
        (["--input={folder}/latin.tsv"], "not UTF-8"),
        (["--input={folder}/pairs.tsv"], "no column has the name of a text"),
    ],
)
def test_wrong_options_of_embed_end_with_one_line(
    trained, folder, words, message, capsys, monkeypatch
):
    (folder / "latin.tsv").write_bytes(b"text\tid\ncaf\xe9\t1\n")
    words = [word.replace("{folder}", str(folder)) for word in words]
    words = ["embed", f"--model={trained[0]}", *words]
    code, lines, error = predict(capsys, monkeypatch, *words)
    assert (code, lines) == (1, []) and message in error


def test_options_of_embed_are_refused_for_others(trained, capsys, monkeypatch):
    words = ["classify", f"--model={trained[0]}", "--pooling=cls", "a text"]
    code, _, error = predict(capsys, monkeypatch, *words)
    assert code == 1 and "--pooling is for embed. Leave it out." in error
