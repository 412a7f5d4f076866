"""Stage 01: a folder of real images becomes the study's cases - imported, de-identified, grouped,
split, described.

Tables and names are read in layouts.py, files in images.py and storing.py; the loop over them is
importing.py.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from helpers import burned_in_text, files, findings, table_columns
from helpers.formats import volumes
from helpers.prepare_cases import (
    deidentify,
    duplicates,
    importing,
    layouts,
    metadata_tables,
    review,
    splits,
)
from helpers.prepare_cases.storing import Taken
from helpers.runner import freshness, places, runs
from helpers.runner.progress import progress
from helpers.statistics import clusters

FROM_HEADER = ("view", "patient_id", "sex", "age")  # what a table says goes before it
FROM_TABLE = (
    *("layout", "origin", "generator", "made_from", "finding", "side", "licence", "credit"),
    "report",
)

# The remedy for each reason that files are left out, where the reason itself names none.
REMEDIES = {
    "smaller than": "lower min_pixels, or ask for the images in full size",
    "CT slice that shows little": "lower min_lung_share",
    "text in the pixels": "burned_in_text: mask paints text over instead",
    "damaged": "copy or export these files again",
    "cannot be read": "copy these files again",
    "DICOM of another body part": "a metadata table with the modality overrules the header",
    "raw detector data": "export the images FOR PRESENTATION",
}
# Files that nobody expects to become cases, and slices that 01 itself left out.
EXPECTED = ("metadata table", "left over", "mask of the lungs", "CT series", "text, not")


class CasesError(ValueError):
    """A folder that cannot become cases; the message says what to do."""


@dataclass
class Cases:
    """The tables of stage 01: images.csv, imported.csv and rejected.csv."""

    images: pd.DataFrame
    imported: pd.DataFrame
    rejected: pd.DataFrame


def source_folder(run: runs.Run) -> Path:
    """The folder to import: the one CASES names, or the rehearsal's phantoms, drawn below the run
    folder. Raises CasesError.
    """
    if run.parameters.source == "phantom":
        from helpers.rehearsal import phantom

        run.mark_simulated("phantom cases")
        folder = run.folder / "phantom"
        if not (folder / "metadata.csv").exists():
            phantom.write_cases(folder, run.parameters.patients, seed=run.parameters.seed)
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


def prepare(run: runs.Run) -> Cases:
    """Import the folder and write images.csv, imported.csv and rejected.csv; on a finished run,
    read them.

    Raises CasesError, LayoutError with one sentence that says what to do.
    """
    if run.finished:
        there = Cases(*(run.read(f"{name}.csv") for name in ("images", "imported", "rejected")))
        _say_what_was_left_out(run, there)
        return there
    _refuse_legible_names(run.parameters)
    folder = source_folder(run)
    files = importing.files_below(folder)
    if not files:
        raise CasesError(
            f"The folder of images {folder} is empty: put X-rays or CT slices into it, or name"
            " another with CASES=."
        )
    if run.parameters.burned_in_text != "keep":
        burned_in_text.check()
    reviews = places.keys_folder(run.study) / f"{run.name}.review"
    described = layouts.describe(folder, files, run.parameters)
    for note in described.attrs["notes"]:
        run.say(note)
    secret = places.study_key(run.study, "pseudonyms")
    known = described[["file", "modality", "sha256", "skip"]].to_dict("records")
    journal = places.keys_folder(run.study) / f"{run.name}.import.jsonl"
    decisions = review.decisions(reviews)
    taking = importing.take(
        folder, known, run.file("images"), journal, run.parameters, secret, decisions
    )
    taken = sorted(progress(taking, "Importing", len(files)), key=lambda one: one.file)
    pictures = _pictures(taken, described, secret, run.parameters.slices)
    if not len(pictures):
        counted = pd.Series([one.reason for one in taken]).value_counts()
        raise CasesError(
            f"None of the {len(files)} files in the folder of images can be used. The most frequent"
            f" reason: {counted.index[0]} ({counted.iloc[0]} of them)."
        )
    pictures = _held_back(run, pictures, reviews)
    if run.parameters.source != "phantom":
        _say_what_is_unsure_of_patients(run, pictures)
    pictures["inverted"] &= pictures["view"].map(lambda view: deidentify.view(view, "xray")) != "LL"
    if suspected := int(pictures["inverted"].sum()):
        run.say(
            f"{suspected} X-rays look inverted (bones dark, lungs bright), but no header says so."
            " Look at them below; if they are inverted, remove them or invert their files."
        )
    for doubt, rows in pictures[pictures["modality"] == "ct"].groupby("doubt"):
        if doubt:
            run.say(
                f"{len(rows)} CT images (the first is {rows['image_id'].iloc[0]}): {doubt}. Check"
                " below that they show the patient's right on the left and the front at the top."
            )
    _write_names(run, taken, pictures, secret)
    written = run.write("images.csv", _images(run, pictures, folder, journal))
    imported = run.write("imported.csv", pictures[table_columns.column_names("imported")])
    rejected = run.write("rejected.csv", _rejected(taken, pictures, secret))
    _tidy(run.folder, written)
    prepared = Cases(written, imported, rejected)
    _say_what_was_left_out(run, prepared)
    return prepared


def _refuse_legible_names(settings) -> None:
    """Refuse `keep` for real images that may hold text: a name in a corner would reach the readers'
    page.
    """
    if (
        settings.source != "phantom"
        and settings.burned_in_text == "keep"
        and not settings.images_hold_no_text
    ):
        raise CasesError(
            "burned_in_text: keep leaves burned-in names legible in real images. Set mask, reject"
            " or review. Or, if somebody has checked that the images hold no text, also set"
            " images_hold_no_text: true."
        )


def _say_what_was_left_out(run: runs.Run, prepared: Cases) -> None:
    """Say reasons and counts; warn and suggest a remedy when more than a tenth were left out."""
    reasons = prepared.rejected["reason"].str.replace(r" \(.*\)", "", regex=True)
    counts = reasons.value_counts()
    if len(counts):
        listed = "; ".join(f"{count} {reason}" for reason, count in counts.items())
        files = "1 file was" if len(reasons) == 1 else f"{len(reasons)} files were"
        run.say(f"{files} left out: {listed}.")
    lost = counts[~counts.index.str.startswith(EXPECTED)]
    if lost.sum() > 0.1 * (lost.sum() + prepared.imported["file_hash"].nunique()):
        helps = [
            remedy for start, remedy in REMEDIES.items() if lost.index.str.startswith(start).any()
        ]
        run.say(
            f"Warning: {lost.sum()} files that may be images were left out, which is more than a"
            f" tenth. Most frequent reason: {lost.index[0]}."
            f" {'; '.join(helps) or 'See rejected.csv'}."
        )


def _say_what_is_unsure_of_patients(run: runs.Run, pictures: pd.DataFrame) -> None:
    real = pictures[pictures["origin"] == "real"]
    person = real["patient_id"].map(deidentify.person)
    unknown = real.loc[person == "", "patient"]
    if len(unknown):
        run.say(
            f"The patient of {len(unknown)} images is unknown. Each study, or else each file,"
            f" counts as one patient ({unknown.nunique()}), so a patient may be in several splits."
            " To prevent this, give a metadata table with patient_id."
        )
    stems = real["file"].map(lambda file: deidentify.person(PurePosixPath(file).stem))
    for layout, rows in real[person != ""].groupby("layout"):
        files, persons = rows["file"].nunique(), person[rows.index].nunique()
        named = (person[rows.index] == stems[rows.index]).mean() > 0.5
        if files > 2 and (named or persons == files):
            what = "file names as patient ids" if named else "as many patients as files"
            run.say(
                f"Warning: {layout} gives {what} ({files}). A patient with several images could"
                " then be in several splits: check the patient column, or name another one with"
                " columns: ['yours:patient_id']."
            )


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
    taken: list[Taken], described: pd.DataFrame, secret: bytes, slices: int
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
    for name in (*FROM_HEADER, "study", "series", "position"):
        pictures[name] = pictures.get(name)
    for name in FROM_HEADER:
        pictures[name] = metadata[name].where(metadata[name] != "", pictures[name].fillna(""))
    for name in FROM_TABLE:
        pictures[name] = metadata[name]
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
        deidentify.pseudonym(secret, "patient" if person else "patient unknown", person or instead)
        for person, instead in zip(
            pictures["patient_id"].map(deidentify.person), _instead_of_a_patient(pictures)
        )
    ]
    return _chosen_slices(pictures, slices)


def _instead_of_a_patient(pictures: pd.DataFrame) -> pd.Series:
    """The smallest unit that certainly belongs to one person when no patient id is known: a study,
    a series, a folder of CT slices, or else a file.
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
    """The images without those whose burned-in text a person must check first.

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


def _images(run: runs.Run, pictures: pd.DataFrame, folder: Path, journal: Path) -> pd.DataFrame:
    """The rows of images.csv, with captions, duplicate groups and splits added."""
    settings = run.parameters
    real = (pictures["origin"] == "real").to_numpy()
    pictures = pictures.assign(
        view=list(map(deidentify.view, pictures["view"], pictures["modality"]))
    )
    alike = duplicates.OF_PHANTOMS if settings.source == "phantom" else duplicates.CORRELATION
    duplicate_group = duplicate_groups(pictures, importing.fingerprints(journal), alike)
    frame = pictures[
        [
            *("image_id", "path", "sha256", "modality", "view", "finding", "side", "origin"),
            *("licence", "credit", "width", "height", "bits"),
        ]
    ].assign(
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
    return frame.replace("", pd.NA)


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
            f"Warning: {lost} generated images name an original image that is not in the folder, or"
            " a name that several images have, so 06 cannot keep an image and its original apart."
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
    held_out = {"validation": settings.validation_share, "test": settings.test_share}
    shares = {"train": 1 - sum(held_out.values()), **held_out}
    return splits.split(together, strata, shares, settings.seed)


def _captions(run: runs.Run, pictures: pd.DataFrame, folder: Path) -> pd.Series:
    """Captions from modality, view and findings, or from reports (captions_from_reports)."""
    ids = pictures["finding"].str.split("|").map(lambda parts: [one for one in parts if one])
    written = map(findings.caption, pictures["modality"], pictures["view"], ids, pictures["side"])
    written = pd.Series(list(written))
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


def _rejected(taken: list[Taken], pictures: pd.DataFrame, secret: bytes) -> pd.DataFrame:
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


def _why(one: Taken) -> str:
    if any(picture["crops"] for picture in one.pictures):
        return "text in the pixels: waits for a decision"
    return one.reason or "CT series: other slices were chosen"


def _write_names(run: runs.Run, taken: list[Taken], pictures: pd.DataFrame, secret: bytes) -> None:
    """Write the table that links pseudonyms to files and patients; it is in .keys/<study>/ only."""
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
    files.write_atomically(
        path, names.to_csv(index=False).encode("utf-8", "surrogateescape"), mode=0o600
    )
    run.say(
        f"{path.name} beside the study's keys says which file and patient each image came from. No"
        " other file does."
    )


def _tidy(folder: Path, written: pd.DataFrame) -> None:
    """Remove images that no row names: slices not chosen, and what an import with other settings
    left.
    """
    named = set(written["path"])
    for path in (folder / "images").iterdir():
        if f"images/{path.name}" not in named:
            path.unlink()
