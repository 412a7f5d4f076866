"""The tables of stage 01, from the imported images and what tables and headers say of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from helpers import findings
from helpers.formats import volumes
from helpers.plurals import counted
from helpers.prepare_cases import deidentify, duplicates, importing, metadata_tables, splits
from helpers.prepare_cases.storing import ImportedFile
from helpers.runner import runs
from helpers.statistics import clusters

FROM_HEADER = ("view", "sex", "age")  # a table's values take precedence
FROM_TABLE = (
    *("layout", "origin", "generator", "made_from", "finding", "side", "licence", "credit"),
    "report",
)


def with_metadata(
    taken: list[ImportedFile], described: pd.DataFrame, secret: bytes, slices: int
) -> pd.DataFrame:
    """One row per image: the import's columns and the metadata of its file."""
    rows = [
        {**picture["header"], **picture, "file": one.file}
        for one in taken
        for picture in one.pictures
    ]
    if not rows:
        return pd.DataFrame()
    pictures = pd.DataFrame(rows).drop(columns="header")
    metadata = described.set_index("file").loc[pictures["file"]].reset_index(drop=True)
    for name in FROM_HEADER:
        pictures[name] = metadata[name].where(metadata[name] != "", pictures[name])
    pictures[list(FROM_TABLE)] = metadata[list(FROM_TABLE)]
    pictures["patient_id"] = _patients(pictures, metadata)
    pictures["layout"] = pictures["layout"].where(
        pictures["layout"] != "",
        np.where(pictures["kind"].str.startswith("DICOM"), "DICOM header", "files alone"),
    )
    pictures["origin"] = pictures["origin"].replace("", "real")
    pictures["file_hash"] = [
        deidentify.pseudonym(secret, "file", file) for file in pictures["file"]
    ]
    pictures["patient"] = [
        deidentify.pseudonym(secret, "patient" if person else "patient unknown", person or instead)
        for person, instead in zip(
            pictures["patient_id"].map(deidentify.person), _instead_of_a_patient(pictures)
        )
    ]
    return _chosen_slices(pictures, slices)


def _patients(pictures: pd.DataFrame, metadata: pd.DataFrame) -> pd.Series:
    """Patient ids: a table's, or else the header's or the path's. Tables often leave images out:
    these get the id of the image with which they share a header's id, a path's or a study, unless
    several persons do.
    """
    ids, header, path = metadata["patient_id"], pictures["patient_id"], metadata["patient_in_path"]
    for key, instead in ((header, header), (path, path), (pictures["study"], ids)):
        person, by = ids.map(deidentify.person), key.map(deidentify.person)
        named = pd.DataFrame({"by": by, "person": person, "id": ids})[(by != "") & (person != "")]
        one = named.drop_duplicates(["by", "person"]).drop_duplicates("by", keep=False)
        ids = ids.where(person != "", by.map(one.set_index("by")["id"]).fillna(instead))
    return ids


def _instead_of_a_patient(pictures: pd.DataFrame) -> pd.Series:
    """The smallest unit that certainly belongs to one person when no patient id is known: a study,
    a series, a folder of CT slices, or else a file.
    """
    folders = (
        pictures["file"]
        .str.rpartition("/")[0]
        .where(pictures["kind"].str.startswith("DICOM") & (pictures["modality"] == "ct"))
    )
    return (
        pictures["study"]
        .replace("", None)
        .fillna(pictures["series"].replace("", None))
        .fillna(folders)
        .fillna(pictures["file"])
        .astype(str)
    )


def _chosen_slices(pictures: pd.DataFrame, slices: int) -> pd.DataFrame:
    """Of every CT series with more slices than wanted, those evenly spaced over the lung."""
    kept = np.ones(len(pictures), dtype=bool)
    series = pictures["series"].where((pictures["modality"] == "ct") & (pictures["series"] != ""))
    for _, rows in pictures.groupby(series):
        if len(rows) > slices:
            ordered = rows.sort_values(["position", "file", "frame"])
            chosen = ordered.index[
                volumes.spaced(ordered["lung_share"].to_numpy(dtype=float), slices)
            ]
            kept[[index for index in rows.index if index not in set(chosen)]] = False
    return pictures[kept].reset_index(drop=True)


