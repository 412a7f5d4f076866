"""The input of stage 07: its parameters, the study's texts and the blinded images.

It has no truth of a scored image and needs no pandas.
"""

import csv
import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from helpers import protocol, protocol_tables
from helpers.runner import parameters
from helpers.runner.folders import NOTEBOOKS, outputs_folder, params_folder

STAGE = "07_read_cases"
NOTEBOOK = NOTEBOOKS / f"{STAGE}.ipynb"
DATABASE = "READING_DATABASE_URL"
STATIC = Path(__file__).resolve().parent / "static"
# The texts of study.json and the parameters that the page gets:
PAGE_TEXTS = ("study", "consent", "contact", "protocol", "ethics")
PAGE_PARAMETERS = ("going_back", "break_after")
_BLIND_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class SettingError(ValueError):
    """Readers cannot read the study as it is set up; the message says what to do."""


@dataclass(frozen=True)
class BlindImage:
    """One presentation, as 06 wrote it. `truth` is known only for images to learn from: "real" or
    "fake", or for a pair the side of the generated image ("left" or "right"). A pair is its left
    image, with the id of the right image in `beside`; the right image is `second`.
    """

    blind_id: str
    path: Path
    modality: str
    training: bool
    part: int
    block: str
    truth: str = ""
    beside: str = ""
    second: bool = False


@dataclass(frozen=True)
class Setting:
    """A study at the reading stage.

    `parameters` are 07's, `texts` those of study.json, `folder` is 07's run folder.
    """

    study: str
    parameters: parameters.Record
    protocol: protocol.Protocol
    texts: Mapping
    images: Mapping[str, BlindImage]
    folder: Path

    @property
    def items(self) -> list[BlindImage]:
        """The items to answer: every image that is shown alone, and every pair once."""
        return [image for image in self.images.values() if not image.second]

    @property
    def store_place(self) -> str | Path:
        """The place of the record: READING_DATABASE_URL if set (PostgreSQL), else readings.sqlite
        in the run folder. Raises SettingError for what is no URL.
        """
        url = os.environ.get(DATABASE)
        if url and "://" not in url:  # it would be the name of a file, and hold a password
            raise SettingError(f"{DATABASE} must be postgresql://user:password@host/database.")
        return url or self.folder / "readings.sqlite"

    @property
    def page(self) -> dict:
        """All that the page and its kernels get about the study before any block. It has no truth,
        and of the blocks only the first title. The questions of a block come with the state.
        """
        return {
            **{name: self.texts.get(name, "") for name in PAGE_TEXTS},
            **{name: self.parameters[name] for name in PAGE_PARAMETERS},
            "title": self.protocol.blocks[0].title,
            "bits": self.texts.get("bits", 0),
            "about_you": protocol.for_page(self.protocol.questions_of(protocol.READER)),
            "words": page_words(self.texts.get("language") or "en"),
        }


def page_words(language: str) -> dict:
    """All words of the page: static/texts.<language>.json; what it or its file lacks is English."""
    english = json.loads((STATIC / "texts.en.json").read_text(encoding="utf-8"))
    own = STATIC / f"texts.{language}.json"
    proper = re.fullmatch(r"[a-z]{2}", language) and own.exists()
    return _completed(json.loads(own.read_text(encoding="utf-8-sig")) if proper else {}, english)


def _completed(own: Mapping, english: Mapping) -> dict:
    return {
        name: _completed(own.get(name, {}), words)
        if isinstance(words, dict)
        else own.get(name, words)
        for name, words in english.items()
    }


def load(study: str, reading_set: Path | None = None, values: Mapping | None = None) -> Setting:
    """The setting of a study, from params/<study>/07_read_cases*.yaml and the reading set that it
    names.

    `reading_set` is a folder that was copied here instead; `values` are parameters that have been
    checked. Raises SettingError or parameters.ParameterError.
    """
    params, outputs = params_folder(study), outputs_folder(study)
    known = reading_set or params.is_dir() or outputs.is_dir() or not params.parent.is_dir()
    if values is None and not known:
        raise SettingError(
            f"There is no study '{study}' here: `make new STUDY={study}` begins one; then run 06"
            " first, or copy its reading set here."
        )
    name, given = _read_yaml(params) if values is None else (STAGE, dict(values))
    declared = parameters.schema(NOTEBOOK)
    defaults = {key: parameter.default for key, parameter in declared.items()}
    checked = parameters.check(given, declared, f"params/{study}/{name}.yaml")
    chosen = parameters.Record(defaults | checked)
    folder = Path(reading_set or outputs / chosen.reading_set / "reading_set")
    texts, designed = read_texts(folder, study), read_protocol(folder)
    waits = sum(block.after_days for block in designed.blocks)
    if chosen.code_days <= waits:
        raise SettingError(
            f"{STAGE} of study '{study}': readers' codes work for {chosen.code_days} days"
            f" (code_days), but blocks.csv makes readers wait {waits:g}: raise code_days."
        )
    return Setting(study, chosen, designed, texts, read_images(folder, designed), outputs / name)


