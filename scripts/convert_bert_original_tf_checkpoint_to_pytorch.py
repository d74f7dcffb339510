"""The command line of transformers' converter, for `python -m bert_tf convert`."""

import argparse
import os
import sys

from bert_tf.errors import RunError


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The options of the original script."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--tf_checkpoint_path", required=True, help="checkpoint, without its ending")
    add("--bert_config_file", required=True, help="bert_config.json")
    add("--pytorch_dump_path", required=True, help="the file to write")
    return parser.parse_args(arguments)


def convert_checkpoint(options: argparse.Namespace) -> list[str]:
    """Converts, and returns what to tell.

    Raises:
      ValueError, OSError, RunError: the message is for the user.
    """
    from bert_tf.interop.conversion import ConvertOptions, convert
    from bert_tf.interop.destinations import Form

    settings = ConvertOptions(
        form=Form.TORCH,
        bert_config_file=options.bert_config_file,
        weights_only=True,
        overwrite=True,
    )
    return convert(options.tf_checkpoint_path, options.pytorch_dump_path, settings)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        print(*convert_checkpoint(parse_arguments(sys.argv[1:])), sep="\n")
    except (ValueError, OSError, RunError) as error:
        sys.exit(f"error: {error}")
