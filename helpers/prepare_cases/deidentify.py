"""All that leaves stage 01 about a person: keyed pseudonyms, an age band and a sex."""

import hashlib
import hmac
import re
import unicodedata


def pseudonym(secret: bytes, kind: str, value: str, length: int = 16) -> str:
    """Keyed hash (HMAC-SHA256, hex) of a patient id, a path or a series. Equal texts of different
    `kind` get different pseudonyms.
    """
    return hmac.new(
        secret, f"{kind}\0{value}".encode("utf-8", "surrogateescape"), hashlib.sha256
    ).hexdigest()[:length]


# Placeholders that anonymisers and forms write in place of an id.
PLACEHOLDERS = {
    "",
    "anonymous",
    "anonymized",
    "anonymised",
    "anon",
    "deidentified",
    "removed",
    "unknown",
    "unbekannt",
    "none",
    "null",
    "nan",
    "na",
    "noid",
    "noname",
    "redacted",
    "anonymisiert",
    "anonyme",
    "missing",
    "xxx",
    "xxxx",
}


def person(identity) -> str:
    """A patient id in one normal form, so that a person has the same id everywhere; '' for
    placeholders.

    Case, spaces, Unicode forms, leading zeros and a spreadsheet's '.0' are ignored. Treating two
    persons as one costs little in a split; treating one person as two spoils it.
    """
    text = unicodedata.normalize("NFKC", str(identity).casefold())
    text = " ".join(text.strip(" ^\0").split())
    text = re.sub(r"\.0+$", "", re.sub(r"(?:^|(?<= ))0+(?=\d)", "", text))
    return "" if re.sub(r"[^\w]|_", "", text) in PLACEHOLDERS else text


def age_band(age) -> str:
    """The decade of an age: '50-59'; all above 89 are '90+' (HIPAA safe harbour), an open band such
    as '50+' stays as it is; '' when unknown or impossible.

    Reads 56, '56', '56.0', '56Y', DICOM's '056Y', '018M', '003W', '010D', '90+' and ranges such as
    '50-59' (their middle).
    """
    text = str(age).strip().upper().replace(",", ".").replace("–", "-")
    if match := re.fullmatch(r"(?:[>≥]=? ?(\d+)|(\d+) ?\+)(?: ?Y(?:(?:EA)?RS?)?)?", text):
        return f"{min(int(match[1] or match[2]), 90)}+"
    match = re.fullmatch(
        r"(?:>|>=|<)?\s*(\d+(?:\.\d+)?)(?:\s*(?:-|TO)\s*(\d+(?:\.\d+)?))?"
        r"\s*\+?\s*([YMWD])?(?:RS?|EARS?|O|ONTHS?|EEKS?|AYS?)?(?:JAHRE?|ANS)?",
        text,
    )
    if not match:
        return ""
    years = float(match[1]) if not match[2] else (float(match[1]) + float(match[2])) / 2
    years /= {"M": 12, "W": 52.18, "D": 365.25}.get(match[3] or "", 1)
    if years > 120:
        return ""
    return "90+" if years >= 90 else f"{int(years // 10) * 10}-{int(years // 10) * 10 + 9}"


def sex(value) -> str:
    """F or M; '' for anything else."""
    known = {
        "F": ("f", "female", "w", "woman", "weiblich", "frau", "femme"),
        "M": ("m", "male", "man", "männlich", "mann", "homme"),
    }
    said = unicodedata.normalize("NFC", str(value).strip().lower())
    return next((sex for sex, words in known.items() if said in words), "")


VIEWS = {
    "LL": {"ll", "rl", "lateral", "lat", "l", "llat", "rlat", "ld"},
    "AP": {"ap", "anteroposterior", "antero"},
    "PA": {"pa", "posteroanterior", "postero"},
}


def view(value, modality: str) -> str:
    """PA, AP, LL or axial; '' when unknown."""
    if modality == "ct":
        return "axial"
    words = set(re.findall("[a-z]+", str(value).lower().replace(".", "")))
    return next((name for name, said in VIEWS.items() if words & said), "")
