"""A folder ready to publish: generated images, readings without names and dates, cards for Kaggle
and Hugging Face.

Real images and near copies of training cases stay out; their answers stay in, so that every number
can be computed again.
"""

import json
import re

import pandas as pd
import yaml

from helpers import licences as rule
from helpers import tables
from helpers.analyse_readings import exports, texts
from helpers.runner import runs

# Licence ids of Hugging Face, and what Kaggle calls the same.
LICENCES = {
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
    "cc0-1.0": "CC0-1.0",
    "other": "other",
}
IMAGE_COLUMNS = "image_id sha256 modality view finding side caption generator width height bits"
IMAGE_COLUMNS = [*IMAGE_COLUMNS.split(), "licence", "credit", "prompt_id"]
TAGS = ["medical", "radiology", "chest-xray", "ct", "synthetic", "reader-study"]
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
    inside = ["blind_id", "nearest_image_id", "run"]
    scores = scored(frames["answers"], frames["per_image"])
    parts = {
        "images/metadata.csv": manifest.assign(simulated=simulated),
        "readings.csv": readings(frames["answers"]).assign(simulated=simulated),
        "readers.csv": readers(frames["reader_summary"]),
        "per_image.csv": frames["per_image"].drop(columns=inside, errors="ignore"),
        "main_numbers.csv": exports.main_numbers(found).assign(simulated=simulated),
    }
    if "model_answers" in frames:
        own = readings(frames["model_answers"]).drop(columns="seconds")
        parts["model_answers.csv"] = own.assign(simulated=simulated)
    if "question_answers" in frames:
        own = frames["question_answers"].sort_values(["reader", "block", "image_id", "question"])
        parts["question_answers.csv"] = own.assign(simulated=simulated)
    # Years and specialty stay out here too: with few readers they would tell who somebody is.
    people = [
        {k: v for k, v in row.items() if k not in ("years", "specialty")}
        for row in found["readers"]
    ]
    shared = found | {"simulated": list(run.simulated), "readers": people}
    pages = {name: frame.to_csv(index=False) for name, frame in parts.items()} | {
        "results.json": json.dumps(shared, indent=1, ensure_ascii=False) + "\n",
        "README.md": data_card(run, found, context, manifest, parts),
        "LICENSES.md": licences(manifest, run.parameters.licence),
        "dataset-metadata.json": kaggle(run, context, parts),
        "scores.imrmc": exports.imrmc(scores, run.simulated),
        "scores.xlsx": exports.rjafroc(scores, run.simulated),
    }
    pages |= {name: (texts.FOLDER / name).read_bytes() for name in RECOMPUTE}
    for name, page in pages.items():
        run.write_bytes(f"release/{name}", page if isinstance(page, bytes) else page.encode())
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
        parts = zip(table["licence"], table["origin"])
        allowed = [rule.may("released", licence, origin) for licence, origin in parts]
        table = table[
            table["image_id"].isin(wanted) & pd.Series(allowed, index=table.index, dtype=bool)
        ]
        rows.append(table.assign(file=[source.folder / path for path in table["path"]]))
    joined = (
        pd.concat(rows, ignore_index=True) if rows else tables.empty("images").assign(file=None)
    )
    joined = joined.sort_values("image_id").assign(file_name=lambda t: t["image_id"] + ".png")
    return joined[["file_name", *IMAGE_COLUMNS, "file"]].reset_index(drop=True)


def readings(answers: pd.DataFrame) -> pd.DataFrame:
    """The answers of R1, R2, … with the position in each reader's order, without dates."""
    return answers.drop(columns=["changes", "simulated"], errors="ignore").sort_values(
        ["reader", "image_id", "presentation"]
    )


def scored(answers: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The first answers as programs for ROC studies want them: columns case and reader (integers),
    truth, score.
    """
    first = answers[answers["presentation"] == 1]
    case = first["image_id"].map(images.set_index("image_id")["case"])
    reader = first["reader"].str[1:].astype(int)
    truth = (first["origin"] == "generated").astype(int)
    table = pd.DataFrame({"case": case, "reader": reader, "truth": truth, "score": first["score"]})
    return table.sort_values(["reader", "case"])


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
    pictures = [{"config_name": "images", "data_dir": "images", "default": True}]
    files = [name for name in parts if "/" not in name]
    header = {
        "license": licence,
        "pretty_name": title,
        "language": ["en"],
        "task_categories": ["image-classification"],
        "tags": TAGS + ["simulated"] * bool(run.simulated),
        "size_categories": ["n<1K" if len(manifest) < 1000 else "1K<n<10K"],
        "configs": pictures[: len(manifest)]
        + [{"config_name": name.removesuffix(".csv"), "data_files": name} for name in files],
    }
    told = {"title": title, "licence": licence, "images": len(manifest), "design": found["design"]}
    page = texts.fill("data_card.md", simulated=run.simulated, **told)
    return f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n{page}\n"


def licences(manifest: pd.DataFrame, licence: str) -> str:
    """LICENSES.md: which images came under which licence, whom to credit."""
    unknown = {"generator": "not stated", "licence": "not stated", "credit": ""}
    groups = manifest.fillna(unknown).groupby(list(unknown)).size()
    return texts.fill("licences.md", licence=licence, groups=groups.to_dict())


def _title(context: dict) -> str:
    return context["told"].get("title", context["study"])


def kaggle(run: runs.Run, context: dict, parts: dict) -> str:
    """dataset-metadata.json as Kaggle's API reads it: title of 6 to 50 characters, subtitle of 20
    to 80, id owner/slug.
    """
    title, simulated = _title(context), run.simulated
    title = f"Rehearsal: {title}" if simulated and "rehears" not in title.lower() else title
    title = title if len(title) <= 50 else title[:51].rsplit(" ", 1)[0][:50]
    title = title if len(title) >= 6 else f"Reader study {title}"
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:50].strip("-")
    resources = [
        {
            "path": name,
            "description": f"{len(frame)} rows",
            "schema": {"fields": [{"name": c, "type": _kind(frame[c])} for c in frame]},
        }
        for name, frame in parts.items()
    ]
    about = f"SIMULATED: {', '.join(simulated)}. " if simulated else ""
    page = {
        "title": title,
        "subtitle": "Generated chest images and how radiologists labelled them",
        "id": f"{run.parameters.owner}/{slug}",
        "licenses": [{"name": LICENCES[run.parameters.licence]}],
        "keywords": ["image", "healthcare", "radiology"],
        "isPrivate": True,
        "description": f"{about}See README.md.",
        "resources": resources,
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "boolean"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(column) else "string"
