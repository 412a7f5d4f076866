"""report.html: one page that stands alone, written from the results and nothing else."""

import base64
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from helpers import findings, parameters, runs, seal
from helpers.analyse_readings import checklists, sentences
from helpers.figures import COEFFICIENTS, GALLERIES, NAMES

MEASURES = {"dprime": "d′", "criterion": "criterion"}


def context(run: runs.Run, set_run: runs.Run, reading_run: runs.Run, unsealed: dict) -> dict:
    """What the report says besides the results: the study's texts, the seal, the settings of the read, what is pretended."""
    path = runs.params_folder(run.study) / "study.yaml"
    commitment = seal.read_commitment(set_run.folder / "reading_set")
    opened = [f"{entry['how']}" + (f" ({entry['reason']})" if "reason" in entry else "") for entry in unsealed["history"]]
    return {
        "told": parameters.read_yaml(path) if path.exists() else {},
        "study": run.study,
        "run": run.name,
        "pretended": list(run.pretended),
        "reading": reading_run.parameters,
        "committed_utc": commitment["committed_utc"],
        "planned_readers": commitment["readers"],
        "plan_changes": seal.plan_changes(set_run.folder / "reading_set", run.study),
        "unsealed": unsealed["how"],
        "openings": opened,
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
        pretended=context["pretended"],
        mark=" (pretended)" if context["pretended"] else "",
        cards=[card(row) for row in results["headline"]],
        warnings=warnings(results, context),
        sections=sections(results, context, figures),
        footer=footer(context),
    )
    return page.encode()


def design_line(results: dict) -> str:
    """40 images (20 generated, 20 real) read by 2 readers, 1 of them stated prior knowledge of AI."""
    design = results["design"]
    readers = f"{design['readers']} reader{'s' if design['readers'] != 1 else ''}"
    return (
        f"{design['images']} images ({design['generated']} generated, {design['real']} real) were {'to be ' if results['flow']['missing_answers'] else ''}labelled "
        f"real, fake or uncertain by {readers}; "
        f"{sentences.knew(design)}."
    )


def card(row: dict) -> dict:
    """One kind of image on the first screen."""
    people = sentences.everyone(row["readers"])
    lines = [("all_real", f"called real by {people}"), ("all_uncertain", f"left {people} uncertain")]
    if row["readers"] >= 2:
        lines.append(
            (
                "two_fake",
                "identified as fake by at least two readers"
                if row["origin"] == "generated"
                else "wrongly called fake by at least two readers",
            )
        )
    conditions = [f"{item['name'].lower()} ({item['answers']})" for item in row["conditions"][:5]]
    answers = row["conditions"][0]["of_answers"] if row["conditions"] else 0
    return {
        "origin": row["origin"],
        "title": f"{row['images']} {row['origin']} {sentences.KINDS[row['modality']]}",
        "lines": [_line(row[name], text, row["images"]) for name, text in lines],
        "conditions": f"Described, in {answers} answers: {', '.join(conditions)}." if conditions else "No condition was described.",
    }


def _line(part: dict, text: str, images: int) -> dict:
    if not part["total"]:
        return {"number": "–", "text": text, "interval": "(no image has the answers that this needs)"}
    # Where an answer is missing the count is of the images that have the answers it needs.
    number = f"{part['count']} of {part['total']}"
    low_high = f"{sentences.percent(part['share'])}, 95 % interval {sentences.interval(part['low'], part['high'])}"
    return {
        "number": number,
        "text": text,
        "interval": low_high + (f"; {images - part['total']} lack an answer" if part["total"] < images else ""),
    }


def warnings(results: dict, context: dict) -> list[str]:
    """What a reader of the page must know before anything else."""
    said = []
    if not results["design"]["real"]:
        said.append(
            "Only generated images were read. What readers would have called real images is unknown, so nothing here is a measure of detection."
        )
    if not results["design"]["generated"]:
        said.append("Only real images were read: there is nothing to detect.")
    if results["flow"]["missing_answers"]:
        said.append(f"{results['flow']['missing_answers']} of {results['flow']['expected_answers']} answers are missing.")
    labels = {
        r["reader"]: [name for name in ("real", "fake", "uncertain") if r[f"labelled_{name}"]] for r in results["readers"] if r["answered"]
    }
    said += [f"{r['reader']} answered nothing." for r in results["readers"] if not r["answered"]]
    part = {r["reader"] for r in results["readers"] if r["missing"]}
    said += [
        f"{reader} called every image {'that was answered ' if reader in part else ''}{used[0]}."
        for reader, used in labels.items()
        if len(used) == 1
    ]
    if context["plan_changes"]:
        said.append(f"The plan of the analysis is not the one committed to before the read: {'; '.join(context['plan_changes'])}.")
    if any(opening.startswith("emergency") for opening in context["openings"]):
        said.append(f"The key was opened before all planned readers had locked: {'; '.join(context['openings'])}.")
    return said


