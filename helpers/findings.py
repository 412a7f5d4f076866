"""The only list of findings and sides, and the only conversion from words to findings and back.

Labels of data sets, report text, training captions, API prompts, sampling prompts and the boxes a
reader ticks all use these ids.
"""

import re
import unicodedata

FINDINGS: dict[str, str] = {
    "no_finding": "No finding",
    "effusion": "Pleural effusion",
    "consolidation": "Consolidation",
    "infiltrates": "Infiltrates",
    "nodule": "Nodule",
    "pneumothorax": "Pneumothorax",
    "cardiomegaly": "Cardiomegaly",
    "atelectasis": "Atelectasis",
    "edema": "Pulmonary edema",
    "emphysema": "Emphysema",
    "fibrosis": "Fibrosis",
    "mass": "Mass",
    "pleural_thickening": "Pleural thickening",
    "hernia": "Hiatal hernia",
    "opacity": "Opacity",
    "pneumonia": "Pneumonia",
    "covid19": "COVID-19",
    "tuberculosis": "Tuberculosis",
    "fracture": "Fracture",
    "devices": "Support devices",
    "other": "Other finding",
}
SIDES = ("left", "right", "bilateral")
WORDINGS = ("caption", "sentence", "detailed")
UNSIDED = (
    "no_finding",
    "cardiomegaly",
    "covid19",
    "tuberculosis",
    "edema",
    "emphysema",
    "hernia",
    "devices",
    "other",
)

# For captions: the noun phrase after "with".
_PHRASES = {
    "no_finding": "no finding",
    "effusion": "pleural effusion",
    "consolidation": "consolidation",
    "infiltrates": "infiltrates",
    "nodule": "lung nodule",
    "pneumothorax": "pneumothorax",
    "cardiomegaly": "cardiomegaly",
    "atelectasis": "atelectasis",
    "edema": "pulmonary edema",
    "emphysema": "emphysema",
    "fibrosis": "pulmonary fibrosis",
    "mass": "lung mass",
    "pleural_thickening": "pleural thickening",
    "hernia": "hiatal hernia",
    "opacity": "lung opacity",
    "pneumonia": "pneumonia",
    "covid19": "COVID-19",
    "tuberculosis": "tuberculosis",
    "fracture": "rib fracture",
    "devices": "support devices",
    "other": "another finding",
}
_VIEWS = {"PA": "PA view", "AP": "AP view", "LL": "lateral view"}
_LONG_VIEWS = {"PA": "A posteroanterior", "AP": "An anteroposterior", "LL": "A lateral"}

# Names that data sets give whole labels. An ambiguous name is mapped to what is certainly true
# (a CheXpert "lung lesion" may be a nodule or a mass; either is an opacity).
_LABELS = {
    "normal": ["no_finding"],
    "healthy": ["no_finding"],
    "negative": ["no_finding"],
    "none": ["no_finding"],
    "lung lesion": ["opacity"],
    "lung opacity": ["opacity"],
    "no lung opacity not normal": ["other"],
    "enlarged cardiomediastinum": ["other"],
    "pleural other": ["other"],
    "other": ["other"],
    "nofinding": ["no_finding"],
}

