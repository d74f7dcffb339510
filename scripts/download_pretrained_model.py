#!/usr/bin/env python
"""Downloads a published BERT, with the positional arguments of Habana's script.

    python scripts/download_pretrained_model.py URL MODEL True|False

URL is the folder of MODEL.zip, or the archive itself; True drops the top folder of the
archive if everything is inside one. The model is unpacked into ./MODEL.
"""

import sys
from pathlib import Path

from bert_tf.cli.arguments import Parser, parse_bool
from bert_tf.config.paths import require_local
from bert_tf.download.catalogue import CATALOGUE, Entry, RemoteFile
from bert_tf.download.datasets import download_archive
from bert_tf.errors import RunError


def main() -> None:
    """Reads the arguments and downloads the model."""
    parser = Parser(prog="download_pretrained_model.py", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("model")
    parser.add_argument("flatten", type=parse_bool)
    try:
        options = parser.parse_args()
        require_local("model", options.model)
        url = options.url
        if not url.endswith(".zip"):
            url = f"{url.rstrip('/')}/{options.model}.zip"
        known = {file.url: e.members for e in CATALOGUE.values() for file in e.files}
        file = RemoteFile(url, f"{options.model}.zip")
        entry = Entry(options.model, (file,), True, known.get(url, {}))
        download_archive(entry, Path(options.model), flatten=options.flatten)
    except (RunError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
