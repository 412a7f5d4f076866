"""report.html: one page that stands alone, written from the results and nothing else."""

import base64
import json
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from helpers.analyse_readings import checklists, report_tables, sentences
from helpers.assemble_reading_set import seal
from helpers.figures import GALLERIES
from helpers.runner import parameters, runs
from helpers.table_columns import LABELS

# on screen until the answer is saved, the description included: who is faster has clicked through
HASTY_SECONDS = 1.5


def context(run: runs.Run, set_run: runs.Run, reading_run: runs.Run, unsealed: dict) -> dict:
    """What the report says besides the results: the study's texts, the seal, the settings of the
    read, what is simulated.
    """
    path = runs.params_folder(run.study) / "study.yaml"
    commitment = seal.read_commitment(set_run.folder / "reading_set")
    shown = json.loads((set_run.folder / "reading_set" / "study.json").read_text())
    opened = [
        entry["how"] + (f" ({entry['reason']})" if entry.get("reason") else "")
        for entry in unsealed["history"]
    ]
    # Only readers who are recorded as simulated may see the truth before they have locked.
    allowed = {"all readers locked"}
    allowed |= {"simulated readers"} if "readers" in reading_run.simulated else set()
    return {
        "told": parameters.read_yaml(path) if path.exists() else {},
        "study": run.study,
        "run": run.name,
        "simulated": list(run.simulated),
        "reading": reading_run.parameters,
        "shown_at": {name: shown[name] for name in ("size", "bits")},
        "committed_utc": commitment["committed_utc"],
        "planned_readers": commitment["readers"],
        "plan_changes": (
            seal.plan_changes(set_run.folder / "reading_set", run.study)
            + seal.settings_changed(set_run.folder / "sealed", run)
        ),
        "unsealed": unsealed["how"],
        "openings": opened,
        "early_openings": [
            told for told, entry in zip(opened, unsealed["history"]) if entry["how"] not in allowed
        ],
        "frozen": seal.frozen(set_run.folder / "reading_set"),
        "git": run.manifest.get("git", {}),
    }


def render(results: dict, context: dict, figures: dict[str, bytes]) -> bytes:
    """The page. `figures`: PNG bytes by name (see `sections`); `context`: see `context`."""
    template = Path(__file__).parent / "templates" / "report.html"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    told = context["told"]
    page = environment.from_string(template.read_text()).render(
        title=told.get("title", context["study"]),
        question=told.get("question", ""),
        design_line=design_line(results),
        answer=sentences.answer(results),
        simulated=context["simulated"],
        mark=" (simulated)" if context["simulated"] else "",
        cards=[card(row) for row in results["headline"]],
        warnings=warnings(results, context),
        sections=sections(results, context, figures),
        footer=footer(context),
    )
    return page.encode()


def design_line(results: dict) -> str:
    """40 images (20 generated, 20 real) read by 2 readers, 1 of them stated prior knowledge of
    AI.
    """
    design = results["design"]
    readers = f"{design['readers']} reader{'s' if design['readers'] != 1 else ''}"
    return (
        f"{design['images']} images ({design['generated']} generated, {design['real']} real) were"
        f" {'to be ' if results['flow']['missing_answers'] else ''}labelled real, fake or uncertain"
        f" by {readers}; {sentences.knew(design)}."
    )


def card(row: dict) -> dict:
    """One kind of image on the first screen."""
    people = sentences.everyone(row["readers"])
    lines = [
        ("all_real", f"called real by {people}"),
        ("all_uncertain", f"left {people} uncertain"),
    ]
    if row["readers"] >= 2:
        lines.append(
            (
                "two_fake",
                (
                    "identified as fake by at least two readers"
                    if row["origin"] == "generated"
                    else "wrongly called fake by at least two readers"
                ),
            )
        )
    conditions = [f"{item['name'].lower()} ({item['answers']})" for item in row["conditions"][:5]]
    answers = row["conditions"][0]["of_answers"] if row["conditions"] else 0
    return {
        "origin": row["origin"],
        "title": f"{row['images']} {row['origin']} {sentences.KINDS[row['modality']]}",
        "lines": [_line(row[name], text, row["images"]) for name, text in lines],
        "conditions": (
            f"Described, in {answers} answers: {', '.join(conditions)}."
            if conditions
            else "No condition was described."
        ),
    }


def _line(part: dict, text: str, images: int) -> dict:
    if not part["total"]:
        return {
            "number": "–",
            "text": text,
            "interval": "(no image has the answers that this needs)",
        }
    # Where an answer is missing the count is of the images that have the answers it needs.
    number, lacking = f"{part['count']} of {part['total']}", images - part["total"]
    low_high = (
        f"{sentences.percent(part['share'])}, 95 % interval"
        f" {sentences.interval(part['low'], part['high'])}"
    )
    return {
        "number": number,
        "text": text,
        "interval": (
            low_high
            + (f"; {lacking} {'lacks' if lacking == 1 else 'lack'} an answer" if lacking else "")
        ),
    }


