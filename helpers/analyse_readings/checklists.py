"""Methods text and the items of GRRAS, STARD and CLAIM: filled from the results where they can be,
else listed as open.

Items by number: GRRAS, Kottner et al., J Clin Epidemiol 64 (2011); STARD 2015, Bossuyt et al., BMJ
351 (2015); CLAIM, Mongan et al., Radiol Artif Intell 2 (2020). The wording here is this project's
own.
"""

from helpers.analyse_readings import sentences
from helpers.analyse_readings.sentences import percent, value

# Items that no file of a study can fill.
OPEN = (
    ("GRRAS", "1", "Identified in title and abstract as a study of agreement", ""),
    ("GRRAS", "3", "Population of interest", ""),
    ("GRRAS", "5", "What is known already", ""),
    ("GRRAS", "14", "Practical meaning", ""),
    ("STARD", "3", "Background and intended use", ""),
    ("STARD", "6", "Eligibility criteria of the real images", ""),
    ("STARD", "30", "Funding", ""),
    ("CLAIM", "8", "Eligibility of patients", ""),
    ("CLAIM", "42", "Funding", ""),
)
GOING_BACK = {
    "never": "an answer could not be changed",
    "until next": "an answer could be changed until the next one was saved",
    "until locked": "answers could be changed until the reader locked them",
}
NAMED = {"delong": "DeLong's method", "jackknife": "the jackknife over images"}


def methods(results: dict, context: dict) -> list[str]:
    """The methods section, one paragraph an entry. `context`: see `report.context`."""
    design, settings, asked = results["design"], results["settings"], context["reading"]
    source = "; ".join(sentences.source(row) for row in design["by_source"])
    changed = "; ".join(context["plan_changes"])
    people = f"{design['readers']} readers" if design["readers"] != 1 else "1 reader"
    shown_before = (
        f"{_several(design['training'], 'training case')} shown"
        f" before{' and not scored' if design['training'] else ''}"
    )
    again = f"{_several(design['repeats'], 'image')} shown a second time without notice"
    silent = sum(not row["answered"] for row in results["readers"])
    steps = (
        "“real, sure” over “uncertain” to “fake, sure”"
        if design["confidence_asked"]
        else "“real” over “uncertain” to “fake”"
    )
    size, bits = context["shown_at"]["size"], context["shown_at"]["bits"]
    paragraphs = [
        (
            f"Images. {design['images']} images were read ({source}). They were drawn at random"
            f" with a stored seed, brought to one size ({size} × {size} pixels) and grey depth"
            f" ({bits} bits), slightly smoothed and given fine grain so that traces of their files'"
            f" history go, and given opaque names; {shown_before}, and {again}."
        ),
        (
            f"Readers. {people} had pages of their"
            f" own{f' ({silent} answered nothing)' if silent else ''}, which show neither the truth"
            " nor other readers' answers nor how many images were generated;"
            f" {sentences.knew(design)} and generative models. Each had an order of their own from"
            f" a stored seed, and {changing(asked)}."
        ),
        "Rating. Every image was to be labelled real, fake or uncertain and the lung condition"
        " described in words"
        + (
            f"; confidence was asked ({asked['confidence']})."
            if asked.get("confidence", "none") != "none"
            else "; no confidence was asked."
        )
        + " The truth of an image is where it came from, which is known without error.",
        f"Blinding. The key was sealed and committed to ({context['committed_utc']}) before the"
        f" read and opened: {'; '.join(context['openings'])}. "
        + (
            f"The plan of the analysis was changed after that: {changed}."
            if changed
            else (
                "The plan of the analysis (notebook and settings) was committed to with it and is"
                " unchanged."
            )
        ),
        (
            "Agreement. Percent agreement, Cohen's and Conger's kappa, Scott's pi, Fleiss' kappa,"
            " Gwet's AC1, Brennan–Prediger's coefficient and Krippendorff's alpha over first"
            " answers; standard errors by linearisation, divided by n(n − 1) over images, t"
            " intervals with n − 1 degrees of freedom (Cohen: asymptotic, normal). Answers to"
            " repeats count only for agreement of readers with themselves."
        ),
        (
            "Accuracy. Positive means generated. “Uncertain” is shown as a category of its own, as"
            " an error, and left out. Shares have Wilson intervals; over several answers to one"
            " image they are Wilson's at the effective number of answers. d′ and criterion use the"
            f" log-linear correction. ROC curves run from {steps}; their areas have DeLong's"
            " standard errors. Many readers: Obuchowski–Rockette with random readers and images,"
            f" covariances by {NAMED[settings['covariance']]}, Hillis' degrees of freedom, against"
            " 0.5, two-sided; images without a score of every reader were left out there."
            f" Equivalence to chance: two one-sided tests at 5 % within ± {settings['margin']:g}."
            f" Bootstrap: {settings['replicates']} draws of readers and images. No correction for"
            " multiple testing was made."
        ),
    ]
    if not (design["real"] and design["generated"]):
        paragraphs.append(
            f"No {'real' if not design['real'] else 'generated'} image was read: of the methods for"
            " accuracy, those that need both kinds (accuracy, d′, ROC curves, many readers,"
            " equivalence, bootstrap) could not be used."
        )
    elif design["readers"] < 2:
        paragraphs.append(
            "One reader: the methods for agreement between readers and for many readers could not"
            " be used."
        )
    if context["simulated"]:
        paragraphs.insert(
            0,
            f"Simulated: {', '.join(context['simulated'])}. The procedure is real, its material is"
            " not.",
        )
    return paragraphs


