#!/usr/bin/env python
"""scripts/download_pretrained_model.py at the path of Habana's script."""

import pathlib
import runpy

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "scripts"
runpy.run_path(str(SCRIPTS / "download_pretrained_model.py"), run_name="__main__")