def sections(results: dict, context: dict, figures: dict[str, bytes]) -> list[dict]:
    """The page below the first screen."""
    return [
        _section("In short", [" ".join(sentences.headline(row)) for row in results["headline"]]),
        _section(
            "How the answers fell",
            [],
            _figure(figures, "labels_by_source", "Answers by source: shares, with the number of answers in the bars."),
        ),
        _section(
            "Galleries",
            ["Images are shown as the readers saw them."],
            *[item for name, caption in galleries(results) for item in _figure(figures, name, caption)],
        ),
        _section(
            "Agreement between readers",
            [" ".join(sentences.agreement(results))],
            _figure(figures, "label_matrix", "Label by label: how many images got which pair of labels."),
            _figure(figures, "agreement_intervals", "Agreement coefficients with 95 % intervals, all images and groups of them."),
            agreement_rows(results),
            {"kind": "heading", "text": "Readers with themselves"},
            {"kind": "list", "texts": sentences.intra(results)},
        ),
        *_detection(results, figures),
        _section("Flow", [], _figure(figures, "flow", "Flow of images, readers and answers.")),
        _section("Limits that follow from the design", [], {"kind": "list", "texts": sentences.limits(results)}),
        _section("Methods", checklists.methods(results, context)),
        _section("Reporting items", ["Open items cannot be filled from the study's files."], checklist_rows(results, context)),
    ]


def _detection(results: dict, figures: dict[str, bytes]) -> list[dict]:
    return [
        _section(
            "Accuracy",
            sentences.accuracy(results),
            table(
                "Accuracy under the three policies for “uncertain”, 95 % intervals",
                ["reader", "measure", "uncertain is wrong", "uncertain is dropped", "own category"],
                [
                    [r["reader"], measure_name(r["measure"]), r.get("wrong", ""), r.get("dropped", ""), r.get("own", "")]
                    for r in checklists.policy_rows(results)
                ],
            ),
            _figure(
                figures,
                "roc",
                "ROC curve of every reader, from "
                + ("label and confidence." if results["design"]["confidence_asked"] else "the label alone: no confidence was asked."),
            ),
            {"kind": "heading", "text": "Readers and images in general"},
            {"kind": "list", "texts": sentences.readers_in_general(results) + sentences.planning(results)},
        ),
        _section(
            "Who and what",
            [],
            _figure(figures, "subgroups", "How often generated and real images were called fake, by group, over these readers."),
            subgroup_rows(results),
            reader_rows(results),
        ),
        _section(
            "Conditions described",
            ["Ticked findings and those found in the readers' words, negation respected."],
            _figure(figures, "findings", "The ten most frequent findings, as shares of the answers."),
            finding_rows(results),
            example_rows(results),
        ),
        _section(
            "Which images fool readers",
            [" ".join(sentences.fooled(results))],
            _figure(figures, "distance", "Generated images: distance to the nearest training case, and the readers who called them real."),
            _figure(figures, "times", "Seconds on screen by reader and label."),
        ),
    ]


def measure_name(measure: str) -> str:
    """d′, generated images called fake, real images left uncertain."""
    label, _, origin = measure.partition(" of ")
    said = "left uncertain" if label == "uncertain" else f"called {label}"
    return f"{origin} images {said}" if origin else MEASURES.get(measure, measure)


def galleries(results: dict) -> list[tuple[str, str]]:
    """File name and caption of every gallery."""
    people = sentences.everyone(results["design"]["readers"])
    return [(name, title.format(people=people) + ".") for name, title in GALLERIES.items()]


def agreement_rows(results: dict) -> dict:
    """The agreement table."""
    paired = {row["group"]: row["images"] for row in results["agreement"] if row["coefficient"] == "krippendorff"}
    rows = [
        [
            NAMES.get(row["group"], row["group"]),
            COEFFICIENTS[row["coefficient"]],
            sentences.value(row["estimate"]),
            sentences.value(row["se"], 3),
            sentences.interval(row["low"], row["high"], 2),
            row["images"],
            row["readers"],
            row["reason"]
            or ("no variation: the interval has no width" if row["se"] == 0 else "")
            or (f"{row['images'] - paired[row['group']]} with one answer only" if row["images"] > paired[row["group"]] else ""),
        ]
        for row in results["agreement"]
        if " " not in row["group"]
    ]
    return table(
        "Agreement coefficients",
        ["images", "coefficient", "estimate", "standard error", "95 % interval", "n", "readers", "note"],
        rows,
        (2, 3, 5, 6),
    )


