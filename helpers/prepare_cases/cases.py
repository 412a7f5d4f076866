"""Stage 01: a folder of real images becomes the study's cases - imported, de-identified, grouped,
split, described.

Layouts are read in layouts.py, files in images.py, the loop over them is importing.py.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import burned_in_text, findings, table_columns, tables
from helpers.formats import volumes
from helpers.prepare_cases import deidentify, duplicates, importing, layouts, review, splits
from helpers.runner import freshness, places, runs


class CasesError(ValueError):
    """A folder that cannot become cases; the message says what to do."""


@dataclass
class Cases:
    """The tables of stage 01: images.csv, imported.csv and rejected.csv."""

    images: pd.DataFrame
    imported: pd.DataFrame
    rejected: pd.DataFrame


def source_folder(run: runs.Run, source: str, patients: int, seed: int) -> Path:
    """The folder to import: the one CASES names, or the rehearsal's phantoms, drawn below the run
    folder. Raises CasesError.
    """
    if source == "phantom":
        from helpers.rehearsal import phantom

        run.mark_simulated("phantom cases")
        folder = run.folder / "phantom"
        if not (folder / "metadata.csv").exists():
            phantom.write_cases(folder, patients=patients, seed=seed)
        return folder
    folder = places.cases_folder(run.study)
    if folder is None:
        raise CasesError(
            f"Where are the images? Name their folder once: make study STUDY={run.study}"
            " CASES=/path/to/folder."
        )
    if not folder.is_dir():
        raise CasesError(
            f"The folder of images {folder} is not there: mount it, or name another with"
            " CASES=/path/to/folder."
        )
    return folder


def prepare(
    run: runs.Run,
    source: str,
    patients: int,
    seed: int,
    settings: importing.Settings,
    table: str = "",
    columns: list[str] = (),
    captions_from_reports: bool = False,
    validation_share: float = 0.1,
    test_share: float = 0.2,
    workers: int = 0,
) -> Cases:
    """Import the folder and write images.csv, imported.csv and rejected.csv; on a finished run,
    read them.

    Raises CasesError, layouts.LayoutError with one sentence that says what to do.
    """
    if run.finished:
        return Cases(run.read("images.csv"), run.read("imported.csv"), run.read("rejected.csv"))
    folder = source_folder(run, source, patients, seed)
    files = importing.files_below(folder)
    if not files:
        raise CasesError(
            f"The folder of images {folder} is empty: put X-rays or CT slices into it, or name"
            " another with CASES=."
        )
    if settings.burned_in_text != "keep":
        burned_in_text.check()
    reviews = places.keys_folder(run.study) / f"{run.name}.review"
    settings = replace(settings, decisions=review.decisions(reviews))
    described = layouts.describe(folder, files, table, columns)
    secret = places.study_key(run.study, "pseudonyms")
    known = described[["file", "modality", "sha256", "skip"]].to_dict("records")
    journal = places.keys_folder(run.study) / f"{run.name}.import.jsonl"
    taking = importing.take(folder, known, run.file("images"), journal, settings, secret, workers)
    taken = sorted(runs.progress(taking, "Importing", len(files)), key=lambda one: one.file)
    pictures = _pictures(taken, described, secret, settings.slices)
    if not len(pictures):
        counted = pd.Series([one.reason for one in taken]).value_counts()
        raise CasesError(
            f"No file in the folder of images can be used ({len(files)} looked at); most often:"
            f" {counted.index[0]} ({counted.iloc[0]} of them)."
        )
    pictures = _held_back(run, pictures, reviews)
    unknown = pictures.loc[
        (pictures["origin"] == "real")
        & ~pictures["patient_id"].map(deidentify.person).astype(bool),
        "patient",
    ]
    if len(unknown):
        run.say(
            f"No patient is known of {len(unknown)} images; each study, else each file, is taken"
            f" for a person ({unknown.nunique()}): whether a person crosses the splits cannot be"
            " told. A metadata table with patient_id can say it."
        )
    if captions_from_reports:
        run.say(
            "Warning: captions are taken from reports. Reports are patient data, and a generator"
            " may learn them by heart and show them."
        )
    reports = _reports(folder, pictures) if captions_from_reports else None
    size = duplicates.SIDE
    fingerprints = np.memmap(importing.fingerprints_file(journal), dtype=np.int8, mode="r").reshape(
        -1, size, size
    )
    frame = _images(
        pictures,
        duplicate_groups(pictures, fingerprints),
        seed,
        {"validation": validation_share, "test": test_share},
        source == "phantom",
        reports,
    )
    _write_names(run, taken, pictures, secret)
    written = run.write("images.csv", frame)
    imported = run.write(
        "imported.csv", pictures[[column.name for column in tables.columns("imported")]]
    )
    rejected = run.write("rejected.csv", _rejected(taken, pictures, secret))
    _tidy(run.folder, written)
    return Cases(written, imported, rejected)


def summary(prepared: Cases) -> dict:
    """What the manifest keeps of the cases: counts, and the split's hash over (image_id, split) in
    order of image_id.
    """
    images = prepared.images
    pairs = images[["image_id", "split"]].fillna("").sort_values("image_id")
    together = images[images["split"].notna()].groupby("patient")["split"].nunique().max()
    return {
        "pictures": len(images),
        "files_kept": int(prepared.imported["file_hash"].nunique()),
        "files_rejected": len(prepared.rejected),
        "splits": {name: int((images["split"] == name).sum()) for name in table_columns.SPLITS},
        "most_splits_of_a_patient": int(together) if together == together else 0,
        "split_sha256": freshness.digest(pairs.to_numpy().tolist()),
        "layouts": sorted(prepared.imported["layout"].unique()),
    }


def _pictures(
    taken: list[importing.Taken], described: pd.DataFrame, secret: bytes, slices: int
) -> pd.DataFrame:
    """One row an image: what the import says of it beside what the metadata says of its file."""
    rows = [
        {**picture.pop("header"), **picture, "file": one.file}
        for one in taken
        for picture in [dict(p) for p in one.pictures]
    ]
    if not rows:
        return pd.DataFrame()
    header = pd.DataFrame(rows)
    for name in ("view", "patient_id", "sex", "age", "study", "series", "position"):
        header[name] = header.get(name)
    metadata = described.set_index("file").loc[header["file"]].reset_index(drop=True)
    pictures = header.drop(columns=["view", "patient_id", "sex", "age"]).assign(
        **{
            name: metadata[name].where(metadata[name] != "", header[name].fillna(""))
            for name in ("view", "patient_id", "sex", "age")
        },
        **{
            name: metadata[name]
            for name in (
                "layout",
                "origin",
                "generator",
                "finding",
                "side",
                "licence",
                "credit",
                "report",
            )
        },
    )
    pictures["patient_id"] = pictures["patient_id"].where(
        pictures["patient_id"] != "", metadata["patient_in_path"]
    )
    pictures["layout"] = pictures["layout"].where(
        pictures["layout"] != "",
        np.where(pictures["kind"].str.startswith("DICOM"), "DICOM header", "files alone"),
    )
    pictures["origin"] = pictures["origin"].replace("", "real")
    pictures["file_hash"] = [
        deidentify.pseudonym(secret, "file", file) for file in pictures["file"]
    ]
    pictures["patient"] = [
        (
            deidentify.pseudonym(secret, "patient", patient)
            if (patient := deidentify.person(identity))
            else deidentify.pseudonym(secret, "patient unknown", instead)
        )
        for identity, instead in zip(pictures["patient_id"], _instead_of_a_patient(pictures))
    ]
    return _chosen_slices(pictures, slices)


def _instead_of_a_patient(pictures: pd.DataFrame) -> pd.Series:
    """What surely belongs to one person where no patient id is known: a study, a series, a folder
    of CT, at least a file.
    """
    folders = (
        pictures["file"]
        .str.rpartition("/")[0]
        .where(pictures["kind"].str.startswith("DICOM") & (pictures["modality"] == "ct"))
    )
    together = (
        pictures["study"]
        .replace("", None)
        .fillna(pictures["series"].replace("", None))
        .fillna(folders)
    )
    return together.fillna(pictures["file"]).astype(str)


def _held_back(run: runs.Run, pictures: pd.DataFrame, reviews: Path) -> pd.DataFrame:
    """Without the images whose burned-in text a person has to look at first.

    Raises CasesError when none is left.
    """
    waiting = pictures["crops"].map(len) > 0
    if not waiting.any():
        return pictures
    review.ask(reviews, pictures[waiting])
    run.say(
        f"{waiting.sum()} images with text wait for a decision: fill in list.csv in {reviews.name}"
        " beside the study's keys, then redo this run."
    )
    if waiting.all():
        raise CasesError(
            f"All {len(pictures)} images wait for a decision on their text: fill in"
            f" {reviews / 'list.csv'}, then run this again."
        )
    return pictures[~waiting].reset_index(drop=True)


def _chosen_slices(pictures: pd.DataFrame, slices: int) -> pd.DataFrame:
    """Of every CT series with more slices than wanted, those evenly spaced over the lung."""
    kept = np.ones(len(pictures), dtype=bool)
    series = pictures["series"].where(
        (pictures["modality"] == "ct") & pictures["series"].fillna("").ne("")
    )
    for _, rows in pictures.groupby(series):
        if len(rows) > slices:
            ordered = rows.sort_values(["position", "file", "frame"])
            chosen = ordered.index[
                volumes.spaced(ordered["lung_share"].to_numpy(dtype=float), slices)
            ]
            kept[[index for index in rows.index if index not in set(chosen)]] = False
    return pictures[kept].reset_index(drop=True)


def _images(
    pictures: pd.DataFrame,
    copies: pd.Series,
    seed: int,
    shares: dict[str, float],
    simulated: bool,
    reports: pd.Series | None,
) -> pd.DataFrame:
    real = (pictures["origin"] == "real").to_numpy()
    view = [
        deidentify.view(value, modality)
        for value, modality in zip(pictures["view"], pictures["modality"])
    ]
    split = np.full(len(pictures), None, dtype=object)
    strata = [
        {f"{modality} {one}" for one in finding.split("|")} | {f"{modality} view {seen}"}
        for modality, finding, seen in zip(pictures["modality"], pictures["finding"], view)
    ]
    together = splits.connected(
        pictures["patient"][real].reset_index(drop=True), copies[real].reset_index(drop=True)
    )
    shares = {"train": 1 - sum(shares.values()), **shares}
    split[real] = splits.split(together, [strata[i] for i in np.flatnonzero(real)], shares, seed)
    captions = [
        findings.caption(modality, seen, finding.split("|") if finding else [], side)
        for modality, seen, finding, side in zip(
            pictures["modality"], view, pictures["finding"], pictures["side"]
        )
    ]
    frame = pd.DataFrame(
        {
            name: pictures[name]
            for name in (
                "image_id",
                "path",
                "sha256",
                "modality",
                "finding",
                "side",
                "origin",
                "licence",
                "credit",
            )
        }
    )
    frame = frame.assign(
        view=view,
        caption=captions if reports is None else reports.where(reports != "", captions),
        simulated=simulated,
        split=split,
        generator=pictures["generator"].where(~real),
        patient=pictures["patient"].where(real),
        duplicate_group=copies,
        sex=pictures["sex"].map(deidentify.sex),
        age_band=pictures["age"].map(deidentify.age_band),
        width=pictures["width"],
        height=pictures["height"],
        bits=pictures["bits"],
    )
    return frame.replace("", pd.NA)


def duplicate_groups(pictures: pd.DataFrame, fingerprints: np.ndarray) -> pd.Series:
    """The group of every image that has copies (named after its first image); missing for the
    others.

    `fingerprints` has shape (n, 64, 64), and each image's column `fingerprint` says which is its
    own.
    """
    hashes = np.array([int(value, 16) for value in pictures["phash"]], dtype=np.uint64)
    group = pd.Series(
        duplicates.groups(hashes, fingerprints, pictures["fingerprint"].to_numpy(dtype=int))
    )
    names = pictures["image_id"].iloc[group].reset_index(drop=True)
    return names.where(group.groupby(group).transform("size") > 1)


def _reports(folder: Path, pictures: pd.DataFrame) -> pd.Series:
    """Report texts for captions: the column's text, or the text of the file it names."""
    named = [value.endswith(".txt") and (folder / value).is_file() for value in pictures["report"]]
    texts = [
        (folder / value).read_text(errors="replace") if isfile else value
        for value, isfile in zip(pictures["report"], named)
    ]
    return pd.Series([" ".join(text.split()) for text in texts])


