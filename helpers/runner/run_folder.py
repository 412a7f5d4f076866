"""A run folder on disk: its files with their hashes, what a redo deletes and what it never touches,
and the code and packages that made it.
"""

import fnmatch
import json
import shutil
import sqlite3
import subprocess
from contextlib import closing, nullcontext, suppress
from importlib import metadata
from pathlib import Path

import pandas as pd

from helpers.files import sha256
from helpers.runner import folders

# Paid images and readers' answers: no redo and no --force ever deletes these. It also keeps the
# state from which training continues; stage 03 decides whether that state still fits.
KEPT = ("paid", "ledger.csv", "*.sqlite*", "begun.json", "backups", ".state*")
NOT_HASHED = (
    *("manifest.json", "notebook.ipynb", "run.log", ".*", "*.part"),
    *("*.sqlite-wal", "*.sqlite-shm"),
)
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "openai",
    "numpy",
    "pandas",
    "scipy",
    "statsmodels",
    "scikit-learn",
    "pydicom",
    "pillow",
)


# What this version reads of a manifest, and the type of each entry.
ENTRIES = {"parameters": dict, "inputs": dict, "code": dict, "finished_utc": str, "files": list}


def manifest(folder: Path) -> dict | None:
    """The manifest of a run folder: empty if there is none, None if it is damaged."""
    try:
        found = json.loads((folder / "manifest.json").read_text())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(found, dict)
        and (found.get("status") != "finished" or "files" in found)
        and all(isinstance(found[name], kind) for name, kind in ENTRIES.items() if name in found)
        and all(
            isinstance(entry, dict) and {"path", "sha256"} <= entry.keys()
            for entry in found.get("files", [])
        )
    )
    return found if whole else None


def clear(folder: Path) -> None:
    """Empty a run folder for a redo. Paid images and people's answers stay (KEPT); simulated
    readings go.
    """
    kept = (
        KEPT
        if begun(folder)
        else [name for name in KEPT if name not in ("*.sqlite*", "begun.json")]
    )
    for path in folder.iterdir():
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in (".lock", "run.log", *kept)):
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def begun(folder: Path) -> bool:
    """Whether a person has begun to read in a run folder of stage 07; simulated readers do not
    count.
    """
    record = folder / "readings.sqlite"
    if not (folder / "begun.json").exists():
        return False
    try:  # ask the database: a table written before a person was added would not show it
        with closing(sqlite3.connect(record)) if record.exists() else nullcontext() as store:
            return (
                store is None
                or store.execute("SELECT count(*) FROM readers WHERE NOT simulated").fetchone()[0]
                > 0
            )
    except sqlite3.Error:
        return True


def settle(folder: Path) -> None:
    """Move what SQLite still holds in a log beside a record into the record, so that a later close
    of the record does not change its hash.
    """
    for record in folder.glob("*.sqlite"):
        with closing(sqlite3.connect(record)) as store:
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def listed(folder: Path) -> list[str]:
    """The paths of a run folder's files that belong into its manifest."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        name.as_posix()
        for name in names
        if not any(fnmatch.fnmatch(part, left) for part in name.parts for left in NOT_HASHED)
    ]


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run folder that its manifest lists, by path."""
    return {name: sha256(folder / name) for name in listed(folder)}


def files(folder: Path) -> list[dict]:
    """Path, SHA-256, size and rows of every file of a run folder that its manifest lists."""
    entries = []
    for name, digest in hashes(folder).items():
        path = folder / name
        entry = {"path": name, "sha256": digest, "bytes": path.stat().st_size}
        if path.suffix == ".csv":
            entry["rows"] = len(pd.read_csv(path, dtype=str))
        entries.append(entry)
    return entries


def differing(folder: Path, manifest: dict) -> list[str]:
    """What differs between a finished run folder and its manifest, one phrase each."""
    now = hashes(folder)
    then = {entry["path"]: entry["sha256"] for entry in manifest.get("files", [])}
    found = [f"{path} is missing" for path in then if path not in now]
    found += [f"{path} is not in the manifest" for path in now if path not in then]
    found += [f"{path} has changed" for path in then if now.get(path, then[path]) != then[path]]
    return sorted(found)


def versions() -> dict[str, str]:
    """The versions of the packages that numbers and images depend on."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git() -> dict:
    """The commit of this checkout and whether it was changed; None where this folder is not a
    checkout (a copy inside another repository does not have that repository's commit).
    """
    commands = (["rev-parse", "--show-toplevel", "HEAD"], ["status", "--porcelain", "-uno"])
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(folders.ROOT), *arguments],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split("\n")
            for arguments in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    if Path(head[0]).resolve() != folders.ROOT:
        return {"commit": None, "dirty": None}
    return {"commit": head[1], "dirty": any(changes)}
