"""The answers of the simulated image service: models, errors, images with usage, in the published
schemas.
"""

import base64
import io
import re
import struct
import time
import uuid

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from helpers import findings

TODAY = {
    "gpt-image-2": None,
    "gpt-image-2-2026-04-21": None,
    "gpt-image-2.5-flare-2026-09-08": None,
    "gpt-image-2.5-sunburst-2026-09-08": None,
    "gpt-image-2.6-flare": None,
    "gpt-image-1.5": "2026-12-01",
    "gpt-image-1-mini": "2026-12-01",
}
TOKENS = {"low": 196, "medium": 1756, "high": 7024}  # of a square of 1024 px
INVALID = "invalid_request_error"
MODERATION = (
    400,
    "Your request was rejected by the safety system.",
    "image_generation_user_error",
    "moderation_blocked",
)
# Too high, like a real generator's. With 1.12, so much of a CT would be clipped to white that
# evening out the grey levels brings out its noise (AUC of its spectrum 0.82; with 1.06 about 0.7).
CONTRAST = 1.06
NEAREST = {
    "pneumonia": "consolidation",
    "opacity": "consolidation",
    "mass": "nodule",
    "covid19": "infiltrates",
    "edema": "infiltrates",
}


def error(
    status: int, message: str, kind: str, code: str | None, param: str | None = None
) -> tuple[int, dict]:
    """An error in the words of the service."""
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}


def models() -> list[dict]:
    """GET /v1/models."""
    about = {"object": "model", "created": 1_776_729_600, "owned_by": "rehearsal"}
    return [{"id": name, **about, "shutdown_date": end} for name, end in TODAY.items()]


def generation(request: dict) -> tuple[int, dict]:
    """POST /v1/images/generations: images with usage, or the error for a request that the service
    would refuse.
    """
    prompt = request.get("prompt", "")
    if wrong := _refusal(request, prompt):
        return wrong
    size = "1024x1024" if request.get("size", "auto") == "auto" else request["size"]
    quality = "medium" if request.get("quality", "auto") == "auto" else request["quality"]
    width, height = (int(edge) for edge in size.split("x"))
    seeds = [request.get("seed", uuid.uuid4().int % 10**9) for _ in range(request.get("n") or 1)]
    pictures = [draw(prompt, width, height, seed) for seed in seeds]
    written = max(1, len(prompt) // 4)
    made = round(TOKENS.get(quality, 7024) * width * height / 1024**2) * len(pictures)
    usage = {"input_tokens": written, "output_tokens": made, "total_tokens": written + made}
    usage["input_tokens_details"] = {"text_tokens": written, "image_tokens": 0}
    return 200, {
        "created": int(time.time()),
        "data": [{"b64_json": base64.b64encode(picture).decode()} for picture in pictures],
        "size": size,
        "quality": quality,
        "background": "opaque",
        "output_format": "png",
        "usage": usage,
    }


def _refusal(request, prompt):
    """The error for a request that the service would reject, or None."""
    wrong = (
        (request.get("model") not in TODAY, 404, "model_not_found", "model"),
        ("response_format" in request, 400, "unknown_parameter", "response_format"),
        (not 0 < len(prompt) <= 32_000, 400, "string_above_max_length", "prompt"),
        (not _fits(request.get("size", "auto")), 400, "invalid_value", "size"),
    )
    for refused, status, code, name in wrong:
        if refused:
            said = f"{code.replace('_', ' ').capitalize()}: '{name}'."
            return error(status, said, INVALID, code, name)
    return error(*MODERATION) if re.search(r"\b(gore|blood|nude)\b", prompt.lower()) else None


def _fits(size):
    """Whether today's models make images of this size."""
    edges = re.fullmatch(r"(\d+)x(\d+)", size)
    width, height = map(int, edges.groups()) if edges else (0, 1)
    return size == "auto" or (
        width % 16 == height % 16 == 0
        and max(width, height) <= 3840
        and width * height >= 655_360
        and 1 / 3 <= width / height <= 3
    )


def draw(prompt: str, width: int, height: int, seed: int) -> bytes:
    """The image a prompt asks for, as a PNG with content credentials."""
    found = [NEAREST.get(name, name) for name in findings.in_text(prompt)] or ["no_finding"]
    side = findings.side_in_text(prompt)
    finding = "infiltrates" if side == "bilateral" and found[0] != "effusion" else found[0]
    modality = "ct" if re.search(r"\bct\b|tomogra", prompt.lower()) else "xray"
    return painted(_imagined(modality, finding, side, seed), width, height)


def painted(grey: np.ndarray, width: int, height: int) -> bytes:
    """Grey pixels (uint8) as a PNG of this size with content credentials."""
    picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)
    # A service paints in colour, so the channels differ a little.
    coloured = Image.merge(
        "RGB", [picture, picture, picture.point(lambda value: min(255, value + 2))]
    )
    buffer = io.BytesIO()
    coloured.save(buffer, "PNG", compress_level=1, pnginfo=credentials())
    return buffer.getvalue()


def _imagined(modality, finding, side, seed):
    """A phantom as a generator would paint it: no detector noise, edges too soft, contrast too
    high.
    """
    from helpers.rehearsal import anatomy, phantom_ct, phantom_xray

    size = 288
    finding = finding if finding in anatomy.FINDINGS else "no_finding"
    if modality == "xray":
        grey = phantom_xray.xray(seed % 2**31, finding, side, size).astype(np.float32) / 4095
    else:
        hounsfield = phantom_ct.ct_slice(seed % 2**31, finding, side, size)
        grey = np.clip((hounsfield + 1350.0) / 1500, 0, 1)
    grey = np.clip(0.5 + CONTRAST * (grey - 0.5), 0, 1)
    picture = Image.fromarray((255 * grey).astype(np.uint8))
    return np.asarray(picture.resize((size // 2, size // 2), Image.Resampling.BOX))


def credentials() -> PngInfo:
    """A PNG's caBX chunk with a JUMBF box, where C2PA puts content credentials. The claim is
    simulated and not signed.
    """
    kind = bytes.fromhex("63327061 0011 0010 8000 00AA00389B71")
    description = _box(b"jumd", kind + b"\x03c2pa\x00")
    claim = _box(
        b"json",
        b'{"claim_generator": "rehearsal image API", "digital_source_type":'
        b' "trainedAlgorithmicMedia"}',
    )
    chunk = PngInfo()
    chunk.add(b"caBX", _box(b"jumb", description + claim))
    return chunk


def _box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content
