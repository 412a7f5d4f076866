"""What the licence of an image allows. This is the only rule for what leaves this machine (model
readers), what visitors see (companion page) and what is published (release). 06 writes the result
per source.

An image may be used in these ways if its licence is open without restriction, or says so itself:
"hospital data; may leave (protocol 7.2)". "may not leave" always forbids it.
"""

import re

import pandas as pd

# Licences under which an image may be passed on and resized, even if visitors pay.
OPEN = re.compile(
    r"CC0\b|(CC|CREATIVE COMMONS)[ -](BY|ATTRIBUTION)\b|PDDL\b|ODC-BY\b|MIT\b|PUBLIC[ -]DOMAIN\b"
    r"|HTTPS?://CREATIVECOMMONS\.ORG/(LICENSES/BY|PUBLICDOMAIN)\b"
)
CLOSED = re.compile(r"\bN[CD]\b|NON-?COMMERCIAL|NO-?DERIV")
USES = {"leave": "LEAVE", "shown": "BE SHOWN", "released": "BE RELEASED"}


def may(use: str, licence, origin: str = "real") -> bool:
    """Whether an image of this licence (text, or missing) may `leave` this machine, be `shown` to
    visitors or be `released`. Real images are never released. Images generated for the study may be
    used in each way unless their licence says otherwise.
    """
    said = "" if pd.isna(licence) else licence.upper()
    stated = re.search(rf"\bMAY (NOT )?{USES[use]}\b", said)
    if origin != "generated" and use == "released":
        return False
    if stated:
        return not stated[1]
    return origin == "generated" or (bool(OPEN.match(said)) and not CLOSED.search(said))


def sources(images: pd.DataFrame) -> pd.DataFrame:
    """sources.csv: one row per run, origin and licence of `images`, with what is allowed."""
    rows = images[["run", "origin", "licence"]].drop_duplicates().sort_values(["run", "origin"])
    uses = {"leave": "may_leave", "shown": "may_be_shown", "released": "may_be_released"}
    for use, column in uses.items():
        rows[column] = [
            may(use, licence, origin) for licence, origin in zip(rows["licence"], rows["origin"])
        ]
    return rows.reset_index(drop=True)
