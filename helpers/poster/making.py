"""The content of the poster and the companion page, from a finished analysis."""

import json
import re
import textwrap

import numpy as np
import pandas as pd

from helpers import figures, images
from helpers.analyse_readings import image_sets, report_figures
from helpers.analyse_readings import texts as report
from helpers.assemble_reading_set import seal
from helpers.poster import companion, key_figure, printing, showing, texts
from helpers.runner import runs

TITLES = {
    "summary": "In short",
    "methods": "Methods",
    "asked": "What the readers were asked",
    "key": "Spot the fakes",
    "results": "Results",
    "labels_by_source": "Answers by source",
    "roc": "How well readers distinguished generated from real images",
    "samples": "Samples of generated {kinds}",
    "fakes": "Images identified as fake",
    "references": "References",
    "contact": "Contact",
}


def read_results(run: runs.Run) -> dict:
    """results.json of 08, once every reader has locked.

    Raises RunError if a reader has not locked, or if an earlier version made 08.
    """
    analysis = run.reads(run.parameters.analysis)
    found = json.loads((analysis.folder / "results.json").read_text())
    if "context" not in found:
        raise runs.RunError(f"{analysis.name} was made by an earlier version: redo it (FORCE=1).")
    showing.refuse_open_readers(run, found)
    if run.parameters.comparison:  # 08 was finished before 09, so its report cannot know this
        sealed = runs.load(run.study, analysis.parameters.reading_set).folder / "sealed"
        later = seal.settings_changed(sealed, run.reads(run.parameters.comparison))
        changes = [*found["context"]["plan_changes"], *later]
        found["context"]["plan_changes"] = list(dict.fromkeys(changes))
    return found


