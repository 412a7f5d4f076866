"""The paid images on disk: the metadata and the bytes of each as received, and the copy that the
study uses.
"""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from helpers import images, tables
from helpers.files import sha256, utc_now, write_atomically
from helpers.generate_openai import provenance, shapes
from helpers.runner import runs
from helpers.runner.progress import progress
from helpers.services import secrets
from helpers.services.work import record


def on_disk(paid: Path, image_id: str) -> Path | None:
    """The image as received, if it was paid for and arrived whole."""
    kept = record(paid / f"{image_id}.json")
    image = paid / kept.get("file", "")
    return image if image.is_file() and image.stat().st_size == kept["bytes"] else None


def sidecar(service, order, request_id: str, headers: dict, answer, found: dict) -> dict:
    """Everything known about a paid image: the request as sent, what came back, content
    credentials.
    """
    return {
        "image_id": order.image_id,
        "prompt_id": order.prompt_id,
        "replicate": order.replicate,
        "ratio": order.ratio or None,
        "provider": service.parameters.provider,
        "request_id": request_id,
        "request": service.request(order),
        "service_request_id": headers.get("x-request-id") or headers.get("apim-request-id"),
        "service_headers": {
            key: value
            for key, value in headers.items()
            if key.startswith("openai-") and key != "openai-organization"
        },
        "received_utc": utc_now(),
        "effective": answer.effective,
        "usage": answer.usage,
        "price": service.price.source,
        "file": f"{order.image_id}.{provenance.SUFFIXES[found['format']]}",
        **found,
    }


def write_paid(paid: Path, about: dict, content: bytes) -> None:
    """Write the record first, then the bytes. So an image on disk always has its record, and a
    record without an image was billed and lost.
    """
    text = secrets.clean(json.dumps(about, indent=1, sort_keys=True), secrets.LONG) + "\n"
    write_atomically(paid / f"{about['image_id']}.json", text.encode())
    write_atomically(paid / about["file"], content)


def study_copies(run: runs.Run, orders: list) -> pd.DataFrame:
    """Write images/<image_id>.png for every paid image: one channel, 8 bits, at most `image_size`
    pixels, free of all metadata.

    Returns the rows of images.csv. Existing copies are kept.
    """
    rows = []
    for order in progress(orders, "study copies"):
        received = on_disk(run.folder / "paid", order.image_id)
        if received is None:
            continue
        relative = f"images/{order.image_id}.png"
        path = run.file(relative)
        if not path.exists():
            copy = shapes.exact(grey(received), order.ratio, run.parameters.image_size)
            run.write_bytes(relative, images.write_png(copy))
        height, width = images.read_png(path).shape
        kept = record(run.folder / "paid" / f"{order.image_id}.json")
        names = ("image_id", "modality", "view", "finding", "side", "caption", "prompt_id")
        rows.append(
            {
                **{name: getattr(order, name) or pd.NA for name in names},
                "path": relative,
                "sha256": sha256(path),
                "width": width,
                "height": height,
                "bits": 8,
                "origin": "generated",
                "generator": kept["request"]["model"],
                "simulated": run.parameters.provider == "rehearsal",
                "licence": run.parameters.licence or pd.NA,
            }
        )
    return tables.check(pd.DataFrame(rows), "images") if rows else tables.empty("images")


def finish(run: runs.Run, made: pd.DataFrame, ledger) -> None:
    """Finish the run. Raises RunError for a stage without a single image."""
    refused = [row for row in ledger.rows.values() if row["status"] == "refused"]
    if made.empty:
        said = f"the service refused all of them, as in: {refused[0]['error']}" if refused else ""
        raise runs.RunError(
            f"{run.name} has no image and is not finished:"
            f" {said or 'its prompt table asks for none'}. Change the prompts in"
            f" {run.parameters.prompt_table}."
        )
    run.finish(images=len(made), refused=len(refused), cost_usd=round(ledger.spent_usd, 6))


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
