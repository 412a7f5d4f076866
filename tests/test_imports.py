"""The shape of the package: who imports whom."""

import ast
import collections
import graphlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ROOT

MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): (
        path
    )
    for path in sorted((ROOT / "helpers").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported(tree) -> dict[str, str]:
    """What a module imports from helpers, inside functions too: the name here, the full name."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            found |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.asname or a.name: a.name for a in node.names if "helpers." in a.name}
    return found


def test_no_two_packages_import_each_other():
    reads = collections.defaultdict(set)
    for name, tree in TREES.items():
        own = name.split(".")[1:2]
        for other in (full.split(".")[1] for full in imported(tree).values()):
            reads[own[0] if own else ""] |= {other} - set(own)
    pairs = {(one, other) for one in reads for other in reads[one] if one in reads.get(other, ())}
    assert not pairs


def test_no_files_import_each_other_in_a_circle():
    """Also where an import is inside a function."""
    read = {
        name: {f if f in MODULES else f.rpartition(".")[0] for f in imported(tree).values()}
        for name, tree in TREES.items()
    }
    graphlib.TopologicalSorter({name: read[name] - {name} for name in read}).prepare()


def test_the_runner_imports_no_stage_and_nobody_imports_the_study():
    used = {name: set(imported(tree).values()) for name, tree in TREES.items()}
    modules = ("runner", "tables", "files", "plurals", "table_columns", "loopback")
    shared = [f"helpers.{name}" for name in modules]
    for name, others in used.items():
        assert "helpers.study" not in others
        if name.startswith("helpers.runner."):
            assert all(f"{other}.".startswith(tuple(f"{s}." for s in shared)) for other in others)


def defined(tree) -> set[str]:
    """The names that a module makes itself."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        else:
            stores = (n for n in ast.walk(node) if isinstance(n, ast.Name))
            found |= {n.id for n in stores if isinstance(n.ctx, ast.Store)}
    return found


@pytest.mark.parametrize("name", MODULES)
def test_no_module_hands_on_the_names_of_others(name):
    tree = TREES[name]
    assert not tree.body or defined(tree) or name == "helpers"
    assert "__all__" not in defined(tree)


def used_names(tree):
    """(module of helpers, name) for every name of a module that is imported or read."""
    modules = {here: full for here, full in imported(tree).items() if full in MODULES}
    for full in imported(tree).values():
        if full not in MODULES:
            yield full.rpartition(".")[::2]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) in modules:
            yield modules[node.value.id], node.attr


TESTS = sorted((ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("path", [*MODULES.values(), *TESTS], ids=lambda path: path.stem)
def test_every_name_is_taken_from_where_it_is_made(path: Path):
    for module, name in used_names(ast.parse(path.read_text())):
        if module in TREES and f"{module}.{name}" not in MODULES:
            others = imported(TREES[module])
            assert name not in others or name in defined(TREES[module]), f"{module}.{name}"


@pytest.mark.skipif(not find_spec("bitsandbytes"), reason="needs the extra [adamw8bit]")
def test_bitsandbytes_says_nothing_when_it_is_imported_on_a_cpu():
    command = [sys.executable, "-c", "import helpers, bitsandbytes"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == ""
