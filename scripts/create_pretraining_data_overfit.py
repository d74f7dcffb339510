#!/usr/bin/env python
"""Makes the small set that a model must be able to learn by heart.

    create_pretraining_data_overfit.py DATASET_PATH MODEL SEQ_LEN MAX_PRED

The positional arguments are those of Habana's script. MODEL is a folder with vocab.txt;
the text is `sample_text.txt`. The same records are written for training and for test,
to DATASET_PATH/tfrecord/seq_len_SEQ_LEN/overfit/.
"""

import sys
from pathlib import Path

from bert_tf.cli.arguments import Parser
from bert_tf.config.data import CreateDataConfig
from bert_tf.config.paths import require_local
from bert_tf.data.commands.create import create_records
from bert_tf.errors import RunError, counted

_SAMPLE = Path(__file__).with_name("sample_text.txt")
_DUPE_FACTOR, _SEED = 5, 12345


def create(arguments: list[str]) -> str:
    """Makes the records; returns a line about them.

    Raises:
      ValueError, OSError, RunError: if they cannot be made.
    """
    parser = Parser(prog="create_pretraining_data_overfit.py", description=__doc__)
    parser.add_argument("dataset_path")
    parser.add_argument("pretrained_model")
    parser.add_argument("seq_len", type=int)
    parser.add_argument("max_pred", type=int)
    options = parser.parse_args(arguments)
    for name in ("dataset_path", "pretrained_model"):
        require_local(name, getattr(options, name))
    folder = Path(options.dataset_path) / "tfrecord" / f"seq_len_{options.seq_len}"
    for side in ("training", "test"):
        metadata = create_records(
            CreateDataConfig(
                input=str(_SAMPLE),
                output_dir=str(folder / "overfit" / side),
                vocab_file=str(Path(options.pretrained_model) / "vocab.txt"),
                max_seq_length=options.seq_len,
                max_predictions_per_seq=options.max_pred,
                dupe_factor=_DUPE_FACTOR,
                seed=_SEED,
            )
        )
    records = counted(metadata.original_number_of_samples, "record")
    return f"{records} in {folder}/overfit/training and, the same, in test"


if __name__ == "__main__":
    try:
        print(create(sys.argv[1:]))
    except (ValueError, OSError, RunError) as error:
        sys.exit(f"error: {error}")
