"""A simulated text-to-image service: a real HTTP server on loopback that answers the openai client
like the real service.

    with ImageServer(latency_seconds=0.2) as server:
        client = openai.OpenAI(base_url=server.url, api_key="any")

It speaks POST /v1/images/generations (today's models and DALL-E's shape, and Azure's deployment
paths), GET /v1/models, and files and batches of the Batch API; it draws phantoms from the prompt's
words, counts what it would have billed, and makes the errors that `faults` define.
"""

import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from helpers.rehearsal import image_api_answers as answers
from helpers.rehearsal import image_api_batches as batches

FAULTS = (
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
    "empty",  # 200 with no data: billed
    "truncated",  # base64 that ends too early: billed
    "wrong_size",  # another size than asked for: billed
)


@dataclass
class ImageServer:
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
    kinds: ClassVar[tuple] = FAULTS

    def __post_init__(self):
        unknown = [kind for kind in [*self.faults, *self.script] if kind not in (*self.kinds, "")]
        if unknown:
            raise ValueError(
                f"The stand-in has no fault '{unknown[0]}'; one of: {', '.join(self.kinds)}."
            )
        self.requests: list[dict] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, dict] = {}
        self.pictures: dict[str, bytes] = {}
        self.working = self.most_working = 0
        self.lock = threading.Lock()
        self._random = random.Random(self.seed)

    def __enter__(self) -> "ImageServer":
        self._http = _Server(("127.0.0.1", self.port), _Handler)
        self._http.api = self
        self.port = self._http.server_address[1]
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """base_url for the client."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def billed_usd(self) -> float:
        """What the service would charge, USD."""
        return sum(record["billed_usd"] for record in self.requests)

    def fault(self) -> str:
        """The fault of the next request: scripted first, then random; empty for no fault."""
        with self.lock:
            if self.script:
                return self.script.pop(0)
            chance = self._random.random()
        for kind, share in self.faults.items():
            chance -= share
            if chance < 0:
                return kind
        return ""

    def answer(self, request: dict, kind: str) -> tuple[int, dict]:
        """POST /v1/images/generations."""
        return answers.failure(kind) or answers.generation(request, self, kind)

    def price(self, request: dict, answer: dict) -> float:
        """What the service would charge for an answer, USD."""
        return answers.price(request, answer)

    def record(self, **entry) -> dict:
        """Note a requested generation."""
        entry = {"billed_usd": 0.0, "utc": time.time(), **entry}
        with self.lock:
            self.requests.append(entry)
        return entry


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # a killed client leaves a broken connection behind


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/pictures/"):
            picture = self.server.api.pictures[path.rsplit("/", 1)[1]]
            return self._send(200, picture, {"Content-Type": "image/png"})
        self._send(*self._authorised() or self._get(path))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        if refused := self._authorised():
            return self._send(*refused)
        if path.endswith(("/images/generations", "/chat/completions")):
            return self._generate(path, body)
        self._send(*batches.post(self.server.api, path, body, self.headers.get("Content-Type", "")))

    def _authorised(self):
        """The error for a request without the right key, or None."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        given = given or self.headers.get("api-key", "")
        right = given == (self.server.api.key or given)
        return None if given and right else answers.failure("unauthorised")

    def _get(self, path):
        if path == "/v1/models":
            return 200, {"object": "list", "data": answers.models()}
        if path.startswith("/v1/files/") and path.endswith("/content"):
            return 200, self.server.api.files[path.split("/")[3]][1]
        return batches.get(self.server.api, path)

    def _generate(self, path, body):
        api, request = self.server.api, json.loads(body)
        if "/deployments/" in path:
            request["model"] = answers.DEPLOYED
        kind = api.fault()
        entry = api.record(
            prompt=request.get("prompt"),
            size=request.get("size"),
            client_request_id=self.headers.get("X-Client-Request-Id"),
            status=0,
            fault=kind,
        )
        with api.lock:
            full = api.in_flight_limit and api.working >= api.in_flight_limit
            api.working += not full
            api.most_working = max(api.working, api.most_working)
        if full:
            entry["status"] = 429
            return self._send(*answers.failure("throttle"))
        try:
            self._answer(api, request, kind, entry)
        finally:
            with api.lock:
                api.working -= 1

    def _answer(self, api, request, kind, entry):
        time.sleep(api.latency_seconds * (2.5 if kind == "slow" else 1))
        if kind == "drop":
            self.close_connection = True
            return
        status, answer = api.answer(request, kind)
        entry["status"] = status
        if status == 200:
            entry["billed_usd"] = api.price(request, answer)
            entry["images"] = len(answer.get("data", ()))
        headers = {"Retry-After": api.retry_after} if kind == "throttle" else {}
        self._send(status, answer, headers, cut=kind == "cut")

    def _send(self, status, answer, headers=None, cut=False):
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        usual = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        usual["x-request-id"] = f"req_{uuid.uuid4().hex}"
        self.send_response(status)
        for name, value in {**usual, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut
