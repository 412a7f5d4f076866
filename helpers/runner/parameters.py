"""The tagged parameters cell of a notebook is the schema of its YAML files.

One typed literal per line with a trailing comment that gives its unit; a comment that begins with
`one of: a, b, c` declares the choices (anything after a semicolon explains them):

    steps: int = 600            # optimiser steps
    method: str = "full"        # one of: full, lora; how the U-Net is trained

An unknown key, a value of another type, a value outside its choices and a secret-like name are
errors that name the file, the key and the nearest valid key, before anything runs.

A parameter that names a run, a list of runs or a file beside the YAML says so first in its comment:

    cases: str = "01_prepare_cases"   # run: whose training cases are learned
    sources: list = ["04_sample_x"]   # runs: with generated images
    base: str = "tiny"                # run or model: a run of 03, a hub id or a folder
    draw: str = "draw.csv"            # file: how many images from where
"""

import ast
import difflib
import functools
import io
import json
import math
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import yaml

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
SECRET = re.compile(
    r"(^|_)(key|token|secret|password|passphrase|credential)s?$|api_?key", re.IGNORECASE
)


# Until that commit, simulated parameters were called pretended.
OLD_STUDY = (
    "belongs to a study of an earlier version; commit 64a37d2 is the last that reads it. Nothing"
    " was changed. Continue the study with that commit, or begin a new study."
)


# Parameters of 06 and 07 that questions.csv and blocks.csv have replaced.
REPLACED = {
    *("confidence", "description_required", "findings_required", "findings_offered"),
    *("cues_asked", "cues_required", "cues", "instructions"),
}
OLD_DESIGN = (
    "was replaced by questions.csv and blocks.csv. Continue a study that has begun with commit"
    " 3aa5acd, the last that reads this parameter (nothing was changed). Otherwise remove the line"
    " and copy both tables from params/paper/."
)


PARTED = re.compile(r";(?=\s*\d\d[\w.-]*\.\w+\s*=|\s*$)")


class ParameterError(ValueError):
    """An invalid parameters cell, YAML file or SET; the message names file, key and remedy."""


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
        """What the comment's `one of: …` allows; the word `empty` stands for "". No choices when
        anything of the type is allowed.
        """
        match = re.match(r"one of: ([^;]+)", self.comment)
        named = [choice.strip() for choice in match[1].split(",")] if match else []
        return ["" if choice == "empty" else choice for choice in named]

    @property
    def names(self) -> str:
        """What the value names: "run", "run or model", "file" (beside the YAML) or ""."""
        match = re.match(r"(run or model|run|file)s?:", self.comment)
        return match[1] if match else ""


def schema(notebook: Path) -> dict[str, Parameter]:
    """The parameters a notebook declares, by name. Raises ParameterError."""
    try:
        text = Path(notebook).read_text()
    except FileNotFoundError:
        known = [path.stem for path in sorted(Path(notebook).parent.glob("[0-9]*.ipynb"))]
        raise ParameterError(
            f"There is no notebook {notebook.name}{nearest(Path(notebook).stem, known)}."
        ) from None
    return declared(notebook.name, tagged(notebook.name, text))


def tagged(notebook: str, text: str) -> str:
    """The source of the cell tagged `parameters` in the text of a notebook.

    Raises ParameterError when there isn't exactly one.
    """
    cells = json.loads(text)["cells"]
    sources = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    if len(sources) != 1:
        raise ParameterError(
            f"{notebook}: exactly one cell must be tagged 'parameters', but {len(sources)} are."
        )
    return sources[0]


