"""The house: who may import whom, and how long things may be."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "bert_tf"
SCRIPTS = sorted(ROOT.glob("run_*.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))

LAYERS = {
    "errors": 0,
    "config": 0,
    "launch": 0,
    "precision": 0,
    "recipes": 1,
    "distribute": 0,
    "progress": 0,
    "stages": 0,
    "files": 0,
    "json_files": 0,
    "resources": 0,
    "standard_streams": 0,
    "signals": 1,
    "fused_ops": 0,
    "tf_checkpoint": 0,
    "tf_checkpoint_writer": 0,
    "data": 1,
    "download": 1,
    "modeling": 1,
    "training": 1,
    "evaluation": 1,
    "flags": 2,
    "interop": 2,
    "keras_fit": 2,
    "report": 2,
    "scaling": 1,
    "jobs": 3,
    "predictors": 4,
    "runs": 4,
    "features": 5,
    "suite": 5,
    "entry": 6,
    "cli": 7,
    "__main__": 8,
    "keras_registration": 0,
    "__init__": 6,  # Offers what a user of models needs, loaded when asked for.
}
MAY_IMPORT = {
    ("evaluation", "bert_tf.data.tasks.squad"),  # A scorer knows what it scores.
    ("download", "bert_tf.data.tasks.glue_tasks"),  # MRPC is split into GLUE's files.
}
# What the lowest layer may know of itself.
FOUNDATIONS = {
    *("errors", "config", "files", "json_files", "launch", "resources", "tf_checkpoint")
}
# What each folder or module of `data` may know of the others: text becomes instances,
# these records, records packs, and all of them batches. `commands` know everything.
DATA = {
    "output_files": (),
    "processes": (),
    "text": (),
    "pretraining": ("text", "output_files", "processes"),
    "records": ("pretraining", "text", "output_files", "processes"),
    "packing": ("text",),
    "batches": ("packing", "records", "text"),
    "tasks": ("text", "processes"),
}
DATA_MODULES = {
    ".".join(path.relative_to(PACKAGE / "data").with_suffix("").parts): path
    for path in sorted((PACKAGE / "data").rglob("*.py"))
    if path.stem != "__init__"
}
# Those that check before they load it are here too.
WITHOUT_TENSORFLOW = [
    "config",
    "entry",
    "flags",
    "launch",
    "errors",
    "resources",
    "signals",
    "interop.ready_model",
    "interop.vocabulary_extension",
    "interop.weight_conversion",
    "jobs.early_check",
    "tf_checkpoint",
    "tf_checkpoint_writer",
]
WITHOUT_TENSORFLOW += [
    f"cli.{path.stem}".removesuffix(".__init__")
    for path in sorted((PACKAGE / "cli").glob("*.py"))
]
WITHOUT_TENSORFLOW += [f"data.{name}" for name in DATA_MODULES]


def imports(path):
    """Every module that a file imports anywhere, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room(name):
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path):
    own = room(module_name(path))
    for name in imports(path):
        other = room(name) if name.split(".")[0] == "bert_tf" else ""
        if other in ("", own) or other not in LAYERS:
            continue
        if any(own == o and name.startswith(n) for o, n in MAY_IMPORT):
            continue
        is_below = LAYERS[other] < LAYERS[own]
        assert is_below or other in FOUNDATIONS, f"{own} must not import {name}"


