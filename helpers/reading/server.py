"""Serve the reading page: standalone Voila on the one notebook, one identity a reader; and look
after readers.

    python -m helpers.reading.server STUDY
    [serve|links|add|revoke|renew|status|export|backup|verify|withdraw|erase] [READER]

No key, no source names, no truth and no pandas are in this process.
"""

import argparse
import logging
import os
import shutil
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_core.utils import run_sync
from jupyter_server.utils import url_path_join
from sqlalchemy import Engine
from tornado.ioloop import IOLoop
from traitlets import default
from traitlets.config import Config
from voila.app import Voila
from voila.static_file_handler import MultiStaticFileHandler, TemplateStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from helpers.reading import identity, kernels, operations, routes, setting, store
from helpers.runner import parameters

KERNEL = r"(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"
CULL_SECONDS = 90
LARGEST_REQUEST = 1_000_000
EXTENSIONS = [
    "@voila-dashboards/widgets-manager8",
    "@jupyter-widgets/jupyterlab-manager",
    "anywidget",
]


class ReadersPage(TornadoVoilaHandler):
    """The page itself:

    Voila's own rendering, for a signed-in reader, without anything from the address.
    """

    def set_default_headers(self) -> None:
        for name, value in routes.HEADERS.items():
            self.set_header(name, value)

    async def get(self) -> None:
        kernels.VISITOR.set(self.current_user.username)
        self.request.arguments.clear()
        self.request.query = ""
        await super().get()


class ReadingServer(Voila):
    """Voila with the reading page's identity, kernels and routes, and none of its open doors."""

    proxied = False

    def __init__(self, opened: setting.Setting, engine: Engine, **options):
        super().__init__(**options)
        self.setting, self.engine = opened, engine
        self.pool = ThreadPoolExecutor(8)
        self.brake, self.pixels = identity.Brake(), routes.Pixels()
        self.kernel_home = kernels.prepare_home(Path(tempfile.mkdtemp(prefix="reading_")))

    @default("cookie_secret")
    def _kept_cookie_secret(self) -> bytes:
        return setting.cookie_secret(self.setting.study)

    def load_config_file(self, *_, **__) -> None:
        """Nothing on this machine changes how readers are served."""

    def page_told(self) -> dict:
        """What the page and the kernels are told of the study: texts and what is asked.

        No truth is in this process.
        """
        told, asked = self.setting.told, self.setting.asked
        texts = {
            name: told.get(name, "")
            for name in (
                "study",
                "title",
                "consent",
                "instructions",
                "contact",
                "protocol",
                "ethics",
            )
        }
        names = (
            "confidence",
            "description_required",
            "findings_required",
            "findings_offered",
            "cues_asked",
            "cues_required",
            "cues",
        )
        shown = {
            name: asked[name] for name in (*names, "going_back", "break_after", "first_window")
        }
        return (
            texts | shown | {"language": told.get("language") or "en", "bits": told.get("bits", 0)}
        )

    def init_handlers(self) -> list:
        def at(path: str) -> str:
            return url_path_join(self.server_url, path)

        images = at(r"/reading/image/([A-Za-z0-9_.-]+)/([A-Za-z0-9_-]+)/([A-Za-z0-9_-]+)")
        shown = {
            "notebook_path": os.path.relpath(self.notebook_path, self.root_dir),
            "template_paths": self.template_paths,
        }
        shown |= {"config": self.config, "voila_configuration": self.voila_configuration}
        return [
            (at("/health"), routes.Health),
            (at("/login"), routes.SignIn),
            (at("/logout"), routes.SignOut),
            (at("/reading/state"), routes.Where),
            (at("/reading/record"), routes.Record),
            (images, routes.Picture),
            (at(r"/reading/static/(.*)"), routes.Assets, {"path": str(routes.STATIC)}),
            (at(rf"/api/kernels/{KERNEL}"), routes.OwnKernel),
            (at(rf"/api/kernels/{KERNEL}/channels"), VoilaKernelWebsocketHandler),
            (at(r"/voila/templates/(.*)"), TemplateStaticFileHandler),
            (at(r"/voila/static/(.*)"), MultiStaticFileHandler, {"paths": self.static_paths}),
            (at(r"/voila/labextensions/(.*)"), MultiStaticFileHandler, {"paths": labextensions()}),
            (at("/"), ReadersPage, shown),
        ]

    def listen(self) -> None:
        self.app.listen(self.port, self.ip, xheaders=self.proxied, max_body_size=LARGEST_REQUEST)
        self.ioloop = IOLoop.current()
        self.ioloop.add_callback(self.kernel_manager.keep_warm)
        print(
            f"Readers are served on http://{self.ip or '0.0.0.0'}:{self.port}{self.base_url} (stop"
            " with Ctrl-C).",
            flush=True,
        )
        try:
            self.ioloop.start()
        except KeyboardInterrupt:
            print("Stopping …", flush=True)
        finally:
            self.stop()

    def stop(self) -> None:
        run_sync(self.kernel_manager.shutdown_all)(
            now=True
        )  # kernels hold nothing: there is nothing to wait for
        shutil.rmtree(self.connection_dir, ignore_errors=True)
        shutil.rmtree(self.kernel_home, ignore_errors=True)
        self.pool.shutdown(wait=True)
        self.engine.dispose()
        print("Stopped. Every acknowledged answer is in the store.", flush=True)


