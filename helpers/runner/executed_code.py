"""Which modules of helpers a notebook executes, and the digests of their code. A digest covers the
syntax tree without comments and docstrings: it ignores wording and notices a changed formula.
"""

import ast
import functools
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from helpers.runner import folders, freshness

PACKAGES = ("numpy", "scipy", "statsmodels")
MAGIC = re.compile(r"^(\s*)[%!].*$", re.MULTILINE)


def of(notebooks: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of the code of every module of helpers that the notebooks import, directly or through
    others, by path in the checkout.
    """
    waiting = {name for notebook in notebooks for name in _imported_by(notebook)}
    found = {}
    while waiting:
        path = waiting.pop()
        file = folders.ROOT / path
        found[path], names = _read(file, file.stat().st_mtime_ns)
        waiting |= names - set(found)
    return dict(sorted(found.items()))


def packages() -> dict[str, str]:
    """The versions of the packages that compute the statistics."""
    return {name: metadata.version(name) for name in PACKAGES}


def changes(then: dict[str, str], now: dict[str, str], since: str) -> list[str]:
    """One phrase per difference between two such tables; it names versions, but not digests."""
    found = [f"{name} was removed after {since}" for name in then if name not in now]
    found += [f"{name} was added after {since}" for name in now if name not in then]
    for name in then:
        if name in now and now[name] != then[name]:
            versions = f" ({then[name]}, now {now[name]})" if len(now[name]) < 64 else ""
            found.append(f"{name} was changed after {since}{versions}")
    return sorted(found)


def _imported_by(notebook: Path) -> set[str]:
    cells = json.loads(notebook.read_text())["cells"]
    names = set()
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        with suppress(SyntaxError):  # the cell itself will say so
            names |= _imports(ast.parse(MAGIC.sub(r"\1pass", "".join(cell["source"]))))
    return names


@functools.cache
def _read(path: Path, changed_ns: int) -> tuple[str, set[str]]:
    """(digest of a module's code, the modules of helpers that it imports); read once per change."""
    tree = ast.parse(path.read_text())
    names = _imports(tree)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return freshness.digest(_plain(tree)), names


def _plain(node):
    """A syntax tree as JSON, the same in every version of Python: ast.unparse writes f-strings
    differently since 3.12, which also adds fields, and empty parts to f-strings.
    """
    if isinstance(node, list):
        return [_plain(part) for part in node]
    if isinstance(node, ast.JoinedStr):
        node.values = [part for part in node.values if getattr(part, "value", None) != ""]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: _plain(part) for name, part in ast.iter_fields(node) if part not in (None, [])}
    return [type(node).__name__, fields]


def _imports(tree: ast.Module) -> set[str]:
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            named |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    found = set()
    for parts in (name.split(".") for name in named if name.split(".")[0] == "helpers"):
        for length in range(1, len(parts) + 1):
            stem = "/".join(parts[:length])
            found |= {
                path
                for path in (f"{stem}.py", f"{stem}/__init__.py")
                if (folders.ROOT / path).is_file()
            }
    return found