def changing(asked: dict) -> str:
    """Whether answers could be changed; `asked`: the parameters of 07."""
    return GOING_BACK.get(
        asked.get("going_back"), "whether an answer could be changed is not recorded"
    )


def _several(count: int, what: str) -> str:
    return (
        f"no {what} was"
        if count == 0
        else f"1 {what} was"
        if count == 1
        else f"{count} {what}s were"
    )


def checklist(results: dict, context: dict) -> list[dict]:
    """Rows guideline, item, topic, status (filled or open), text."""
    design, flow, told = results["design"], results["flow"], context["told"]
    people = "; ".join(
        f"{r['reader']}: {value(r['years'], 0)} years, {r['specialty'] or 'specialty not stated'},"
        " prior knowledge of AI " + {True: "yes", False: "no"}.get(r["prior_ai"], "not stated")
        for r in results["readers"]
    )
    sampling = "random draw with a stored seed: " + "; ".join(
        sentences.source(row) for row in design["by_source"]
    )
    people_analysed = "1 reader" if flow["readers"] == 1 else f"{flow['readers']} readers"
    numbers = (
        f"{flow['images']} images, {people_analysed} analysed ({context['planned_readers']}"
        " planned)"
    )
    process = f"pages of their own, blinded, order per reader; {changing(context['reading'])}"
    missing = (
        f"{flow['missing_answers']} of {flow['expected_answers']} answers missing; left out of"
        " paired counts, kept elsewhere"
    )
    uncertain = (
        f"{flow['uncertain_answers']} of {flow['answers']} first answers; three policies side by"
        " side"
    )
    rows = [
        ("GRRAS", "4", "Who the readers are", people),
        (
            "GRRAS",
            "6",
            "Numbers planned and why",
            numbers + "; sample size for kappa is in notebook 06",
        ),
        ("GRRAS", "7", "Sampling of images", sampling),
        ("GRRAS", "8", "Rating process", process),
        (
            "GRRAS",
            "9",
            "Independence and blinding",
            "pages of their own; the key was opened: " + "; ".join(context["openings"]),
        ),
        ("GRRAS", "10", "Statistical analysis", "see Methods"),
        (
            "GRRAS",
            "11",
            "Actual numbers",
            (
                f"{numbers}; {flow['answers']} first answers, {flow['repeat_answers']} answers to"
                " repeats"
            ),
        ),
        ("GRRAS", "12", "Characteristics of readers and images", people),
        ("GRRAS", "13", "Estimates with uncertainty", "tables agreement.csv, intra_reader.csv"),
        ("GRRAS", "15", "Raw results", "release folder: readings and per-image table"),
        ("STARD", "9", "Sampling", sampling),
        ("STARD", "10b", "Reference standard", "origin of the image, known without error"),
        (
            "STARD",
            "12a",
            "Cut-offs fixed before",
            "labels are the cut-off; the plan was committed to before the read"
            + (
                ""
                if not context["plan_changes"]
                else ", and changed after it: " + "; ".join(context["plan_changes"])
            ),
        ),
        ("STARD", "13a", "Blinding of readers", process),
        ("STARD", "15", "Indeterminate answers", uncertain),
        ("STARD", "16", "Missing data", missing),
        ("STARD", "18", "Sample size", numbers),
        ("STARD", "19", "Flow of images and readers", "flow diagram"),
        (
            "STARD",
            "24",
            "Accuracy with intervals",
            "tables accuracy.csv, areas.csv" if design["real"] and design["generated"] else "",
        ),
        ("STARD", "28", "Registration", told.get("protocol", "")),
        ("CLAIM", "14", "Reference standard", "origin of the image, known without error"),
        ("CLAIM", "7", "Data sources", sampling),
        (
            "CLAIM",
            "41",
            "Raw results and failure analysis",
            "release folder; galleries of images that fooled readers",
        ),
        (
            "GRRAS",
            "2",
            "What is rated, on what scale",
            "the origin of a chest image: real, fake, uncertain",
        ),
        ("STARD", "26", "Limitations", "see Limits"),
        ("CLAIM", "6", "Study goal and hypothesis", told.get("question", "")),
        ("Ethics", "–", "Approval or waiver", told.get("ethics", "")),
    ]
    return _ordered([*rows, *OPEN])


