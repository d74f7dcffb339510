#!/usr/bin/env python
"""scripts/pack_pretraining_data_tfrec.py at the path of Habana's script."""

import pathlib
import runpy

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / "scripts"
runpy.run_path(str(SCRIPTS / "pack_pretraining_data_tfrec.py"), run_name="__main__")
