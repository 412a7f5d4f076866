"""Behind a real nginx with the README's own lines: at the root, below a prefix that nginx hands on,
and below one that it takes off.
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
    """The README's `location` block for this server, without TLS."""
    text = (ROOT / "README.md").read_text()
    block = text[text.index("  location / {") : text.index("## Speed")]
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
    ("prefix", "passed_on", "options"),
    [
        ("/", True, ()),
        ("/reading/", True, ("--url", "https://study.example.org/reading/")),
        ("/reading/", False, ("--url", "https://study.example.org/reading/")),
        ("/a/b/", True, ("--base-url", "/a/b/")),
    ],
)
def test_the_page_and_its_kernel_work_through_the_readme_s_proxy(
    tmp_path, prefix, passed_on, options
):
    with pytest.MonkeyPatch.context() as patch:
        reading_studies.use(tmp_path, patch.setenv)
        reading_studies.make(tmp_path, read=2, training=0, number_of_readers=2)
    server = Server(tmp_path)
    server.options = ("--proxied", *options)
    server.start()
    (tmp_path / "nginx").mkdir()
    nginx, port = start_nginx(tmp_path / "nginx", server, prefix, passed_on)
    try:
        links = list(server.links.values())
        if "--url" in options:
            assert all(link.startswith(options[1] + "login#") for link in links)
        reader = Client(port, prefix)
        reader.wait_until_served()
        assert reader.post("login", {"code": links[0].split("#")[1]})[0] == 200
        assert f"Path={prefix}" in reader.set_cookie and "Secure" in reader.set_cookie
        state = reader.enter()
        assert reader.picture(state["current"])[0] == 200
        status, page, _ = reader.get("")
        assert status == 200
        script = re.search(rb'<script src="([^"]+)"></script>\s*</body>', page)[1].decode()
        assert script.startswith(prefix) and reader.request("GET", script, whole=True)[0] == 200
        assert f'data-reading="{prefix}"'.encode() in page
        assert reader.get("reading/static/app.js")[0] == 200
        kernel = reader.open_page()
        with reader.socket(kernel):
            pass
        assert reader.answer(state["current"])[0] == 200
        guesser = Client(port, prefix)
        forged = [
            guesser.request(
                "POST",
                "login",
                '{"code": "AAAAA"}',
                {"X-Real-Ip": f"10.0.0.{n}", "X-Forwarded-For": f"10.1.0.{n}", "X-Scheme": "https"},
            )[0]
            for n in range(7)
        ]
        assert forged == [403] * 5 + [429] * 2, "no header of a client takes off the brake"
    finally:
        nginx.terminate()
        nginx.wait(20)
        server.stop()


def test_the_readme_s_unit_prints_no_link(tmp_path):
    text = (ROOT / "README.md").read_text()
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
            assert server.links == {} and "2 readers added" in server.log.read_text()
            server.environment = {}
            assert server.command("links").returncode == 0 and len(server.links) == 2
            assert server.client(0).state()["phase"] == "consent"
        finally:
            server.stop()


def test_a_brake_remembers_a_bounded_number_of_places(monkeypatch):
    monkeypatch.setattr(identity, "MOST_KEYS", 100)
    now = [0.0]
    brake = identity.Brake(lambda: now[0])
    for number in range(1000):
        now[0] += 0.001
        brake.count(f"place {number}")
    assert len(brake.counted) == 100 and all(len(times) <= 5 for times in brake.counted.values())