def warnings(results: dict, context: dict) -> list[str]:
    """What a reader of the page must know before anything else."""
    said = []
    if not results["design"]["real"]:
        said.append(
            "Only generated images were read. What readers would have called real images is"
            " unknown, so nothing here is a measure of detection."
        )
    if not results["design"]["generated"]:
        said.append("Only real images were read: there is nothing to detect.")
    if results["flow"]["missing_answers"]:
        said.append(
            f"{results['flow']['missing_answers']} of {results['flow']['expected_answers']} answers"
            " are missing."
        )
    for reader in results["readers"]:
        used = [label for label in LABELS if reader[f"labelled_{label}"]]
        if not used:
            said.append(f"{reader['reader']} answered nothing.")
        elif len(used) == 1:
            images = reader["answered"] + reader["missing"]
            said.append(
                f"All of {reader['reader']}'s answers are “{used[0]}” ({reader['answered']} of"
                f" {images} images answered)."
            )
        if (
            reader["answered"]
            and reader["median_seconds"] is not None
            and reader["median_seconds"] < HASTY_SECONDS
        ):
            said.append(
                f"{reader['reader']} had the typical image on screen for"
                f" {reader['median_seconds']:.1f} s: hardly enough to look at it."
            )
    if context["plan_changes"]:
        said.append(
            "The plan of the analysis is not the one committed to before the read:"
            f" {'; '.join(context['plan_changes'])}."
        )
    if early := context["early_openings"]:
        said.append(
            f"The key was opened before all planned readers had locked: {'; '.join(early)}."
        )
    return said


def sections(results: dict, context: dict, figures: dict[str, bytes]) -> list[dict]:
    """The page below the first screen."""
    return [
        _section("In short", [" ".join(sentences.headline(row)) for row in results["headline"]]),
        _section(
            "How the answers fell",
            [],
            _figure(
                figures,
                "labels_by_source",
                "Answers by source: shares, with the number of answers in the bars.",
            ),
        ),
        _section(
            "Galleries",
            ["Images are shown as the readers saw them."],
            *[
                item
                for name, caption in galleries(results)
                for item in _figure(figures, name, caption)
            ],
        ),
        _section(
            "Agreement between readers",
            [" ".join(sentences.agreement(results))],
            _figure(
                figures, "label_matrix", "Label by label: how many images got which pair of labels."
            ),
            _figure(
                figures,
                "agreement_intervals",
                "Agreement coefficients with 95 % intervals, all images and groups of them.",
            ),
            report_tables.agreement_rows(results),
            {"kind": "heading", "text": "Readers with themselves"},
            {"kind": "list", "texts": sentences.intra(results)},
        ),
        *_detection(results, figures),
        _section("Flow", [], _figure(figures, "flow", "Flow of images, readers and answers.")),
        _section(
            "Limits that follow from the design",
            [],
            {"kind": "list", "texts": sentences.limits(results, context["shown_at"]["size"])},
        ),
        _section("Methods", checklists.methods(results, context)),
        _section(
            "Reporting items",
            ["Open items cannot be filled from the study's files."],
            report_tables.checklist_rows(results, context),
        ),
    ]


def _detection(results: dict, figures: dict[str, bytes]) -> list[dict]:
    return [
        _section(
            "Accuracy",
            sentences.accuracy(results),
            report_tables.accuracy_rows(results),
            _figure(
                figures,
                "roc",
                "ROC curve of every reader, from "
                + (
                    "label and confidence."
                    if results["design"]["confidence_asked"]
                    else "the label alone: no confidence was asked."
                ),
            ),
            {"kind": "heading", "text": "Readers and images in general"},
            {
                "kind": "list",
                "texts": sentences.readers_in_general(results) + sentences.planning(results),
            },
        ),
        _section(
            "Who and what",
            [],
            _figure(
                figures,
                "subgroups",
                "How often generated and real images were called fake, by group, over these"
                " readers.",
            ),
            report_tables.subgroup_rows(results),
            report_tables.reader_rows(results),
        ),
        _section(
            "Conditions described",
            ["Ticked findings and those found in the readers' words, negation respected."],
            _figure(
                figures, "findings", "The ten most frequent findings, as shares of the answers."
            ),
            report_tables.finding_rows(results),
            report_tables.example_rows(results),
        ),
        _section(
            "Which images fool readers",
            [" ".join(sentences.fooled(results))],
            _figure(
                figures,
                "distance",
                "Generated images: distance to the nearest training case, and the readers who"
                " called them real.",
            ),
            _figure(figures, "times", "Seconds on screen by reader and label."),
        ),
    ]


def galleries(results: dict) -> list[tuple[str, str]]:
    """File name and caption of every gallery."""
    people = sentences.everyone(results["design"]["readers"])
    return [(name, title.format(people=people) + ".") for name, title in GALLERIES.items()]


def _figure(figures: dict[str, bytes], name: str, caption: str) -> list[dict]:
    if name not in figures:
        return []
    return [
        {
            "kind": "figure",
            "data": base64.b64encode(figures[name]).decode(),
            "caption": caption,
            "width": _width(figures[name]),
        }
    ]


def _width(png: bytes) -> int:
    """CSS pixels: half of those stored (the header's first number), so that text has one size in
    all figures.
    """
    return int.from_bytes(png[16:20], "big") // 2


def _section(title: str, texts: list[str], *items) -> dict:
    flat = [item for entry in items for item in (entry if isinstance(entry, list) else [entry])]
    return {"title": title, "texts": texts, "items": flat}


def footer(context: dict) -> str:
    """Where the page comes from."""
    commit = context["git"].get("commit")
    code = (
        " Code: commit"
        f" {commit[:12]}{' with local changes' if context['git'].get('dirty') else ''}."
        if commit
        else ""
    )
    opened = f" The key was opened: {'; '.join(context['openings'])}."
    return (
        f"Study '{context['study']}', run {context['run']}.{code} Sealed"
        f" {context['committed_utc']}.{opened} {context['frozen']} Every number is"
        " in results.json, every table in tables/."
    )
