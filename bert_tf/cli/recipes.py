"""`bert-tf recipes`: the published settings that --flagfile reads by name."""

from collections.abc import Sequence

from bert_tf import recipes
from bert_tf.cli.arguments import Parser


def main(arguments: Sequence[str]) -> None:
    """Prints the name, the command and the first comment of each recipe.

    Args:
      arguments: What follows `recipes`.
    """
    Parser(
        prog="bert-tf recipes",
        description="List the files of published settings. bert-tf pretrain "
        "--flagfile=NAME uses one; flags after it replace its own.",
    ).parse_args(arguments)
    for name in recipes.names():
        print(f"{name:22} {recipes.summary(name)}")
    print(f"They are files in {recipes.FOLDER}.")
