"""Where parameters, outputs and secrets of a study are.

PARAMS=, OUTPUTS= and KEYS= move them. A relative path begins at the checkout, whatever the working
folder of a kernel or a command is.
"""

import functools
import os
import re
import secrets
import shlex
from pathlib import Path

from helpers.files import write_atomically
from helpers.runner.parameters import ParameterError, nearest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = "services"  # folder in params/ with settings of image services; not a study


def placed(variable: str, usual: str) -> Path:
    """The folder that an environment variable names, else the usual one of this checkout."""
    return ROOT / Path(os.environ.get(variable) or usual).expanduser()


NOTEBOOKS = placed("NOTEBOOKS", "notebooks")
_say_once = functools.cache(functools.partial(print, flush=True))


def params_folder(study: str) -> Path:
    """params/<study>/ of this checkout (elsewhere by PARAMS=)."""
    return placed("PARAMS", "params") / _named(study)


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
    """params/<study>/<notebook>[.<variant>].yaml, whether it is there or not.

    Raises ParameterError for a variant that cannot be part of a folder's name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,100}", variant):
        raise ParameterError(
            f"A variant cannot be named '{variant}': use at most 100 letters, digits, - and _."
        )
    return params_folder(study) / f"{notebook}{'.' if variant else ''}{variant}.yaml"


def outputs_folder(study: str) -> Path:
    """outputs/<study>/ (elsewhere by OUTPUTS=)."""
    return placed("OUTPUTS", "outputs") / _named(study)


def keys_folder(study: str) -> Path:
    """.keys/<study>/ with mode 0700, made when absent (elsewhere by KEYS=). One that other accounts
    can open, such as a copy, is said once.
    """
    folder = placed("KEYS", ".keys") / _named(study)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        _say_once(
            f"Other accounts of this machine can open {folder}, which holds the study's secrets:"
            f" run chmod 700 {shlex.quote(str(folder))}"
        )
    return folder


def study_key(study: str, name: str) -> bytes:
    """The 32 secret bytes in .keys/<study>/<name> (mode 0600). If absent, they are made and their
    path is printed. Raises ParameterError for a damaged file.
    """
    path = keys_folder(study) / name
    if not path.exists():
        write_atomically(path, secrets.token_bytes(32).hex().encode(), mode=0o600)
        kind = f"{name.removesuffix('s')} key"
        print(f"Made the {kind} of study '{study}': {path} (keep it; it cannot be made again).")
    if not re.fullmatch(r"[0-9a-f]{64}\s*", text := path.read_text(errors="replace")):
        raise ParameterError(f"{path} is damaged: restore it from your copy of .keys/.")
    return bytes.fromhex(text)


def cases_folder(study: str) -> Path | None:
    """The folder of real images:

    CASES= if set, else the folder remembered in .keys/<study>/. The path is written nowhere else.
    """
    remembered = keys_folder(study) / "cases_folder"
    if os.environ.get("CASES"):
        folder = placed("CASES", "").resolve()
        if folder.is_dir() and (not remembered.exists() or remembered.read_text() != str(folder)):
            write_atomically(remembered, str(folder).encode(), mode=0o600)
        return folder
    return Path(remembered.read_text()) if remembered.exists() else None
