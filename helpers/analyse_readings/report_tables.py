"""The tables of report.html: what each shows of the results, in words and rounded numbers."""

from helpers import findings
from helpers.analyse_readings import checklists, sentences
from helpers.figures import COEFFICIENTS, NAMES

MEASURES = {"dprime": "d′", "criterion": "criterion"}


def measure_name(measure: str) -> str:
    """d′, generated images called fake, real images left uncertain."""
    label, _, origin = measure.partition(" of ")
    said = "left uncertain" if label == "uncertain" else f"called {label}"
    return f"{origin} images {said}" if origin else MEASURES.get(measure, measure)


def agreement_rows(results: dict) -> dict:
    """The agreement table."""
    paired = {
        row["group"]: row["images"]
        for row in results["agreement"]
        if row["coefficient"] == "krippendorff"
    }
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
            or (
                f"{row['images'] - paired[row['group']]} with one answer only"
                if row["images"] > paired[row["group"]]
                else ""
            ),
        ]
        for row in results["agreement"]
        if " " not in row["group"]
    ]
    return table(
        "Agreement coefficients",
        [
            "images",
            "coefficient",
            "estimate",
            "standard error",
            "95 % interval",
            "n",
            "readers",
            "note",
        ],
        rows,
        (2, 3, 5, 6),
    )


def accuracy_rows(results: dict) -> dict:
    """Accuracy of every reader, the three policies side by side."""
    rows = [
        [
            r["reader"],
            measure_name(r["measure"]),
            r.get("wrong", ""),
            r.get("dropped", ""),
            r.get("own", ""),
        ]
        for r in checklists.policy_rows(results)
    ]
    return table(
        "Accuracy under the three policies for “uncertain”, 95 % intervals",
        ["reader", "measure", "uncertain is wrong", "uncertain is dropped", "own category"],
        rows,
    )


def subgroup_rows(results: dict) -> dict:
    """How often answers were "fake", by group: counts and intervals behind the figure, and findings
    besides.
    """
    rows = [
        [
            r["by"],
            ", ".join(
                findings.FINDINGS.get(part, NAMES.get(part, part)) for part in r["group"].split("|")
            ),
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
    return table(
        "Answers that were “fake”, by group; a finding is the one the image was taken or asked for",
        columns,
        rows,
        (3, 4, 5),
    )


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
        [
            "reader",
            "years",
            "specialty",
            "knew AI",
            "answered",
            "missing",
            "real",
            "uncertain",
            "fake",
            "median seconds",
        ],
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
            (
                sentences.interval(r["gwet_low"], r["gwet_high"], 2)
                if r["gwet_low"] is None or r["gwet_low"] != r["gwet_high"]
                else "no variation"
            ),
            r["reason"] if r["percent"] is None else "",
        ]
        for r in results["findings_agreement"]
    ]
    return table(
        "Agreement on whether a finding is there",
        [
            "finding",
            "answers",
            "images",
            "agreement",
            "Fleiss' kappa",
            "AC1",
            "95 % interval",
            "note",
        ],
        rows,
        (1, 2, 3, 4, 5),
    )


def example_rows(results: dict) -> dict:
    """The readers' own words."""
    rows = [
        [NAMES[r["modality"]], r["origin"], r["label"], r["reader"], _printable(r["description"])]
        for r in results["descriptions"]
    ]
    return table(
        "Examples in the readers' own words",
        ["modality", "image", "label given", "reader", "description"],
        rows,
    )


def _printable(words: str) -> str:
    """Without control characters and those that turn the direction of the text after them."""
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())


def checklist_rows(results: dict, context: dict) -> dict:
    """GRRAS, STARD and CLAIM."""
    rows = [
        [r["guideline"], r["item"], r["topic"], r["status"], r["text"]]
        for r in checklists.checklist(results, context)
    ]
    return table(
        "Items of GRRAS, STARD and CLAIM",
        ["guideline", "item", "topic", "status", "where or what"],
        rows,
    )


def table(caption: str, columns: list[str], rows: list[list], numeric: tuple = ()) -> dict:
    """A table of the page."""
    return {
        "kind": "table",
        "caption": caption,
        "columns": columns,
        "rows": rows,
        "numeric": numeric,
    }