def _rejected(taken: list[importing.Taken], pictures: pd.DataFrame, secret: bytes) -> pd.DataFrame:
    kept = set(pictures["file"])
    rows = [
        {
            "file_hash": deidentify.pseudonym(secret, "file", one.file),
            "kind": one.kind,
            "reason": _why(one),
        }
        for one in taken
        if one.file not in kept
    ]
    return pd.DataFrame(rows, columns=["file_hash", "kind", "reason"]).replace("", pd.NA)


def _why(one: importing.Taken) -> str:
    if any(picture["crops"] for picture in one.pictures):
        return "text in the pixels: waits for a decision"
    return one.reason or "CT series: other slices were chosen"


def _write_names(
    run: runs.Run, taken: list[importing.Taken], pictures: pd.DataFrame, secret: bytes
) -> None:
    """The way back from pseudonyms to files and patients, in .keys/<study>/ alone."""
    rejected = [
        {
            "file": one.file,
            "file_hash": deidentify.pseudonym(secret, "file", one.file),
            "reason": one.reason,
        }
        for one in taken
        if one.reason
    ]
    names = pd.concat(
        [
            pictures[["file", "file_hash", "image_id", "patient_id", "patient"]],
            pd.DataFrame(rejected),
        ]
    )
    path = places.keys_folder(run.study) / f"{run.name}.names.csv"
    tables.write_atomically(
        path, names.to_csv(index=False).encode("utf-8", "surrogateescape"), mode=0o600
    )
    run.say(
        f"Which image came from which file and patient is in {path.name} beside the study's keys,"
        " nowhere else."
    )


def _tidy(folder: Path, written: pd.DataFrame) -> None:
    """Remove images that no row names: slices not chosen, and what an import with other settings
    left.
    """
    named = set(written["path"])
    for path in (folder / "images").iterdir():
        if f"images/{path.name}" not in named:
            path.unlink()
