"""`make seeds` runs the commands of the published READMEs, for real."""

import importlib.util
import re
import subprocess
import sys

import pytest
from integration.launching import ROOT, environment

TOOLS = ROOT / "tools"
MPIRUN = "mpirun --allow-run-as-root"
TAGGED = "--tag-output --merge-stderr-to-stdout"
PRETRAINING = (
    "run_pretraining.py --input_files_dir= --init_checkpoint= --eval_files_dir= "
    "--output_dir= --bert_config_file= --do_train=True --do_eval=False "
    "--train_batch_size= --eval_batch_size=8 --max_seq_length={} "
    "--max_predictions_per_seq={} --num_train_steps= --num_accumulation_steps= "
    "--num_warmup_steps= --save_checkpoints_steps=100 --learning_rate= --noamp "
    "--nouse_xla --allreduce_post_accumulation=True --dllog_path="
)
PHASES = [PRETRAINING.format(128, 20), PRETRAINING.format(512, 80)]
MRPC = (
    "run_classifier.py --task_name=MRPC --do_train=true --do_eval=true --data_dir= "
    "--vocab_file= --bert_config_file= --init_checkpoint= --max_seq_length=128 "
    "--train_batch_size= --learning_rate=2e-05 --num_train_epochs= --output_dir= "
    "--use_horovod={} --enable_scoped_allocator=False"
)
SQUAD = (
    "run_squad.py --vocab_file= --bert_config_file= --init_checkpoint= --do_train=True "
    "--train_file= --do_predict=True --predict_file= --do_eval=True "
    "--train_batch_size= --learning_rate= --num_train_epochs= --max_seq_length=384 "
    "--doc_stride=128 --output_dir= --use_horovod={}"
)
FPS = (
    "--input_files_dir= --init_checkpoint= --eval_files_dir= --train_batch_size=6 "
    "--bert_config_file="
)
LISTS = "TF_BF16_CONVERSION="
# Without --output-filename: Open MPI 5 shows nothing on the screen with it.
EIGHT = f"{MPIRUN} {TAGGED} --bind-to core --map-by -np -x {LISTS}"
SERVERS = (
    f"{MPIRUN} --mca plm_rsh_args -p3022 --bind-to core --map-by -np "
    f"btl_tcp_if_include {TAGGED} --prefix -H GC_KERNEL_PATH HABANA_LOGS PYTHONPATH"
)
KUBERNETES = f"{MPIRUN} -np -x {LISTS}"
PACK = (
    "pack_pretraining_data_tfrec.py --input-glob --output-dir --max-sequence-length "
    "{} --max-files 1472 --max-predictions-per-sequence {}"
)
DEMO = "demo_bert.py --command {} --model_variant large --data_type bf16 --test_set {}"
# Words of each command of the five READMEs, in the order of those.
PUBLISHED = {
    "iluvatar-tf": [
        "init_tf.sh",
        f"run_1card_FPS.sh {FPS}",
        f"IX_NUM_CUDA_VISIBLE_DEVICES= run_multi_card_FPS.sh {FPS}",
    ],
    "iluvatar-torch": [
        "run_training.sh --name default --config V100x1x8 --data_dir --max_steps "
        "--train_batch_size --target_mlm_accuracy --init_checkpoint apex.pt",
        "run_training.sh --name iluvatar --config 03V100x1x8 --train_batch_size "
        "--data_dir --master_port 22233",
    ],
    "intel": [
        "convert_tf_checkpoint.py --tf_checkpoint --bert_config_path "
        "--output_checkpoint model.ckpt-28252.pt",
        "results4 md5sum --check ../bert_reference_results_text_md5.txt",
        *(
            f"SEQ_LEN={length} {script}"
            for length in (128, 512)
            for script in ("parallel_create_hdf5.sh", "chop_hdf5_files.py")
        ),
        "OUTPUT_DIR= DATASET_DIR= TRAIN_SCRIPT= PRECISION= BATCH_SIZE= "
        "BERT_MODEL_CONFIG= CHECKPOINT_DIR= run_bert_pretrain_phase1.sh",
        "OUTPUT_DIR= PRECISION= PRETRAINED_MODEL= run_bert_pretrain_phase2.sh",
        *(
            f"run_ddp_bert_pretrain_phase{phase}.sh {precision}"
            for precision in ("fp32", "bf32", "bf16")
            for phase in (1, 2)
        ),
        "NPROCESS= GBS= run_fast_bert_pretrain.sh",
        "fast_bert_squad_finetune.sh --use_tpp --tpp_bf16 --unpad",
    ],
    "habana": [
        "create_datasets_from_start.sh wiki_only",
        "create_datasets_from_start.sh wiki_books",
        PACK.format(128, 20),
        PACK.format(512, 80),
        'download_pretrained_model.py "uncased_L-12_H-768_A-12" False',
        'download_pretrained_model.py "wwm_uncased_L-24_H-1024_A-16" True',
        *(f"{LISTS} python {phase}" for phase in PHASES),
        f"{LISTS} python {MRPC.format('false')}",
        f"{LISTS} python {SQUAD.format('false')}",
        *(f"{EIGHT} {phase} --horovod" for phase in PHASES),
        *(f"{EIGHT} tfrecord_packed {phase} --horovod" for phase in PHASES),
        f"{EIGHT} {MRPC.format('true')}",
        f"{EIGHT} {SQUAD.format('true')}",
        f"{SERVERS} {PHASES[0]} --horovod",
        f"{SERVERS} {SQUAD.format('true')}",
        *(f"{KUBERNETES} {phase}" for phase in PHASES),
        f"{KUBERNETES} {MRPC.format('true')}",
        f'{KUBERNETES} bash -c "cd {SQUAD.format("true")}',
        f"{DEMO.format('pretraining', 'bookswiki')} --dataset_path --epochs 1 "
        "--no_steps_accumulation 1 --iters --profile",
        f"{DEMO.format('finetuning', 'mrpc')} --dataset_path --epochs 0.876 "
        "--iterations_per_loop 1 --profile",
        f"{DEMO.format('finetuning', 'squad')} --dataset_path --epochs 1 "
        "--iterations_per_loop 1 --iters --profile",
    ],
    "cambricon": [
        "convert_bert_original_tf_checkpoint_to_pytorch.py --tf_checkpoint_path "
        "--bert_config_file --pytorch_dump_path pytorch_model.pt",
        "SQUAD_DIR= BERT_MODEL= pytorch_model.pt env.sh BERT_FP32_2E_4MLUs_Train.sh",
        "BERT_INFER_MODEL= pytorch_model.bin env.sh BERT_Infer.sh",
        "run_squad.sh",
    ],
}
# They need the network: their own tests serve the files.
DOWNLOADS = ("download_dataset.py", "squad_download.sh")


