"""Writes report.html, one page that needs no other file, made only from the results, and
report.pdf, the same page that typst lays out for print.
"""

import base64
import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pandas as pd
import typst

from helpers.analyse_readings import primary_measure, texts
from helpers.analyse_readings.report_figures import GALLERIES
from helpers.assemble_reading_set import blinding, seal
from helpers.plurals import counted
from helpers.runner import folders, parameters, runs

# How the seal records an opening -> the end of the sentence "The key was opened …".
OPENED = {
    "all readers locked": "when all readers had locked their answers",
    "simulated readers": "to simulate the readers' answers",
    "emergency": "in an emergency",
}
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TIME = 946684800  # one date for every report: the same study gives the same file


def context(run: runs.Run, set_run: runs.Run, reading_run: runs.Run, unsealed: dict) -> dict:
    """The facts of the report beside the results: the study's texts, the seal, the settings of the
    read, what is simulated.
    """
    path = folders.params_folder(run.study) / "study.yaml"
    reading_set, sealed = set_run.folder / "reading_set", set_run.folder / "sealed"
    # `reads` also marks this run as simulated if a model is.
    used = [run, *(run.reads(name) for name in run.parameters.models)]
    commitment = seal.read_commitment(reading_set)
    shown = json.loads((reading_set / "study.json").read_text())
    late = [_locked_after(entry, reading_run) for entry in unsealed["history"]]
    opened = [_opening(entry, count) for entry, count in zip(unsealed["history"], late)]
    # Only readers recorded as simulated may see the truth before they have locked.
    allowed = {"all readers locked"}
    allowed |= {"simulated readers"} if "readers" in reading_run.simulated else set()
    return {
        "study_texts": parameters.read_yaml(path) if path.exists() else {},
        "study": run.study,
        "run": run.name,
        "simulated": list(run.simulated),
        "reading": reading_run.parameters,
        "shown_at": {name: shown[name] for name in ("size", "bits")},
        "committed_utc": commitment["committed_utc"],
        "planned_readers": commitment["readers"],
        "plan_changes": seal.plan_changes(reading_set, run.study)
        + [change for one in used for change in seal.settings_changed(sealed, one)],
        "openings": opened,
        "early_openings": [
            how
            for how, entry, count in zip(opened, unsealed["history"], late)
            if entry["how"] not in allowed or count
        ],
        "primary_named": primary_measure.named_before(sealed, run),
        "framed": blinding.framed(set_run),
        "frozen": seal.frozen(reading_set),
        "git": run.manifest.get("git", {}),
    }


def _locked_after(entry: dict, reading_run: runs.Run) -> int:
    """The number of people who locked after "all readers" had: they were not blinded."""
    if entry["how"] != "all readers locked":
        return 0
    readers = reading_run.read("readers.csv")
    locked = readers.loc[~readers["simulated"].fillna(False), "locked_utc"].dropna()
    return int((locked > entry["utc"]).sum())


def _opening(entry: dict, late: int) -> str:
    """The end of the sentence "The key was opened …"; `late` readers locked after that."""
    if late:
        return f"on {entry['utc'][:10]}, before {counted(late, 'reader')} had locked"
    reason = f" ({entry['reason']})" if entry.get("reason") else ""
    return OPENED.get(entry["how"], entry["how"]) + reason


def render(results: dict, context: dict, figures: dict[str, dict], files: bool = False) -> bytes:
    """The page. `figures`: bytes by name and format; the page contains them or, with `files`, links
    to NAME.svg beside it. `context`: see `context`.
    """
    pictures = {}
    for name, picture in figures.items():
        encoded = base64.b64encode(picture["png"]).decode()
        pictures[name] = {
            "src": f"{name}.svg" if files else f"data:image/png;base64,{encoded}",
            # CSS pixels: half of the stored pixels (the header's first number), so that text has
            # the same size in all figures.
            "width": int.from_bytes(picture["png"][16:20], "big") // 2,
        }
    return texts.fill(
        "report.html",
        **results,
        **accuracy_tables(results),
        context=context,
        study_texts=context["study_texts"],
        written=texts.written(results, context),
        checklist=texts.checklist(results, context),
        mark=" (simulated)" if context["simulated"] else "",
        figures=pictures,
        captions=texts.captions(results, dict.fromkeys(GALLERIES)),
        galleries=GALLERIES,
        agreement_rows=agreement_rows(results["agreement"]),
    ).encode()