def defines(module, name):
    """Whether a module defines a name; a package may re-export those of others."""
    path = ROOT / (module.replace(".", "/") + ".py")
    body = ast.parse(path.read_text()).body if path.exists() else []
    assigned = {
        node.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return not body or name in assigned | {getattr(x, "name", "") for x in body}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_name_is_imported_from_the_module_that_defines_it(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("bert_tf."):
            for alias in node.names:
                assert defines(node.module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("name", DATA_MODULES)
def test_data_flows_one_way(name):
    own = name.split(".")[0]
    for imported in imports(DATA_MODULES[name]):
        _, _, rest = imported.partition("bert_tf.data.")
        other = rest.split(".")[0]
        if own != "commands" and other not in ("", own):
            assert other in DATA[own], f"{name} must not import {imported}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "jobs").rglob("*.py")), ids=module_name
)
def test_jobs_do_not_know_each_other(path):
    """What they share is in jobs/run, which knows none of them."""
    jobs = ["pretraining", "finetuning", "squad", "classifier"]
    others = {"squad": jobs[:1] + jobs[3:], "classifier": jobs[:1] + jobs[2:3]}
    unknown = others.get(path.stem, jobs)
    if path.parent.name == "run" or path.stem in jobs:
        for name in imports(path):
            assert name not in {f"bert_tf.jobs.{job}" for job in unknown}, name


BACKENDS = "bert_tf.modeling.backends"
# What backends may know of the folder that they are in.
BELOW_BACKENDS = ("bert_tf.modeling.ops", BACKENDS)


def of_modeling(*, backends):
    paths = {p for p in (PACKAGE / "modeling").rglob("*.py") if p.stem != "ops"}
    return [p for p in sorted(paths) if module_name(p).startswith(BACKENDS) == backends]


@pytest.mark.parametrize("path", of_modeling(backends=True), ids=module_name)
def test_backends_do_not_know_layers(path):
    for name in imports(path):
        if name.startswith("bert_tf.modeling."):
            assert name.startswith(BELOW_BACKENDS), name


@pytest.mark.parametrize("name", ["interface", "step"])
def test_what_backends_share_knows_none_of_them(name):
    known = set(imports(PACKAGE / f"modeling/backends/{name}.py"))
    assert not [
        n for n in known if n.startswith((f"{BACKENDS}.fused", "bert_tf.fused"))
    ]
    assert f"{BACKENDS}.reference" not in known


@pytest.mark.parametrize("path", of_modeling(backends=False), ids=module_name)
def test_layers_do_not_know_how_they_are_computed(path):
    """Neither the compiled library nor types of numbers."""
    for name in imports(path):
        assert not name.startswith(("bert_tf.fused_ops", f"{BACKENDS}.fused")), name
    assert "bfloat16" not in path.read_text()


@pytest.mark.parametrize("package, owner", [("horovod", "distribute")])
def test_a_package_is_imported_by_its_owner_only(package, owner):
    users = {
        room(module_name(path))
        for path in MODULES
        for name in imports(path)
        if name.split(".")[0] == package
    }
    strings = {
        room(module_name(path))
        for path in MODULES
        if f'import_module("{package}' in path.read_text()
    }
    assert users | strings == {owner}


def test_absl_flags_are_imported_by_flags_only():
    users = {
        room(module_name(path))
        for path in MODULES
        if any(name.startswith("absl") for name in imports(path))
    }
    assert users == {"flags"}


def reachable(name, seen):
    """All modules that importing one loads, by imports at the top of files."""
    path = ROOT / (name.replace(".", "/") + ".py")
    if not path.exists():
        path = ROOT / name.replace(".", "/") / "__init__.py"
    if not path.exists() or name in seen:
        return seen
    seen.add(name)
    for node in ast.parse(path.read_text()).body:
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        for imported in names:
            if imported.split(".")[0] == "bert_tf":
                reachable(imported, seen)
            else:
                seen.add(imported)
    return seen


@pytest.mark.parametrize("name", WITHOUT_TENSORFLOW)
def test_loading_does_not_load_tensorflow(name):
    loaded = reachable(f"bert_tf.{name}", set())
    assert loaded  # Otherwise there is no such module.
    assert not [n for n in loaded if n.split(".")[0] in ("tensorflow", "keras")]


def functions(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_the_test_sees_the_code():
    assert PACKAGE / "distribute.py" in MODULES and SCRIPTS
    assert "functions" in [node.name for node in functions(pathlib.Path(__file__))]


@pytest.mark.parametrize("path", MODULES + TOOLS, ids=lambda p: p.name)
def test_modules_are_at_most_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_entry_scripts_are_at_most_80_lines(path):
    assert len(path.read_text().splitlines()) <= 80


@pytest.mark.parametrize("path", MODULES + SCRIPTS + TOOLS, ids=lambda p: p.name)
def test_functions_are_at_most_60_lines(path):
    """Of code: a docstring with shapes, units, errors and source does not count."""
    for node in functions(path):
        lines = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            lines -= first.end_lineno - first.lineno + 1
        assert lines <= 60, f"{path.name}: {node.name} has {lines} lines"


def test_every_module_says_what_it_is():
    missing = [
        p.name for p in MODULES if not ast.get_docstring(ast.parse(p.read_text()))
    ]
    assert not missing


def test_messages_go_to_the_logger_of_the_package():
    root = re.compile(r"\blogging\.(debug|info|warning|error|critical|exception|log)\(")
    assert not [str(path) for path in MODULES if root.search(path.read_text())]