# Words in free text, matched as regular expressions at word starts after folding to plain lower
# case.
_WORDS = {
    "no_finding": r"no (?:\w+ ){0,3}(?:findings?|abnormalit\w+|patholog\w+|disease)\b",
    "effusion": (
        r"effusions?\b|pleural fluid|hydro(?:pneumo)?thora\w+|h(?:a)?emothora\w+|blunt(?:ed|ing)"
    ),
    "consolidation": r"consolidat\w+|airspace disease",
    "infiltrates": r"infiltrat\w+",
    "nodule": r"(?:micro)?nodul\w+|coin lesion",
    "pneumothorax": r"(?:hydro)?pneumothora\w+|ptx\b",
    "cardiomegaly": (
        r"cardiomegaly|(?:enlarged|large|big|dilated) (?:heart|cardiac)|cardiac enlargement"
        r"|(?:heart|cardiac silhouette|cardiac size|heart size)(?: \w+){0,2} enlarged|increased"
        r" (?:heart|cardiac)"
    ),
    "atelectasis": r"(?:atelecta\w+|collapse[ds]?)\b",
    "edema": r"o?edema|congesti(?:on|ve)\b|fluid overload",
    "emphysema": r"emphysem\w+|hyperinflat\w+|copd\b|bullae?\b|bullous",
    "fibrosis": r"fibros\w+|fibrotic|scar(?:s|ring)?\b|honeycomb\w*|interstitial lung disease",
    "mass": r"mass(?:es)?\b|tumou?rs?\b",
    "pleural_thickening": r"pleural(?: or| and)? thickening|thickened pleura|pleural plaques?",
    "hernia": r"hernia\w*",
    "opacity": r"opaci\w+|shadow(?:ing|s)?\b|ground ?glass|ggos?\b|lesions?\b",
    "pneumonia": r"(?:broncho)?pneumon(?:ia|ic)\w*",
    "covid19": r"covid\w*|sars cov ?2|corona ?virus",
    "tuberculosis": r"tubercul\w+|tb\b",
    "fracture": r"fractur\w+",
    "devices": (
        r"support devices?|devices?\b|pacemakers?|tubes?\b|catheters?|central (?:venous"
        r" )?line|port\b|picc\b|drains?\b|sternal wires?|electrodes?"
    ),
}
_NEGATION = re.compile(
    r"\b(?:non(?= $)|no|not|without|absent|absence of|free of|negative for|denies|neither|nor"
    r"|rule[sd]? out|exclud\w+|resolved|never)\b"
)
_NEGATED_AFTER = re.compile(
    r"^[\w ]{0,40}?\b(?:(?:is|are|was|were) )?(?:absent|excluded|ruled out|not"
    r" (?:seen|present|identified|visible)|resolved)\b"
    r"|^[ \d]*(?:(?:is|was|test|tested) )?neg(?:ative)?\b"
)
# "Effusion: none." denies; "lungs: no effusion" begins a new clause.
_ANSWERED = re.compile(
    r"[:=] *(?:no|none|nil|absent|negative|not (?:seen|present))(?= *(?:[.;,|\n]|$))"
)
_NOT_A_NEGATION = re.compile(
    r"\b(?:no change|not excluded|not ruled out|cannot be (?:excluded|ruled out)|can not be"
    r" (?:excluded|ruled out)|no longer)\b"
)
_CLAUSE = re.compile(
    r"[.;:!?\n]|\bbut\b|\bhowever\b|\balthough\b|\bexcept\b|\bapart from\b|\bwith (?!no )"
)
_HEALTHY = re.compile(r"\b(?:normal|unremarkable|healthy|clear)\b")
_HEALTHY_PART = re.compile(
    r"\b(?:normal|unremarkable|clear) (?:\w+ ){0,2}?"
    r"(?:heart|cardiac|mediastin\w*|size|silhouette|bones?|bony|hil\w+|contours?|left|right)\b"
    r"|\b(?:heart|cardiac|mediastin\w*|size|silhouette|bones?|bony|hil\w+|contours?|left \w+|right"
    r" \w+)(?: \w+){0,3} (?:normal|unremarkable|clear)\b"
    r"|\b(?:not|ab) ?normal\b"
)


def _plain(text) -> str:
    """Lower case, no accents, punctuation other than clause ends as spaces."""
    folded = unicodedata.normalize("NFKD", str(text)).encode("ascii", "ignore").decode()
    folded = re.sub(r"(?<=[a-z])(?=[A-Z])|[_/\\\-]+", " ", folded)  # also "ViralPneumonia"
    return re.sub(r" +", " ", folded).lower().strip()


def _ordered(found) -> list[str]:
    kept = [finding for finding in FINDINGS if finding in set(found)]
    return [finding for finding in kept if finding != "no_finding"] or kept


def from_label(text) -> list[str]:
    """Finding ids of a data set's label, in declared order: 'Effusion|Pneumonia', 'COVID', 'No
    Finding', 'Lung_Opacity'.

    Several labels may be joined by | , ; or +. Empty and unknown labels give an empty list.
    """
    if text is None or text != text or str(text).strip().lower() in ("", "nan", "<na>"):
        return []
    found: list[str] = []
    for label in re.split(r"[|,;+]", str(text)):
        plain = re.sub(r"[^a-z0-9 ]", " ", _plain(label)).strip()
        identity = plain.replace(" ", "_")
        found += [identity] if identity in FINDINGS else _LABELS.get(plain) or in_text(label)
    return _ordered(found)


def in_text(text: str) -> list[str]:
    """Finding ids that free text affirms, in declared order. Denied findings are left out ("no
    effusion" gives nothing).

    A denial holds to the end of its clause, as in NegEx (Chapman et al., J Biomed Inform 2001). A
    text that affirms nothing and calls the lungs or the image normal gives ['no_finding'].
    """
    plain = _ANSWERED.sub(" absent", _plain(text))
    clauses = _CLAUSE.split(_NOT_A_NEGATION.sub(" ", plain))
    found = [finding for clause in clauses for finding in _WORDS if _affirms(clause, finding)]
    if found:
        return _ordered(found)
    healthy = _HEALTHY.search(_HEALTHY_PART.sub(" ", plain)) and not re.search(
        r"\b(?:not|ab)\s?normal", plain
    )
    return ["no_finding"] if healthy else []


