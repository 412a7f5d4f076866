"""Reads the names of files and folders where no table describes them: class folders, masks, known
data sets, patients.
"""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from helpers import findings

CREDITS = {
    "NIH ChestX-ray14": "NIH Clinical Center ChestX-ray14, Wang et al., CVPR 2017",
    "CheXpert": "CheXpert, Irvin et al., AAAI 2019",
    "MIMIC-CXR-JPG": "MIMIC-CXR-JPG, Johnson et al., 2019",
}
# How these data sets name their files, for a part of a data set that came without its tables.
PATTERNS = {
    "NIH ChestX-ray14": re.compile(r"(?:^|/)(?P<patient>\d{8})_\d{3}\.png$"),
    "CheXpert": re.compile(
        r"(?:^|/)(?P<patient>patient\d{5})/study\d+/view\d+"
        r"_(?:frontal|(?P<view>lateral))\.(?:jpg|png)$"
    ),
    "MIMIC-CXR-JPG": re.compile(r"(?:^|/)p(?P<patient>\d{8})/s\d{8}/[0-9a-f-]{44}\.(?:jpg|dcm)$"),
}
PATIENT = re.compile(
    r"(?:^|[/_\- ])(person|patient|subject|subj?|sub|pat)[_\- ]?(\d+)(?=[/_\-. ])", re.IGNORECASE
)
MASKS = re.compile(
    r"(?:^|[^a-z])(?:(?:left|right|lung|manual)[_\- ]?)?masks?$|^segmentations?$", re.IGNORECASE
)
DENIED = re.compile(
    r"(?:^|[^a-z])non?(?:[^a-z]|(?=covid|pneumonia|tb))(?!.*(?:finding|abnormal|disease))"
    r"|[a-z\d][_\- ]neg(?:ative)?s?(?![a-z])",
    re.IGNORECASE,
)
DATA_SET = re.compile(
    r"dataset|database|collection|repository|radiography|challenge|hospital|general", re.IGNORECASE
)

RASTER = re.compile(r"\.(?:png|jpe?g|tiff?|webp|bmp|gif|jp2|avif)$", re.IGNORECASE)
LEFTOVER = re.compile(
    r"(?:^|/)(?:__MACOSX/|\._|(?:\.DS_Store|Thumbs\.db|ehthumbs\.db|desktop\.ini)$)", re.IGNORECASE
)
# Words of a folder's or file's name that say where its images come from.
GENERATED = re.compile(
    r"(?:ai)?generat(?:ed|ive|[aio])|aigc|synth|synthetics?|synthesi[sz]ed|synthetisch\w*"
    r"|sintetic[oa]s?|synthetiques?|generiert\w*|ge(?:ne)?rad[oa]s?|genere(?:es?|s)|gegenereerd\w*"
    r"|ku?e?nstlich\w*|fake[sd]?|deepfakes?|gefalscht\w*|gefaelscht\w*"
    r"|(?:generated|synth(?:etic)?|fake)"
    r"(?:images?|imgs?|pics?|data|xrays?|cts?|cxrs?|chest|lungs?|scans?)"
    r"|(?:dc|w|style|cycle|pro|pg|big|ac|c|ls|lap|info|sn|sr|pix|med|msg|ct|cxr|xray|chest)?gans?"
    r"|dalle|midjourney|stablediffusion|sdxl|chatgpt|gpt|openai|maisi"
)
UNDECIDED = re.compile(
    r"samples?|sampled|generations?|sd|diffusion|dd[ip]m|ldm|vae|flux|simulat(?:ed|ions?)"
    r"|artificiel\w*|artificial"
)
REAL = re.compile(r"reals?|authentic|genuine")
# These say nothing about the origin: "without" such a word, or a header's "samples per pixel".
UNSAID = re.compile(rf"\b(?:non?|not|without) (?:{UNDECIDED.pattern})\b|\bsamples? per \w+")
NOT_GENERATED = re.compile(r"\b(?:non?|not|un) ?(?:generat|synth|fake)\w*")


