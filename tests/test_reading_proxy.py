"""Behind a real nginx with the lines that users are given: at the root, below a prefix that
is passed on, and below one that is taken off.
"""

import re
import shutil
import subprocess

import pytest
import reading_studies
from conftest import ROOT
from reading_client import Client, Server, free_port

from helpers.reading import identity


def readme_locations(port: int, prefix: str, passed_on: bool) -> str:
    """The `location` block that users are given, for this server, without TLS."""
    text = (ROOT / "helpers/reading/behind_nginx.md").read_text()
    block = text[text.index("  location / {") :]
    lines = [re.split(r" {3,}(?=\S)", line.strip())[0] for line in block.splitlines()]
    lines = "\n".join(lines[: next(n for n, line in enumerate(lines) if line.endswith("} }")) + 1])
    target = f"http://127.0.0.1:{port}" + ("" if passed_on else "/")
    return (
        lines.replace("} }", "}")
        .replace("location / {", f"location {prefix} {{")
        .replace("http://127.0.0.1:8866", target)
    )


def start_nginx(folder, server: Server, prefix: str, passed_on: bool):
    """A running nginx in front of the server; returns (process, port)."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if program is None:
        pytest.fail(
            "nginx is not installed: the proxy must be tested (apt-get install nginx-light)."
        )
    port = free_port()
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi")
    )
    temporary += f"uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;"
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port};\n"
        f"{readme_locations(server.port, prefix, passed_on)} }} }}\n"
    )
    return subprocess.Popen([program, "-c", str(path), "-p", str(folder)]), port


@pytest.mark.parametrize(
    ("prefix", "ways", "options"),
    [
        ("/", [True], ()),
        ("/reading/", [True, False], ("--url", "https://study.example.org/reading/")),
    ],
)
def test_the_page_and_its_kernel_work_through_the_readme_s_proxy(tmp_path, prefix, ways, options):
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(tmp_path, patch.setenv)
        reading_studies.make(tmp_path, read=2, training=0, number_of_readers=2)
    server = Server(tmp_path)
    server.options = ("--proxied", *options)
    server.start()
    try:
        for number, passed_on in enumerate(ways):
            link = list(server.links.values())[number]
            assert "--url" not in options or link.startswith(options[1] + "login#")
            folder = tmp_path / f"nginx{number}"
            folder.mkdir()
            nginx, port = start_nginx(folder, server, prefix, passed_on)
            try:
                read_a_little(Client(port, prefix), link.split("#")[1])
                if number == len(ways) - 1:
                    assert guess(Client(port, prefix)) == [403] * 5 + [429] * 2
            finally:
                nginx.terminate()
                nginx.wait(20)
    finally:
        server.stop()


def read_a_little(reader: Client, code: str) -> None:
    """Sign in, load the page, its scripts, its kernel and an image, answer."""
    reader.wait_until_served()
    assert reader.post("login", {"code": code})[0] == 200
    assert f"Path={reader.prefix}" in reader.set_cookie and "Secure" in reader.set_cookie
    state = reader.enter()
    assert reader.picture(state["current"])[0] == 200
    status, page, _ = reader.get("")
    assert status == 200 and f'data-reading="{reader.prefix}"'.encode() in page
    script = re.search(rb'<script src="([^"]+)"></script>', page)[1].decode()
    assert script.startswith(reader.prefix)
    assert reader.request("GET", script, whole=True)[0] == 200
    assert reader.get("reading/static/app.js")[0] == 200
    with reader.socket(reader.open_page()):
        pass
    assert reader.answer(state["current"])[0] == 200


def guess(visitor: Client) -> list[int]:
    """Wrong codes from one place that claims to be many."""
    claims = ("X-Real-Ip", "X-Forwarded-For", "X-Client-Ip", "Forwarded")
    return [
        visitor.request(
            "POST",
            "login",
            '{"code": "AAAAA"}',
            {**dict.fromkeys(claims, f"10.0.0.{n}"), "X-Scheme": "https"},
        )[0]
        for n in range(7)
    ]


def test_the_readme_s_unit_prints_no_link(tmp_path):
    text = (ROOT / "helpers/reading/behind_nginx.md").read_text()
    unit = re.search(r"helpers\.reading\.server mine serve.*?example\.org/", text, re.S)[0]
    options = re.findall(r"--[a-z-]+", unit)
    assert {"--proxied", "--no-links", "--url"} <= set(options)
    for environment, more in (({}, ("--no-links",)), ({"JOURNAL_STREAM": "9:1"}, ())):
        root = tmp_path / (more or ("journal",))[0]
        with pytest.MonkeyPatch.context() as patch:
            reading_studies.use(root, patch.setenv)
            reading_studies.make(root, read=2, training=0, number_of_readers=2)
        server = Server(root, **environment)
        server.options = more
        server.start()
        try:
            assert server.links == {} and "Readers added: 2" in server.log.read_text()
            server.environment = {}
            assert server.command("links").returncode == 0 and len(server.links) == 2
            assert server.client(0).state()["phase"] == "consent"
        finally:
            server.stop()


def test_a_brake_remembers_a_bounded_number_of_places(monkeypatch):
    monkeypatch.setattr(identity, "MOST_KEYS", 100)
    now = [0.0]
    limit = identity.RateLimit(lambda: now[0])
    for number in range(1000):
        now[0] += 0.001
        limit.count(f"place {number}")
    assert len(limit.counted) == 100 and all(len(times) <= 5 for times in limit.counted.values())
