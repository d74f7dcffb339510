#!/usr/bin/env python
"""scripts/create_pretraining_data.py at the path of Habana's script."""

import pathlib
import runpy

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "scripts"
runpy.run_path(str(SCRIPTS / "create_pretraining_data.py"), run_name="__main__")
