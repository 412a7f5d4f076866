"""Which value of each parameter is in force in a running notebook, and who set it.

The first of these counts: typed by hand, given by papermill (make study, SET), the study's YAML,
the notebook's default. A value is typed if an executed cell assigned it after the parameters cell,
or if the executed parameters cell differs from the committed notebook (without git, from the file).
"""

import ast
import os
import re
import subprocess
import symtable
from pathlib import Path

from helpers.runner import folders, parameters

TYPED, GIVEN, DEFAULT = "typed in the notebook", "given by papermill or SET", "default"
SAVED = "saved in the notebook, not committed"


def values(notebook: Path, namespace: dict, before: dict) -> tuple[dict, list[str]]:
    """The checked values in force, and a phrase for each value that overrides another one.

    `namespace` is the notebook's globals(), `before` the values in force when this kernel last
    started the run. Raises parameters.ParameterError.
    """
    declared = parameters.schema(notebook)
    defaults = {name: parameter.default for name, parameter in declared.items()}
    cell, given, assigned = _history(namespace, declared)
    given = parameters.check(given, declared, f"parameters given to {notebook.name}")
    missing = [name for name in declared if name not in namespace]
    if missing:
        raise parameters.ParameterError(
            f"{notebook.name}: run the parameters cell first ('{missing[0]}' is not set)."
        )
    now = parameters.check(
        {name: namespace[name] for name in declared}, declared, f"parameters of {notebook.name}"
    )
    executed, committed = defaults | cell, defaults | _committed(notebook, declared)
    typed = {
        name: value
        for name, value in now.items()
        if name in assigned
        or (name not in given and executed[name] != committed[name])
        or value not in [source[name] for source in (executed, given, before) if name in source]
    }
    settings = folders.settings_file(now["study"], notebook.stem, now["variant"])
    from_yaml = parameters.read_run(settings, declared) if settings.is_file() else {}
    layers = [(TYPED, typed), (GIVEN, given), (settings.name, from_yaml), (DEFAULT, committed)]
    # In a batch every value is given, and a YAML is expected to differ from the defaults.
    expected = {*from_yaml, "study", "variant"} if os.environ.get("STUDY_BATCH") else ()
    # A default that is in the file but not yet committed is in force like any other.
    found, said = dict(executed), []
    for name in declared:
        (source, value), *rest = [(s, layer[name]) for s, layer in layers if name in layer]
        found[name] = executed[name] if source == DEFAULT else value
        other = next(((v, s) for s, v in rest if v != found[name]), None)
        if other and not (other[1] == DEFAULT and name in expected):
            if source == GIVEN and value == executed[name] != committed[name]:
                source = SAVED
            said.append(f"{name} = {found[name]!r} ({source}), not {other[0]!r} ({other[1]})")
    return found, said


def _committed(notebook: Path, declared: dict) -> dict:
    """The defaults of the notebook's committed version; none where git does not know the file."""
    command = ["git", "-C", str(notebook.parent), "show", f"HEAD:./{notebook.name}"]
    try:
        text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        committed = parameters.declared(notebook.name, parameters.tagged(notebook.name, text))
    except (OSError, subprocess.CalledProcessError, ValueError):
        return {}
    return {name: parameter.default for name, parameter in committed.items() if name in declared}


def _history(namespace: dict, declared: dict) -> tuple[dict, dict, set]:
    """From the cells executed so far, since the parameters cell last ran: what that cell said, what
    papermill's cell gave, and the names that other cells assigned.
    """
    cell, given, assigned = {}, {}, set()
    for source in namespace.get("In", []):
        try:
            lines = _literals(source, namespace)
            symbols = symtable.symtable(source, "cell", "exec").get_symbols()
        except (SyntaxError, ValueError):
            continue
        typed = {s.get_name() for s in symbols if s.is_annotated()} & declared.keys()
        if re.match(r"# Parameters\s*\n", source):
            given |= {name: v for name, v in lines.items() if not name.startswith("PAPERMILL_")}
            assigned -= given.keys()
        elif len(typed) > len(declared) / 2:  # the parameters cell, possibly edited
            cell, given, assigned = {n: v for n, v in lines.items() if n in declared}, {}, set()
        else:
            assigned |= {s.get_name() for s in symbols if s.is_assigned()} & declared.keys()
    return cell, given, assigned


def _literals(source: str, namespace: dict) -> dict:
    """What the lines `name = literal` and `name: type = literal` of a cell assign."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if not isinstance(target, ast.Name):
                continue  # `frame["x"] = 1` assigns no variable, `a, b = f()` no parameter
            try:
                found[target.id] = ast.literal_eval(node.value)
            except ValueError:
                found[target.id] = namespace.get(target.id)
    return found