def labextensions() -> list[str]:
    """The folders of this environment (no user's) that hold the widget extensions."""
    shared = Path(sys.prefix) / "share" / "jupyter"
    return [str(shared / "labextensions"), str(shared / "voila" / "labextensions")]


def refuse_taken(ip: str, port: int) -> None:
    """Raises SettingError when the port cannot be listened on."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip or "0.0.0.0", port))
        except (OSError, OverflowError) as error:
            told = getattr(error, "strerror", None) or error
            raise setting.SettingError(
                f"Port {port} of '{ip}' cannot be used ({told}): choose another with --port or"
                " --ip."
            ) from None


def serve(
    opened: setting.Setting, engine: Engine, port: int, ip: str, base_url: str, proxied: bool
) -> None:
    """Serve until stopped."""
    options = Config()
    options.VoilaConfiguration.multi_kernel_manager_class = kernels.ReaderKernels
    options.VoilaConfiguration.file_allowlist = [r"(?!)"]
    options.VoilaConfiguration.allow_template_override = "NO"
    options.VoilaConfiguration.allow_theme_override = "NO"
    options.VoilaConfiguration.extension_allowlist = EXTENSIONS
    options.ConnectionFileMixin.transport = "ipc"
    options.ReaderKernels.cull_idle_timeout = CULL_SECONDS
    options.ReaderKernels.cull_interval = 30
    options.ReaderKernels.buffer_offline_messages = False
    options.Voila.identity_provider_class = identity.ReaderIdentity
    options.Voila.authorizer_class = identity.OwnKernelOnly
    app = ReadingServer(
        opened,
        engine,
        config=options,
        port=port,
        ip=ip,
        open_browser=False,
        base_url=base_url,
        log_level=logging.WARNING,
    )
    app.notebook_path, app.root_dir = str(setting.NOTEBOOK), str(setting.NOTEBOOK.parent)
    app.proxied = proxied
    app.initialize([])
    app.template_paths.insert(0, str(routes.STATIC / "template"))
    app.start()


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status. One sentence for what cannot be done."""
    parser = argparse.ArgumentParser(prog="make reader", description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument(
        "command", nargs="?", default="serve", choices=["serve", *operations.COMMANDS]
    )
    parser.add_argument("reader", nargs="?", default="", help="a reader's opaque id")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument(
        "--ip", default="127.0.0.1", help="address to listen on; behind a proxy leave it"
    )
    parser.add_argument("--base-url", default="/", help="path below which the page is served")
    parser.add_argument(
        "--url",
        default="",
        help="address that readers use, for their links, e.g. https://study.example.org/",
    )
    parser.add_argument(
        "--proxied", action="store_true", help="trust the X-Forwarded headers of the proxy in front"
    )
    parser.add_argument(
        "--reading-set", type=Path, help="a reading_set/ folder that was copied to this host"
    )
    parser.add_argument(
        "--to",
        default="",
        help=(
            "where export and backup write: a folder, a .sqlite file, or for export a database URL"
        ),
    )
    parser.add_argument(
        "--hash", default="", help="the hash that a reader kept from the lock, for verify"
    )
    parser.add_argument("--reason", default="", help="for erase: why")
    asked = parser.parse_args(arguments)
    asked.base_url = "/" + asked.base_url.strip("/") + "/" if asked.base_url.strip("/") else "/"
    try:
        opened = setting.load(asked.study, asked.reading_set)
        engine = store.open_store(opened.store_place)
        here = (
            socket.gethostname()
            if asked.ip in ("", "0.0.0.0", "::")
            else f"[{asked.ip}]"
            if ":" in asked.ip
            else asked.ip
        )
        link = (asked.url or f"http://{here}:{asked.port}{asked.base_url}").rstrip("/") + "/login#"
        if asked.command == "serve":
            refuse_taken(asked.ip, asked.port)
            operations.greet(engine, opened, link)
            serve(opened, engine, asked.port, asked.ip, asked.base_url, asked.proxied)
            return 0
        return operations.COMMANDS[asked.command](engine, opened, asked, link)
    except (
        setting.SettingError,
        store.StoreError,
        store.Refused,
        parameters.ParameterError,
    ) as error:
        print(error, file=sys.stderr)
    except Exception as error:
        if not store.unavailable(error):
            raise
        print(
            "The store cannot be read or written just now (locked, full or gone): try again.",
            file=sys.stderr,
        )
    return 1


if __name__ == "__main__":
    sys.exit(main())
