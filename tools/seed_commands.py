"""The commands of five published BERT trainers, as tools/seeds.py runs them.

Each is that of the system's README, with its names and flags; sizes and paths are
small. What installs packages, starts containers or sets up ssh is left out, and so are
downloads of gigabytes.
"""

import dataclasses

from seed_inputs import CASED, LARGE, MINI, TF_RECORDS

# These two need hosts of others; tests serve their files from this machine.
LEFT_OUT = (
    "download/download_dataset.py (MRPC, 1.5 MB)",
    "models/data/squad/squad_download.sh (SQuAD 1.1, 35 MB)",
)


@dataclasses.dataclass(frozen=True)
class Command:
    """A command of a README.

    Attributes:
      system: The system that the README is of.
      line: What a user types; run by bash in the folder of the inputs.
      names: Names of the numbers that the command prints.
    """

    system: str
    line: str
    names: tuple[str, ...] = ()


def _lines(system: str, text: str, *names: str) -> list[Command]:
    """A command for each line; a line that ends with a backslash continues."""
    joined = text.replace("\\\n", " ")
    return [
        Command(system, " ".join(line.split()), names)
        for line in joined.splitlines()
        if line.strip()
    ]


def iluvatar_tf() -> list[Command]:
    """Iluvatar's BERT for TensorFlow."""
    flags = (
        f"--input_files_dir={TF_RECORDS}/train_data "
        f"--init_checkpoint={LARGE}/bert_model.ckpt "
        f"--eval_files_dir={TF_RECORDS}/eval_data --train_batch_size=6 "
        f"--bert_config_file={LARGE}/bert_config.json "
        "--num_train_steps=4 --max_eval_steps=3"
    )
    name = "iluvatar-tf"
    training = f"""
        bash $ROOT/scripts/run_1card_FPS.sh {flags} --output_dir=fps-1
        export CUDA_VISIBLE_DEVICES=0,1 IX_NUM_CUDA_VISIBLE_DEVICES=2; \
            bash $ROOT/scripts/run_multi_card_FPS.sh {flags} --output_dir=fps-2
        """
    return [
        *_lines(name, "bash $ROOT/scripts/init_tf.sh"),
        *_lines(name, training, "acc", "fps"),
    ]


def iluvatar_torch() -> list[Command]:
    """Iluvatar's BERT for PyTorch."""
    return _lines(
        "iluvatar-torch",
        f"""
        cd base; WORKERS=2 OUTPUT_DIR=default bash $ROOT/scripts/run_training.sh \
            --name default --config V100x1x8 --data_dir ../{MINI}/ --max_steps 20 \
            --train_batch_size 2 --target_mlm_accuracy 0.01 --learning_rate=.01 \
            --init_checkpoint "../{MINI}/model.ckpt-28252.apex.pt"
        cd base; WORKERS=2 OUTPUT_DIR=iluvatar bash $ROOT/scripts/run_training.sh \
            --name iluvatar --config 03V100x1x8 --train_batch_size 2 \
            --data_dir ../{MINI}/ --master_port 22233 --max_steps=20 \
            --target_mlm_accuracy=0.01 --learning_rate=.01
        """,
        *("E2E", "MLM Accuracy", "training_sequences_per_second", "final_loss"),
    )


def intel() -> list[Command]:
    """Intel's BERT-large for PyTorch."""
    convert = f"""
        python $ROOT/scripts/convert_tf_checkpoint.py \
            --tf_checkpoint {LARGE}/bert_model.ckpt \
            --bert_config_path {LARGE}/bert_config.json \
            --output_checkpoint model.ckpt-28252.pt
        cd results4; md5sum --check ../bert_reference_results_text_md5.txt
        """
    variables = f"export VOCAB_FILE={LARGE}/vocab.txt NUM_SHARDS=4 SHARD_NUM=8"
    data = "".join(
        f"""
        {variables} SEQ_LEN={length}; $ROOT/scripts/parallel_create_hdf5.sh
        {variables} SEQ_LEN={length}; python3 $ROOT/scripts/chop_hdf5_files.py
        """
        for length in (128, 512)
    )
    variables = (
        f"export DATASET_DIR=. BERT_MODEL_CONFIG={LARGE}/bert_config.json NUM_STEPS=4 "
        "TRAIN_SCRIPT=run_pretrain_mlperf.py"
    )
    first = f"{variables} BATCH_SIZE=4 CHECKPOINT_DIR={LARGE}"
    second = f"{variables} BATCH_SIZE=2 PRETRAINED_MODEL=intel/model_save"
    single = f"""
        {first} OUTPUT_DIR=intel PRECISION=bf16; \
            bash $ROOT/scripts/run_bert_pretrain_phase1.sh
        {second} OUTPUT_DIR=intel PRECISION=avx-fp32; \
            bash $ROOT/scripts/run_bert_pretrain_phase2.sh
        """
    several = "".join(
        f"""
        {own} OUTPUT_DIR=ddp-{precision} NPROCESS=2; \
            bash $ROOT/scripts/run_ddp_bert_pretrain_phase{phase}.sh {precision}
        """
        for precision in ("fp32", "bf32", "bf16")
        for phase, own in enumerate((first, second), start=1)
    )
    fast = f"""
        {first} OUTPUT_DIR=fast NPROCESS=2 GBS=4; \
            bash $ROOT/scripts/run_fast_bert_pretrain.sh
        """
    squad = f"""
        export SQUAD_DIR=SQuAD BERT_MODEL={LARGE} OUTPUT_DIR=fast-squad; \
            bash $ROOT/scripts/fast_bert_squad_finetune.sh --use_tpp --tpp_bf16 \
            --unpad --train_batch_size=4 --num_train_epochs=1
        """
    return [
        *_lines("intel", convert),
        *_lines("intel", data, "records"),
        *_lines("intel", single + several + fast, "Throughput"),
        *_lines("intel", squad, "f1"),
    ]


