"""The house keeps its shape: floors, types and words on every public name, and nothing heavy at the door."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
MODULES = sorted((PROJECT / "medseg").rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef

HEAVY = (
    *("torch", "monai", "mlflow", "nibabel", "pydicom", "highdicom", "SimpleITK", "pynetdicom"),
    *("matplotlib", "scipy", "pandas", "sklearn"),
)
SPEAK = ("medseg/cli.py", "medseg/imaging/dicom_worker.py")
"""They talk through stdout: the first to a person, the second to the process that started it."""
ALLOWED = {
    "torch": ("medseg/learning/", "medseg/doctor.py"),
    "monai": ("medseg/learning/", "medseg/evaluation/"),
    "mlflow": ("medseg/learning/tracking.py", "medseg/learning/tracking_store.py"),
    "pydicom": ("medseg/imaging/dicom_", "medseg/imaging/deidentify.py"),
    "highdicom": ("medseg/imaging/dicom_",),
    "pynetdicom": ("medseg/imaging/dicom_",),
    "dicomweb_client": ("medseg/imaging/dicom_web.py",),
    "nibabel": ("medseg/imaging/",),
    "SimpleITK": ("medseg/imaging/",),
}


def _name(module: Path) -> str:
    return module.relative_to(PROJECT).as_posix()


def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


def _public(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions and classes of a module, and the public methods of those classes."""
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method


def _is_protocol_stub(node: Function | ast.ClassDef) -> bool:
    last = node.body[-1]
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...


def _overrides(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name | ast.Attribute | ast.Subscript) for base in node.bases)


def test_imports_run_down_the_floors() -> None:
    call = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as floors; floors()"]
    done = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_imported_in_its_own_room_only(library: str) -> None:
    users = [_name(module) for module in MODULES if library in _imports(_tree(module))]
    assert [user for user in users if not user.startswith(ALLOWED[library])] == []


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_public_names_are_documented_and_typed(module: Path) -> None:
    tree, lacking = _tree(module), []
    if tree.body and ast.get_docstring(tree) is None:
        lacking.append("the module has no docstring")
    inherited = {n.name for n in tree.body if isinstance(n, ast.ClassDef) and _overrides(n)}
    for name, node in _public(tree):
        method_of = name.partition(".")[0] if "." in name else ""
        if ast.get_docstring(node) is None and method_of not in inherited and not _is_protocol_stub(node):
            lacking.append(f"{name} has no docstring")
        if isinstance(node, Function):
            lacking += [f"{name}: {what}" for what in _untyped(node, bool(method_of))]
    assert lacking == []


def _untyped(node: Function, method: bool) -> list[str]:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    given = given[1:] if method and given and given[0].arg in ("self", "cls") else given
    bare = [f"argument {a.arg} has no type" for a in given if a.annotation is None]
    return bare + ([] if node.returns is not None else ["no return type"])


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_library_code_does_not_print_and_holds_no_pickle(module: Path) -> None:
    tree = _tree(module)
    calls = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if _name(module) not in SPEAK:
        assert "print" not in calls, "use logging.getLogger('medseg')"
    assert not {"pickle", "dill", "joblib", "cloudpickle"} & set(_imports(tree))


def test_functions_and_files_stay_small() -> None:
    lengths = sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for module in MODULES
        for node in ast.walk(_tree(module))
        if isinstance(node, Function)
    )
    median, p90 = lengths[len(lengths) // 2], lengths[int(len(lengths) * 0.9)]
    assert median <= 12
    assert p90 <= 40
    long = {_name(m): n for m in MODULES if (n := len(m.read_text().splitlines())) > 400}
    assert long == {}


def test_the_front_door_is_light() -> None:
    code = (
        "import sys, medseg, medseg.cli, medseg.core.run, medseg.core.config;"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_in_under_a_second() -> None:
    call = [sys.executable, "-m", "medseg.cli", "train", "--help"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(call, capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1.0


def test_telemetry_is_off_before_anything_is_imported() -> None:
    code = "import os, medseg; print(os.environ['MLFLOW_DISABLE_TELEMETRY'], os.environ['DO_NOT_TRACK'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true", "true"]


def test_only_tested_versions_are_pinned_and_torch_is_one_of_them() -> None:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert pins["torch"] == "2.13.0"
    assert not [name for name in pins if name.startswith(("nvidia-cu", "triton"))]


@pytest.mark.slow
def test_ruff_and_pyright_find_nothing() -> None:
    for words in ("ruff check .", "ruff format --check .", f"pyright --pythonpath {sys.executable}"):
        call = [sys.executable, "-m", *words.split()]
        done = subprocess.run(call, cwd=PROJECT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:]