def origin(text: str) -> tuple[str, str]:
    """What a path or a cell says about the origin of images, and the word that says it: real,
    generated, '?' where the words do not decide, '' where there are no such words.
    """
    said: dict[str, str] = {}
    for part in text.split("/"):
        spelled = UNSAID.sub(" ", _words(part))
        words = re.findall("[a-z]+", NOT_GENERATED.sub("real", spelled))
        words_found = {
            name: next((word for word in words if pattern.fullmatch(word)), "")
            for name, pattern in (("generated", GENERATED), ("real", REAL), ("?", UNDECIDED))
        }
        if not (
            words_found["generated"] and words_found["real"]
        ):  # real_and_fake says nothing of either
            said |= {name: word for name, word in words_found.items() if word}
    if "generated" in said and "real" in said:
        return "?", said["generated"]
    return next(
        ((name, said[name]) for name in ("generated", "real", "?") if name in said), ("", "")
    )


def _words(text: str) -> str:
    """Lower case without accents; capitals and signs that separate words become spaces."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    plain = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|[^A-Za-z]+", " ", plain).lower()
    return re.sub(r"\bdall ?e\b", "dalle", plain.replace("stable diffusion", "stablediffusion"))


def described(file: str, layout: str, label: str = "", **values) -> dict:
    """One row of a layout: the findings and side of a label in the data set's own words, and what
    else is known.
    """
    side = values.pop("side", "") or findings.side_in_text(label)
    return {
        "file": file,
        "layout": layout,
        "label": label,
        "finding": "|".join(findings.from_label(label)),
        "side": side,
        **values,
    }


def folders(folder: Path, files: list[str]) -> Iterator[dict]:
    """Folders named by class; the Kaggle COVID-19 Radiography folders (with their lung masks) among
    them.
    """
    kaggle = {"covid", "normal", "lung_opacity", "viral pneumonia"}
    parents = {part.lower() for file in files for part in PurePosixPath(file).parts[:-1]}
    is_kaggle = len(kaggle & parents) >= 2 and "images" in parents
    for file in files:
        parts = PurePosixPath(file).parts[:-1]
        label = _class(parts)
        layout = (
            "Kaggle COVID-19 Radiography"
            if is_kaggle and label.lower() in kaggle
            else "folders by class"
        )
        modality = (
            "xray" if layout.startswith("Kaggle") else _folder_modality((folder.name, *parts))
        )
        if parts and MASKS.search(parts[-1]):
            yield {"file": file, "layout": layout, "skip": "mask of the lungs, not an image"}
        elif label:
            yield described(
                file, layout, label, modality=modality, patient_in_path=_patient_in_path(file)
            )
        elif modality and RASTER.search(file):  # a DICOM header knows better
            yield {"file": file, "modality": modality}


def _class(parts: tuple[str, ...]) -> str:
    """The nearest folder that names a class; '' when a nearer one denies it (non-COVID).

    A data set's own name is not a class.
    """
    for part in reversed(parts):
        if DENIED.search(part):
            return ""
        if not DATA_SET.search(part) and findings.from_label(part):
            return part
    return ""


def patterns(files: list[str], with_table: set[str]) -> Iterator[dict]:
    """Files of known data sets without their tables, described by their names alone; for files of
    `with_table` only the patient.
    """
    for file in files:
        layout = next((name for name, pattern in PATTERNS.items() if pattern.search(file)), "")
        if layout:
            parts = PATTERNS[layout].search(file).groupdict()
            patient = prefixed(layout.split()[0].split("-")[0].lower(), parts["patient"])
            values = {"view": parts.get("view") or "", "credit": CREDITS[layout]}
            yield (
                {"file": file, "patient_id": patient}
                if layout in with_table
                else described(file, layout, modality="xray", patient_id=patient, **values)
            )
        elif patient := _patient_in_path(file):
            yield {"file": file, "patient_in_path": patient}


def _patient_in_path(file: str) -> str:
    """The patient that a path names by itself: 'person 17' of train/person17_virus_42.jpeg; '' when
    none does.
    """
    match = PATIENT.search(file)
    return f"{match[1]} {int(match[2])}".lower() if match else ""


def _folder_modality(parts: tuple[str, ...]) -> str:
    """The modality in the name of the nearest folder that has one: xray, ct; '' when none does."""
    for part in reversed(parts):
        spelled = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part).lower()  # also "covidCT"
        words = set(re.split(r"[^a-z0-9]+", re.sub(r"x[-_ ]?ray", "xray", spelled)))
        if words & {"xray", "xrays", "cxr", "radiography", "radiographs"}:
            return "xray"
        if words & {"ct", "cts"}:
            return "ct"
    return ""


def prefixed(source: str, identity) -> str:
    """A patient id that no other data set can share; '' when there is none."""
    return f"{source} {identity}" if identity else ""
