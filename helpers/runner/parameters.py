"""The tagged parameters cell of a notebook is the schema of its YAML files.

One typed literal a line with a trailing comment that gives its unit; a comment that begins with
`one of: a, b, c` declares the choices (anything after a semicolon explains them):

    steps: int = 600            # optimiser steps
    method: str = "full"        # one of: full, lora; how the U-Net is trained

An unknown key, a value of another type, a value outside its choices and a secret-like name are
errors that name the file, the key and the nearest valid key, before anything runs.
"""

import ast
import difflib
import io
import json
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import yaml

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
SECRET = re.compile(
    r"(^|_)(key|token|secret|password|passphrase|credential)s?$|api_?key", re.IGNORECASE
)


class ParameterError(ValueError):
    """A parameters cell, a YAML file or a SET that does not fit; the message names file, key and
    remedy.
    """


class Record(dict):
    """The parameters of a run by name: `run.parameters.steps` is `run.parameters["steps"]`."""

    def __getattr__(self, name: str):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"There is no parameter '{name}'; known: {', '.join(self)}."
            ) from None


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    default: object
    type: type
    comment: str

    @property
    def choices(self) -> list[str]:
        """What the comment's `one of: …` allows; empty when anything of the type is allowed."""
        match = re.match(r"one of: ([^;]+)", self.comment)
        return [choice.strip() for choice in match[1].split(",")] if match else []


def cell(notebook: Path) -> str:
    """The source of the cell tagged `parameters`.

    Raises ParameterError when there isn't exactly one.
    """
    try:
        cells = json.loads(Path(notebook).read_text())["cells"]
    except FileNotFoundError:
        known = [path.stem for path in sorted(Path(notebook).parent.glob("[0-9]*.ipynb"))]
        raise ParameterError(
            f"There is no notebook {notebook.name}{nearest(Path(notebook).stem, known)}."
        ) from None
    tagged = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise ParameterError(
            f"{notebook.name}: one cell must be tagged 'parameters', {len(tagged)} are."
        )
    return tagged[0]


def schema(notebook: Path) -> dict[str, Parameter]:
    """The parameters a notebook declares, by name.

    Raises ParameterError for a line that is no typed literal.
    """
    source = cell(notebook)
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    declared = {}
    for node in ast.parse(source).body:
        try:
            name, kind = node.target.id, TYPES[node.annotation.id]
            declared[name] = Parameter(
                name,
                _typed(ast.literal_eval(node.value), kind),
                kind,
                comments.get(node.end_lineno, ""),
            )
        except (AttributeError, KeyError, ValueError, TypeError):
            raise ParameterError(
                f"{notebook.name}: line {node.lineno} of the parameters cell must read `name: type"
                f" = literal  # unit or choices` with a type of {', '.join(TYPES)}."
            ) from None
        if SECRET.search(name):
            raise ParameterError(
                f"{notebook.name}: '{name}' looks like a secret; secrets come from the environment"
                " or .keys/ only."
            )
    return declared


def check(values: dict, declared: dict[str, Parameter], where: str) -> dict:
    """The values, whole numbers widened to float where declared.

    Raises ParameterError naming `where` and the key.
    """
    checked = {}
    for key, value in values.items():
        if SECRET.search(str(key)):
            raise ParameterError(
                f"{where}: '{key}' looks like a secret; put it into the environment or .keys/,"
                " never into a parameter."
            )
        if key not in declared:
            raise ParameterError(f"{where}: unknown key '{key}'{nearest(str(key), declared)}.")
        parameter = declared[key]
        try:
            checked[key] = _typed(value, parameter.type)
        except TypeError:
            hint = ""
            if parameter.type is float and isinstance(value, str):
                hint = " (in YAML a number like 1e-4 needs a dot: 1.0e-4)"
            elif parameter.type is list and isinstance(value, list):
                hint = f" (its items in quotes: {json.dumps([str(item) for item in value])})"
            raise ParameterError(
                f"{where}: '{key}' must be {parameter.type.__name__}, not {value!r}{hint};"
                f" {parameter.comment}."
            ) from None
        if parameter.choices and checked[key] not in parameter.choices:
            raise ParameterError(
                f"{where}: '{key}' is {value!r}; one of:"
                f" {', '.join(parameter.choices)}{_meant(str(value), parameter.choices)}."
            )
    return checked


def _typed(value, kind: type):
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (
        kind is list and not all(isinstance(item, str) for item in value)
    ):
        raise TypeError
    return value


def nearest(word: str, known) -> str:
    """A hint for a misspelt word: the closest known one, else all of them."""
    return _meant(word, known) or (f"; known: {', '.join(known)}" if known else "")


def _meant(word: str, known) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f" (did you mean '{close[0]}'?)" if close else ""


def read_yaml(path: Path) -> dict:
    """A flat YAML file: scalars and lists of strings. Raises ParameterError."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except FileNotFoundError:
        raise ParameterError(f"{path} does not exist.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = f" line {line + 1}" if line is not None else ""
        raise ParameterError(
            f"{path}{at}: not valid YAML ({getattr(error, 'problem', error)})."
        ) from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: must be lines of `key: value`.")
    for key, value in values.items():
        if isinstance(value, dict) or value is None:
            raise ParameterError(
                f"{path}: '{key}' must be a scalar or a list of strings; leave a line out to take"
                " the default."
            )
    return values


def read_set(settings: list[str], names: list[str]) -> dict[str, dict]:
    """`run.key=value` settings by run, several in one text parted by `;`. Values are read as YAML.

    Raises ParameterError for a run not among `names`.
    """
    chosen: dict[str, dict] = {}
    for setting in [part.strip() for text in settings for part in text.split(";") if part.strip()]:
        target, equals, value = setting.partition("=")
        run, dot, key = target.strip().rpartition(".")
        if not equals or not dot:
            raise ParameterError(
                f"SET '{setting}' must read run.key=value, for example"
                " 03_finetune_diffusion.steps=200."
            )
        matching = [name for name in names if name == run] or [
            name for name in names if name.startswith(f"{run}_") or name.startswith(f"{run}.")
        ]
        if len(matching) != 1:
            raise ParameterError(
                f"SET '{setting}': no run of this study is named '{run}'{nearest(run, names)}."
            )
        chosen.setdefault(matching[0], {})[key] = yaml.safe_load(value) if value else ""
    return chosen


def injected(namespace: dict) -> set[str]:
    """The names that papermill's injected cell has set in a notebook's globals()."""
    cells = [source for source in namespace.get("In", []) if re.match(r"# Parameters\s*\n", source)]
    nodes = [
        node for source in cells for node in ast.parse(source).body if isinstance(node, ast.Assign)
    ]
    return {target.id for node in nodes for target in node.targets}


def from_kernel(notebook: Path, namespace: dict) -> dict:
    """The values in force in a running kernel, checked: whatever set them, papermill or a hand.

    `namespace` is the notebook's globals(). Keys that plain `papermill -f` injected without the
    schema knowing them are found in the injected cell and refused.
    """
    declared = schema(notebook)
    unknown = {
        key: None
        for key in injected(namespace)
        if key not in declared and not key.startswith("PAPERMILL_")
    }
    check(unknown, declared, f"parameters given to {notebook.name}")
    missing = [name for name in declared if name not in namespace]
    if missing:
        raise ParameterError(
            f"{notebook.name}: run the parameters cell first ('{missing[0]}' is not set)."
        )
    return check(
        {name: namespace[name] for name in declared}, declared, f"parameters of {notebook.name}"
    )
