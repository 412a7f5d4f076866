"""The stand-in services with everything that can go wrong, and with what they count.

with ImageServer(sketch=True, script=["throttle"]) as server: ...
"""

import base64
import functools
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from unittest import mock

import numpy as np

from helpers.rehearsal import image_api, model_api
from helpers.rehearsal import image_api_answers as answers

SHARED = (
    "throttle",  # 429 with Retry-After
    "throttle_silent",  # 429 without
    "quota",  # 429 with its other meaning: no credit left
    "unauthorised",  # 401
    "forbidden",  # 403
    "server_error",  # 500
    "detail",  # 503 in the words of a local server
    "moderation",  # 400 moderation_blocked, whatever the prompt
    "slow",  # twice the latency and more
    "drop",  # the connection closes before any answer
    "cut",  # the connection closes within the body: billed, and lost
)
FAULTS = (
    *SHARED,
    "empty",  # 200 with no data: billed
    "truncated",  # base64 that ends too early: billed
    "wrong_size",  # another size than asked for: billed
)
MODEL_FAULTS = (
    *SHARED,
    "empty",  # 200 without choices: billed
    "refusal",  # 200 with the model's refusal: billed
    "nonsense",  # 200 with prose that is not JSON: billed
    "wrong_json",  # 200 with JSON that does not fit the questions: billed
    "too_long",  # 200, ended by the limit of tokens: billed
)
# Retired by the provider; other servers may still make them.
DALLE = ("dall-e-2", "dall-e-3")
DEPLOYED = "gpt-image-2-2026-04-21"
USD_PER_TOKEN = {"input": 5e-6, "output": 30e-6}
LIMIT = (429, "Rate limit reached for images per minute.", "requests", "rate_limit_exceeded")
NO_CREDIT = (429, "You exceeded your current quota.", "insufficient_quota")
FAILURES = {
    "throttle": LIMIT,
    "throttle_silent": LIMIT,
    "quota": (*NO_CREDIT, "credit_balance_exhausted"),
    "unauthorised": (401, "Incorrect API key provided.", answers.INVALID, "invalid_api_key"),
    "forbidden": (403, "Your organization must be verified to use this model.", answers.INVALID,
                  None),
    "server_error": (500, "The server had an error.", "server_error", None),
    "moderation": answers.MODERATION,
}  # fmt: skip
EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


def failure(kind):
    """The answer to a request that fails in this way, or None."""
    if kind == "detail":
        return 503, {"detail": "model is loading"}
    return answers.error(*FAILURES[kind]) if kind in FAILURES else None


