"""Files and batches of the simulated image service. A batch is worked on when it is asked for."""

import json
import time
import uuid
from email.parser import BytesParser
from email.policy import default

from helpers.rehearsal import image_api_answers as answers


def post(api, path: str, body: bytes, content_type: str) -> tuple[int, dict]:
    """POST /v1/files and /v1/batches."""
    if path == "/v1/files":
        name, content = f"file-{uuid.uuid4().hex}", _form(body, content_type)["file"]
        api.files[name] = ("input.jsonl", content)
        about = {"filename": "input.jsonl", "purpose": "batch", "status": "processed"}
        about |= {"bytes": len(content), "created_at": int(time.time())}
        return 200, {"id": name, "object": "file", **about}
    if path == "/v1/batches":
        return 200, _begin(api, json.loads(body))
    return answers.error(
        404, f"Unknown request URL: POST {path}.", "invalid_request_error", "unknown_url"
    )


def get(api, path: str) -> tuple[int, dict]:
    """GET /v1/batches, /v1/batches/{id} and /v1/files/{id}/content."""
    if path.startswith("/v1/files/") and path.endswith("/content"):
        return 200, api.files[path.split("/")[3]][1]
    if path == "/v1/batches":
        listed = [_shown(api, name) for name in reversed(api.batches)]
        return 200, {"object": "list", "data": listed, "has_more": False}
    name = path.rsplit("/", 1)[1]
    if path.startswith("/v1/batches/") and name in api.batches:
        return 200, _shown(api, name)
    return answers.error(404, f"No such object: {path}.", "invalid_request_error", None)


def _form(body, content_type):
    message = BytesParser(policy=default).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    return {
        part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
        for part in message.iter_parts()
    }


def _begin(api, request):
    name, now = f"batch_{uuid.uuid4().hex}", int(time.time())
    about = {"id": name, "object": "batch", "status": "in_progress", "created_at": now}
    api.batches[name] = {"metadata": None, **request, **about, "expires_at": now + 86_400}
    return dict(api.batches[name])


def _shown(api, name):
    batch = api.batches[name]
    if batch["status"] == "in_progress":
        _work(api, batch)
    return dict(batch)


def _work(api, batch):
    """Do the batch: results go into the output file, failed requests into the error file."""
    files = {"output_file_id": [], "error_file_id": []}
    lines = api.files[batch["input_file_id"]][1].splitlines()
    for number, line in enumerate(map(json.loads, lines)):
        status, answer = api.answer(line["body"])
        response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": answer}
        row = {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "response": response}
        files["output_file_id" if status == 200 else "error_file_id"].append(row | {"error": None})
    for key, rows in files.items():
        if rows:
            batch[key] = f"file-{uuid.uuid4().hex}"
            content = "".join(json.dumps(row) + "\n" for row in rows)
            api.files[batch[key]] = ("output.jsonl", content.encode())
    done, failed = map(len, files.values())
    batch["status"] = "completed"
    batch["request_counts"] = {"total": len(lines), "completed": done, "failed": failed}