def agreement_rows(rows: list[dict]) -> list[dict]:
    """The agreement table, with a note on images with only one answer."""
    paired = {r["group"]: r["images"] for r in rows if r["coefficient"] == "krippendorff"}
    noted = []
    for row in rows:
        once = row["images"] - paired[row["group"]]
        note = f"{once} with one answer only" if once > 0 else ""
        noted.append(row | {"reason": row["reason"] or note})
    return [row for row in noted if " " not in row["group"]]


def accuracy_tables(results: dict) -> dict:
    """The rows of the accuracy tables: by policy over all images, and by modality under the policy
    of the settings.
    """
    frame = pd.DataFrame(results["accuracy"])
    frame["cell"] = [texts.cell(row) for row in results["accuracy"]]
    frame["name"] = frame["measure"].map(measure_name)
    frame["column"] = frame["policy"].replace({"none": "own"})
    chosen = frame[frame["policy"].isin([results["settings"]["uncertain"], "none"])]
    strata = list(dict.fromkeys(frame["stratum"]))
    named = {"all": "all images", "xray": "X-ray", "ct": "CT"}
    return {
        "accuracy_rows": _pivot(
            frame[frame["stratum"] == "all"], "column", ["wrong", "dropped", "own"]
        ),
        "strata_rows": _pivot(chosen, "stratum", strata),
        "strata": [named.get(name, name) for name in strata],
    }


def _pivot(frame: pd.DataFrame, by: str, columns: list[str]) -> list[list]:
    order = frame[["reader", "name"]].drop_duplicates()
    wide = frame.pivot(index=["reader", "name"], columns=by, values="cell")
    wide = wide.reindex(index=pd.MultiIndex.from_frame(order), columns=columns).fillna("")
    return [list(row) for row in wide.reset_index().itertuples(index=False)]


def measure_name(measure: str) -> str:
    """d′ (fake versus the rest), generated images called fake, real images left uncertain."""
    label, _, origin = measure.partition(" of ")
    if origin:
        said = "left uncertain" if label == "uncertain" else f"called {label}"
        return f"{origin} images {said}"
    name, _, threshold = measure.partition(" ")
    threshold = threshold.replace(" | ", " versus the ")
    return {"dprime": "d′"}.get(name, name) + (f" ({threshold})" if threshold else "")


def pdf(results: dict, context: dict, figures: dict[str, dict]) -> bytes:
    """The report on A4. `figures`: bytes by name and format; see `render`."""
    page = render(results, context, figures, files=True).decode()
    main = page[page.index("<main>") : page.index("</main>") + len("</main>")]
    data = {
        "main": nodes(ElementTree.fromstring(main)),
        "simulated": context["simulated"],
        "title": context["study_texts"].get("title", context["study"]),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in figures.items():
            (Path(folder) / f"{name}.svg").write_bytes(picture["svg"])
        (Path(folder) / "report.json").write_text(json.dumps(data))
        source = Path(folder) / "report.typ"
        source.write_bytes((texts.FOLDER / "report.typ").read_bytes())
        compiler = typst.Compiler(source, folder, [FONTS], ignore_system_fonts=True)
        return compiler.compile(format="pdf", timestamp=TIME)


def nodes(element: ElementTree.Element) -> dict:
    """An element of the page: tag, attributes, and `parts`, its texts and elements in order."""
    parts = [element.text]
    for child in element:
        parts += [nodes(child), child.tail]
    parts = [texts.SPACES.sub(" ", p) if isinstance(p, str) else p for p in parts if p]
    return {"tag": element.tag, "class": "", **element.attrib, "parts": parts}
