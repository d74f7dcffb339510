"""The command line of MLPerf's converter, for `python -m bert_tf convert`."""

import argparse
import os
import sys

from bert_tf.config import BertConfig
from bert_tf.errors import RunError


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The options of the original script."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tf_checkpoint", required=True, help="checkpoint, without its ending")
    add("--bert_config_path", required=True, help="bert_config.json")
    add("--output_checkpoint", required=True, help="the .pt file to write")
    return parser.parse_args(arguments)


def convert_checkpoint(options: argparse.Namespace) -> list[str]:
    """Converts, and returns what to tell.

    As the original does, it pads the vocabulary to a multiple of 8.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    from bert_tf.interop.conversion import ConvertOptions, convert
    from bert_tf.interop.destinations import Form
    from bert_tf.interop.fitting import padded_size

    config = BertConfig.from_json_file(options.bert_config_path)
    settings = ConvertOptions(
        form=Form.MLPERF,
        bert_config_file=options.bert_config_path,
        vocab_size=padded_size(config.vocab_size),
        weights_only=True,
        overwrite=True,
    )
    return convert(options.tf_checkpoint, options.output_checkpoint, settings)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        print(*convert_checkpoint(parse_arguments(sys.argv[1:])), sep="\n")
    except (ValueError, OSError, RunError) as error:
        sys.exit(f"error: {error}")
