"""A simulated vision-language model: the stand-in service of image_api.py, which answers chat
completions with images like a real one.

It does not know the truth. It measures how rough the pixels are and adds chance, so its answers are
hardly better than guesses.
"""

import base64
import io
import json
import random
import time
import uuid

import numpy as np
from PIL import Image

from helpers.rehearsal import image_api

SMOOTH = 13.0  # mean step between neighbouring pixels below which an image looks generated


class ModelServer(image_api.ImageServer):
    """The service."""

    def __init__(self):
        super().__init__()
        self.chance = random.Random(0)

    def answer(self, request: dict) -> tuple[int, dict]:
        """POST /v1/chat/completions."""
        return 200, completion(request, self.chance)


def completion(request: dict, chance: random.Random) -> dict:
    """A chat completion for the last image of a request, by its JSON schema where it has one."""
    parts = request["messages"][-1]["content"]
    link = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
    with Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))) as picture:
        pixels = np.asarray(picture.convert("L"), dtype=float)
    shaped = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
    text = json.dumps(_answers(shaped.get("properties", {}), pixels, chance))
    message = {"role": "assistant", "content": text, "refusal": None}
    words = sum(len(part.get("text", "")) for part in parts)
    used = {"prompt_tokens": words // 4 + pixels.size // 750, "completion_tokens": len(text) // 4}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{request['model']} (simulated)",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": used | {"total_tokens": sum(used.values())},
    }


def _answers(fields: dict, pixels: np.ndarray, chance: random.Random) -> dict:
    """A value for every field of a JSON schema; the label depends on the image and on chance."""
    rough = np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()
    doubt = rough / SMOOTH - 1 + chance.gauss(0, 0.15)
    known = {"label": "uncertain" if abs(doubt) < 0.03 else "real" if doubt > 0 else "fake"}
    known |= {"description": "Simulated description", "poor_quality": False}
    return {name: known.get(name, _anything(field, chance)) for name, field in fields.items()}


def _anything(field: dict, chance: random.Random):
    kinds = [field["type"]] if isinstance(field["type"], str) else field["type"]
    if "enum" in field:
        return chance.choice([value for value in field["enum"] if value is not None])
    if "null" in kinds:
        return None
    if "array" in kinds:
        return [chance.choice(field["items"]["enum"])]
    return {"boolean": True, "number": 1, "integer": 1}.get(kinds[0], "simulated")