def _affirms(clause: str, finding: str) -> bool:
    return any(
        finding == "no_finding"
        or not (_denied(clause[: match.start()]) or _NEGATED_AFTER.match(clause[match.end() :]))
        for match in re.finditer(rf"\b(?:{_WORDS[finding]})", clause)
    )


def _denied(before: str) -> bool:
    """Whether a denial before a finding still applies to it: a comma followed by an affirmation
    ends it.
    """
    denials = list(_NEGATION.finditer(before))
    if not denials:
        return False
    parts = before[denials[-1].end() :].split(",")
    affirmed = re.compile(
        r"\b(?:there (?:is|are)|shows?|showing|seen|has|small|large|mild|moderate|severe"
        r"|left|right|bilateral)\b"
    )
    return not any(
        affirmed.search(part) and not re.search(r"\b(?:or|nor|and)\b", part) for part in parts[1:]
    )


def side_in_text(text: str) -> str:
    """The patient's side that free text affirms: left, right, bilateral, or '' when it names
    none.
    """
    sides = set()
    for clause in re.split(
        r"[.;:,!?\n]|\bbut\b|\bhowever\b|\bwhile\b", _NOT_A_NEGATION.sub(" ", _plain(text))
    ):
        if _HEALTHY.search(clause):
            continue
        for match in re.finditer(
            r"\b(?:bilateral\w*|both|biapical|bibasal|bibasilar|(?:left|right)\b(?!"
            r" ?(?:ventric|atri|heart)))",
            clause,
        ):
            if not (
                _NEGATION.search(clause[: match.start()])
                or _NEGATED_AFTER.match(clause[match.end() :])
            ):
                sides.update((match[0],) if match[0] in ("left", "right") else ("left", "right"))
    return "bilateral" if len(sides) == 2 else next(iter(sides), "")


def _check(finding_ids: list[str], side: str) -> list[str]:
    unknown = [finding for finding in finding_ids if finding not in FINDINGS]
    if unknown:
        raise ValueError(f"Unknown finding '{unknown[0]}'; known are {', '.join(FINDINGS)}.")
    if side and side not in SIDES:
        raise ValueError(f"Unknown side '{side}'; known are {', '.join(SIDES)}.")
    return _ordered(finding_ids)


def _listed(finding_ids: list[str], side: str) -> str:
    phrases = [
        f"{side} {_PHRASES[one]}" if side and one not in UNSIDED else _PHRASES[one]
        for one in finding_ids
    ]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def caption(modality: str, view: str, finding_ids: list[str], side: str = "") -> str:
    """The training caption and sampling prompt: 'chest X-ray, PA view, with left pleural effusion'.

    With no finding ids (unknown), the caption names no finding. Raises ValueError for an unknown
    id, side or modality.
    """
    finding_ids = _check(finding_ids, side)
    if modality not in ("xray", "ct"):
        raise ValueError(f"Unknown modality '{modality}'; known are xray, ct.")
    parts = ["axial chest CT, lung window"] if modality == "ct" else ["chest X-ray"]
    if modality == "xray" and view in _VIEWS:
        parts.append(_VIEWS[view])
    if finding_ids:
        parts.append("with " + _listed(finding_ids, side))
    return ", ".join(parts)


def prompt(
    modality: str, view: str, finding_ids: list[str], side: str = "", wording: str = "caption"
) -> str:
    """The prompt for an image API.

    Wordings: caption (as in training), sentence, detailed. Raises ValueError.
    """
    if wording not in WORDINGS:
        raise ValueError(f"Unknown wording '{wording}'; known are {', '.join(WORDINGS)}.")
    short = caption(modality, view, finding_ids, side)
    if wording == "caption":
        return short
    finding_ids = _check(finding_ids, side)
    what = (
        "An axial CT slice of the chest in lung window"
        if modality == "ct"
        else f"{_LONG_VIEWS.get(view, 'A frontal')} chest X-ray"
    )
    text = (
        f"{what} of an adult patient"
        + (f" with {_listed(finding_ids, side)}" if finding_ids else "")
        + "."
    )
    if wording == "detailed":
        text += (
            " Real clinical radiograph in greyscale, filling the frame, without text, arrows or"
            " markers."
        )
        text = text.replace("radiograph", "CT image") if modality == "ct" else text
    return text
