"""From results to files: figures drawn and written in three formats, tables, results.json,
report.html.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from helpers import figures, images
from helpers.analyse_readings import joined, report, results, texts
from helpers.runner import runs


def draw(
    run: runs.Run, found: dict, tables: dict[str, pd.DataFrame], set_run: runs.Run
) -> dict[str, Figure]:
    """Every figure of the report by name, marked where something is simulated; galleries of at most
    `gallery_images` (the run's parameter).
    """
    figures.theme()
    rows, most = tables["per_image"].set_index("image_id"), run.parameters.gallery_images
    readers = [row["reader"] for row in found["readers"]]
    labels = joined.wide(tables["answers"], rows.index, readers=readers)
    # Image by image: several sources share a panel only where modality and origin are the same.
    kinds = rows["modality"].map(figures.NAMES) + ", " + rows["origin"]
    drawn = {
        "labels_by_source": figures.labels_by_source(tables["per_image"]),
        "agreement_intervals": figures.agreement_intervals(tables["agreement"]),
        "subgroups": figures.subgroup_shares(tables["subgroups"]),
        "findings": figures.findings_counted(tables["findings_counted"]),
        "times": figures.reading_times(tables["answers"]),
        "flow": figures.reading_flow(found["flow"]),
    }
    if labels.shape[1] > 1:
        drawn["label_matrix"] = figures.label_matrix(labels, kinds.sort_values())
    if found["design"]["real"] and found["design"]["generated"]:
        areas = [row for row in found["areas"] if row["stratum"] == results.OVERALL]
        legend = {row["reader"]: f"{row['reader']}: {texts.area(row)}" for row in areas}
        drawn["roc"] = figures.roc_curves(tables["roc"], legend)
    if "distance" in rows and rows["distance"].notna().any():
        drawn["distance"] = figures.votes_and_distance(tables["per_image"])
    for name, chosen in chosen_images(rows, labels).items():
        title = figures.GALLERIES[name].format(people=texts.everyone(len(readers)))
        shown = f"{most} of {len(chosen)}" if len(chosen) > most else len(chosen)
        pictures = _shown(rows.loc[chosen[:most]], set_run)
        drawn[name] = figures.gallery(f"{title}: {shown}", *pictures)
    for figure in drawn.values():
        figures.mark(figure, run.simulated)
        plt.close(figure)
    return drawn


def chosen_images(rows: pd.DataFrame, labels: pd.DataFrame) -> dict[str, list[str]]:
    """The images of the three published galleries (two for a single reader); `rows` indexed by
    image_id, `labels` one column a reader.
    """
    complete = labels.dropna()
    generated = rows["origin"] == "generated"
    all_of = {
        label: complete.index[(complete == label).all(axis=1)] for label in ("real", "uncertain")
    }
    chosen = {
        "gallery_real": [image for image in all_of["real"] if generated[image]],
        "gallery_uncertain": list(all_of["uncertain"]),
    }
    if labels.shape[1] > 1:
        chosen["gallery_fake"] = list(rows.index[generated & (rows["votes_fake"] >= 2)])
    return chosen


def _shown(rows: pd.DataFrame, set_run: runs.Run) -> tuple[list[np.ndarray], list[str]]:
    folder = set_run.folder / "reading_set"
    paths = set_run.read("reading_set/reading_set.csv").set_index("blind_id")["path"]
    depth = 2 ** json.loads((folder / "study.json").read_text())["bits"] - 1
    pictures = [
        images.read_png(folder / paths[blind_id]).astype(np.float32) / depth
        for blind_id in rows["blind_id"]
    ]
    sources = [source if isinstance(source, str) else "real" for source in rows["generator"]]
    short = [source if len(source) <= 22 else f"{source[:21]}…" for source in sources]
    return pictures, [
        f"{figures.NAMES[modality]}\n{source}" for modality, source in zip(rows["modality"], short)
    ]


def write(
    run: runs.Run,
    found: dict,
    tables: dict[str, pd.DataFrame],
    drawn: dict[str, Figure],
    context: dict,
) -> Path:
    """Write results.json, tables/, figures/ (png, svg, pdf) and report.html of a run; returns the
    report's path.

    On a finished run nothing is written.
    """
    path = run.folder / "report.html"
    if run.finished:
        return path
    simulated = bool(run.simulated)
    items = pd.DataFrame(texts.checklist(found, context))
    for name, frame in {**tables, "checklist": items}.items():
        marked = (
            frame
            if "simulated" in frame or name == "per_image"
            else frame.assign(simulated=simulated)
        )
        run.write(f"tables/{name}.csv", marked)
    pictures = {}
    for name, figure in drawn.items():
        pictures[name] = figures.as_bytes(figure, "png")
        run.write_bytes(f"figures/{name}.png", pictures[name])
        for kind in ("svg", "pdf"):
            run.write_bytes(f"figures/{name}.{kind}", figures.as_bytes(figure, kind))
    kept = {name: value for name, value in context.items() if name != "told"}
    about = {"study": run.study, "simulated": run.simulated, "context": kept}
    run.write_bytes("results.json", results.as_json(found | about))
    run.write_bytes("report.html", report.render(found, context, pictures))
    return path
