"""Files and batches of the simulated image service: they cost half, take a while, and sometimes
complete only in part.
"""

import json
import time
import uuid
from email.parser import BytesParser
from email.policy import default

from helpers.rehearsal import image_api_answers as answers

EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


def post(api, path: str, body: bytes, content_type: str) -> tuple[int, dict]:
    """POST /v1/files, /v1/batches and /v1/batches/{id}/cancel."""
    if path == "/v1/files":
        name, content = f"file-{uuid.uuid4().hex}", _form(body, content_type)["file"]
        api.files[name] = ("input.jsonl", content)
        about = {"filename": "input.jsonl", "purpose": "batch", "status": "processed"}
        about |= {"bytes": len(content), "created_at": int(time.time())}
        return 200, {"id": name, "object": "file", **about}
    if path == "/v1/batches":
        return 200, _begin(api, json.loads(body))
    if path.endswith("/cancel"):
        name = path.split("/")[3]
        api.batches[name]["status"] = "cancelled"
        return 200, _shown(api, name)
    return answers.error(
        404, f"Unknown request URL: POST {path}.", "invalid_request_error", "unknown_url"
    )


def get(api, path: str) -> tuple[int, dict]:
    """GET /v1/batches and /v1/batches/{id}."""
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
    api.batches[name] = {
        "metadata": None,
        **request,
        "id": name,
        "object": "batch",
        "status": "in_progress",
        "created_at": now,
        "expires_at": now + 86_400,
        "ready": time.monotonic() + api.batch_seconds,
    }
    return _shown(api, name)


def _shown(api, name):
    batch = api.batches[name]
    if batch["status"] == "in_progress" and time.monotonic() >= batch["ready"]:
        _work(api, batch)
    return {key: value for key, value in batch.items() if key != "ready"}


def _work(api, batch):
    """Do the batch: results go into the output file, failed and late requests into the
    error file.
    """
    lines = [*map(json.loads, api.files[batch["input_file_id"]][1].splitlines())]
    in_time = api.batch_expires_after or len(lines)
    results = [_done(api, batch["id"], line) for line in lines[:in_time]]
    results += [{"response": None, "error": EXPIRED}] * len(lines[in_time:])
    files = {"output_file_id": [], "error_file_id": []}
    for number, (line, result) in enumerate(zip(lines, results)):
        row = {"id": f"batch_req_{number}", "custom_id": line["custom_id"], **result}
        good = result["response"] and result["response"]["status_code"] == 200
        files["output_file_id" if good else "error_file_id"].append(json.dumps(row) + "\n")
    for key, rows in files.items():
        if rows:
            batch[key] = f"file-{uuid.uuid4().hex}"
            api.files[batch[key]] = ("output.jsonl", "".join(rows).encode())
    batch["status"] = "expired" if len(lines) > in_time else "completed"
    done, failed = map(len, files.values())
    batch["request_counts"] = {"total": len(lines), "completed": done, "failed": failed}


def _done(api, batch_id, line):
    """One request of a batch, answered and billed at half the price."""
    request, kind = line["body"], api.fault()
    entry = api.record(
        prompt=request.get("prompt"),
        client_request_id=line["custom_id"],
        status=0,
        fault=kind,
        batch=batch_id,
    )
    status, answer = answers.failure(kind) or answers.generation(request, api, kind)
    entry["status"] = status
    if status == 200:
        billed = {"billed_usd": answers.price(request, answer) / 2, "images": len(answer["data"])}
        entry.update(billed)
    response = {"status_code": status, "request_id": f"req_{uuid.uuid4().hex}", "body": answer}
    return {"response": response, "error": None}
