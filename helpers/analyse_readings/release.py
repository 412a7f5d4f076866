"""A folder ready to publish: generated images, readings without names and dates, cards for Kaggle
and Hugging Face.

Real images and near copies of training cases stay out; their answers stay in, so that every number
can be computed again.
"""

import json
import re

import pandas as pd
import yaml

from helpers import tables
from helpers.runner import runs

# Licence ids of Hugging Face, and what Kaggle calls the same.
LICENCES = {
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "other": "other",
}
IMAGE_COLUMNS = [
    "image_id",
    "sha256",
    "modality",
    "view",
    "finding",
    "side",
    "caption",
    "generator",
    "width",
    "height",
    "bits",
    "licence",
    "credit",
    "prompt_id",
]
EXPERIENCE = ((5, "up to 5"), (10, "6 to 10"), (20, "11 to 20"), (float("inf"), "over 20"))


def write(
    run: runs.Run,
    found: dict,
    frames: dict[str, pd.DataFrame],
    sources: list[runs.Run],
    context: dict,
    licence: str,
    owner: str,
) -> pd.DataFrame:
    """Write release/ of a run; returns the manifest of its images.

    On a finished run nothing is written.

    `sources`: the runs that made the images. Raises ValueError for an unknown licence.
    """
    if licence not in LICENCES:
        raise ValueError(f"licence is {licence!r}; one of: {', '.join(LICENCES)}")
    manifest = image_manifest(frames["per_image"], sources)
    if run.finished:
        return manifest
    for image in manifest.to_dict("records"):
        run.write_bytes(f"release/images/{image['file_name']}", image["file"].read_bytes())
    manifest = manifest.drop(columns="file")
    simulated = list(run.simulated)
    parts = {
        "images/metadata.csv": manifest.assign(simulated=bool(simulated)),
        "readings.csv": readings(frames["answers"]).assign(simulated=bool(simulated)),
        "readers.csv": readers(frames["reader_summary"]),
        "per_image.csv": (
            frames["per_image"].drop(
                columns=["blind_id", "nearest_image_id", "run"], errors="ignore"
            )
        ),
    }
    for name, frame in parts.items():
        run.write_bytes(f"release/{name}", frame.to_csv(index=False).encode())
    # Years and specialty stay out here too: with few readers they would tell who somebody is.
    shared = found | {
        "simulated": simulated,
        "readers": [
            {k: v for k, v in row.items() if k not in ("years", "specialty")}
            for row in found["readers"]
        ],
    }
    run.write_bytes(
        "release/results.json", (json.dumps(shared, indent=1, ensure_ascii=False) + "\n").encode()
    )
    card = data_card(found, context, manifest, parts, licence, simulated)
    run.write_bytes("release/README.md", card.encode())
    run.write_bytes("release/LICENSES.md", licences(manifest, licence).encode())
    run.write_bytes(
        "release/dataset-metadata.json",
        kaggle(found, context, parts, licence, owner, simulated).encode(),
    )
    return manifest


def image_manifest(per_image: pd.DataFrame, sources: list[runs.Run]) -> pd.DataFrame:
    """The images that may be published, columns file_name, IMAGE_COLUMNS and file (where each lies
    now).

    Generated ones only; of generators trained here only those that are known to be no near copy.
    """
    chosen = per_image[per_image["origin"] == "generated"]
    copies = (
        chosen["copy"].fillna(False).astype(bool)
        if "copy" in chosen
        else pd.Series(False, index=chosen.index)
    )
    wanted = set(chosen.loc[~copies, "image_id"])
    rows = []
    for source in sources:
        table = source.read("images.csv")
        table = table[table["image_id"].isin(wanted) & (table["origin"] == "generated")]
        rows.append(table.assign(file=[source.folder / path for path in table["path"]]))
    joined = (
        pd.concat(rows, ignore_index=True) if rows else tables.empty("images").assign(file=None)
    )
    joined = joined.sort_values("image_id").assign(file_name=lambda t: t["image_id"] + ".png")
    return joined[["file_name", *IMAGE_COLUMNS, "file"]].reset_index(drop=True)