def images_table(
    run: runs.Run, pictures: pd.DataFrame, folder: Path, journal: Path
) -> pd.DataFrame:
    """The rows of images.csv, with captions, duplicate groups and splits added."""
    settings = run.parameters
    real = (pictures["origin"] == "real").to_numpy()
    pictures = pictures.assign(
        view=list(map(deidentify.view, pictures["view"], pictures["modality"]))
    )
    alike = duplicates.OF_PHANTOMS if settings.source == "phantom" else duplicates.CORRELATION
    duplicate_group = duplicate_groups(pictures, importing.fingerprints(journal), alike)
    return (
        pictures[
            [
                *("image_id", "path", "sha256", "modality", "view", "finding", "side", "origin"),
                *("licence", "credit", "width", "height", "bits"),
            ]
        ]
        .assign(
            caption=_captions(run, pictures, folder),
            simulated=settings.source == "phantom",
            split=pd.Series(
                _splits(pictures[real], duplicate_group[real], settings), pictures.index[real]
            ),
            generator=pictures["generator"].where(~real),
            made_from=_made_from(run, pictures[~real], pictures[real]),
            patient=pictures["patient"].where(real),
            duplicate_group=duplicate_group,
            sex=pictures["sex"].map(deidentify.sex),
            age_band=pictures["age"].map(deidentify.age_band),
        )
        .replace("", pd.NA)
    )


def _made_from(run: runs.Run, made: pd.DataFrame, real: pd.DataFrame) -> pd.Series:
    """image_id of the real image that each generated one was made from, where a table names its
    file; a warning counts the names that are not files of the folder.
    """
    finder = metadata_tables.Finder(real["file"].tolist())
    ids = real.drop_duplicates("file").set_index("file")["image_id"]
    named = made["made_from"].str.strip().str.replace("\\", "/")
    found = named.map(lambda name: ids.get(finder.find(name, "")))
    if lost := int((found.isna() & (named != "")).sum()):
        run.say(
            f"Warning: {counted(lost, 'generated image names', 'generated images name')} an"
            " original image that is not in the folder, or a name that several images have, so 06"
            " cannot keep an image and its original apart."
        )
    return found


def _splits(real: pd.DataFrame, duplicate_group: pd.Series, settings) -> np.ndarray:
    strata = [
        {f"{row.modality} {one}" for one in row.finding.split("|")}
        | {f"{row.modality} view {row.view}"}
        for row in real.itertuples()
    ]
    together = clusters.connected(
        real["patient"].reset_index(drop=True), duplicate_group.reset_index(drop=True)
    )
    shares = {
        "train": 1 - settings.validation_share - settings.test_share,
        "validation": settings.validation_share,
        "test": settings.test_share,
    }
    return splits.split(together, strata, shares, settings.seed)


def _captions(run: runs.Run, pictures: pd.DataFrame, folder: Path) -> pd.Series:
    """Captions from modality, view and findings, or from reports (captions_from_reports)."""
    ids = pictures["finding"].str.split("|").map(lambda parts: [one for one in parts if one])
    written = pd.Series(
        [
            findings.caption(*said)
            for said in zip(pictures["modality"], pictures["view"], ids, pictures["side"])
        ]
    )
    if not run.parameters.captions_from_reports:
        return written
    run.say(
        "Warning: captions are taken from reports. Reports are patient data, and a generator"
        " may memorise and reproduce them."
    )
    reports = pictures["report"].map(lambda text: " ".join(_report(folder, text).split()))
    return reports.where(reports != "", written)


def _report(folder: Path, value: str) -> str:
    """The column's text, or the text of the file that it names."""
    named = value.endswith(".txt") and (folder / value).is_file()
    return (folder / value).read_text(errors="replace") if named else value


def duplicate_groups(
    pictures: pd.DataFrame, fingerprints: np.ndarray, correlation: float
) -> pd.Series:
    """The group of every image that has duplicates (named after its first image); missing for the
    others.

    `fingerprints` has shape (n, 64, 64), and each image's column `fingerprint` says which is its
    own.
    """
    hashes = np.array([int(value, 16) for value in pictures["phash"]], dtype=np.uint64)
    group = pd.Series(
        duplicates.groups(
            hashes, fingerprints, pictures["fingerprint"].to_numpy(dtype=int), correlation
        )
    )
    names = pictures["image_id"].iloc[group].reset_index(drop=True)
    return names.where(group.groupby(group).transform("size") > 1)


def rejected_table(
    taken: list[ImportedFile], pictures: pd.DataFrame, secret: bytes
) -> pd.DataFrame:
    """The rows of rejected.csv: every file of which no image is kept, with the reason."""
    kept = set(pictures["file"])
    waiting = {one.file for one in taken if any(picture["crops"] for picture in one.pictures)}
    rows = [
        {
            "file_hash": deidentify.pseudonym(secret, "file", one.file),
            "kind": one.kind,
            "reason": "text in the pixels: waits for a decision"
            if one.file in waiting
            else one.reason or "CT series: other slices were chosen",
        }
        for one in taken
        if one.file not in kept
    ]
    return pd.DataFrame(rows, columns=["file_hash", "kind", "reason"]).replace("", pd.NA)
