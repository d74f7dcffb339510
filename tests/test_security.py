"""No code of the package runs what it reads: no eval, shell, pickle or server."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = [
    path
    for folder in ("bert_tf", "tools", "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
] + sorted(ROOT.glob("*.py"))
UNPICKLER = ROOT / "bert_tf" / "interop" / "torch_pickle.py"

# Calls that run a text as code, load code with data, or start a shell.
CODE = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    *("load_model", "system", "popen", "getoutput", "getstatusoutput"),
    *("create_subprocess_shell", "py_function", "unsafe_load"),
    # Of Horovod: they pickle.
    *("broadcast_object", "broadcast_object_fn", "allgather_object"),
}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
PICKLES |= {"marshal"}
SERVERS = {"socketserver", "http.server", "xmlrpc.server", "wsgiref"}
# Of these, nothing listens.
SOCKET_NAMES = {"gethostname", "getfqdn", "create_connection"}


def nodes(path, kind):
    return [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, kind)]


def imported(path):
    for node in nodes(path, ast.Import | ast.ImportFrom):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(path):
    """(name, the call) of every call; of a method, its last name."""
    for call in nodes(path, ast.Call):
        if isinstance(call.func, ast.Name):
            yield call.func.id, call
        elif isinstance(call.func, ast.Attribute):
            yield f".{call.func.attr}", call


def name_of(path):
    return str(path.relative_to(ROOT))


def test_the_test_sees_the_code():
    assert UNPICKLER in FILES and len(FILES) > 100
    assert "pickle" in set(imported(UNPICKLER))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_text_is_run_as_code_or_by_a_shell(path):
    for name, call in called(path):
        assert name not in CODE, ast.unparse(call)
        assert name.removeprefix(".") not in ATTRIBUTES, ast.unparse(call)
        for keyword in call.keywords:
            is_shell = keyword.arg == "shell"
            assert not is_shell or ast.unparse(keyword.value) == "False"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_is_unpickled_but_by_the_closed_unpickler(path):
    modules = {name.split(".")[0] for name in imported(path)}
    found = modules & PICKLES
    assert not found or path == UNPICKLER
    if found:
        names = {name for name, _ in called(path)}
        assert not names & {"loads", ".loads"}
    for _, call in called(path):
        for keyword in call.keywords:
            if keyword.arg == "allow_pickle":
                assert ast.unparse(keyword.value) == "False"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_listens(path):
    for name in imported(path):
        assert not any(name.startswith(server) for server in SERVERS), name
        if name.startswith("socket."):
            assert name.removeprefix("socket.") in SOCKET_NAMES
    for node in nodes(path, ast.Attribute):
        if isinstance(node.value, ast.Name) and node.value.id == "socket":
            assert node.attr in SOCKET_NAMES, ast.unparse(node)
    assert not {".listen", ".bind", ".create_server"} & {n for n, _ in called(path)}