def setting_of(run) -> Setting:
    """The setting of a run of 07 that make study has opened, with its checked parameters."""
    return replace(load(run.study, values=run.parameters), folder=run.folder)


def _read_yaml(folder: Path) -> tuple[str, dict]:
    found = sorted(folder.glob(f"{STAGE}*.yaml"))
    if not folder.is_dir():  # a host that has only the reading set uses the notebook's defaults
        return STAGE, {}
    if len(found) != 1:
        raise SettingError(f"{folder} must have exactly one {STAGE} YAML, but it has {len(found)}.")
    return found[0].stem, parameters.read_yaml(found[0])


def read_protocol(folder: Path) -> protocol.Protocol:
    """Blocks and questions of a reading set. Raises SettingError."""
    try:
        return protocol_tables.load(folder)
    except FileNotFoundError:
        if (folder / "reading_set.csv").exists():
            raise SettingError(f"{folder} has no questions.csv: it {protocol.OLD_SET}") from None
        raise _absent(folder) from None
    except (KeyError, ValueError) as error:
        raise SettingError(f"{folder} is damaged: copy reading_set/ again ({error}).") from None


def read_texts(folder: Path, study: str) -> dict:
    """study.json of a reading set: the texts of the page.

    Raises SettingError when it is missing or damaged.
    """
    path = folder / "study.json"
    try:
        return {"title": study, **json.loads(path.read_text()), "study": study}
    except FileNotFoundError:
        raise _absent(path) from None
    except json.JSONDecodeError:
        raise SettingError(f"{path} is damaged: copy reading_set/ again.") from None


def read_images(folder: Path, designed: protocol.Protocol) -> dict[str, BlindImage]:
    """The images of a reading set by blind_id, with the truth of the images to learn from.

    Raises SettingError naming the row or the file that is wrong.
    """
    table = folder / "reading_set.csv"
    if not (rows := _rows(table)):
        raise _absent(table)
    truths = {row["blind_id"]: row["truth"] for row in _rows(folder / "to_tell.csv")}
    beside = {row["pair"]: row.get("blind_id") for row in rows if _second(row)}
    for row in rows:
        row["truth"] = truths.get(row.get("blind_id"), "")
        row["beside"] = beside.get(row.get("blind_id"), "")
    images = [_image(folder, f"{table} row {number}", row) for number, row in enumerate(rows, 1)]
    known = {block.block for block in designed.blocks}
    if strange := [image.block for image in images if image.block not in known]:
        raise SettingError(
            f"{table} names block '{strange[0]}', which blocks.csv does not have: copy reading_set/"
            " again."
        )
    if all(image.training for image in images):
        raise SettingError(f"{table} has only training images: copy reading_set/ again.")
    paired = {block.block for block in designed.blocks if block.pairs}
    for image in images:
        if (image.block in paired) != bool(image.beside or image.second):
            raise SettingError(
                f"{table}: {image.blind_id} is half a pair: copy reading_set/ again."
            )
    return {image.blind_id: image for image in images}


def _second(row: dict) -> bool:
    return row.get("pair") not in (None, "", row.get("blind_id"))


def _rows(path: Path) -> list[dict]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _absent(path: Path) -> SettingError:
    return SettingError(
        f"{path} does not exist: run 06 first, or copy the whole reading_set/ here."
    )


def _image(folder: Path, where: str, row: dict) -> BlindImage:
    missing = {"blind_id", "path", "modality", "training", "block"} - row.keys()
    if missing or not _BLIND_ID.fullmatch(row["blind_id"] or ""):
        lacking = sorted(missing)[0] if missing else "blind_id"
        raise SettingError(f"{where}: no valid {lacking}: copy reading_set/ again.")
    path = (folder / row["path"]).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise SettingError(
            f"{where}: {row['path']} is not in the reading set: copy reading_set/ again."
        )
    training = row["training"].lower() == "true"
    return BlindImage(
        row["blind_id"],
        path,
        row["modality"],
        training,
        part=int(row.get("part") or (0 if training else 1)),
        block=row["block"],
        truth=row["truth"],
        beside=row["beside"],
        second=_second(row),
    )


@functools.lru_cache(maxsize=8)  # readers of a study often look at the same images
def decoded(path: Path) -> tuple[int, int, int, bytes]:
    """Width, height, bytes per pixel (1 or 2) and the pixels, row by row, little-endian.

    Raises ValueError for another kind of image.
    """
    with Image.open(path) as image:
        if image.mode not in ("L", "I;16"):
            raise ValueError(f"{path.name} is not a one-channel 8- or 16-bit PNG.")
        return image.width, image.height, 1 if image.mode == "L" else 2, image.tobytes()
