"""Compiles the fused operations with AddressSanitizer, for `make test-sanitize`.

python tools/build_sanitized.py FILE
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from bert_tf.fused_ops.build import compile_library, find_compiler, known_isas

# Alignment is not among them: vectors are read from anywhere on purpose.
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address")
FLAGS += ("-fsanitize=signed-integer-overflow,shift,bounds,integer-divide-by-zero",)
FLAGS += ("-fno-sanitize-recover=all",)


def main() -> None:
    """Compiles."""
    library = Path(sys.argv[1]).resolve()
    library.parent.mkdir(parents=True, exist_ok=True)
    print(f"Compiling {library} (about a minute)", flush=True)
    compiler, log = find_compiler(), library.with_suffix(".log")
    compile_library(compiler, library, known_isas(compiler), log, FLAGS)


if __name__ == "__main__":
    main()
