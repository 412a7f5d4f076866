"""Turns results into files: figures in three formats, tables, results.json, report.html and
report.pdf.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures, images
from helpers.analyse_readings import (
    answer_figures,
    descriptions,
    image_sets,
    joined,
    report,
    report_figures,
    results,
    texts,
)
from helpers.runner import runs
from helpers.statistics.differences import FEW_READERS


def draw(
    run: runs.Run, found: dict, tables: dict[str, pd.DataFrame], set_run: runs.Run
) -> dict[str, Figure]:
    """Every figure of the report by name, marked if something is simulated; galleries of at most
    `gallery_images` (the run's parameter).
    """
    figures.theme()
    rows, most = tables["per_image"].set_index("image_id"), run.parameters.gallery_images
    readers = [row["reader"] for row in found["readers"]]
    labels = joined.wide(tables["answers"], rows.index, readers=readers)
    # Done per image: several sources share a panel only if modality and origin are the same.
    kinds = rows["modality"].map(figures.NAMES) + ", " + rows["origin"]
    drawn = {
        "answer": answer_figures.answer(*_answered(found, tables)),
        "labels_by_source": report_figures.labels_by_source(tables["per_image"]),
        "agreement_intervals": report_figures.agreement_intervals(tables["agreement"]),
        "subgroups": report_figures.subgroup_shares(tables["subgroups"]),
        "findings": report_figures.findings_counted(tables["findings_counted"]),
        "times": report_figures.reading_times(tables["answers"]),
        "flow": report_figures.reading_flow(found["flow"]),
    } | answer_figures.model_and_course(tables)
    if len(expected := tables["findings_asked"]):
        drawn["findings_asked"] = answer_figures.expected_findings(
            expected[expected["reader"] == descriptions.READERS]
        )
    if labels.shape[1] > 1:
        drawn["label_matrix"] = report_figures.label_matrix(labels, kinds.sort_values())
    if found["design"]["real"] and found["design"]["generated"]:
        legend = {
            row["reader"]: f"{row['reader']}: {texts.area(row)}"
            for row in found["areas"]
            if row["stratum"] == image_sets.OVERALL
        }
        panels = {row["source"]: _panel(row) for row in found["source_areas"]}
        drawn["roc"] = report_figures.roc_curves(tables["roc"], panels, legend)
    if "distance" in rows and rows["distance"].notna().any():
        drawn["distance"] = report_figures.votes_and_distance(tables["per_image"])
    chosen = chosen_images(rows, labels)
    for name, images_of in chosen.items():
        drawn[name] = report_figures.gallery(*_shown(rows.loc[images_of[:most]], set_run))
    return finish(run, drawn, texts.captions(found, {n: len(c) for n, c in chosen.items()}, most))


def finish(run: runs.Run, drawn: dict[str, Figure], captions: dict) -> dict[str, Figure]:
    """The figures with title and note, marked if something is simulated. Raises LookupError for
    a figure without a part in templates/figures.md.
    """
    for name, figure in drawn.items():
        if name not in captions:
            raise LookupError(
                f"Figure '{name}' has no title and note: add a part '## {name}' to"
                " analyse_readings/templates/figures.md."
            )
        figures.mark(figures.stand_alone(figure, *captions[name]), run.simulated)
    return drawn


def _answered(found: dict, tables: dict[str, pd.DataFrame]) -> tuple:
    whole = tables["accuracy"].query("stratum == 'all' and policy == 'own'")
    shares = whole[whole["measure"].str.startswith("fake of")]
    general, these = (found["multireader"][f"{who} all"] for who in ("general", "these"))
    if these["estimate"] is None:
        return shares, None, {}
    enough = general["readers"] >= FEW_READERS and general["shown"][0] is not None
    low, high = (general if enough else these)["shown"]
    return (
        shares,
        tables["areas"].query("stratum == 'all'"),
        {"estimate": these["estimate"], "low": low, "high": high},
    )


def _panel(row: dict) -> str:
    name = "all images" if row["source"] == image_sets.OVERALL else row["source"]
    area = texts.area(row) if row["estimate"] is not None else "no area"
    return f"{name[:34]}\n{row['generated']} generated, {row['real']} real\nmean area {area}"


def chosen_images(rows: pd.DataFrame, labels: pd.DataFrame) -> dict[str, list[str]]:
    """The images of the three published galleries (two for a single reader); `rows` indexed by
    image_id, `labels` one column per reader.
    """
    real, uncertain = (joined.all_are(labels, label) for label in ("real", "uncertain"))
    generated = rows["origin"] == "generated"
    chosen = {
        "gallery_real": [image for image in real.index[real] if generated[image]],
        "gallery_uncertain": list(uncertain.index[uncertain]),
    }
    if labels.shape[1] > 1:
        chosen["gallery_fake"] = list(rows.index[generated & (rows["votes_fake"] >= 2)])
    return chosen


def pictures(blind_ids: Iterable[str], set_run: runs.Run) -> list[np.ndarray]:
    """The images as the readers saw them, with grey values from 0 to 1."""
    folder = set_run.folder / "reading_set"
    paths = set_run.read("reading_set/reading_set.csv").set_index("blind_id")["path"]
    depth = 2 ** json.loads((folder / "study.json").read_text())["bits"] - 1
    return [
        images.read_png(folder / paths[blind_id]).astype(np.float32) / depth
        for blind_id in blind_ids
    ]


def _shown(rows: pd.DataFrame, set_run: runs.Run) -> tuple[list[np.ndarray], list[str]]:
    captions = []
    for modality, source in zip(rows["modality"], rows["generator"].fillna("real")):
        short = source if len(source) <= 22 else f"{source[:21]}…"
        captions.append(f"{figures.NAMES[modality]}\n{short}")
    return pictures(rows["blind_id"], set_run), captions


def write(
    run: runs.Run,
    found: dict,
    tables: dict[str, pd.DataFrame],
    drawn: dict[str, Figure],
    context: dict,
) -> Path:
    """Write results.json, tables/, figures/ (png, svg, pdf), report.html and report.pdf of a run;
    returns the page's path.

    On a finished run nothing is written.
    """
    path = run.folder / "report.html"
    if run.finished:
        return path
    tables = tables | {"checklist": pd.DataFrame(texts.checklist(found, context))}
    for name, frame in tables.items():
        if "simulated" not in frame and name != "per_image":
            frame = frame.assign(simulated=bool(run.simulated))
        run.write(f"tables/{name}.csv", frame)
    drawings = {}
    for name, figure in drawn.items():
        drawings[name] = {kind: figures.as_bytes(figure, kind) for kind in ("png", "svg", "pdf")}
        for kind, content in drawings[name].items():
            run.write_bytes(f"figures/{name}.{kind}", content)
    kept = {name: value for name, value in context.items() if name != "study_texts"}
    about = {"study": run.study, "simulated": run.simulated, "context": kept}
    run.write_bytes("results.json", results.as_json(found | about))
    run.write_bytes("report.html", report.render(found, context, drawings))
    run.write_bytes("report.pdf", report.pdf(found, context, drawings))
    return path
