"""A simulated text-to-image service: a real HTTP server on loopback that answers the openai client
like the real service.

    with ImageServer() as server:
        client = openai.OpenAI(base_url=server.url, api_key="any")

It speaks POST /v1/images/generations for today's models, GET /v1/models, and files and batches of
the Batch API, and draws phantoms from the prompt's words. A service that fails is in
tests/faulty_service.py.
"""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from helpers.rehearsal import image_api_answers as answers
from helpers.rehearsal import image_api_batches as batches


class Handler(BaseHTTPRequestHandler):
    """One connection to the service."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        """The models, a batch, or the content of a file."""
        self.send(*self.found(self.path.split("?")[0]))

    def do_POST(self):
        """An image or a completion, a file, or a batch."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        if path.endswith(("/images/generations", "/chat/completions")):
            self.generate(path, json.loads(body))
        else:
            form = self.headers.get("Content-Type", "")
            self.send(*batches.post(self.server.api, path, body, form))

    def found(self, path: str) -> tuple:
        """Status and answer of a GET request."""
        if path == "/v1/models":
            return 200, {"object": "list", "data": answers.models()}
        return batches.get(self.server.api, path)

    def generate(self, path: str, request: dict) -> None:
        """Answer a request for an image or a completion."""
        self.send(*self.server.api.answer(request))

    def send(self, status: int, answer: dict | bytes, headers: dict | None = None) -> None:
        """Send an answer with its headers."""
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        usual = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        usual["x-request-id"] = f"req_{uuid.uuid4().hex}"
        self.send_response(status)
        for name, value in {**usual, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.write(content)

    def write(self, content: bytes) -> None:
        """Write the body of an answer."""
        self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass  # a killed client leaves a broken connection behind


class ImageServer:
    """The service, from `with` to its end."""

    handler: ClassVar = Handler
    port = 0

    def __init__(self):
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, dict] = {}

    def __enter__(self) -> "ImageServer":
        self._http = _Server(("127.0.0.1", self.port), self.handler)
        self._http.api = self
        self.port = self._http.server_address[1]
        serving = {"target": self._http.serve_forever, "kwargs": {"poll_interval": 0.05}}
        threading.Thread(**serving, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """base_url for the client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, request: dict) -> tuple[int, dict]:
        """POST /v1/images/generations, by itself or within a batch."""
        return answers.generation(request)