@functools.cache
def declared(notebook: str, source: str) -> dict[str, Parameter]:
    """The parameters that the source of a parameters cell declares, by name.

    Raises ParameterError for a line that is not a typed literal.
    """
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.parse(source).body:
        try:
            name, kind = node.target.id, TYPES[node.annotation.id]
            found[name] = Parameter(
                name,
                _typed(ast.literal_eval(node.value), kind),
                kind,
                comments.get(node.end_lineno, ""),
            )
        except (AttributeError, KeyError, ValueError, TypeError):
            raise ParameterError(
                f"{notebook}: line {node.lineno} of the parameters cell must read `name: type"
                f" = literal  # unit or choices` with a type of {', '.join(TYPES)}."
            ) from None
        if SECRET.search(name):
            raise ParameterError(
                f"{notebook}: '{name}' looks like a secret; secrets come from the environment"
                " or .keys/ only."
            )
    return found


def check(values: dict, declared: dict[str, Parameter], where: str) -> dict:
    """Check the values and return them; whole numbers become floats where declared.

    Raises ParameterError naming `where` and the key.
    """
    checked = {}
    for key, value in values.items():
        if SECRET.search(str(key)):
            raise ParameterError(
                f"{where}: '{key}' looks like a secret; put it into the environment or .keys/,"
                " never into a parameter."
            )
        if key not in declared and key in REPLACED:
            raise ParameterError(f"{where}: '{key}' {OLD_DESIGN}")
        if key not in declared:
            raise ParameterError(f"{where}: unknown key '{key}'{nearest(str(key), declared)}.")
        parameter = declared[key]
        try:
            checked[key] = _typed(value, parameter.type)
        except TypeError:
            hint = ""
            if parameter.type is float and isinstance(value, str):
                hint = " (in YAML a number like 1e-4 needs a dot: 1.0e-4)"
            elif parameter.type is str:
                hint = " (a text that YAML would read otherwise needs quotes)"
            elif parameter.type is list:
                items = value if isinstance(value, list) else [value]
                hint = f" (its items in quotes: {json.dumps([str(item) for item in items])})"
            raise ParameterError(
                f"{where}: '{key}' must be {parameter.type.__name__}, not {value!r}{hint};"
                f" {parameter.comment}."
            ) from None
        if parameter.choices and checked[key] not in parameter.choices:
            raise ParameterError(
                f"{where}: '{key}' is {value!r}, but must be one of:"
                f" {', '.join(choice or 'empty' for choice in parameter.choices)}"
                f"{_meant(str(value), parameter.choices)}."
            )
    return checked


def _typed(value, kind: type):
    if kind is float and type(value) is int:
        return float(value)
    if (
        type(value) is not kind
        or (kind is list and not all(isinstance(item, str) for item in value))
        or (kind is float and not math.isfinite(value))  # nan differs from itself: always stale
    ):
        raise TypeError
    return value


def nearest(word: str, known) -> str:
    """A hint for a misspelt word: the closest known one, else all of them."""
    return _meant(word, known) or (f"; known: {', '.join(known)}" if known else "")


def _meant(word: str, known) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f" (did you mean '{close[0]}'?)" if close else ""