_CORPUS = "corpus/tfrecord/seq_len_{}/books_wiki_en_corpus"
_PACKED = "corpus/tfrecord_packed/seq_len_{}/books_wiki_en_corpus"
_LISTS = "TF_BF16_CONVERSION=$ROOT/bf16_config/bert.json"
_MPIRUN = (
    "mpirun --allow-run-as-root --tag-output --merge-stderr-to-stdout "
    "--bind-to core --map-by socket:PE=1:oversubscribe -np 2 "
    f"-x {_LISTS} "
)
_SERVERS = (
    "mpirun --allow-run-as-root --mca plm_rsh_args -p3022 --bind-to core "
    "--map-by socket:PE=1:oversubscribe -np 2 --mca btl_tcp_if_include 127.0.0.1/8 "
    "--tag-output --merge-stderr-to-stdout --prefix $MPI_ROOT -H 127.0.0.1:2 "
    f"-x GC_KERNEL_PATH -x HABANA_LOGS -x PYTHONPATH -x {_LISTS} "
)
# A bound worker needs a core; two of them need two.
_KUBERNETES = f"mpirun --allow-run-as-root -np 2 -x {_LISTS} "


def _pretraining(start: str, folder: str, output: str, phases: int = 2) -> list[str]:
    """The phases of the README."""
    found = []
    for phase, (length, predictions) in enumerate(((128, 20), (512, 80)), start=1):
        weights = f"{LARGE}/bert_model.ckpt"
        if phase == 2:
            weights = f"{output}/phase_1/model.ckpt-4"
        found.append(
            f"{start} python $ROOT/run_pretraining.py "
            f"--input_files_dir={folder.format(length)}/training "
            f"--init_checkpoint={weights} "
            f"--eval_files_dir={folder.format(length)}/test "
            f"--output_dir={output}/phase_{phase} "
            f"--bert_config_file={LARGE}/bert_config.json --do_train=True "
            "--do_eval=False --train_batch_size=4 --eval_batch_size=8 "
            f"--max_seq_length={length} --max_predictions_per_seq={predictions} "
            "--num_train_steps=4 --num_accumulation_steps=2 --num_warmup_steps=2 "
            "--save_checkpoints_steps=100 --learning_rate=0.00075 --noamp --nouse_xla "
            f"--allreduce_post_accumulation=True {'--horovod ' * ('mpirun' in start)}"
            f"--dllog_path={output}/phase_{phase}/bert_dllog.json "
            "--enable_scoped_allocator=False --resume=False"
        )
    return found[:phases]


def _model(start: str) -> str:
    """The flags of both fine-tunings."""
    return (
        f"--vocab_file={LARGE}/vocab.txt --bert_config_file={LARGE}/bert_config.json "
        f"--init_checkpoint={LARGE}/bert_model.ckpt --learning_rate=2e-05 "
        f"--use_horovod={str('mpirun' in start).lower()} "
        "--enable_scoped_allocator=False"
    )


def _mrpc(start: str, output: str) -> str:
    return (
        f"{start} python $ROOT/run_classifier.py "
        "--task_name=MRPC --do_train=true --do_eval=true --data_dir=MRPC "
        f"{_model(start)} --max_seq_length=128 --train_batch_size=8 "
        f"--num_train_epochs=1 --output_dir={output}"
    )


def _squad(start: str, output: str) -> str:
    return (
        f"{start} python $ROOT/run_squad.py --do_train=True "
        "--train_file=SQuAD/train-v1.1.json --do_predict=True "
        "--predict_file=SQuAD/dev-v1.1.json --do_eval=True --train_batch_size=8 "
        f"{_model(start)} --num_train_epochs=1 --max_seq_length=384 "
        f"--doc_stride=128 --output_dir={output}"
    )


