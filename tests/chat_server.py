"""A strict server for chat completions with images, written from the published request alone."""

import base64
import json
import re
import struct
import threading
import time
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIELDS = {"model", "messages", "response_format", "temperature", "max_completion_tokens", "seed"}
FIELDS |= {"max_tokens"}  # the older name of the limit
ANSWER = {"label": "fake", "poor_quality": None, "description": "clear lungs", "findings": []}
ANSWER |= {"side": None, "confidence": 3, "cues": []}
USAGE = {"prompt_tokens": 900, "completion_tokens": 60, "total_tokens": 960}


class Wrong(ValueError):
    """A request that the published interface does not allow."""


def need(holds, said):
    if not holds:
        raise Wrong(said)


def chunks(png: bytes) -> list[str]:
    """The names of a PNG's chunks, each with a right checksum."""
    need(png[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG")
    names, place = [], 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        body = png[place + 4 : place + 8 + length]
        (crc,) = struct.unpack(">I", png[place + 8 + length : place + 12 + length])
        need(zlib.crc32(body) == crc, "a PNG with a wrong checksum")
        names.append(body[:4].decode())
        place += 12 + length
    return names


def check_schema(schema: dict) -> None:
    """What strict structured output asks of a schema."""
    need(schema.get("type") == "object", "the root is an object")
    need(schema.get("additionalProperties") is False, "additionalProperties must be false")
    need(set(schema["required"]) == set(schema["properties"]), "every field is required")
    for name, field in schema["properties"].items():
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        known = {"string", "integer", "number", "boolean", "array", "null"}
        need(set(kinds) <= known, f"{name} has a type that is none")
        need("array" not in kinds or field["items"]["type"] == "string", f"{name} has no items")


def check(body: dict) -> list[bytes]:
    """The images of a request. Raises Wrong."""
    need(set(body) <= FIELDS, f"Unknown parameter: {min(set(body) - FIELDS, default='')}")
    need(isinstance(body.get("model"), str) and body["model"], "model")
    need(body["messages"][0]["role"] == "system", "the first message is the system's")
    need(body["messages"][-1]["role"] == "user", "the last message is the user's")
    pictures = []
    for message in body["messages"]:
        need(message["role"] in ("system", "user", "assistant"), "role")
        for part in message["content"] if isinstance(message["content"], list) else []:
            need(part["type"] in ("text", "image_url"), "type of a part")
            if part["type"] == "image_url":
                need(set(part["image_url"]) <= {"url", "detail"}, "image_url")
                head, _, coded = part["image_url"]["url"].partition(",")
                need(head == "data:image/png;base64", "a data URL of a PNG")
                pictures.append(base64.b64decode(coded, validate=True))
                need(set(chunks(pictures[-1])) == {"IHDR", "IDAT", "IEND"}, "metadata in the PNG")
    need(pictures, "no image")
    if shape := body.get("response_format"):
        need(shape["type"] in ("json_schema", "json_object"), "response_format")
        if shape["type"] == "json_schema":
            named = shape["json_schema"]
            need(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", named["name"]), "name of the schema")
            need(named["strict"] is True, "strict")
            check_schema(named["schema"])
    return pictures


def completion(text, **more) -> dict:
    message = {"role": "assistant", "content": text, "refusal": more.pop("refusal", None)}
    choice = {"index": 0, "message": message, "finish_reason": more.pop("ended", "stop")}
    told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-2026-01-01"}
    return told | {"choices": [choice], "usage": USAGE} | more


def error(status, message, kind="invalid_request_error", code=None):
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}


CUT = "cut"  # the connection closes within the body
ANSWERS = {
    "": lambda: (200, completion(json.dumps(ANSWER))),
    "refusal": lambda: (200, completion(None, refusal="I can't help with that.")),
    "filter": lambda: (200, completion("", ended="content_filter")),
    "sorry": lambda: (200, completion("I'm sorry, but I cannot interpret medical images.")),
    "blocked": lambda: error(400, "Your request was flagged", code="content_policy_violation"),
    "long": lambda: (200, completion(json.dumps(ANSWER)[:20], ended="length")),
    "prose": lambda: (200, completion("The lungs look clear to me.")),
    "fenced": lambda: (200, completion(f"```json\n{json.dumps(ANSWER)}\n```")),
    "other": lambda: (200, completion(json.dumps(ANSWER | {"label": "perhaps"}))),
    "lacking": lambda: (200, completion(json.dumps({"description": "clear"}))),
    "empty": lambda: (200, completion("", choices=[])),
    "blank": lambda: (200, completion("  ")),
    "429": lambda: error(429, "Rate limit reached", "requests", "rate_limit_exceeded"),
    "500": lambda: error(500, "The server had an error", "server_error"),
    "quota": lambda: error(429, "You exceeded", "insufficient_quota", "insufficient_quota"),
    CUT: lambda: (200, completion(json.dumps(ANSWER))),
}


class Chat:
    """What came: `raw` (request line, headers and body as sent), `bodies`, `images`, `billed`."""

    def __init__(self, decide, seconds):
        self.decide, self.seconds = decide, seconds
        self.raw, self.bodies, self.images, self.billed, self.url = [], [], [], [], ""


@contextmanager
def chat(decide=lambda number, picture: "", seconds=0.0):
    """A server on loopback; `decide(number, picture)` names the answer to each request."""
    seen, lock = Chat(decide, seconds), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.reply(404, {"detail": "Not Found"})

        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                need(self.path == "/v1/chat/completions", f"no such path {self.path}")
                body = json.loads(content)
                pictures = check(body)
            except (Wrong, KeyError, TypeError, ValueError) as wrong:
                return self.reply(*error(400, f"{type(wrong).__name__}: {wrong}"))
            with lock:
                number = len(seen.raw)
                seen.raw.append(f"{self.requestline}\n{self.headers}".encode() + content)
                seen.bodies.append(body)
                seen.images.append(pictures[-1])
            time.sleep(seen.seconds)
            name = seen.decide(number, pictures[-1])
            status, answer = ANSWERS[name]()
            if status == 200:
                with lock:
                    sent = self.headers["X-Client-Request-Id"]
                    seen.billed.append({"request_id": sent, "picture": pictures[-1], "name": name})
            self.reply(status, answer, cut=name == CUT)

        def reply(self, status, answer, cut=False):
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == 429:
                self.send_header("Retry-After", "0.05")
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # a client that was killed leaves a broken connection behind

    http = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    seen.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield seen
    finally:
        http.shutdown()
        http.server_close()
