"""The image service: the form of a request, and what an image costs there.

requests.py asks for many images, batches.py through the Batch API; services/ connects and sends.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import openai

from helpers.rehearsal import image_api
from helpers.runner import runs
from helpers.services import connection, prices

OWN_FIELDS = {"model", "prompt", "n", "size", "quality", "response_format", "moderation"}
# Fields that the study's own parameters set, or that would ask for several images in one request.
NOT_FURTHER = {"model", "prompt", "n", "stream", "size", "quality"}
# The tag in a prompt from which stable-diffusion.cpp's sd-server takes further fields.
IN_PROMPT = "sd_cpp_extra_args"


@dataclass(frozen=True)
class Service(connection.Connection):
    """The image service that the parameters of a run describe."""

    @property
    def shape(self) -> str:
        """gpt-image or dall-e: the fields a request may have."""
        if self.parameters.request_shape != "auto":
            return self.parameters.request_shape
        return "dall-e" if self.parameters.model.startswith("dall-e") else "gpt-image"

    @property
    def quality(self) -> str | None:
        """The quality in requests; None where they have no quality."""
        quality, model = self.parameters.quality, self.parameters.model
        # The retired models do not have low, medium or high; DALL-E 2 has no quality at all.
        known = quality in ("standard", "hd") and model != "dall-e-2"
        return quality if quality != "auto" and (self.shape == "gpt-image" or known) else None

    def size(self, order) -> str | None:
        """The size in the request for an image; None where the request has no size."""
        return order.size if self.shape == "gpt-image" or order.size != "auto" else None

    def request(self, order) -> dict:
        """The request's JSON body for one image."""
        body = {"model": self.parameters.model, "prompt": order.prompt, "n": 1}
        if self.size(order):
            body["size"] = order.size
        if self.shape == "dall-e":
            body["response_format"] = "b64_json"
        elif self.parameters.moderation != "auto":
            body["moderation"] = self.parameters.moderation
        if self.quality:
            body["quality"] = self.quality
        seed = int(order.image_id[1:9], 16) % 2**31
        if self.parameters.seed_field == IN_PROMPT:
            further = json.dumps({**self.extra_body, "seed": seed})
            body["prompt"] += f" <{IN_PROMPT}>{further}</{IN_PROMPT}>"
            return body
        body |= self.extra_body
        return body | ({self.parameters.seed_field: seed} if self.parameters.seed_field else {})


def of(run: runs.Run) -> Service:
    """The service that a run's parameters describe, with its price and its key.

    Raises ServiceError for parameters that do not fit together and for a missing key (not for a
    finished run, which sends nothing), PriceError for a model without a price.
    """
    settings = run.parameters
    said = "the study's parameters set model, size and quality; prompts.csv sets the prompt and how"
    extra = connection.extra_body(settings, NOT_FURTHER, f"{said} many images")
    price = prices.find(
        settings.priced_as or settings.model,
        settings.quality,
        settings.price_input,
        settings.price_output,
        settings.price_image,
    )
    price.image(settings.size)
    base_url, key = connection.place(run, "image API", image_api.ImageServer)
    return Service(settings, base_url, extra, price, key)


async def preflight(service: Service) -> str:
    """What the service says about the model; see connection.preflight."""
    return await connection.preflight(service, ("image", "dall"), "makes images")


async def download(client: openai.AsyncOpenAI, file_id: str, path: Path) -> None:
    """Download a file of the service to disk, in chunks."""
    async with client.files.with_streaming_response.content(file_id) as response:
        with path.open("wb") as file:
            async for piece in response.iter_bytes(1 << 20):
                file.write(piece)