def habana() -> list[Command]:
    """Habana's BERT for TensorFlow."""
    create = """
        bash $ROOT/data_preprocessing/create_datasets_from_start.sh wiki_only corpus
        bash $ROOT/data_preprocessing/create_datasets_from_start.sh wiki_books corpus
        """
    pack = "".join(
        "python $ROOT/data_preprocessing/pack_pretraining_data_tfrec.py "
        f"--input-glob {_CORPUS.format(length)}/training/ "
        f"--output-dir {_PACKED.format(length)}/training/ "
        f"--max-sequence-length {length} --max-files 1472 "
        f"--max-predictions-per-sequence {predictions}\n"
        for length, predictions in ((128, 20), (512, 80))
    )
    download = f"""
        cd models; python $ROOT/download/download_pretrained_model.py \
            "https://models.invalid/" "uncased_L-12_H-768_A-12" False
        cd models; python $ROOT/download/download_pretrained_model.py \
            "https://models.invalid/" "{LARGE}" True
        """
    pretraining, mrpc, squad = [], [], []
    for start, name in ((_LISTS, "one"), (_MPIRUN, "eight"), (_KUBERNETES, "k8s")):
        pretraining += _pretraining(start, _CORPUS, name)
        mrpc.append(_mrpc(start, f"mrpc-{name}"))
        squad.append(_squad(start, f"squad-{name}"))
    pretraining += _pretraining(_MPIRUN, _PACKED, "packed")
    pretraining += _pretraining(_SERVERS, _CORPUS, "servers", phases=1)
    squad.append(_squad(_SERVERS, "squad-servers"))
    head, _, tail = squad[2].partition("python")
    squad[2] = f'{head}bash -c "cd $PWD; python{tail}"'
    demos = f"""
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
        """
    return [
        *_lines("habana", create + pack, "records"),
        *_lines("habana", download),
        *(Command("habana", line, ("throughput_train",)) for line in pretraining),
        *(Command("habana", line, ("accuracy",)) for line in mrpc),
        *(Command("habana", line, ("f1", "exact_match")) for line in squad),
        *_lines("habana", demos, "throughput_train"),
    ]


def cambricon() -> list[Command]:
    """Cambricon's BERT on SQuAD."""
    convert = f"""
        python $ROOT/scripts/convert_bert_original_tf_checkpoint_to_pytorch.py \
            --tf_checkpoint_path {CASED}/bert_model.ckpt --bert_config_file \
            {CASED}/bert_config.json --pytorch_dump_path {CASED}/pytorch_model.pt
        """
    training = f"""
        export SQUAD_DIR=SQuAD BERT_MODEL={CASED}/pytorch_model.pt WORKERS=2; \
            source $ROOT/scripts/env.sh; OUTPUT_DIR=output \
            bash $ROOT/scripts/run_scripts/BERT_FP32_2E_4MLUs_Train.sh
        export SQUAD_DIR=SQuAD BERT_INFER_MODEL=output/pytorch_model.bin; \
            source $ROOT/scripts/env.sh; OUTPUT_DIR=answers \
            bash $ROOT/scripts/run_scripts/BERT_Infer.sh
        bash $ROOT/scripts/run_squad.sh output 2.0 4 3e-5 fp32 1 1 SQuAD \
            output/vocab.txt answers-17 eval output/bert_config.json -1 100 False O1 MLU
        """
    return [
        *_lines("cambricon", convert),
        *_lines("cambricon", training, "F1"),
    ]


def google() -> list[Command]:
    """google-research/bert."""
    create = f"""
        python $ROOT/scripts/create_pretraining_data.py \
            --input_file=$ROOT/scripts/sample_text.txt --output_file=google.tfrecord \
            --vocab_file={LARGE}/vocab.txt --do_lower_case=True --max_seq_length=128 \
            --max_predictions_per_seq=20 --masked_lm_prob=0.15 --random_seed=12345 \
            --dupe_factor=5
        """
    extract = f"""
        python $ROOT/scripts/extract_features.py --input_file=MRPC/texts.txt \
            --output_file=features.jsonl --vocab_file={LARGE}/vocab.txt \
            --bert_config_file={LARGE}/bert_config.json \
            --init_checkpoint={LARGE}/bert_model.ckpt --layers=-1,-2 \
            --max_seq_length=128 --batch_size=8
        """
    return [
        *_lines("google", create, "records"),
        *_lines("google", extract, "texts"),
    ]


def commands() -> list[Command]:
    """All of them, in order."""
    parts = (iluvatar_tf, iluvatar_torch, intel, habana, cambricon, google)
    return [command for part in parts for command in part()]
