"""The companion page: a folder of static files for any web server, which also opens without one."""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers import images
from helpers.runner import runs
from helpers.table_columns import LABELS

STATIC = Path(__file__).parent / "static"
PREVIEW = "http://127.0.0.1:8010/"  # where `make poster DO=preview` serves it on this machine
# Maximum pixels and bytes per image: 40 images, the frames and the rest stay below 6 MB.
SIDE, LARGEST = 768, 84_000
MOMENT = r"(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)"
CUE = re.compile(rf"{MOMENT} +--> +{MOMENT}[^\n]*\n(.+?)(?:\n\s*\n|\Z)", re.DOTALL)


def address(run: runs.Run) -> str:
    """The address of the page, or of the preview if none is given.

    Raises RunError for an address that a phone cannot open.
    """
    given = run.parameters.address or PREVIEW
    # A longer one would be a code too fine for a camera.
    if not re.fullmatch(r"https?://[^\s/]+\S*", given) or len(given) > 300:
        raise runs.RunError(
            f"{run.name}: address is {given!r}; give the whole address of the companion page, of"
            " at most 300 characters, for example https://example.org/lungs/."
        )
    return given if given.endswith(("/", ".html")) else f"{given}/"


def next_step(run: runs.Run) -> str:
    """What to do with the files of the page, as the end of a sentence."""
    if run.parameters.address:
        return f"copy them to {address(run)}"
    return "copy them to a web server and redo this run with its address (parameter address)"


def webp(grey: np.ndarray) -> bytes:
    """A grey image, (H, W) uint8, as WebP of at most SIDE pixels and LARGEST bytes."""
    picture = Image.fromarray(grey)
    picture.thumbnail((SIDE, SIDE))
    while True:
        for quality in (86, 60, 30):
            packed = io.BytesIO()
            picture.save(packed, "WEBP", quality=quality, method=4)
            if packed.tell() <= LARGEST:
                return packed.getvalue()
        picture = picture.reduce(2)


def quiz(shown: pd.DataFrame, bits: int, most: int, seed: int) -> tuple[list[dict], dict]:
    """The images of the quiz in a random order, one record per image, and their files by name."""
    rows, files = [], {}
    for number, image in enumerate(
        shown.sample(frac=1, random_state=seed).head(most).to_dict("records"), 1
    ):
        name = f"images/{number:02d}.webp"
        files[name] = webp(images.eight_bits(images.read_png(image["file"]), bits))
        source = [image["generator"] if pd.notna(image["generator"]) else image["credit"]]
        rows.append(
            {"id": image["image_id"], "file": name, "truth": image["origin"]}
            | {"modality": image["modality"], "votes": votes(image)}
            | {"source": " · ".join(part for part in [*source, image["licence"]] if part)}
        )
    return rows, files


def votes(image: dict) -> dict[str, int]:
    """The numbers of readers who called an image real, fake and uncertain."""
    return {label: int(image[f"votes_{label}"]) for label in LABELS}


def cues(path: Path) -> list[dict]:
    """The captions of a WebVTT file: start and end in seconds, text.

    Raises RunError when there are none.
    """
    found = []
    for match in CUE.finditer(path.read_text(encoding="utf-8-sig").replace("\r\n", "\n")):
        hours, minutes, seconds = zip(match.group(1, 2, 3), match.group(4, 5, 6))
        start, end = (
            3600 * int(h or 0) + 60 * int(m) + float(s) for h, m, s in zip(hours, minutes, seconds)
        )
        text = re.sub(r"<[^>]*>", "", " ".join(match[7].split()))
        found.append({"start": start, "end": end, "text": text})
    if not found:
        raise runs.RunError(f"{path} has no captions: WebVTT has lines like 00:00 --> 00:04.")
    return found


def explanation(run: runs.Run, sentences: list[str]) -> tuple[dict, dict[str, Path]]:
    """The spoken text, and the audio file by name if the study has one.

    Captions come from the WebVTT file with the audio file's name. Without it, each sentence gets a
    share of the time in proportion to its length.
    """
    spoken = {"audio": "", "cues": [{"text": text} for text in sentences]}
    if not run.parameters.audio:
        return spoken, {}
    audio = run.beside(run.parameters.audio)
    captions = audio.with_suffix(".vtt")
    spoken["audio"] = f"explanation{audio.suffix}"
    if captions.is_file():
        spoken["cues"] = cues(captions)
    return spoken, {spoken["audio"]: audio}


def write(run: runs.Run, page: dict, files: dict[str, bytes | Path]) -> list[str]:
    """Write companion/ of a run: the page's own files, `files`, and data.js with `page` (see
    static/companion.js); returns their names.
    """
    own = {path.name: path for path in sorted(STATIC.iterdir())}
    content = {
        name: part if isinstance(part, bytes) else part.read_bytes()
        for name, part in {**own, **files}.items()
    }
    version = hashlib.sha256(b"".join(content.values()) + json.dumps(page).encode())
    page |= {"files": ["data.js", *content], "version": version.hexdigest()[:12]}
    content["data.js"] = f"self.COMPANION = {json.dumps(page)};\n".encode()
    for name, part in content.items():
        run.write_bytes(f"companion/{name}", part)
    return sorted(content)


def crop(poster: Path, place: dict) -> bytes:
    """The key figure, cut from poster.png for the page; `place` as in poster.json."""
    with Image.open(poster) as picture:
        left, top = place["left"] * picture.width, place["top"] * picture.height
        box = (
            left,
            top,
            left + place["width"] * picture.width,
            top + place["height"] * picture.height,
        )
        figure = picture.convert("RGB").crop(tuple(round(edge) for edge in box))
    figure.thumbnail((1200, 1200))
    packed = io.BytesIO()
    figure.save(packed, "WEBP", quality=80)
    return packed.getvalue()
