"""The paid images on disk: what came with each, its bytes as received, and the copy that the study
uses.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers import images, tables
from helpers.generate_openai import provenance
from helpers.runner import runs


def on_disk(paid: Path, image_id: str) -> Path | None:
    """The image as received, if it was paid for and arrived whole."""
    sidecar = paid / f"{image_id}.json"
    if not sidecar.is_file():
        return None
    record = json.loads(sidecar.read_text())
    image = paid / record["file"]
    return image if image.is_file() and image.stat().st_size == record["bytes"] else None


def sidecar(asked, order, request_id: str, body: dict, headers: dict, answer, found: dict) -> dict:
    """Everything known about a paid image: the request as sent, what came back, content
    credentials.
    """
    return {
        "image_id": order.image_id,
        "prompt_id": order.prompt_id,
        "replicate": order.replicate,
        "provider": asked.provider,
        "request_id": request_id,
        "request": body,
        "service_request_id": headers.get("x-request-id") or headers.get("apim-request-id"),
        "service_headers": {
            key: value
            for key, value in headers.items()
            if key.startswith("openai-") and key != "openai-organization"
        },
        "received_utc": runs.utc_now(),
        "effective": answer.effective,
        "usage": answer.usage,
        "price": asked.price.source,
        "file": f"{order.image_id}.{provenance.SUFFIXES[found['format']]}",
        **found,
    }


def write_paid(paid: Path, image_id: str, record: dict, content: bytes) -> None:
    """The record first, then the bytes: an image on disk always has its record, a record without
    image was billed and lost.
    """
    tables.write_atomically(
        paid / f"{image_id}.json", (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
    )
    tables.write_atomically(paid / record["file"], content)


def study_copies(
    run: runs.Run, orders: list, size: int, licence: str = "", simulated: bool = False
) -> pd.DataFrame:
    """Write images/<image_id>.png for every paid image: one channel, 8 bits, at most `size` pixels,
    free of all metadata.

    Returns the rows of images.csv. Copies that are there are kept.
    """
    rows = []
    for order in runs.progress(orders, "study copies"):
        received = on_disk(run.folder / "paid", order.image_id)
        if received is None:
            continue
        path = run.file(f"images/{order.image_id}.png")
        if not path.exists():
            run.write_bytes(
                f"images/{order.image_id}.png",
                images.write_png(images.fitted(grey(received), size, 8)),
            )
        height, width = images.read_png(path).shape
        record = json.loads((run.folder / "paid" / f"{order.image_id}.json").read_text())
        asked = {
            name: getattr(order, name) or pd.NA
            for name in ("image_id", "modality", "view", "finding", "side", "caption", "prompt_id")
        }
        file = {
            "path": f"images/{order.image_id}.png",
            "sha256": runs.sha256(path),
            "width": width,
            "height": height,
            "bits": 8,
        }
        rows.append(
            {
                **asked,
                **file,
                "origin": "generated",
                "generator": record["request"]["model"],
                "simulated": simulated,
                "licence": licence or pd.NA,
            }
        )
    return tables.check(pd.DataFrame(rows), "images") if rows else tables.empty("images")


def grey(path: Path) -> np.ndarray:
    """The image as (H, W) uint8 luma; transparent parts are black, 16-bit greys are scaled, not cut
    off.
    """
    with Image.open(io.BytesIO(Path(path).read_bytes())) as picture:
        if picture.mode.startswith("I"):
            return (np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            rgba = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
        return np.asarray(picture.convert("L"))