@pytest.fixture(scope="module")
def seeds():
    """The module tools/seeds.py."""
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location("seeds", TOOLS / "seeds.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["seeds"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(TOOLS))


@pytest.mark.parametrize("system", PUBLISHED)
def test_each_command_of_a_readme_is_run_once(seeds, system):
    lines = [c.line for c in seeds.commands() if c.system == system]
    for words in PUBLISHED[system]:
        found = [x for x in lines if all(word in x for word in words.split())]
        assert found, f"no command with {words}"
        # The line that has the fewest words besides.
        lines.remove(min(found, key=len))
    assert lines == []


def test_what_is_left_out_is_named(seeds):
    text = " ".join(seeds.LEFT_OUT)
    assert all(name in text for name in DOWNLOADS)


@pytest.mark.parametrize(
    "name, output, expected",
    [
        ("acc", "accuracy = 0.9\nacc 0.5\nfps 12.25", "0.5"),
        ("E2E", "E2E 82.72s", "82.72"),
        ("throughput_train", "[1,0]<stdout>: DLL - throughput_train : 7.5 x/s", "7.5"),
        ("records", "1,011 records in out", "1,011"),
        ("final_loss", "final_mlm_loss 3", ""),
    ],
)
def test_the_number_after_a_name_is_found(seeds, name, output, expected):
    assert seeds.number(name, output) == expected


@pytest.mark.slow
def test_a_part_of_the_commands_for_real(tmp_path):
    folder = tmp_path / "in here"
    result = subprocess.run(
        [sys.executable, TOOLS / "seeds.py", "iluvatar-tf", "--only=run_1card"]
        + [f"--folder={folder}"],
        **dict(capture_output=True, text=True, timeout=300, env=environment()),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    first, summary, left_out = result.stdout.splitlines()
    assert re.match(r"iluvatar-tf +acc 0\.\d+, fps [\d.]+  [\d.]+ s  bash", first)
    assert summary == "1 of 1 commands succeeded."
    assert all(name in left_out for name in DOWNLOADS)
    assert (folder / "fps-1" / "eval_results.txt").exists()
