"""The answers of the simulated image service: models, errors, images with usage, in the published
schemas.
"""

import base64
import functools
import io
import re
import struct
import time
import uuid
import zlib

import numpy as np
from PIL import Image

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
RETIRED = ("gpt-image-1",)
# Retired by the provider; kept here for servers that still offer it.
DALLE = ("dall-e-2", "dall-e-3")
DEPLOYED = "gpt-image-2-2026-04-21"
TOKENS = {"low": 196, "medium": 1756, "high": 7024}  # of a square of 1024 px
USD_PER_TOKEN = {"input": 5e-6, "output": 30e-6}
INVALID = "invalid_request_error"
# Too high, as a generator's is; but with 1.12 so much of a CT is clipped to white that evening out
# the grey levels brings out its noise (AUC of its spectrum .82; with 1.06 about .7).
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


LIMIT = (429, "Rate limit reached for images per minute.", "requests", "rate_limit_exceeded")
FAILURES = {
    "throttle": LIMIT,
    "throttle_silent": LIMIT,
    "quota": (
        429,
        "You exceeded your current quota.",
        "insufficient_quota",
        "credit_balance_exhausted",
    ),
    "unauthorised": (401, "Incorrect API key provided.", INVALID, "invalid_api_key"),
    "forbidden": (403, "Your organization must be verified to use this model.", INVALID, None),
    "server_error": (500, "The server had an error.", "server_error", None),
    "moderation": (
        400,
        "Your request was rejected by the safety system.",
        "image_generation_user_error",
        "moderation_blocked",
    ),
}


def failure(kind: str) -> tuple[int, dict] | None:
    """The answer to a request that fails in this way, or None."""
    if kind == "detail":
        return 503, {"detail": "model is loading"}
    return error(*FAILURES[kind]) if kind in FAILURES else None


def models() -> list[dict]:
    """GET /v1/models."""
    listed = {**TODAY, **dict.fromkeys(DALLE)}
    return [
        {
            "id": name,
            "object": "model",
            "created": 1_776_729_600,
            "owned_by": "rehearsal",
            "shutdown_date": end,
        }
        for name, end in listed.items()
    ]


