"""The command line of transformers' converter, for `python -m bert_tf convert`."""

import sys

from bert_tf.cli import main
from bert_tf.cli.arguments import Parser


def translated(arguments: list[str]) -> list[str]:
    """The command that does what the original script does with these arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--tf_checkpoint_path", required=True, help="checkpoint, without extension")
    add("--bert_config_file", required=True, help="bert_config.json")
    add("--pytorch_dump_path", required=True, help="the file to write")
    options = parser.parse_args(arguments)
    return [
        *("convert", options.tf_checkpoint_path, options.pytorch_dump_path),
        *("--form=torch", f"--bert_config_file={options.bert_config_file}"),
        *("--weights_only", "--overwrite"),
    ]


if __name__ == "__main__":
    try:
        command = translated(sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit(main(command))
