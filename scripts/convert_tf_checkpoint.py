"""The command line of MLPerf's converter, for `python -m bert_tf convert`."""

import sys

from bert_tf.cli import main
from bert_tf.cli.arguments import Parser
from bert_tf.config import BertConfig


def translated(arguments: list[str]) -> list[str]:
    """The command that does what the original script does with these arguments.

    Like that, it pads the vocabulary to a multiple of 8.

    Raises:
      FileNotFoundError, ValueError: if the architecture cannot be read.
    """
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--tf_checkpoint", required=True, help="checkpoint, without extension")
    add("--bert_config_path", required=True, help="bert_config.json")
    add("--output_checkpoint", required=True, help="the .pt file to write")
    options = parser.parse_args(arguments)
    config = BertConfig.from_json_file(options.bert_config_path)
    return [
        *("convert", options.tf_checkpoint, options.output_checkpoint),
        *("--form=mlperf", f"--bert_config_file={options.bert_config_path}"),
        f"--vocab_size={-(-config.vocab_size // 8) * 8}",  # 30522 becomes 30528.
        *("--weights_only", "--overwrite"),
    ]


if __name__ == "__main__":
    try:
        command = translated(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    sys.exit(main(command))