def generation(request: dict, api, kind: str = "") -> tuple[int, dict]:
    """POST /v1/images/generations: images with usage for today's models, without for DALL-E's
    shape.
    """
    model, prompt = request.get("model", "dall-e-2"), request.get("prompt", "")
    dalle = model in DALLE
    wrong = _refusal(request, model, prompt, dalle)
    if wrong:
        return wrong
    size = "1024x1024" if request.get("size", "auto") == "auto" else request["size"]
    quality = "medium" if request.get("quality", "auto") == "auto" else request["quality"]
    width, height = (int(edge) for edge in ("512x512" if kind == "wrong_size" else size).split("x"))
    by_url = (dalle and request.get("response_format", "url") == "url") or api.answer_by_url
    seeds = [request.get("seed", uuid.uuid4().int % 10**9) for _ in range(request.get("n") or 1)]
    pictures = [draw(prompt, width, height, seed, api.sketch) for seed in seeds]
    data = [_datum(picture, by_url, api) for picture in pictures]
    if kind == "truncated":
        data[0] = {"b64_json": data[0]["b64_json"][: len(data[0]["b64_json"]) // 2 - 1]}
    answer = {"created": int(time.time()), "data": [] if kind == "empty" else data}
    if dalle:
        return 200, answer
    written = max(1, len(prompt) // 4)
    made = round(TOKENS.get(quality, 7024) * width * height / 1024**2) * len(data)
    usage = {"input_tokens": written, "output_tokens": made, "total_tokens": written + made}
    usage["input_tokens_details"] = {"text_tokens": written, "image_tokens": 0}
    return 200, {
        **answer,
        "size": f"{width}x{height}",
        "quality": quality,
        "background": "opaque",
        "output_format": "png",
        "usage": usage,
    }


def _refusal(request, model, prompt, dalle):
    """The error for a request that the service would reject, or None."""
    size = request.get("size", "auto")
    takes_size = size in ("256x256", "512x512", "1024x1024") if dalle else _fits(size)
    unknown = "response_format" if not dalle else "quality" if model == "dall-e-2" else ""
    wrong = (
        (model in RETIRED or (model not in TODAY and not dalle), 404, "model_not_found", "model"),
        (unknown in request, 400, "unknown_parameter", unknown),
        (
            not 0 < len(prompt) <= (1000 if dalle else 32_000),
            400,
            "string_above_max_length",
            "prompt",
        ),
        (not takes_size, 400, "invalid_value", "size"),
    )
    for refused, status, code, name in wrong:
        if refused:
            said = f"{code.replace('_', ' ').capitalize()}: '{name}'."
            return error(status, said, INVALID, code, name)
    return failure("moderation" if re.search(r"\b(gore|blood|nude)\b", prompt.lower()) else "")


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


def _datum(picture, by_url, api):
    if not by_url:
        return {"b64_json": base64.b64encode(picture).decode()}
    name = uuid.uuid4().hex
    api.pictures[name] = picture
    return {"url": f"{api.url.removesuffix('/v1')}/pictures/{name}"}


def price(request: dict, answer: dict) -> float:
    """What the answer costs, USD: by tokens where it counts them, else DALL-E 2's price by size."""
    usage = answer.get("usage")
    if usage:
        return (
            usage["input_tokens"] * USD_PER_TOKEN["input"]
            + usage["output_tokens"] * USD_PER_TOKEN["output"]
        )
    return {"256x256": 0.016, "512x512": 0.018}.get(request.get("size"), 0.02) * len(answer["data"])


def draw(prompt: str, width: int, height: int, seed: int, sketch: bool = False) -> bytes:
    """The image a prompt asks for, as a PNG with content credentials."""
    if sketch:
        return _sketched(width, height, seed % 16)
    found = [NEAREST.get(name, name) for name in findings.in_text(prompt)] or ["no_finding"]
    side = findings.side_in_text(prompt)
    finding = "infiltrates" if side == "bilateral" and found[0] != "effusion" else found[0]
    modality = "ct" if re.search(r"\bct\b|tomogra", prompt.lower()) else "xray"
    return _painted(_imagined(modality, finding, side, seed), width, height)


@functools.lru_cache(maxsize=64)
def _sketched(width, height, seed):
    grey = (
        np.add.outer(np.arange(height // 8), np.arange(width // 8)) * (1 + seed % 5) + 16 * seed
    ) % 256
    return _painted(grey.astype(np.uint8), width, height)


def _painted(grey, width, height):
    picture = Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC)
    # A service paints in colour, so the channels differ a little.
    coloured = Image.merge(
        "RGB", [picture, picture, picture.point(lambda value: min(255, value + 2))]
    )
    buffer = io.BytesIO()
    coloured.save(buffer, "PNG", compress_level=1)
    return with_credentials(buffer.getvalue())


def _imagined(modality, finding, side, seed, size=288):
    """A phantom as a generator would paint it: no detector noise, edges too soft, contrast too
    high.
    """
    from helpers.rehearsal import anatomy, phantom_ct, phantom_xray

    finding = finding if finding in anatomy.FINDINGS else "no_finding"
    if modality == "xray":
        grey = phantom_xray.xray(seed % 2**31, finding, side, size).astype(np.float32) / 4095
    else:
        hounsfield = phantom_ct.ct_slice(seed % 2**31, finding, side, size)
        grey = np.clip((hounsfield + 1350.0) / 1500, 0, 1)
    grey = np.clip(0.5 + CONTRAST * (grey - 0.5), 0, 1)
    picture = Image.fromarray((255 * grey).astype(np.uint8))
    return np.asarray(picture.resize((size // 2, size // 2), Image.Resampling.BOX))


def with_credentials(png: bytes) -> bytes:
    """The PNG with a JUMBF box in a caBX chunk, where C2PA puts content credentials. The claim is
    simulated and not signed.
    """
    label = b"c2pa\x00"
    description = _box(
        b"jumd",
        bytes.fromhex("63327061001100108000 00AA00389B71".replace(" ", "")) + b"\x03" + label,
    )
    claim = _box(
        b"json",
        b'{"claim_generator": "rehearsal image API", "digital_source_type":'
        b' "trainedAlgorithmicMedia"}',
    )
    manifest = _box(b"jumb", description + claim)
    chunk = (
        struct.pack(">I", len(manifest))
        + b"caBX"
        + manifest
        + struct.pack(">I", zlib.crc32(b"caBX" + manifest))
    )
    return png[:33] + chunk + png[33:]


def _box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content
