"""Files and batches of the simulated image service: half the price, done after a while, sometimes
only in part.
"""

import json
import time
import uuid
from email.parser import BytesParser
from email.policy import default

from helpers.rehearsal import image_api_answers as answers


def post(api, path: str, body: bytes, content_type: str) -> tuple[int, dict]:
    """POST /v1/files, /v1/batches and /v1/batches/{id}/cancel."""
    if path == "/v1/files":
        fields = _form(body, content_type)
        name = f"file-{uuid.uuid4().hex}"
        api.files[name] = ("input.jsonl", fields["file"])
        return 200, _file(name, fields["file"])
    if path == "/v1/batches":
        return 200, _begin(api, json.loads(body))
    if path.endswith("/cancel"):
        api.batches[path.split("/")[3]]["status"] = "cancelled"
        return 200, _shown(api, path.split("/")[3])
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


def _file(name, content):
    kind = {
        "id": name,
        "object": "file",
        "filename": "input.jsonl",
        "purpose": "batch",
        "status": "processed",
    }
    return {**kind, "bytes": len(content), "created_at": int(time.time())}


def _begin(api, request):
    name = f"batch_{uuid.uuid4().hex}"
    now = int(time.time())
    api.batches[name] = {
        "id": name,
        "object": "batch",
        "endpoint": request["endpoint"],
        "input_file_id": request["input_file_id"],
        "completion_window": request["completion_window"],
        "metadata": request.get("metadata"),
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
    """Do the batch: what succeeds into the output file, what fails or comes too late into the error
    file.
    """
    done, failed = [], []
    lines = [
        json.loads(line)
        for line in api.files[batch["input_file_id"]][1].splitlines()
        if line.strip()
    ]
    for number, line in enumerate(lines):
        late = api.batch_expires_after and number >= api.batch_expires_after
        if late:
            message = {
                "code": "batch_expired",
                "message": (
                    "This request could not be executed before the completion window expired."
                ),
            }
            failed.append(
                {
                    "id": f"batch_req_{number}",
                    "custom_id": line["custom_id"],
                    "response": None,
                    "error": message,
                }
            )
            continue
        kind = api.fault()
        entry = api.record(
            prompt=line["body"].get("prompt"),
            client_request_id=line["custom_id"],
            status=0,
            fault=kind,
            batch=batch["id"],
        )
        status, answer = answers.failure(kind) or answers.generation(line["body"], api, kind)
        entry["status"] = status
        if status == 200:
            entry["billed_usd"], entry["images"] = (
                answers.price(line["body"], answer) / 2,
                len(answer["data"]),
            )
        response = {"status_code": status, "request_id": f"req_{number}", "body": answer}
        (done if status == 200 else failed).append(
            {
                "id": f"batch_req_{number}",
                "custom_id": line["custom_id"],
                "response": response,
                "error": None,
            }
        )
    for key, rows in (("output_file_id", done), ("error_file_id", failed)):
        if rows:
            batch[key] = f"file-{uuid.uuid4().hex}"
            api.files[batch[key]] = (
                "output.jsonl",
                "".join(json.dumps(row) + "\n" for row in rows).encode(),
            )
    late = bool(api.batch_expires_after and len(lines) > api.batch_expires_after)
    batch["status"] = "expired" if late else "completed"
    batch["request_counts"] = {"total": len(lines), "completed": len(done), "failed": len(failed)}
