"""Stage 01: a folder of real images becomes the study's cases - imported, de-identified, grouped,
split, described.

Tables and names are read in layouts.py, files in images.py and storing.py; the loop over them is
importing.py.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from helpers import burned_in_text, files, table_columns
from helpers.plurals import counted
from helpers.prepare_cases import case_tables, deidentify, importing, layouts, review
from helpers.prepare_cases.storing import ImportedFile
from helpers.runner import folders, freshness, runs
from helpers.runner.progress import progress

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
    folder = folders.cases_folder(run.study)
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
    if run.parameters.default_modality not in ("", *table_columns.MODALITIES):
        raise CasesError(
            f"default_modality: '{run.parameters.default_modality}' must be xray, ct or empty."
        )
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
    reviews = folders.keys_folder(run.study) / f"{run.name}.review"
    described = layouts.describe(folder, files, run.parameters)
    for note in described.attrs["notes"]:
        run.say(note)
    secret = folders.study_key(run.study, "pseudonyms")
    known = described[["file", "modality", "sha256", "skip"]].to_dict("records")
    journal = folders.keys_folder(run.study) / f"{run.name}.import.jsonl"
    decisions = review.decisions(reviews)
    taking = importing.take(
        folder, known, run.file("images"), journal, run.parameters, secret, decisions
    )
    taken = sorted(progress(taking, "Importing", len(files)), key=lambda one: one.file)
    pictures = case_tables.with_metadata(taken, described, secret, run.parameters.slices)
    if not len(pictures):
        reasons = pd.Series([one.reason for one in taken]).value_counts()
        raise CasesError(
            f"No image can be made from {counted(len(files), 'file')} in the folder of images. The"
            f" most frequent reason: {reasons.index[0]} ({reasons.iloc[0]} of {len(files)})."
        )
    pictures = _held_back(run, pictures, reviews)
    if run.parameters.source != "phantom":
        _say_what_is_unsure_of_patients(run, pictures)
    pictures["inverted"] &= pictures["view"].map(lambda view: deidentify.view(view, "xray")) != "LL"
    _say_what_to_look_at(run, pictures)
    _write_names(run, taken, pictures, secret)
    prepared = Cases(
        run.write("images.csv", case_tables.images_table(run, pictures, folder, journal)),
        run.write("imported.csv", pictures[table_columns.column_names("imported")]),
        run.write("rejected.csv", case_tables.rejected_table(taken, pictures, secret)),
    )
    # Slices that were not chosen, and what an import with other settings left.
    stored = {f"images/{path.name}" for path in (run.folder / "images").iterdir()}
    for path in stored - set(prepared.images["path"]):
        (run.folder / path).unlink()
    _say_what_was_left_out(run, prepared)
    return prepared


def _say_what_to_look_at(run: runs.Run, pictures: pd.DataFrame) -> None:
    """Name the images that may be inverted, or whose headers do not say which side is right."""
    if suspected := int(pictures["inverted"].sum()):
        run.say(
            f"{counted(suspected, 'X-ray looks', 'X-rays look')} inverted (bones dark, lungs"
            " bright), but no header says so. Look below: remove or invert files that are inverted."
        )
    for doubt, rows in pictures[pictures["modality"] == "ct"].groupby("doubt"):
        if doubt:
            run.say(
                f"{counted(len(rows), 'CT image')} (first {rows['image_id'].iloc[0]}): {doubt}."
                " Check below that the patient's right is on the left and the front at the top."
            )


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
        run.say(f"{counted(len(reasons), 'file was', 'files were')} left out: {listed}.")
    lost = counts[~counts.index.str.startswith(EXPECTED)]
    if lost.sum() > 0.1 * (lost.sum() + prepared.imported["file_hash"].nunique()):
        helps = [
            remedy for start, remedy in REMEDIES.items() if lost.index.str.startswith(start).any()
        ]
        few = counted(lost.sum(), "file that may be an image was", "files that may be images were")
        run.say(
            f"Warning: {few} left out, which is more than a tenth. Most frequent reason:"
            f" {lost.index[0]}. {'; '.join(helps) or 'See rejected.csv'}."
        )


def _say_what_is_unsure_of_patients(run: runs.Run, pictures: pd.DataFrame) -> None:
    real = pictures[pictures["origin"] == "real"]
    person = real["patient_id"].map(deidentify.person)
    unknown = real.loc[person == "", "patient"]
    if len(unknown):
        run.say(
            f"The patient of {counted(len(unknown), 'image')} is unknown. Each study, or else each"
            f" file, counts as one patient ({unknown.nunique()}), so a patient may be in several"
            " splits. To prevent this, give a metadata table with patient_id."
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


def _held_back(run: runs.Run, pictures: pd.DataFrame, reviews: Path) -> pd.DataFrame:
    """The images without those whose burned-in text a person must check first.

    Raises CasesError when none is left.
    """
    waiting = pictures["crops"].map(len) > 0
    if not waiting.any():
        return pictures
    review.ask(reviews, pictures[waiting])
    run.say(
        f"{counted(waiting.sum(), 'image with text waits', 'images with text wait')} for a"
        f" decision: fill in list.csv in {reviews.name} beside the study's keys, then redo this"
        " run."
    )
    if waiting.all():
        raise CasesError(
            f"Every image ({len(pictures)}) waits for a decision on its text: fill in"
            f" {reviews / 'list.csv'}, then run this again."
        )
    return pictures[~waiting].reset_index(drop=True)


def _write_names(
    run: runs.Run, taken: list[ImportedFile], pictures: pd.DataFrame, secret: bytes
) -> None:
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
    path = folders.keys_folder(run.study) / f"{run.name}.names.csv"
    files.write_atomically(
        path, names.to_csv(index=False).encode("utf-8", "surrogateescape"), mode=0o600
    )
    run.say(
        f"{path.name} beside the study's keys says which file and patient each image came from. No"
        " other file does."
    )