class _Loader(yaml.SafeLoader):
    """YAML without its surprises: a key may stand only once, 010 is not 8, and a date is a text."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for number, (key, _) in enumerate(node.value):
            if key.value in keys[:number]:
                self._refuse(f"'{key.value}' is there twice", key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node):
        return self._as_written(super().construct_yaml_int(node), r"[-+]?0[_0-7]|.*:", node)

    def construct_yaml_float(self, node):
        return self._as_written(super().construct_yaml_float(node), ".*:", node)

    def _as_written(self, value: float, misread: str, node: yaml.Node):
        if re.match(misread, node.value):
            self._refuse(f"{node.value} means {value} in YAML: write {value}, or use quotes", node)
        return value

    def _refuse(self, problem: str, node: yaml.Node):
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


# What the loader raises: `!!int abc`, `!!bool maybe`, `!!int ""` and a thousand brackets are no
# YAMLError.
BAD_YAML = (yaml.YAMLError, ValueError, LookupError, RecursionError)


def _problem(error: Exception) -> str:
    return getattr(error, "problem", None) or str(error).partition("\n")[0]


def read_yaml(path: Path) -> dict:
    """A flat YAML file: scalars and lists of strings. Raises ParameterError."""
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except FileNotFoundError:
        raise ParameterError(f"{path} does not exist.") from None
    except UnicodeDecodeError:
        raise ParameterError(f"{path} is not UTF-8: save it in that encoding.") from None
    except BAD_YAML as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        at = f" line {line + 1}" if line is not None else ""
        raise ParameterError(f"{path}{at}: not valid YAML ({_problem(error)}).") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: must consist of lines `key: value`.")
    for key, value in values.items():
        if not str(key).isprintable():
            raise ParameterError(
                f"{path}: the key {key!a} has an invisible character: type the key again."
            )
        if isinstance(value, dict) or value is None:
            raise ParameterError(
                f"{path}: '{key}' must be a scalar or a list of strings; leave a line out to take"
                " the default."
            )
    return values


def read_run(path: Path, declared: dict[str, Parameter]) -> dict:
    """The checked values of a run's YAML, params/<study>/<run>.yaml. Raises ParameterError."""
    values = read_yaml(path)
    if "pretended" in values.values() or any(str(key).startswith("pretended") for key in values):
        raise ParameterError(f"{path} {OLD_STUDY}")
    given = check(values, declared, str(path))
    for key, place in (("study", path.parent.name), ("variant", path.stem.partition(".")[2])):
        if given.pop(key, place) != place:
            raise ParameterError(
                f"{path}: '{key}' contradicts the file's folder or name; leave the line out."
            )
    return given


def as_set(run: str, key: str, value) -> str:
    """The `run.key=value` that read_set reads as this value."""
    return f"{run}.{key}={yaml.safe_dump([value], default_flow_style=True, width=10**9)[1:-2]}"


def run_named(said: str, names: list[str], where: str) -> str:
    """The one of `names` that is `said` or begins with it. Raises ParameterError, naming `where`,
    if none or several do.
    """
    found = [name for name in names if name == said] or [
        name for name in names if name.startswith((f"{said}_", f"{said}."))
    ]
    if len(found) > 1:
        raise ParameterError(f"{where}: '{said}' could be {' or '.join(found)}: name one of them.")
    if not found:
        raise ParameterError(
            f"{where}: no run of this study is named '{said}'{nearest(said, names)}."
        )
    return found[0]


def read_set(settings: list[str], names: list[str]) -> dict[str, dict]:
    """`run.key=value` settings by run. A `;` separates settings in one text (a value may contain
    one too). Values are read as YAML.

    Raises ParameterError for a run not among `names`.
    """
    chosen: dict[str, dict] = {}
    parts = [part.strip() for text in settings for part in re.split(PARTED, text) if part.strip()]
    for setting in parts:
        target, equals, value = setting.partition("=")
        run, dot, key = target.strip().rpartition(".")
        if key in ("study", "variant"):
            raise ParameterError(
                f"SET '{setting}': {key} cannot be set here; STUDY= chooses the study, and the YAML"
                " file's name gives the variant."
            )
        if not equals or not dot:
            raise ParameterError(
                f"SET '{setting}' must read run.key=value, for example"
                " 03_finetune_diffusion.steps=200."
            )
        named = run_named(run, names, f"SET '{setting}'")
        if re.match(r"[^'\"\[]*(?<!\S)#", value):
            raise ParameterError(
                f"SET '{setting}': in YAML a # begins a comment; put the value in quotes."
            )
        values = chosen.setdefault(named, {})
        if key in values:
            raise ParameterError(f"SET '{setting}': {named}.{key} is there twice.")
        try:
            values[key] = yaml.load(value, _Loader) if value else ""
        except BAD_YAML as error:
            raise ParameterError(f"SET '{setting}': not valid YAML ({_problem(error)}).") from None
    return chosen