def readings(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers without order in time: reader R1, R2, …; no dates, no positions."""
    return answers.drop(columns=["position", "changes", "simulated"], errors="ignore").sort_values(
        ["reader", "image_id", "presentation"]
    )


def readers(summary: pd.DataFrame) -> pd.DataFrame:
    """Readers by band of experience and prior knowledge of AI; no specialty, no dates."""
    bands = [
        next(name for edge, name in EXPERIENCE if years <= edge) if pd.notna(years) else pd.NA
        for years in summary["years"]
    ]
    return summary[["reader", "prior_ai", "answered", "missing", "simulated"]].assign(
        years_of_experience=bands
    )


def data_card(
    found: dict,
    context: dict,
    manifest: pd.DataFrame,
    parts: dict,
    licence: str,
    simulated: list[str],
) -> str:
    """README.md with the YAML header of a Hugging Face dataset card."""
    design, title = found["design"], context["told"].get("title", context["study"])
    header = _card_header(title, manifest, parts, licence, simulated)
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True).strip(),
        "---",
        "",
        f"# {title}",
        "",
    ]
    if simulated:
        lines += [
            (
                f"**Simulated: {', '.join(simulated)}. Made by a rehearsal; it says nothing about"
                " real images or radiologists. Do not publish it as data.**"
            ),
            "",
        ]
    lines += [
        (
            f"{len(manifest)} generated chest images with the answers of {design['readers']}"
            f" readers who labelled {design['images']} images ({design['generated']} generated,"
            f" {design['real']} real) real, fake or uncertain and described the lung condition."
        ),
        "",
        "## Files",
        "",
        (
            "- `images/`: generated images as one-channel PNG, and `metadata.csv` with one row an"
            " image. Images that are near copies of a training case are left out."
        ),
        (
            "- `readings.csv`: every answer (presentation 2 is a hidden repeat). Answers to real"
            " images are there, the images are not."
        ),
        (
            "- `readers.csv`: the readers by band of experience. `per_image.csv`: votes and truth"
            " of every image. `results.json`: every number of the report."
        ),
        "",
        "## What is left out, and why",
        "",
        (
            f"Real images ({design['real']}): they are patients'. Near copies of training cases"
            f" ({design['generated'] - len(manifest)} generated images): they may show a patient."
            " Readers' names, dates and the order in which they read."
        ),
        "",
        "## Intended use, and misuse",
        "",
        (
            "For studies of how people and programs tell generated from real images. Not for"
            " diagnosis, not for training diagnostic models: what an image seems to show was asked"
            " for, not found in anybody."
        ),
        "The descriptions are the readers' own words: read them for names before publishing.",
        "",
        "## Licence",
        "",
        (
            f"{licence}; licences and credits of single images are in `images/metadata.csv` and"
            " `LICENSES.md`."
        ),
        "",
    ]
    return "\n".join(lines)


def _card_header(
    title: str, manifest: pd.DataFrame, parts: dict, licence: str, simulated: list[str]
) -> dict:
    size = "n<1K" if len(manifest) < 1000 else "1K<n<10K"
    header = {
        "license": licence,
        "pretty_name": title,
        "language": ["en"],
        "task_categories": ["image-classification"],
        "tags": (
            ["medical", "radiology", "chest-xray", "ct", "synthetic", "reader-study"]
            + (["simulated"] if simulated else [])
        ),
        "size_categories": [size],
        "configs": (
            [{"config_name": "images", "data_dir": "images", "default": True}]
            if len(manifest)
            else []
        ),
    }
    header["configs"] += [
        {"config_name": name.removesuffix(".csv"), "data_files": name}
        for name in parts
        if "/" not in name
    ]
    return header


def licences(manifest: pd.DataFrame, licence: str) -> str:
    """LICENSES.md: which images came under which licence, whom to credit."""
    lines = [
        "# Licences",
        "",
        f"The collection: {licence}.",
        "",
        "| generator | licence | credit | images |",
        "|---|---|---|---|",
    ]
    groups = (
        manifest.fillna({"generator": "not stated", "licence": "not stated", "credit": ""})
        .groupby(["generator", "licence", "credit"])
        .size()
    )
    lines += [
        f"| {' | '.join(str(part) for part in group)} | {count} |"
        for group, count in groups.items()
    ]
    return "\n".join([*lines, ""])


def kaggle(
    found: dict, context: dict, parts: dict, licence: str, owner: str, simulated: list[str]
) -> str:
    """dataset-metadata.json as Kaggle's API reads it: title of 6 to 50 characters, subtitle of 20
    to 80, id owner/slug.
    """
    title = context["told"].get("title", context["study"])
    title = f"Rehearsal: {title}" if simulated and "rehears" not in title.lower() else title
    title = title if len(title) <= 50 else title[:51].rsplit(" ", 1)[0][:50]
    title = title if len(title) >= 6 else f"Reader study {title}"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50].strip("-")
    resources = [
        {
            "path": name,
            "description": f"{len(frame)} rows",
            "schema": {
                "fields": [{"name": column, "type": _kind(frame[column])} for column in frame]
            },
        }
        for name, frame in parts.items()
    ]
    return (
        json.dumps(
            {
                "title": title,
                "subtitle": "Generated chest images and how radiologists labelled them",
                "id": f"{owner}/{slug}",
                "licenses": [{"name": LICENCES[licence]}],
                "keywords": ["image", "healthcare", "radiology"],
                "isPrivate": True,
                "description": (
                    (f"SIMULATED: {', '.join(simulated)}. " if simulated else "") + "See README.md."
                ),
                "resources": resources,
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(column) else "string"
