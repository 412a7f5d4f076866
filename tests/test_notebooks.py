"""The shape of every notebook: one story, a parameters cell that is the schema, no code that
belongs in a helper.
"""

import ast
import json
import re

import pytest
from conftest import ROOT

from helpers.runner import parameters

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
COLAB = json.loads(NOTEBOOKS[0].read_text())["cells"][1]["source"] if NOTEBOOKS else []


def cells(path, kind):
    return [
        "".join(cell["source"])
        for cell in json.loads(path.read_text())["cells"]
        if cell["cell_type"] == kind
    ]


def tree(path):
    plain = "\n".join(
        re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.M) for source in cells(path, "code")
    )
    return ast.parse(plain)


def test_there_are_the_eleven_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [
        "01",
        "02",
        "03",
        "04",
        "05",
        "06",
        "07",
        "07",
        "08",
        "09",
        "10",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_shape(path):
    code, prose = cells(path, "code"), cells(path, "markdown")
    lines = sum(1 for cell in code for line in cell.splitlines() if line.strip())
    assert len(code) <= 15, f"{len(code)} code cells"
    assert lines <= 120, f"{lines} lines of code"
    assert prose[0].startswith(f"# {path.stem[:2]} · "), "title"
    for word in ("Reads", "Writes", "Needs"):
        assert word in prose[0], f"the first cell's table lacks {word}"
    forbidden = [
        n
        for n in ast.walk(tree(path))
        if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Try | ast.AsyncFunctionDef)
    ]
    assert not forbidden, f"line {forbidden[0].lineno}: belongs in a helper"
    assert not any(
        isinstance(n, ast.Call) and getattr(n.func, "id", "") == "open"
        for n in ast.walk(tree(path))
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_outputs_are_stored_and_the_kernel_is_python3(path):
    notebook = json.loads(path.read_text())
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not [
        cell for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count")
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_colab_cell_is_the_same_everywhere(path):
    assert json.loads(path.read_text())["cells"][1]["source"] == COLAB
    assert "torch" not in "".join(COLAB)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_parameters_cell(path):
    declared = parameters.schema(path)
    assert list(declared)[:2] == ["study", "variant"]
    for parameter in declared.values():
        assert parameter.comment, f"'{parameter.name}' has no comment with its unit or choices"
        assert "=" not in parameter.comment, "papermill's inspector stumbles over = in a comment"
        if parameter.choices:
            assert parameter.default in parameter.choices, (
                f"the default of '{parameter.name}' is not among its choices"
            )
    source = parameters.tagged(path.name, path.read_text())
    assert all(line.count("=") == 1 for line in source.splitlines() if line.strip()), (
        "one literal per line, no = inside strings"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_imports_stand_together_before_the_parameters(path):
    code = cells(path, "code")
    place = code.index(parameters.tagged(path.name, path.read_text()))
    later = "\n".join(
        re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.M) for source in code[place:]
    )
    assert not [n for n in ast.walk(ast.parse(later)) if isinstance(n, ast.Import | ast.ImportFrom)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_parameter_that_names_a_run_says_so(path):
    """Otherwise what was made from that run is not called stale when the run is redone."""
    for key, parameter in parameters.schema(path).items():
        if isinstance(parameter.default, str) and re.match(r"\d\d_[a-z]", parameter.default):
            assert parameter.names in ("run", "run or model"), key
