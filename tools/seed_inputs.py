"""Makes the small inputs of tools/seeds.py: text, records, weights, questions."""

import hashlib
import json
import pathlib
import shutil

ROOT = pathlib.Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "scripts" / "sample_text.txt"
LARGE = "wwm_uncased_L-24_H-1024_A-16"
CASED = "cased_L-12_H-768_A-12"
TF_RECORDS, MINI = "bert_pretrain_tf_records", "data/datasets/bert_mini"
# BERT-large's own name, but small.
_CONFIG = {
    "vocab_size": 30522,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
}
_SPEECHES = 80


def prepare(work: pathlib.Path) -> None:
    """Makes everything in a folder, which is emptied before."""
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("corpus/download/wikicorpus_en", "corpus/download/bookscorpus"):
        (work / folder).mkdir(parents=True)
    for folder in (LARGE, "MRPC", "SQuAD", "results4", "base", "models"):
        (work / folder).mkdir()
    speeches = sorted((ROOT / ".data" / "text" / "sotu").iterdir())
    for number, path in enumerate(speeches[:_SPEECHES]):
        corpus = ("wikicorpus_en", "bookscorpus")[number % 2]
        shutil.copy(path, work / "corpus/download" / corpus / path.name)
    _write_model(work / LARGE)
    shutil.copytree(work / LARGE, work / CASED)
    for name in ("uncased_L-12_H-768_A-12", LARGE):
        archive = shutil.make_archive(str(work / "models" / name), "zip", work / LARGE)
        # As after a download: the file is then not downloaded again.
        digest = hashlib.sha256(pathlib.Path(archive).read_bytes()).hexdigest()
        pathlib.Path(f"{archive}.sha256").write_text(digest)
    blocks = [block.splitlines() for block in SAMPLE.read_text().split("\n\n")]
    _write_tasks(work, blocks)
    shutil.copy(SAMPLE, work / "results4" / "part-00000-of-00001")
    digest = hashlib.md5(SAMPLE.read_bytes()).hexdigest()
    (work / "bert_reference_results_text_md5.txt").write_text(
        f"{digest}  part-00000-of-00001\n"
    )
    _write_records(work)


def _write_model(folder: pathlib.Path) -> None:
    """What a published archive holds."""
    from bert_tf.config import BertConfig
    from bert_tf.modeling.pretraining import build_pretraining_model
    from bert_tf.tf_checkpoint_writer import save_tf

    (folder / "bert_config.json").write_text(json.dumps(_CONFIG))
    shutil.copy(ROOT / ".data" / "vocab.txt", folder / "vocab.txt")
    network = build_pretraining_model(
        BertConfig(**_CONFIG), max_seq_length=None, seeded_dropout=True
    )
    weights = {v.path: v.value.numpy() for v in network.trainable_variables}
    save_tf(str(folder / "bert_model.ckpt"), weights)


def _write_records(work: pathlib.Path) -> None:
    """What Iluvatar's users download: TFRecords, HDF5 records, PyTorch weights."""
    from bert_tf.cli import main
    from bert_tf.config.data import CreateDataConfig
    from bert_tf.data.commands.create import create_records

    sets = {
        f"{TF_RECORDS}/train_data": "tfrecord",
        f"{TF_RECORDS}/eval_data": "tfrecord",
        f"{MINI}/2048_shards_uncompressed": "hdf5",
        f"{MINI}/eval_set_uncompressed": "hdf5",
    }
    for folder, kind in sets.items():
        config = CreateDataConfig(
            input=str(SAMPLE),
            output_dir=str(work / folder),
            vocab_file=str(work / LARGE / "vocab.txt"),
            format=kind,
            max_seq_length=512,
            max_predictions_per_seq=76,
            num_shards=4,
        )
        create_records(config)
    shutil.copy(work / LARGE / "bert_config.json", work / MINI)
    arguments = [
        *("convert", work / LARGE / "bert_model.ckpt"),
        *(work / MINI / "model.ckpt-28252.apex.pt", "--form=mlperf"),
        *("--vocab_size=30528", "--weights_only"),  # As MLPerf's: a multiple of 8.
    ]
    if main(list(map(str, arguments))):
        raise RuntimeError("The weights for Iluvatar's trainer cannot be made.")


def _write_tasks(work: pathlib.Path, blocks: list[list[str]]) -> None:
    """MRPC: is the second sentence the next one? SQuAD: what ends the sentence?"""
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows, paragraphs = [], []
    for number, block in enumerate(blocks):
        other = blocks[(number + 1) % len(blocks)]
        for k, (first, second) in enumerate(zip(block, block[1:], strict=False)):
            rows.append(f"1\t{number}{k}\t{number}{k}\t{first}\t{second}")
            rows.append(
                f"0\t{number}{k}\t{number}{k}\t{first}\t{other[k % len(other)]}"
            )
        context, questions = " ".join(block), []
        for sentence in block:
            words = sentence.rstrip(".").split()
            answer = " ".join(words[-2:])
            start = context.index(sentence) + sentence.rindex(answer)
            question = f"{' '.join(words[:-2])} what?"
            answers = [{"text": answer, "answer_start": start}]
            name = f"{number}-{len(questions)}"
            questions.append({"id": name, "question": question, "answers": answers})
        paragraphs.append({"context": context, "qas": questions})
    for name in ("train", "dev", "test"):
        (work / "MRPC" / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    texts = [" ||| ".join(row.split("\t")[3:]) for row in rows]
    (work / "MRPC" / "texts.txt").write_text("\n".join(texts) + "\n")
    data = {"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]}
    for name in ("train", "dev"):
        (work / "SQuAD" / f"{name}-v1.1.json").write_text(json.dumps(data))
