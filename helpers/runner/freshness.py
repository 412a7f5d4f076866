"""Whether a run still matches its settings: the same parameters, the same notebook, inputs with the
same hashes.
"""

import fnmatch
import hashlib
import json
import re
from pathlib import Path

from helpers import tables
from helpers.files import sha256
from helpers.runner import folders, parameters, run_folder

RUN_NAME = re.compile(r"^\d\d_[a-z0-9_]+(\.[A-Za-z0-9_-]+)?$")


def digest(value) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def wanted(study: str, notebook: Path, values: dict) -> dict:
    """What the manifest of an up-to-date run would contain: parameters, notebook hash, inputs with
    hashes ("" for one that is not there).
    """
    inputs = {}
    for name in references(study, notebook, values):
        manifest = run_folder.manifest(folders.outputs_folder(study) / name) or {}
        finished = manifest.get("status") == "finished"
        inputs[name] = digest(manifest["files"]) if finished else ""
    inputs |= {path.name: sha256(path) for path in _files_beside(study, notebook, values)}
    if values.get("source") == "folder":
        folder = folders.cases_folder(study)
        inputs["cases folder"] = folder_digest(folder) if folder and folder.is_dir() else ""
    return {"parameters": values, "notebook_sha256": code_digest(notebook), "inputs": inputs}


def code_digest(notebook: Path) -> str:
    """Digest of a notebook's code. It leaves out text, outputs and the parameters cell, whose
    values are recorded separately.
    """
    cells = json.loads(notebook.read_text())["cells"]
    return digest(
        [
            "".join(cell["source"])
            for cell in cells
            if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
        ]
    )


def stale_reasons(manifest: dict, now_wanted: dict) -> list[str]:
    """Why a run no longer matches its settings, one phrase per reason; empty when it matches."""
    if not manifest:
        return []
    reasons = []
    before, now = manifest.get("parameters", {}), now_wanted["parameters"]
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            reasons.append(f"{key}: {before.get(key)!r} before, {now.get(key)!r} now")
    if manifest.get("notebook_sha256") != now_wanted["notebook_sha256"]:
        reasons.append("the notebook has changed")
    before, now = manifest.get("inputs", {}), now_wanted["inputs"]
    for key in sorted({*before, *now}):
        # A cases folder that is not on this machine cannot be compared: the run folder may have
        # been moved here.
        if before.get(key) != now.get(key) and not (key == "cases folder" and not now.get(key)):
            reasons.append(f"its input {key} has changed")
    return reasons


def references(study: str, notebook: Path, values: dict) -> list[str]:
    """The runs that a run reads. Parameters whose comment says `run:` name them, and so does the
    `run` column of a CSV beside the YAML.
    """
    named = set()
    for key, parameter in parameters.schema(notebook).items():
        value = values.get(key)
        if value and parameter.names == "run":
            named.update(matching(study, [value] if isinstance(value, str) else value))
        elif parameter.names == "run or model" and RUN_NAME.match(value or ""):
            named.add(value)
    for path in _files_beside(study, notebook, values):
        if path.suffix == ".csv":
            table = tables.read_spreadsheet(path)
            for title in table.columns[table.columns.str.casefold() == "run"]:
                named.update(table[title][table[title] != ""])
    return sorted(named)


def matching(study: str, names: list[str]) -> list[str]:
    """The runs that the names match: `02_*` stands for all runs of stage 02 in the study."""
    folder = folders.params_folder(study)
    return [
        found
        for name in names
        for found in (
            fnmatch.filter(sorted(path.stem for path in folder.glob("*.yaml")), name)
            if "*" in name
            else [name]
        )
    ]


def _files_beside(study: str, notebook: Path, values: dict) -> list[Path]:
    """The tables and texts beside the YAML that parameters name (those marked `file:`)."""
    declared = parameters.schema(notebook)
    named = [values[key] for key in values if key in declared and declared[key].names == "file"]
    paths = [folders.params_folder(study) / name for name in named]
    return [path for path in paths if path.is_file()]


def folder_digest(folder: Path) -> str:
    """Digest of the names, sizes and times of all files below a folder (nothing is opened)."""
    entries = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        status = path.stat()
        entries.append([str(path.relative_to(folder)), status.st_size, status.st_mtime_ns])
    return digest(entries)
