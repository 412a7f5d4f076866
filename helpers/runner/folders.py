"""Where parameters, outputs and secrets of a study are.

PARAMS=, OUTPUTS= and KEYS= move them.
"""

import os
import re
import secrets
from pathlib import Path

from helpers.files import write_atomically
from helpers.runner.parameters import ParameterError, nearest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = "services"  # folder in params/ with settings of image services; not a study
NOTEBOOKS = Path(os.environ.get("NOTEBOOKS") or ROOT / "notebooks")


def params_folder(study: str) -> Path:
    """params/<study>/ of this checkout (elsewhere by PARAMS=)."""
    return Path(os.environ.get("PARAMS") or ROOT / "params") / _named(study)


def _named(study: str) -> str:
    """The study's name. Raises ParameterError when it is invalid or leads to another folder."""
    if study == SERVICES or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", study):
        raise ParameterError(
            f"A study cannot be named '{study}': use letters, digits, - and _, not '{SERVICES}'."
        )
    return study


def existing(study: str) -> Path:
    """params/<study>/ of an existing study. Raises ParameterError naming the existing ones."""
    folder = params_folder(study)
    # Look in the list: on a file system that ignores case, Mine would also be found as mine.
    there = {path.name for path in folder.parent.glob("*") if path.is_dir()}
    known = sorted(there - {SERVICES})
    if study not in known:
        raise ParameterError(
            f"There is no study '{study}' in {folder.parent}{nearest(study, known)}. Make one with"
            f" `make new STUDY={study}`."
        )
    return folder


def settings_file(study: str, notebook: str, variant: str) -> Path:
    """params/<study>/<notebook>[.<variant>].yaml, whether it is there or not."""
    return params_folder(study) / f"{notebook}{'.' if variant else ''}{variant}.yaml"


def outputs_folder(study: str) -> Path:
    """outputs/<study>/ (elsewhere by OUTPUTS=)."""
    return Path(os.environ.get("OUTPUTS") or ROOT / "outputs") / _named(study)


def keys_folder(study: str) -> Path:
    """.keys/<study>/ with mode 0700, made when absent (elsewhere by KEYS=)."""
    folder = Path(os.environ.get("KEYS") or ROOT / ".keys") / _named(study)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def study_key(study: str, name: str) -> bytes:
    """The 32 secret bytes in .keys/<study>/<name> (mode 0600). If absent, they are made and their
    path is printed.
    """
    path = keys_folder(study) / name
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32).hex().encode(), mode=0o600)
        kind = f"{name.removesuffix('s')} key"
        print(f"Made the {kind} of study '{study}': {path} (keep it; it cannot be made again).")
    return bytes.fromhex(path.read_text())


def cases_folder(study: str) -> Path | None:
    """The folder of real images:

    CASES= if set, else the folder remembered in .keys/<study>/. The path is written nowhere else.
    """
    remembered = keys_folder(study) / "cases_folder"
    if os.environ.get("CASES"):
        folder = Path(os.environ["CASES"]).expanduser().resolve()
        if folder.is_dir() and (not remembered.exists() or remembered.read_text() != str(folder)):
            write_atomically(remembered, str(folder).encode(), mode=0o600)
        return folder
    return Path(remembered.read_text()) if remembered.exists() else None