@functools.lru_cache(maxsize=64)
def sketched(prompt, width, height, seed):
    """A cheap pattern instead of a phantom."""
    seed %= 16
    rows, columns = np.arange(height // 8), np.arange(width // 8)
    grey = (np.add.outer(rows, columns) * (1 + seed % 5) + 16 * seed) % 256
    return answers.painted(grey.astype(np.uint8), width, height)


def price(request, answer):
    """What the answer costs, USD: by tokens where it counts them, else DALL-E 2's price by size."""
    if usage := answer.get("usage"):
        return sum(usage[f"{name}_tokens"] * usd for name, usd in USD_PER_TOKEN.items())
    return {"256x256": 0.016, "512x512": 0.018}.get(request.get("size"), 0.02) * len(answer["data"])


class Handler(image_api.Handler):
    """Faults of the connection, the key, Azure's paths, and images by URL."""

    cut = False

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/pictures/"):
            picture = self.server.api.pictures[path.rsplit("/", 1)[1]]
            self.send(200, picture, {"Content-Type": "image/png"})
        elif self.authorised():
            super().do_GET()

    def do_POST(self):
        if self.authorised():
            super().do_POST()

    def authorised(self):
        """Whether the key is right; if not, the answer is sent."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        given = given or self.headers.get("api-key", "")
        right = bool(given) and given == (self.server.api.key or given)
        if not right:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send(*failure("unauthorised"))
        return right

    def found(self, path):
        api, name = self.server.api, path.rsplit("/", 1)[1]
        if path == "/v1/batches":
            listed = [self.found(f"{path}/{known}")[1] for known in reversed(api.batches)]
            return 200, {"object": "list", "data": listed, "has_more": False}
        if name in api.batches and not api.ready(api.batches[name]):
            return 200, api.batches[name]
        return super().found(path)

    def generate(self, path, request):
        api = self.server.api
        if "/deployments/" in path:
            request["model"] = DEPLOYED
        client_id = self.headers.get("X-Client-Request-Id")
        kind = api.fault()
        entry = api.record(request, kind, client_request_id=client_id)
        with api.lock:
            full = api.in_flight_limit and api.working >= api.in_flight_limit
            api.working += not full
            api.most_working = max(api.working, api.most_working)
        if full:
            entry["status"] = 429
            return self.send(*failure("throttle"))
        try:
            time.sleep(api.latency_seconds * (2.5 if kind == "slow" else 1))
            self.close_connection = kind in ("drop", "cut")
            if kind == "drop":
                return None
            status, answer = api.judged(request, kind, entry)
            headers = {"Retry-After": api.retry_after} if kind == "throttle" else {}
            self.cut = kind == "cut"
            self.send(status, answer, headers)
        finally:
            with api.lock:
                api.working -= 1

    def write(self, content):
        super().write(content[: len(content) // 2] if self.cut else content)


@dataclass
class ImageServer(image_api.ImageServer):
    """The service.

    `faults` gives each kind a probability per request; `script` forces kinds on the first requests.

    `in_flight_limit` requests are processed at once, the next gets a 429. `sketch` draws a cheap
    pattern instead of phantoms. `requests` has one record per requested generation: prompt, status,
    billed_usd, client_request_id.
    """

    latency_seconds: float = 0.0
    in_flight_limit: int = 0
    faults: dict[str, float] = field(default_factory=dict)
    script: list[str] = field(default_factory=list)
    seed: int = 0
    sketch: bool = False
    answer_by_url: bool = False
    retry_after: str = "1"
    batch_seconds: float = 0.0
    batch_expires_after: int = 0  # requests done before a batch expires; 0: the batch completes
    key: str = ""  # the only accepted key; empty accepts any
    port: int = 0

    handler, kinds = Handler, FAULTS

    def __post_init__(self):
        unknown = [kind for kind in [*self.faults, *self.script] if kind not in (*self.kinds, "")]
        assert not unknown, unknown
        super().__init__()
        self.requests: list[dict] = []
        self.pictures: dict[str, bytes] = {}
        self.working = self.most_working = 0
        self.lock, self.chance = threading.Lock(), random.Random(self.seed)
        self.drawing = mock.patch.object(answers, "draw", sketched if self.sketch else answers.draw)

    def __enter__(self):
        self.drawing.start()
        return super().__enter__()

    def __exit__(self, *_):
        super().__exit__()
        self.drawing.stop()

    @property
    def billed_usd(self) -> float:
        """What the service would charge, USD."""
        return sum(record["billed_usd"] for record in self.requests)

    def fault(self) -> str:
        """The fault of the next request: scripted first, then random; empty for no fault."""
        with self.lock:
            if self.script:
                return self.script.pop(0)
            chance = self.chance.random()
        for kind, share in self.faults.items():
            chance -= share
            if chance < 0:
                return kind
        return ""

    def record(self, request, kind, **entry) -> dict:
        """Note a requested generation."""
        about = {"prompt": request.get("prompt"), "size": request.get("size"), "fault": kind}
        entry = {"billed_usd": 0.0, "status": 0, "utc": time.time()} | about | entry
        with self.lock:
            self.requests.append(entry)
        return entry

    def judged(self, request, kind, entry, share=1.0):
        """The answer to a request with a fault; what it costs is noted."""
        status, answer = failure(kind) or self.completed(request, kind)
        entry["status"] = status
        if status == 200:
            entry["billed_usd"] = self.price(request, answer) * share
            entry["images"] = len(answer.get("data", ()))
        return status, answer

    def price(self, request, answer):
        return price(request, answer)

    def answer(self, request):
        """A request of a batch, answered and billed at half the price."""
        kind = self.fault()
        return self.judged(request, kind, self.record(request, kind), 0.5)

    def completed(self, request, kind):
        """An answer without a fault of the service, in today's or DALL-E's shape."""
        asked = request
        if dalle := request.get("model") in DALLE:
            known = {"256x256", "512x512", "1024x1024"}
            wrong = "quality" if request["model"] == "dall-e-2" and "quality" in request else ""
            wrong = wrong or ("size" if request.get("size", "1024x1024") not in known else "")
            if wrong:
                code = "invalid_value" if wrong == "size" else "unknown_parameter"
                return answers.error(400, f"Wrong: '{wrong}'.", answers.INVALID, code, wrong)
            asked = {"model": DEPLOYED, "prompt": request["prompt"], "n": request.get("n")}
        status, answer = answers.generation(asked)
        if status != 200:
            return status, answer
        size = request.get("size", "auto") if dalle else answer["size"]
        size = "512x512" if kind == "wrong_size" else "1024x1024" if size == "auto" else size
        by_url = dalle and request.get("response_format", "url") == "url"
        if size != answer["size"]:
            answer["size"] = size
            picture = answers.draw(request["prompt"], *map(int, size.split("x")), 1)
            answer["data"] = [{"b64_json": base64.b64encode(picture).decode()}]
        if by_url or self.answer_by_url:
            answer["data"] = list(map(self.by_url, answer["data"]))
        if kind == "truncated":
            encoded = answer["data"][0]["b64_json"]
            answer["data"][0]["b64_json"] = encoded[: len(encoded) // 2 - 1]
        if kind == "empty":
            answer["data"] = []
        told = {"created": answer["created"], "data": answer["data"]}
        return 200, told if dalle else answer

    def by_url(self, item):
        name = uuid.uuid4().hex
        self.pictures[name] = base64.b64decode(item["b64_json"])
        return {"url": f"{self.url.removesuffix('/v1')}/pictures/{name}"}

    def ready(self, batch):
        """Whether a batch may be worked on; one that expires is done in part."""
        ready = batch.setdefault("ready", time.monotonic() + self.batch_seconds)
        if time.monotonic() < ready:
            return False
        if batch["status"] == "in_progress" and self.batch_expires_after:
            self.expire(batch)
        return True

    def expire(self, batch):
        name, most = batch["input_file_id"], self.batch_expires_after
        lines = self.files[name][1].splitlines(keepends=True)
        if len(lines) <= most:
            return
        self.files[name] = ("input.jsonl", b"".join(lines[:most]))
        self.work(batch)
        late = [{"custom_id": json.loads(line)["custom_id"], "response": None, "error": EXPIRED}
                for line in lines[most:]]  # fmt: skip
        batch["status"], batch["error_file_id"] = "expired", f"file-{uuid.uuid4().hex}"
        batch["request_counts"] |= {"total": len(lines), "failed": len(late)}
        content = "".join(json.dumps(row) + "\n" for row in late).encode()
        self.files[batch["error_file_id"]] = ("output.jsonl", content)


@dataclass
class ModelServer(ImageServer, model_api.ModelServer):
    """The simulated model; `faults` and `script` as of the image service, with MODEL_FAULTS."""

    kinds = MODEL_FAULTS

    def price(self, request, answer):
        usd = {"prompt_tokens": 2.5e-6, "completion_tokens": 10e-6}
        return sum(answer["usage"][name] * each for name, each in usd.items())

    def completed(self, request, kind):
        answer = model_api.completion(request, self.chance)
        choice = answer["choices"][0]
        message = choice["message"]
        message["content"] = {
            "nonsense": "This image shows a chest. Please consult a radiologist.",
            "wrong_json": json.dumps({"label": "perhaps"}),
            "too_long": message["content"][:-5],
            "refusal": None,
        }.get(kind, message["content"])
        choice["finish_reason"] = "length" if kind == "too_long" else "stop"
        if kind == "refusal":
            message["refusal"] = "I can't help with medical images."
        if kind == "empty":
            answer["choices"] = []
        return 200, answer