def subgroup_rows(results: dict) -> dict:
    """How often answers were "fake", by group: counts and intervals behind the figure, and findings besides."""
    rows = [
        [
            r["by"],
            ", ".join(findings.FINDINGS.get(part, NAMES.get(part, part)) for part in r["group"].split("|")),
            r["truth"],
            r["images"],
            f"{r['count']} of {r['answers']}",
            sentences.percent(r["estimate"]),
            sentences.interval(r["low"], r["high"]),
        ]
        for r in results["subgroups"]
        if r["measure"] == "called fake"
    ]
    columns = ["by", "group", "truth", "images", "answers “fake”", "share", "95 % interval"]
    return table("Answers that were “fake”, by group; a finding is the one the image was taken or asked for", columns, rows, (3, 4, 5))


def reader_rows(results: dict) -> dict:
    """The readers."""
    rows = [
        [
            r["reader"],
            sentences.value(r["years"], 0),
            r["specialty"] or "–",
            {True: "yes", False: "no"}.get(r["prior_ai"], "–"),
            r["answered"],
            r["missing"],
            r["labelled_real"],
            r["labelled_uncertain"],
            r["labelled_fake"],
            sentences.value(r["median_seconds"], 1),
        ]
        for r in results["readers"]
    ]
    return table(
        "Readers",
        ["reader", "years", "specialty", "knew AI", "answered", "missing", "real", "uncertain", "fake", "median seconds"],
        rows,
        (1, 4, 5, 6, 7, 8, 9),
    )


def finding_rows(results: dict) -> dict:
    """Agreement on findings."""
    rows = [
        [
            r["name"],
            r["answers"],
            r["images"],
            sentences.percent(r["percent"]),
            sentences.value(r["fleiss"]),
            sentences.value(r["gwet"]),
            # Where nobody differs the interval would have no width.
            sentences.interval(r["gwet_low"], r["gwet_high"], 2)
            if r["gwet_low"] is None or r["gwet_low"] != r["gwet_high"]
            else "no variation",
            r["reason"] if r["percent"] is None else "",
        ]
        for r in results["findings_agreement"]
    ]
    return table(
        "Agreement on whether a finding is there",
        ["finding", "answers", "images", "agreement", "Fleiss' kappa", "AC1", "95 % interval", "note"],
        rows,
        (1, 2, 3, 4, 5),
    )


def example_rows(results: dict) -> dict:
    """The readers' own words."""
    rows = [[NAMES[r["modality"]], r["origin"], r["label"], r["reader"], _printable(r["description"])] for r in results["descriptions"]]
    return table("Examples in the readers' own words", ["modality", "image", "label given", "reader", "description"], rows)


def _printable(words: str) -> str:
    """Without control characters and those that turn the direction of the text after them."""
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())


def checklist_rows(results: dict, context: dict) -> dict:
    """GRRAS, STARD and CLAIM."""
    rows = [[r["guideline"], r["item"], r["topic"], r["status"], r["text"]] for r in checklists.checklist(results, context)]
    return table("Items of GRRAS, STARD and CLAIM", ["guideline", "item", "topic", "status", "where or what"], rows)


def table(caption: str, columns: list[str], rows: list[list], numeric: tuple = ()) -> dict:
    """A table of the page."""
    return {"kind": "table", "caption": caption, "columns": columns, "rows": rows, "numeric": numeric}


def _figure(figures: dict[str, bytes], name: str, caption: str) -> list[dict]:
    if name not in figures:
        return []
    return [{"kind": "figure", "data": base64.b64encode(figures[name]).decode(), "caption": caption, "width": _width(figures[name])}]


def _width(png: bytes) -> int:
    """CSS pixels: half of those stored (the header's first number), so that text has one size in all figures."""
    return int.from_bytes(png[16:20], "big") // 2


def _section(title: str, texts: list[str], *items) -> dict:
    flat = [item for entry in items for item in (entry if isinstance(entry, list) else [entry])]
    return {"title": title, "texts": texts, "items": flat}


def footer(context: dict) -> str:
    """Where the page comes from."""
    commit = context["git"].get("commit")
    code = f" Code: commit {commit[:12]}{' with local changes' if context['git'].get('dirty') else ''}." if commit else ""
    opened = f" The key was opened: {'; '.join(context['openings'])}."
    return f"Study '{context['study']}', run {context['run']}.{code} Sealed {context['committed_utc']}.{opened} Every number is in results.json, every table in tables/."
