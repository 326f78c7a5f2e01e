"""Which module may know what: imports of the whole package, read from the source."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ecgadv"

LAYERS = (
    "errors", "environment", "spelling", "options", "making", "signature", "backend", "records",
    "victims", "threat", "arguments", "attacks", "defences", "study", "evaluate", "store",
    "tracking", "report", "reader_study", "tasks", "config", "cli", "api",
)  # fmt: skip
"""From the bottom to the top: a module imports from its own layer and those before it."""

FREE = {"__init__.py", "__main__.py"}
"""The package's own two files, which name what stands below."""

KNOW_HYDRA = ("config/", "cli/", "tracking/callback.py")

FILES = sorted(PACKAGE.rglob("*.py"))


def relative(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def imports(file: Path) -> list[tuple[str, str, int]]:
    """(module, name, line) of every import, also of those inside functions."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "", node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(file)}:{node.lineno}: relative import"
            found += [(node.module or "", alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            literal = [a.value for a in node.args[:1] if isinstance(a, ast.Constant)]
            found += [(str(name), "", node.lineno) for name in literal]
    return found


def layer(part: str) -> int:
    return LAYERS.index(part)


def test_the_walk_sees_the_package():
    assert len(FILES) > 40
    tops = {relative(file).split("/")[0].removesuffix(".py") for file in FILES}
    assert set(LAYERS) <= tops
    assert ("ecgadv.records.base", "RecordSet", True) in {
        (m, n, line > 0) for m, n, line in imports(PACKAGE / "records" / "cinc2017.py")
    }


def test_no_module_is_long():
    lengths = {relative(file): len(file.read_text("utf-8").splitlines()) for file in FILES}
    assert [name for name, lines in lengths.items() if lines > 400] == []


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_imports_go_downward_only(file):
    own = relative(file).split("/")[0].removesuffix(".py")
    if relative(file) in FREE:
        return
    assert own in LAYERS, f"{relative(file)} stands in no layer"
    for module, name, line in imports(file):
        where = f"{relative(file)}:{line} imports {module} {name}"
        if module.split(".")[0] != "ecgadv":
            continue
        parts = module.split(".")
        part = parts[1] if len(parts) > 1 else name
        if part in ("__version__", ""):
            continue
        assert part in LAYERS, f"{where}, which stands in no layer"
        assert layer(part) <= layer(own), where


def test_no_module_imports_itself_by_way_of_others():
    """Imports inside functions count too: what needs one to run is a circle all the same."""
    names = {dotted(file): file for file in FILES}
    graph = {}
    for name, file in names.items():
        found = set()
        for module, attribute, _ in imports(file):
            # A name of a package is a module of it, or else stands in the package's own file.
            inner = f"{module}.{attribute}"
            found.add(inner if inner in names else module)
        graph[name] = (found & set(names)) - {name}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def dotted(file: Path) -> str:
    """``ecgadv.store`` of the package's own file, ``ecgadv.store.files`` of another."""
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_who_knows_hydra_mlflow_and_the_backends(file):
    name = relative(file)
    for module, _, line in imports(file):
        top = module.split(".")[0]
        where = f"{name}:{line} imports {module}"
        if top in ("hydra", "omegaconf"):
            assert name.startswith(KNOW_HYDRA), where
        if top == "mlflow":
            assert name.startswith("tracking/"), where
        if top in ("tensorflow", "jax", "torch"):
            adapters = ("attacks/cleverhans", f"victims/{top}_files")
            assert name == "backend.py" or name.startswith(adapters), where
        if top == "cleverhans":
            assert name.startswith("attacks/cleverhans"), where


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_nothing_is_unpickled(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            assert not {"pickle", "dill", "cloudpickle", "joblib"} & set(names), relative(file)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert options.get("allow_pickle") == "False", f"{relative(file)}:{node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_model"):
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert options.get("safe_mode") == "True", f"{relative(file)}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=relative)
def test_text_files_name_their_encoding(file):
    """Python's default is that of the machine's language settings."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        given = {k.arg for k in node.keywords} & {"encoding"} or (name == "read_text" and node.args)
        where = f"{relative(file)}:{node.lineno}"
        if name in ("read_text", "write_text"):
            assert given, where
        elif called == "open" or (name == "open" and not node.args):
            modes = [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            is_text = "b" not in "".join(map(str, modes))
            # A store's own open() takes no argument at all.
            assert given or not is_text or not (node.args or node.keywords), where


HEAVY = ("tensorflow", "keras", "mlflow", "scipy", "wfdb", "matplotlib", "pandas")


@pytest.mark.parametrize(
    "modules",
    ["ecgadv", "ecgadv.cli, ecgadv.config", "ecgadv.records, ecgadv.records.cinc2017",
     "ecgadv.threat.metrics, ecgadv.threat.filters", "ecgadv.store", "ecgadv.victims.loading",
     "ecgadv.attacks.minnorm, ecgadv.attacks.cw"],
)  # fmt: skip
def test_importing_is_light(modules):
    code = f"import {modules}, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_interface_names_what_it_promises():
    import ecgadv

    for name in ("attack", "filters", "load_run", "load_victim", "metrics", "preprocess"):
        assert name in dir(ecgadv)
        assert getattr(ecgadv, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = ecgadv.nonsense
