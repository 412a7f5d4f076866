"""A reading server started for a test, and a client that speaks its protocol: sign in, page, kernel
socket, answers.
"""

import contextlib
import http.client
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import websockets.sync.client as websocket
from reading_studies import STUDY

PROTOCOL = "http"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`make reader` on a study below `root`; `links` maps reader ids to their links."""

    def __init__(self, root: Path, study: str = STUDY, **environment: str):
        self.root, self.study, self.port, self.environment = (
            Path(root),
            study,
            free_port(),
            environment,
        )
        self.links: dict[str, str] = {}
        self.options: tuple[str, ...] = ()  # more of the command line of `serve`
        self.log = self.root / "server.log"
        self.process = None

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Another subcommand on the same study."""
        told = [
            sys.executable,
            "-m",
            "helpers.reading.server",
            self.study,
            *arguments,
            "--port",
            str(self.port),
        ]
        done = subprocess.run(told, env=self.env(), capture_output=True, text=True, timeout=60)
        self.links.update(re.findall(r"(\S+)  (http\S+login#\S+)", done.stdout))
        return done

    def env(self) -> dict[str, str]:
        folders = {name: str(self.root / name.lower()) for name in ("PARAMS", "OUTPUTS", "KEYS")}
        return {**os.environ, **folders, **self.environment}

    def start(self) -> "Server":
        told = [
            sys.executable,
            "-m",
            "helpers.reading.server",
            self.study,
            "--port",
            str(self.port),
            *self.options,
        ]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                told, env=self.env(), stdout=log, stderr=subprocess.STDOUT
            )
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError):
                if Client(self.port).get("health")[0] == 200:
                    break
            time.sleep(0.1)
        self.links.update(re.findall(r"(\S+)  (http\S+login#\S+)", self.log.read_text()))
        return self

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(90)

    def code(self, number: int = 0) -> str:
        return list(self.links.values())[number].split("#")[1]

    def client(self, number: int = 0) -> "Client":
        """A signed-in client of a reader."""
        client = Client(self.port)
        assert client.post("login", {"code": self.code(number)})[0] == 200
        return client

    def kernels(self) -> list[int]:
        """Process ids of the kernels that this server started."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (folder / "cmdline").read_bytes()
                    parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    if b"ipykernel" in command and parent == self.process.pid:
                        found.append(int(folder.name))
        return found


class Client:
    """One reader's browser, as far as the protocol goes."""

    def __init__(self, port: int, prefix: str = "/"):
        self.port, self.prefix, self.cookie, self.set_cookie = port, prefix, "", ""

    def wait_until_served(self) -> None:
        """Until something listens here and answers."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.get("health")[0] == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("nothing is served here")

    def request(
        self, method: str, path: str, body=None, headers=None, whole: bool = False
    ) -> tuple[int, bytes, dict]:
        """`path` lies below the prefix, or is `whole`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        told = {
            "X-Reading": "1",
            **({"Cookie": self.cookie} if self.cookie else {}),
            **(headers or {}),
        }
        connection.request(
            method,
            path if whole else self.prefix + path.lstrip("/"),
            body,
            {name: value for name, value in told.items() if value is not None},
        )
        answer = connection.getresponse()
        content, found = answer.read(), dict(answer.getheaders())
        connection.close()
        if "reading-" in found.get("Set-Cookie", ""):
            self.set_cookie = found["Set-Cookie"]
            self.cookie = self.set_cookie.split(";")[0]
        return answer.status, content, found

    def get(self, path: str, **headers) -> tuple[int, bytes, dict]:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, body, **headers) -> tuple[int, dict]:
        status, content, _ = self.request("POST", path, json.dumps(body), headers)
        return status, json.loads(content) if content[:1] == b"{" else {}

    def state(self) -> dict:
        status, content, _ = self.get("reading/state")
        assert status == 200, content
        return json.loads(content)

    def send(
        self, event: str, blind_id: str = "", code: str = "", identity: str = "", **payload
    ) -> tuple[int, dict]:
        message = {
            "id": identity or secrets.token_hex(8),
            "event": event,
            "blind_id": blind_id,
            "payload": payload,
            "browser_utc": utc(),
        }
        return self.post("reading/record", {"message": message, "code": code})

    def enter(self) -> dict:
        """Consent, registration and display, up to the first image."""
        self.send("consented")
        self.send("registered", years=3, specialty="Radiology", prior_ai=False)
        self.send("display", steps_seen=True)
        return self.state()

    def answer(self, blind_id: str, **changes) -> tuple[int, dict]:
        self.send("shown", blind_id)
        return self.send(
            "answered",
            blind_id,
            **{"label": "fake", "seconds": 1.5, "description": f"seen {blind_id}"} | changes,
        )

    def picture(self, blind_id: str, reader: str = "") -> tuple[int, bytes, dict]:
        return self.get(f"reading/image/{STUDY}/{reader or self.state()['reader']}/{blind_id}")

    def open_page(self) -> str:
        """Load the page; returns the id of its kernel."""
        status, content, _ = self.get("")
        assert status == 200, content
        return json.loads(
            re.search(rb'<script id="jupyter-config-data"[^>]*>(.*?)</script>', content, re.S)[1]
        )["kernelId"]

    def socket(self, kernel_id: str):
        """The kernel's socket of this page."""
        where = f"ws://127.0.0.1:{self.port}{self.prefix}api/kernels/{kernel_id}/channels?session_id={secrets.token_hex(8)}"
        return websocket.connect(where, additional_headers={"Cookie": self.cookie}, max_size=None)


def message(kind: str, content: dict, channel: str = "shell") -> str:
    header = {
        "msg_id": secrets.token_hex(8),
        "msg_type": kind,
        "username": "",
        "session": "s",
        "version": "5.3",
        "date": utc(),
    }
    return json.dumps(
        {
            "header": header,
            "parent_header": {},
            "metadata": {"version": "1.0.0"},
            "content": content,
            "channel": channel,
            "buffers": [],
        }
    )


def replies(socket_, seconds: float) -> list[dict]:
    """What the kernel says within this time."""
    found, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            text = socket_.recv(timeout=left)
        except TimeoutError:
            break
        found.append(json.loads(text) if isinstance(text, str) else {"binary": text})
    return found


def utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def host_of(url: str) -> str:
    return urlsplit(url).netloc
