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
import time
import uuid
from email.parser import BytesParser
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from helpers.rehearsal import image_api_answers as answers


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
            self.send(*self.server.api.post(path, body, form))

    def found(self, path: str) -> tuple:
        """Status and answer of a GET request."""
        if path == "/v1/models":
            return 200, {"object": "list", "data": answers.models()}
        return self.server.api.get(path)

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
    """The service with its files and batches, from `with` to its end. A batch is worked on when it
    is asked for.
    """

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

    def post(self, path: str, body: bytes, content_type: str) -> tuple[int, dict]:
        """POST /v1/files and /v1/batches."""
        if path == "/v1/files":
            name = f"file-{uuid.uuid4().hex}"
            form = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
            parts = BytesParser(policy=default).parsebytes(form).iter_parts()
            fields = {
                part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
                for part in parts
            }
            self.files[name] = ("input.jsonl", fields["file"])
            about = {"filename": "input.jsonl", "purpose": "batch", "status": "processed"}
            about |= {"bytes": len(fields["file"]), "created_at": int(time.time())}
            return 200, {"id": name, "object": "file", **about}
        if path == "/v1/batches":
            return 200, self.begin(json.loads(body))
        return answers.error(
            404, f"Unknown request URL: POST {path}.", "invalid_request_error", "unknown_url"
        )

    def get(self, path: str) -> tuple[int, dict | bytes]:
        """GET /v1/batches, /v1/batches/{id} and /v1/files/{id}/content."""
        if path.startswith("/v1/files/") and path.endswith("/content"):
            return 200, self.files[path.split("/")[3]][1]
        if path == "/v1/batches":
            listed = [self.shown(name) for name in reversed(self.batches)]
            return 200, {"object": "list", "data": listed, "has_more": False}
        name = path.rsplit("/", 1)[1]
        if path.startswith("/v1/batches/") and name in self.batches:
            return 200, self.shown(name)
        return answers.error(404, f"No such object: {path}.", "invalid_request_error", None)

    def begin(self, request: dict) -> dict:
        """Create a batch."""
        name, now = f"batch_{uuid.uuid4().hex}", int(time.time())
        about = {"id": name, "object": "batch", "status": "in_progress", "created_at": now}
        self.batches[name] = {"metadata": None, **request, **about, "expires_at": now + 86_400}
        return dict(self.batches[name])

    def shown(self, name: str) -> dict:
        """A batch as it is described to the client, its work done."""
        batch = self.batches[name]
        if batch["status"] == "in_progress":
            self.work(batch)
        return dict(batch)

    def work(self, batch: dict) -> None:
        """Do a batch: results go into the output file, failed requests into the error file."""
        files = {"output_file_id": [], "error_file_id": []}
        lines = self.files[batch["input_file_id"]][1].splitlines()
        for number, line in enumerate(map(json.loads, lines)):
            status, answer = self.answer(line["body"])
            name = f"req_{uuid.uuid4().hex}"
            response = {"status_code": status, "request_id": name, "body": answer}
            row = {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "error": None}
            kind = "output_file_id" if status == 200 else "error_file_id"
            files[kind].append(row | {"response": response})
        for key, rows in files.items():
            if rows:
                batch[key] = f"file-{uuid.uuid4().hex}"
                content = "".join(json.dumps(row) + "\n" for row in rows)
                self.files[batch[key]] = ("output.jsonl", content.encode())
        done, failed = map(len, files.values())
        batch["status"] = "completed"
        batch["request_counts"] = {"total": len(lines), "completed": done, "failed": failed}
