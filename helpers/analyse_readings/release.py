"""A folder ready to publish: generated images, readings without names and dates, cards for Kaggle
and Hugging Face.

Real images and near copies of training cases stay out; their answers stay in, so that every number
can be computed again.
"""

import json
import re

import numpy as np
import pandas as pd
import yaml

from helpers import licences as rule
from helpers import protocol, tables
from helpers.analyse_readings import exports, results, texts
from helpers.runner import runs
from helpers.statistics.differences import FEW_READERS
from helpers.table_columns import column_names

# Licence ids of Hugging Face, and Kaggle's names for them.
LICENCES = {
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "other": "other",
}
METADATA, READERS = "release/images/metadata", "release/readers"  # declared in table_columns
TAGS = ["medical", "radiology", "chest-xray", "ct", "synthetic", "reader-study"]
# Kinds of numpy types, and Kaggle's names for them; all others are strings.
TYPES = {"b": "boolean", "i": "integer", "f": "number"}
RECOMPUTE = ("recompute.py", "recompute.R")
EXPERIENCE = ((5, "up to 5"), (10, "6 to 10"), (20, "11 to 20"), (float("inf"), "over 20"))


def write(
    run: runs.Run,
    found: dict,
    frames: dict[str, pd.DataFrame],
    sources: list[runs.Run],
    context: dict,
) -> pd.DataFrame:
    """Write release/ of a run under the `licence` of its parameters; returns the manifest of its
    images.

    On a finished run nothing is written. `sources`: the runs that made the images.
    """
    manifest = image_manifest(frames["per_image"], sources)
    if run.finished:
        return manifest
    for image in manifest.to_dict("records"):
        run.write_bytes(f"release/images/{image['file_name']}", image["file"].read_bytes())
    manifest, simulated = manifest.drop(columns="file"), bool(run.simulated)
    scores = scored(frames["answers"], frames["per_image"])
    parts = {
        "images/metadata.csv": tables.check(manifest.assign(simulated=simulated), METADATA),
        "readings.csv": readings(frames["answers"]).assign(simulated=simulated),
        "readers.csv": tables.check(readers(frames["reader_summary"]), READERS),
        "per_image.csv": frames["per_image"].drop(
            columns=["blind_id", "nearest_image_id", "run"], errors="ignore"
        ),
        "main_numbers.csv": exports.main_numbers(found).assign(simulated=simulated),
    }
    for name, prepared in WHERE_ASKED.items():
        if name in frames:
            parts[f"{name}.csv"] = prepared(frames[name]).assign(simulated=simulated)
    shared = _without_people(found, frames) | {"simulated": list(run.simulated)}
    pages = {
        **{name: frame.to_csv(index=False) for name, frame in parts.items()},
        "results.json": json.dumps(shared, indent=1, ensure_ascii=False) + "\n",
        "README.md": data_card(run, found, context, manifest, parts),
        "LICENSES.md": licences(manifest, run.parameters.licence),
        "dataset-metadata.json": kaggle(run, context, parts),
        "scores.imrmc": exports.imrmc(scores, run.simulated),
        "scores.xlsx": exports.rjafroc(scores, run.simulated),
        **{name: (texts.FOLDER / name).read_bytes() for name in RECOMPUTE},
    }
    for name, page in pages.items():
        run.write_bytes(f"release/{name}", page if isinstance(page, bytes) else page.encode())
    return manifest


def image_manifest(per_image: pd.DataFrame, sources: list[runs.Run]) -> pd.DataFrame:
    """The images that may be published, with the columns of release/images/metadata.csv except
    `simulated`, and file (the current path).

    Only generated images; of generators trained here, only images that are known not to be near
    copies.
    """
    chosen = per_image[per_image["origin"] == "generated"]
    if "copy" in chosen:
        chosen = chosen[~chosen["copy"].fillna(False).astype(bool)]
    rows = [source.read("images.csv").assign(folder=source.folder) for source in sources]
    joined = pd.concat(rows or [tables.empty("images").assign(folder=None)], ignore_index=True)
    allowed = [
        rule.may("released", licence, origin)
        for licence, origin in zip(joined["licence"], joined["origin"])
    ]
    joined = joined[joined["image_id"].isin(chosen["image_id"]) & np.array(allowed, dtype=bool)]
    joined = joined.sort_values("image_id").assign(file_name=lambda t: t["image_id"] + ".png")
    joined["file"] = [folder / path for folder, path in zip(joined["folder"], joined["path"])]
    named = [name for name in column_names(METADATA) if name != "simulated"]
    return joined[[*named, "file"]].reset_index(drop=True)