def choose(run: runs.Run, rows: pd.DataFrame, frames: tuple) -> dict[str, pd.DataFrame]:
    """Images that may be shown, drawn with the run's seed: `key` (for the key figure; half of them
    real if real images may be shown), `samples` (generated) and `fakes` (identified as fake by at
    least two readers).

    `frames`: see showing.read_frames; the sample with stored frames is placed separately.
    """
    frames_of, stages = frames
    drawn = rows[rows["shown"]].sample(frac=1, random_state=run.parameters.seed)
    generated, others = drawn[drawn["origin"] == "generated"], drawn[drawn["image_id"] != frames_of]
    places = len(key_figure.layout(len(others) + bool(stages))["tiles"]) - bool(stages)
    real = others[others["origin"] == "real"].head((places + 1) // 2)
    fake = others[others["origin"] == "generated"].head(places - len(real))
    each = generated.groupby("modality", sort=False).cumcount()
    fakes = generated[generated["votes_fake"] >= 2]
    return {
        "key": pd.concat([real, fake]).sample(frac=1, random_state=run.parameters.seed),
        "samples": generated.iloc[np.argsort(each, kind="stable")]
        .head(run.parameters.gallery_images)
        .sort_values("modality", ascending=False),
        "fakes": fakes.head(run.parameters.gallery_images),
    }


def say(run: runs.Run, found: dict, rows: pd.DataFrame, chosen: dict, frames: tuple) -> dict:
    """Every section of templates/texts.md for these images."""
    generated = rows[rows["origin"] == "generated"]
    shown = rows[rows["shown"]]
    return texts.sections(
        found,
        texts.study_texts(run),
        frames=bool(frames[1]),
        address=companion.address(run),
        both_shown=shown["origin"].nunique() == 2,
        counts={
            "generated": len(generated),
            "generated_shown": int(generated["shown"].sum()),
            "real": int((rows["origin"] == "real").sum()),
            "real_shown": int((shown["origin"] == "real").sum()),
            "samples": len(chosen["samples"]),
            "fakes": int((generated["shown"] & (generated["votes_fake"] >= 2)).sum()),
            "fakes_drawn": len(chosen["fakes"]),
        },
    )


def write_poster(run: runs.Run, found: dict, said: dict, chosen: dict, frames: tuple) -> dict:
    """Write poster.pdf, poster.png and poster.json; returns the content of poster.json (see
    printing.write).
    """
    bits, study_texts = showing.depth(run), texts.study_texts(run)
    files, pictures, stages = {}, {}, frames[1]
    for image in pd.concat(chosen.values()).drop_duplicates("image_id").to_dict("records"):
        pictures[image["image_id"]] = name = f"{image['image_id']}.png"
        shown = images.eight_bits(images.read_png(image["file"]), bits)
        files[name] = images.write_png(shown, compress_level=6)
    figure = key_figure.layout(len(chosen["key"]) + bool(stages))
    names = [pictures[image_id] for image_id in chosen["key"]["image_id"]]
    if stages:
        files["frames.png"] = images.write_png(stages[-1], compress_level=6)
        names.insert(0, "frames.png")
    for place, tile in enumerate(figure["tiles"]):
        tile["file"] = names[place] if place < len(names) else ""
    files["code.svg"], _ = key_figure.code(companion.address(run), figure["box"])
    logos = {f"logo{n}{path.suffix}": path for n, path in enumerate(study_texts["logos"])}
    drawn = draw(run, found)
    files |= logos | {f"{name}.pdf": content for name, content in drawn.items()}
    parts = {
        "key": {"kind": "key"},
        "summary": {"size": 1.12},
        "references": {"size": 0.8},
        "results": {
            "cards": [texts.card(row) for row in found["headline"]],
            "table": compared(run),
        },
        **{name: {"figure": f"{name}.pdf", "optional": name == "roc"} for name in drawn},
        **{name: {"images": gallery(chosen[name], pictures)} for name in ("samples", "fakes")},
    }
    simulated = ", ".join(run.simulated)
    modalities = sorted(chosen["samples"]["modality"].unique(), reverse=True)
    data = {
        "title": study_texts["title"],
        "address": companion.address(run),
        "authors": [author(text) for text in study_texts["authors"]],
        "affiliations": study_texts["affiliations"],
        "logos": list(logos),
        "simulated": f"SIMULATED: {simulated}. A rehearsal of the procedure." if simulated else "",
        "figure": figure,
        "sections": [
            section(name, said.get(name, []), modalities, **parts.get(name, {}))
            for name in TITLES
            if said.get(name) or name in drawn
        ],
    }
    return printing.write(run, data, files)


def section(name: str, said: list[str], modalities: list[str], **parts) -> dict:
    """One section as templates/poster.typ reads it; `modalities` of the images for its title."""
    kinds = " and ".join(report.KINDS[modality] for modality in modalities)
    empty: dict = {
        "kind": "",
        "size": 1.0,
        "optional": False,
        "figure": "",
        "cards": [],
        "table": [],
        "images": [],
    }
    return empty | {"title": TITLES[name].format(kinds=kinds), "texts": said} | parts


def author(text: str) -> dict:
    """ "A. Name (1, 2)" as name and marks of affiliations."""
    name, marks = re.fullmatch(r"(.*?)(?: \(([^()]*)\))?", text.strip()).groups()
    return {"name": name, "marks": marks or ""}


def draw(run: runs.Run, found: dict) -> dict[str, bytes]:
    """The figures of 08 in the size of a poster's column, as PDF by name."""
    analysis = run.reads(run.parameters.analysis)
    tables = {name: analysis.read(f"tables/{name}.csv") for name in ("per_image", "roc")}
    figures.theme()
    drawn = {"labels_by_source": report_figures.labels_by_source(tables["per_image"])}
    if found["design"]["real"] and found["design"]["generated"]:
        areas = [row for row in found["areas"] if row["stratum"] == image_sets.OVERALL]
        legend = {row["reader"]: f"{row['reader']}: {report.area(row)}" for row in areas}
        drawn["roc"] = report_figures.roc_curves(tables["roc"], {image_sets.OVERALL: ""}, legend)
    for name, figure in drawn.items():
        width, height = figure.get_size_inches()
        figure.set_size_inches(min(width, 6.2), height)  # larger words in the same column
        drawn[name] = figures.as_bytes(figures.mark(figure, run.simulated), "pdf")
    return drawn


def compared(run: runs.Run) -> list[list[str]]:
    """The published counts beside this study's, from 09; empty without 09."""
    if not run.parameters.comparison:
        return []
    table = run.reads(run.parameters.comparison).read("comparison.csv")
    rows = table[table["published_share"].notna()][["what", "published", "here"]]
    return [["Generated images", "published study", "this study"], *rows.values.tolist()]


def gallery(chosen: pd.DataFrame, files: dict[str, str]) -> list[dict]:
    """File and caption of every image."""
    captions = chosen["modality"].map(figures.NAMES) + ", " + chosen["generator"].fillna("")
    captions = [textwrap.shorten(caption, 36, placeholder=" …") for caption in captions]
    return [
        {"file": files[image_id], "caption": caption}
        for image_id, caption in zip(chosen["image_id"], captions)
    ]


def write_companion(
    run: runs.Run,
    found: dict,
    said: dict,
    rows: pd.DataFrame,
    chosen: dict,
    frames: tuple,
    about: dict,
) -> list[str]:
    """Write companion/; returns the names of its files. `about`: poster.json."""
    frames_of, stages = frames
    address, study_texts = companion.address(run), texts.study_texts(run)
    quiz_images, files = companion.quiz(
        rows[rows["shown"]], showing.depth(run), run.parameters.quiz_images, run.parameters.seed
    )
    spoken, audio = companion.explanation(run, said["explanation"])
    names = [f"frames/{number:02d}.webp" for number in range(len(stages))]
    files |= {name: companion.webp(stage) for name, stage in zip(names, stages)} | audio
    files["figure.webp"] = companion.crop(run.folder / "poster.png", about["figure"])
    figure = key_figure.layout(len(chosen["key"]) + bool(stages))
    figure["code"] = key_figure.code(address, figure["box"])[1]
    shown = chosen["key"].to_dict("records")
    if stages:
        known = rows[rows["image_id"] == frames_of].to_dict("records")
        shown.insert(0, (known or [{"origin": "generated"}])[0])
    for tile, image in zip(figure["tiles"], shown):
        tile |= {"truth": image["origin"]}
        tile |= {"votes": companion.votes(image)} if "votes_real" in image else {}
    page = {
        "title": study_texts["title"],
        "question": study_texts["question"],
        "simulated": list(run.simulated),
        "address": address,
        "readers": found["design"]["readers"],
        "quiz": quiz_images,
        "frames": names,
        "figure": figure,
        "sources": said["sources"],
        **spoken,
    }
    return companion.write(run, page, files)