def _ordered(rows: list[tuple]) -> list[dict]:
    order = {"GRRAS": 0, "STARD": 1, "CLAIM": 2, "Ethics": 3}
    rows.sort(
        key=lambda row: (order[row[0]], int("".join(c for c in row[1] if c.isdigit()) or 0), row[1])
    )
    placeholder = "enter "  # study.yaml of a new study says what to enter
    return [
        {
            "guideline": guideline,
            "item": item,
            "topic": topic,
            "status": "filled" if text and not text.startswith(placeholder) else "open",
            "text": "" if text.startswith(placeholder) else text,
        }
        for guideline, item, topic, text in rows
    ]


def policy_rows(results: dict) -> list[dict]:
    """The three policies side by side: one row a reader and measure, columns wrong and dropped; own
    category apart.
    """
    rows, silent = [], [row["reader"] for row in results["readers"] if not row["answered"]]
    for reader in [row["reader"] for row in results["readers"]]:
        if reader in silent:
            rows.append(
                {"reader": reader, "measure": "all"}
                | dict.fromkeys(("wrong", "dropped", "own"), "answered nothing")
            )
            continue
        own = {(r["policy"], r["measure"]): r for r in results["accuracy"] if r["reader"] == reader}
        for measure in ("sensitivity", "specificity", "accuracy", "dprime", "criterion"):
            rows.append(
                {"reader": reader, "measure": measure}
                | {policy: _cell(own.get((policy, measure))) for policy in ("wrong", "dropped")}
            )
        for kind in ("generated", "real"):
            for label in ("fake", "uncertain", "real"):
                rows.append(
                    {
                        "reader": reader,
                        "measure": f"{label} of {kind}",
                        "own": _cell(own.get(("own", f"{label} of {kind}"))),
                    }
                )
    return rows


def _cell(row: dict | None) -> str:
    if row is None:
        return ""
    if row["estimate"] is None:
        return row["reason"]
    if row["count"] is None:
        return f"{value(row['estimate'])} ({sentences.interval(row['low'], row['high'], 2)})"
    left = f"; {row['left_out']} left out" if row["left_out"] else ""
    return (
        f"{row['count']} of {row['total']}, {percent(row['estimate'])}"
        f" ({sentences.interval(row['low'], row['high'])}){left}"
    )
