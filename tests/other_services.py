"""Small strict servers in the shape of other image services: what each takes, refuses and says."""

import base64
import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def png(width=64, height=64, grey=100):
    buffer = io.BytesIO()
    Image.new("L", (width, height), grey % 256).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def serving(answer):
    """A server on loopback: `answer(method, path, headers, body)` gives status, content (bytes, or
    what becomes JSON, or an iterator without an end) and perhaps headers. Yields its address and
    the requests so far.
    """
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.reply(None)

        def do_POST(self):
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def reply(self, body):
            headers = {key.lower(): value for key, value in self.headers.items()}
            if body is not None:
                seen.append({"path": self.path, "headers": headers, "body": body})
            status, content, *more = answer(self.command, self.path, headers, body)
            endless = isinstance(content, Iterator)
            if not endless and not isinstance(content, bytes):
                content = json.dumps(content).encode()
            length = {"Connection": "close"} if endless else {"Content-Length": str(len(content))}
            self.send_response(status)
            for name, value in (length | (more or [{}])[0]).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for piece in content if endless else [content]:
                    self.wfile.write(piece)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", seen
    finally:
        http.shutdown()
        http.server_close()


def images_only(generate, models=(404, {"detail": "Not Found"})):
    """An answer function: `generate(path, headers, body)` at …/images/generations, `models` at
    …/models.
    """

    def answer(method, path, headers, body):
        if method == "GET":
            return models if path.split("?")[0].endswith("/models") else (404, {})
        return generate(path, headers, body)

    return answer


def _listed(*names):
    return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}


def _b64(body, **more):
    size = body.get("size", "1024x1024")
    width, height = (int(edge) for edge in size.split("x"))
    image = base64.b64encode(png(width, height, len(json.dumps(body)))).decode()
    return 200, {"created": 1, "data": [{"b64_json": image}], **more}


def _only(body, *fields):
    return sorted(body.keys() - {"model", "prompt", "n", *fields})


def gemini(path, headers, body):
    assert path == "/v1beta/openai/images/generations"
    if headers["authorization"] != "Bearer the-key":
        return 400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID"}}]
    wrong = _only(body, "response_format")
    if wrong or body["response_format"] != "b64_json":
        message = f'Invalid JSON payload received. Unknown name "{wrong}"'
        return 400, [{"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}]
    return _b64(body)


def _azure(headers, body, ok):
    if headers.get("api-key") != "the-key":
        return 401, {"error": {"code": "401", "message": "Access denied due to invalid key."}}
    if not ok:
        return 404, {"error": {"code": "DeploymentNotFound", "message": "does not exist"}}
    wrong = _only(body, "size", "quality")
    if wrong:
        return 400, {"error": {"code": "BadRequest", "message": f"Unrecognized field {wrong}"}}
    usage = {"input_tokens": 10, "output_tokens": 1756, "total_tokens": 1766}
    return _b64(body, usage=usage)


def azure_v1(path, headers, body):
    assert path.split("?")[0] == "/openai/v1/images/generations"
    return _azure(headers, body, body["model"] == "our-images")


def azure_deployment(path, headers, body):
    ours = "/openai/deployments/our-images/images/generations?api-version=2025-04-01-preview"
    return _azure(headers, body, path == ours)


def _litellm(headers, body, *fields):
    if headers["authorization"] != "Bearer the-key":
        message = f"Authentication Error, LiteLLM: key {headers['authorization']} not found"
        return 401, {"error": {"message": message, "type": "auth_error", "code": "401"}}
    wrong = _only(body, *fields)
    if wrong:
        message = f"litellm.UnsupportedParamsError: does not support parameters: {wrong}"
        error = {"message": message, "type": "None", "param": "None", "code": "400"}
        return 400, {"error": error}
    return None


def litellm_bedrock(path, headers, body):
    return _litellm(headers, body, "size") or _b64(body, usage=None)


def litellm_fal(path, headers, body):
    address = f"http://{headers['host']}/files/1.png?sig=abc"
    return _litellm(headers, body, "size") or (200, {"data": [{"url": address}]})


def sd_server(path, headers, body):
    wrong = _only(body, "size", "output_format", "output_compression")
    further = re.findall(r"<sd_cpp_extra_args>(.*?)</sd_cpp_extra_args>", body["prompt"])
    if wrong or len(further) != 1:
        return 400, {"error": f"unexpected {wrong}"}
    assert json.loads(further[0]).keys() == {"seed", "sample_params"}
    return _b64(body, output_format="png")


def vllm_omni(path, headers, body):
    wrong = _only(body, "size", "response_format", "seed", "num_inference_steps")
    if wrong:
        return 422, {"detail": [{"loc": ["body", wrong[0]], "msg": "Extra inputs", "type": "e"}]}
    assert isinstance(body["seed"], int) and body["response_format"] == "b64_json"
    return _b64(body)


def localai(path, headers, body):
    wrong = _only(body, "size", "response_format", "seed", "step")
    if wrong:
        return 500, {"error": {"code": 500, "message": f"unknown {wrong}", "type": ""}}
    return _b64(body)


SHAPES = {
    "gemini": (gemini, _listed("models/gemini-3-pro", "models/imagen-4.0-generate-001")),
    "azure_v1": (azure_v1, _listed("gpt-image-2", "gpt-5")),
    "azure_deployment": (azure_deployment, (404, {"error": {"code": "404", "message": "none"}})),
    "litellm_bedrock": (litellm_bedrock, _listed("bedrock/*", "anthropic/claude")),
    "litellm_stability": (litellm_bedrock, (500, {"error": {"message": "no database"}})),
    "litellm_fal": (litellm_fal, _listed("fal_ai/fal-ai/flux-pro/v1.1")),
    "sd_server": (sd_server, _listed("sd-cpp-local")),
    "vllm_omni": (vllm_omni, _listed("Qwen/Qwen-Image")),
    "sglang": (vllm_omni, (405, {"detail": "Method Not Allowed"})),
    "localai": (localai, (200, {"object": "list", "data": []})),
}
