"""Keys of paid services: where they are found, and how they are kept out of what is written or
shown.
"""

import json
import os
import re
from urllib.parse import quote

from helpers.runner import folders

# A shorter key is part of ordinary words and numbers; files are kept readable.
LONG = 8
KEY_LIKE = re.compile(r"\bsk-[\w-]{12,}|\bAIza[\w-]{30,}|(?i:(?<=bearer ))[\w.~+/=-]{8,}")
# Scheme, user and password, host and path, and the rest: a signed address is signed in its query.
ADDRESS = re.compile(r"(https?://)(?:[^\s/@\"'<>]+@)?([^\s?#\"'<>\\]+)(?:[?#][^\s\"'<>)\\]*)?")
_in_use: set[str] = set()


def find(variable: str, study: str) -> str:
    """The key in the environment variable, else in .keys/<study>/<variable>, else ''.

    From then on `clean` knows it.
    """
    kept = folders.keys_folder(study) / variable
    key = os.environ.get(variable, "").strip()
    key = key or (kept.read_text().strip() if kept.is_file() else "")
    if key:
        escaped = json.dumps(key)[1:-1]  # as an answer in JSON echoes it
        _in_use.update((key, quote(key, safe=""), escaped, escaped.replace("/", r"\/")))
    return key


def clean(text: str, least: int = 4) -> str:
    """The text without keys of at least `least` characters, without halves of characters (which no
    file can hold), and its addresses without user, password and query.
    """
    text = text.encode(errors="replace").decode()
    for key in sorted(_in_use, key=len, reverse=True):
        whole = re.escape(key) if len(key) >= LONG else rf"(?<!\w){re.escape(key)}(?!\w)"
        text = re.sub(whole, "[key]", text) if len(key) >= least else text
    return ADDRESS.sub(r"\1\2", KEY_LIKE.sub("[key]", text))


def clean_bytes(content: bytes) -> bytes:
    """`clean` for an answer that is kept as received: without long keys; from an image only these
    are removed.
    """
    if content.lstrip().startswith((b"{", b"[")):
        return clean(content.decode("latin-1"), LONG).encode("latin-1")
    for key in _in_use:
        content = content.replace(key.encode(), b"[key]") if len(key) >= LONG else content
    return content