def readings(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of R1, R2, … with the position in each reader's order, without dates."""
    return answers.drop(columns=["changes", "simulated"], errors="ignore").sort_values(
        ["reader", "image_id", "presentation"]
    )


def _anonymous(once: pd.DataFrame) -> pd.DataFrame:
    """The rows of question_once that identify nobody: no groups of fewer than 5 readers, and no
    words or numbers of what readers say about themselves, which may name a hospital or a person.
    """
    if once.empty:
        return once
    own = (once["block"] == protocol.READER) & once["kind"].isin(["text", "number"])
    return once[(once["total"] >= FEW_READERS) & ~own]


def _without_people(found: dict, frames: dict[str, pd.DataFrame]) -> dict:
    """The results without what would identify a person when there are few readers."""
    shared = found | {
        "readers": [
            {k: v for k, v in row.items() if k not in ("years", "specialty")}
            for row in found["readers"]
        ],
        "subgroups": [
            row
            for row in found["subgroups"]
            if row["by"] in results.GROUPS or row["readers"] >= FEW_READERS
        ],
    }
    if "own_questions" in found:
        once = results.records(_anonymous(frames["question_once"]))
        shared["own_questions"] = found["own_questions"] | {"once": once}
    return shared


# Tables that only some studies have, in their published form.
WHERE_ASKED = {
    "model_answers": lambda table: readings(table).drop(columns="seconds"),
    "question_answers": lambda table: table[table["block"] != protocol.READER].sort_values(
        ["reader", "block", "image_id", "question"]
    ),
    "question_once": _anonymous,
    "marks": lambda table: table.drop(columns="blind_id"),
    "pairs": lambda table: table,
}


def scored(answers: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The first answers in the form that programs for ROC studies need: columns case and reader
    (integers), truth, score.
    """
    first = answers[answers["presentation"] == 1]
    columns = {
        "case": first["image_id"].map(images.set_index("image_id")["case"]),
        "reader": first["reader"].str[1:].astype(int),
        "truth": (first["origin"] == "generated").astype(int),
        "score": first["score"],
    }
    return pd.DataFrame(columns).sort_values(["reader", "case"])


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
    run: runs.Run, found: dict, context: dict, manifest: pd.DataFrame, parts: dict
) -> str:
    """README.md with the YAML header of a Hugging Face dataset card."""
    title, licence = _title(context), run.parameters.licence
    configs = [{"config_name": "images", "data_dir": "images", "default": True}][: len(manifest)]
    configs += [
        {"config_name": name.removesuffix(".csv"), "data_files": name}
        for name in parts
        if "/" not in name
    ]
    header = {
        "license": licence,
        "pretty_name": title,
        "language": ["en"],
        "task_categories": ["image-classification"],
        "tags": TAGS + ["simulated"] * bool(run.simulated),
        "size_categories": ["n<1K" if len(manifest) < 1000 else "1K<n<10K"],
        "configs": configs,
    }
    page = texts.fill(
        "data_card.md",
        simulated=run.simulated,
        title=title,
        licence=licence,
        images=len(manifest),
        design=found["design"],
    )
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{page}\n"


def licences(manifest: pd.DataFrame, licence: str) -> str:
    """LICENSES.md: the licences of the images, and whom to credit."""
    unknown = {"generator": "not stated", "licence": "not stated", "credit": ""}
    groups = manifest.fillna(unknown).groupby(list(unknown)).size()
    return texts.fill("licences.md", licence=licence, groups=groups.to_dict())


def _title(context: dict) -> str:
    return context["study_texts"].get("title", context["study"])


def kaggle(run: runs.Run, context: dict, parts: dict) -> str:
    """dataset-metadata.json as Kaggle's API reads it: title of 6 to 50 characters, subtitle of 20
    to 80, id owner/slug.
    """
    title, simulated = _title(context), run.simulated
    title = f"Rehearsal: {title}" if simulated and "rehears" not in title.lower() else title
    title = title if len(title) <= 50 else title[:51].rsplit(" ", 1)[0][:50]
    title = title if len(title) >= 6 else f"Reader study {title}"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50].strip("-")
    about = f"SIMULATED: {', '.join(simulated)}. " if simulated else ""
    page = {
        "title": title,
        "subtitle": "Generated chest images and how radiologists labelled them",
        "id": f"{run.parameters.owner}/{slug}",
        "licenses": [{"name": LICENCES[run.parameters.licence]}],
        "keywords": ["image", "healthcare", "radiology"],
        "isPrivate": True,
        "description": f"{about}See README.md.",
        "resources": [
            {
                "path": name,
                "description": f"{len(frame)} rows",
                "schema": {
                    "fields": [
                        {"name": column, "type": TYPES.get(kind.kind, "string")}
                        for column, kind in frame.dtypes.items()
                    ]
                },
            }
            for name, frame in parts.items()
        ],
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"
