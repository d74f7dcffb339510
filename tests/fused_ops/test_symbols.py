"""No code of an instruction set can be reached by a processor that lacks it.

The linker keeps one copy of a function that several objects define: of a template or an
inline function that all instruction sets share it could keep the one with instructions
of the best. And what runs when the library is loaded runs everywhere.
"""

import re
import shutil
import subprocess

import pytest

from bert_tf import fused_ops

# As in mangled names, where a namespace follows the length of its name.
NAMESPACES = [f"7bert_tf{len(name)}{name}" for name in fused_ops.ISA_FLAGS]
# Instructions of AVX and later: all of their names begin with v but for those of masks
# and tiles, and nothing else that compilers make of this source begins so.
VECTOR = re.compile(r"^\s+[0-9a-f]+:\s+(v|k\w+ .*%k|tile|tdp|ldtile|sttile)")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")


def output(tool, *arguments):
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed (package binutils)")
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def functions_with_vectors(listing):
    """Names of functions that hold such an instruction, from a disassembly."""
    found, name = set(), ""
    for line in listing.splitlines():
        if match := FUNCTION.match(line):
            name = match[1]
        elif VECTOR.match(line):
            found.add(name)
    return found


def test_vector_instructions_are_recognised():
    listing = """
0000000000001000 <plain>:
    1000:\tmulps  %xmm1,%xmm0
    1004:\tret
0000000000002000 <wide>:
    2000:\tvmulps %zmm1,%zmm0,%zmm0
0000000000003000 <mask>:
    3000:\tkmovw  %eax,%k1
0000000000004000 <tiles>:
    4000:\ttdpbf16ps %tmm2,%tmm1,%tmm0
"""
    assert functions_with_vectors(listing) == {"wide", "mask", "tiles"}


def test_the_library_has_vector_instructions_in_the_namespaces_alone():
    if reason := fused_ops.why_missing():
        pytest.skip(reason)
    options = ("-d", "--no-show-raw-insn", "--section=.text")
    found = functions_with_vectors(
        output("objdump", *options, fused_ops.library_file())
    )
    for namespace in NAMESPACES:
        assert any(namespace in name for name in found), namespace
    outside = [name for name in found if not any(n in name for n in NAMESPACES)]
    assert not outside


@pytest.mark.slow
@pytest.mark.parametrize("name", ["avx512", "avx2"])
def test_an_instruction_set_defines_nothing_outside_of_its_namespace(name, tmp_path):
    compiler = shutil.which("g++") or shutil.which("c++")
    if not compiler:
        pytest.skip("there is no C++ compiler")
    target = tmp_path / "isa.o"
    source = fused_ops.FOLDER / f"isa_{name}.cc"
    flags = [*fused_ops.FLAGS, *fused_ops.ISA_FLAGS[name], "-w"]
    output(compiler, *flags, "-c", source, "-o", target)
    lines = output("nm", "--defined-only", "--format=posix", target).splitlines()
    symbols = [tuple(line.split()[:2]) for line in lines]
    namespace = f"7bert_tf{len(name)}{name}"
    # Capitals, and u and v of weak ones: what other objects see. Other letters are
    # local, and may be code only in the namespace: a constructor of a static object
    # would run when the library is loaded.
    outside = [
        symbol
        for symbol, kind in symbols
        if (kind.isupper() or kind in "uvwt") and namespace not in symbol
    ]
    assert len(symbols) > 100
    table = f"_ZN7bert_tf{len(name) + 1}k{name.capitalize()}E"
    assert outside == [table]
