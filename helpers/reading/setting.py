"""What the reading stage is told: 07's parameters, the study's texts and the blinded images.

No truth, no pandas.
"""

import csv
import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.findings import FINDINGS
from helpers.runner import parameters

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "notebooks" / "07_read_cases.ipynb"
STAGE = "07_read_cases"
DATABASE = "READING_DATABASE_URL"
_BLIND_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SettingError(ValueError):
    """A study that cannot be read by people as it is set up; the message says what to do."""


@dataclass(frozen=True)
class Picture:
    """One presentation, as 06 wrote it."""

    blind_id: str
    path: Path
    modality: str
    training: bool
    part: int


@dataclass(frozen=True)
class Setting:
    """A study at the reading stage.

    `asked` are 07's parameters, `told` the texts of study.json, `folder` 07's run folder.
    """

    study: str
    asked: Mapping
    told: Mapping
    pictures: Mapping[str, Picture]
    folder: Path

    @property
    def store_place(self) -> str | Path:
        """Where the record lies:

        READING_DATABASE_URL when set (PostgreSQL), else readings.sqlite in the run folder.
        """
        return os.environ.get(DATABASE) or self.folder / "readings.sqlite"


def load(study: str, reading_set: Path | None = None, values: Mapping | None = None) -> Setting:
    """The setting of a study, from params/<study>/07_read_cases*.yaml and the reading set that it
    names.

    `reading_set` is a folder that was copied here instead; `values` are parameters that were
    checked already. Raises SettingError or parameters.ParameterError.
    """
    nothing = (
        not reading_set
        and _params(study).parent.is_dir()
        and not _params(study).is_dir()
        and not outputs_folder(study).is_dir()
    )
    if values is None and nothing:
        raise SettingError(
            f"There is no study '{study}' here: `make new STUDY={study}` begins one; then run 06"
            " first, or copy its reading set here."
        )
    name, given = _settings(study) if values is None else (STAGE, dict(values))
    declared = parameters.schema(NOTEBOOK)
    asked = {key: parameter.default for key, parameter in declared.items()} | parameters.check(
        given, declared, f"params/{study}/{name}.yaml"
    )
    asked["findings_offered"] = _offered(asked["findings_offered"], study)
    folder = (
        Path(reading_set)
        if reading_set
        else outputs_folder(study) / asked["reading_set"] / "reading_set"
    )
    return Setting(
        study, asked, read_told(folder, study), read_pictures(folder), outputs_folder(study) / name
    )


def _params(study: str) -> Path:
    return Path(os.environ.get("PARAMS") or ROOT / "params") / study


def _settings(study: str) -> tuple[str, dict]:
    folder = _params(study)
    found = sorted(folder.glob(f"{STAGE}*.yaml"))
    if not folder.is_dir():
        return (
            STAGE,
            {},
        )  # a host that has nothing but the reading set reads with the notebook's defaults
    if len(found) != 1:
        raise SettingError(
            f"{folder} must have one {STAGE} YAML, it has {len(found)}: a study is read in one way."
        )
    return found[0].stem, parameters.read_yaml(found[0])


def _offered(ids: list[str], study: str) -> list[str]:
    unknown = [finding for finding in ids if finding not in FINDINGS]
    if unknown:
        raise SettingError(
            f"{STAGE} of study '{study}': findings_offered names"
            f" '{unknown[0]}'{parameters.nearest(unknown[0], FINDINGS)}."
        )
    return ids or list(FINDINGS)


def read_told(folder: Path, study: str) -> dict:
    """study.json of a reading set: what the page may say.

    Raises SettingError when it is missing or damaged.
    """
    path = Path(folder) / "study.json"
    try:
        return {"title": study, **json.loads(path.read_text()), "study": study}
    except FileNotFoundError:
        raise SettingError(
            f"{path} does not exist: run 06 first, or copy the whole reading_set/ here."
        ) from None
    except json.JSONDecodeError:
        raise SettingError(f"{path} is damaged: copy reading_set/ again.") from None


def read_pictures(folder: Path) -> dict[str, Picture]:
    """The images of a reading set by blind_id.

    Raises SettingError naming the row or the file that is wrong.
    """
    folder = Path(folder)
    try:
        with (folder / "reading_set.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise SettingError(
            f"{folder / 'reading_set.csv'} does not exist: run 06 first, or copy the whole"
            " reading_set/ here."
        ) from None
    pictures = {}
    for number, row in enumerate(rows, 1):
        missing = {"blind_id", "path", "modality", "training"} - row.keys()
        if missing or not _BLIND_ID.fullmatch(row["blind_id"] or ""):
            raise SettingError(
                f"{folder / 'reading_set.csv'} row {number}: no proper"
                f" {sorted(missing)[0] if missing else 'blind_id'}."
            )
        path = (folder / row["path"]).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise SettingError(
                f"{folder / 'reading_set.csv'} row {number}: {row['path']} is not in the reading"
                " set: copy it again."
            )
        training = row["training"].lower() == "true"
        pictures[row["blind_id"]] = Picture(
            row["blind_id"],
            path,
            row["modality"],
            training,
            int(row.get("part") or (0 if training else 1)),
        )
    if not any(not picture.training for picture in pictures.values()):
        raise SettingError(f"{folder / 'reading_set.csv'} has no images to read.")
    return pictures


def outputs_folder(study: str) -> Path:
    """outputs/<study>/ (elsewhere by OUTPUTS=)."""
    return Path(os.environ.get("OUTPUTS") or ROOT / "outputs") / study


def cookie_secret(study: str) -> bytes:
    """The secret that signs sessions, kept in .keys/<study>/cookie (mode 0600), so that signing in
    survives a restart.
    """
    folder = Path(os.environ.get("KEYS") or ROOT / ".keys") / study
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / "cookie"
    if not path.exists():
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_bytes(32).hex())
    return bytes.fromhex(path.read_text())
