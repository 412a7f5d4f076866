"""The server that readers meet: standalone Voila on the one notebook, with an identity per reader
and none of Voila's open doors.
"""

import asyncio
import logging
import os
import re
import shutil
import sys
import tempfile
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jupyter_core.utils import run_sync
from sqlalchemy import Engine
from tornado.ioloop import IOLoop
from traitlets import default
from traitlets.config import Config
from voila.app import Voila

from helpers.reading import identity, kernel_socket, kernels, routes, setting, store, troubles
from helpers.runner.folders import study_key

KERNEL = r"(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)"
CULL_SECONDS = 90
MOST_MESSAGES = 400  # per minute and reader: two per image, plus pages, pauses and widgets
EXTENSIONS = [
    "@voila-dashboards/widgets-manager8",
    "@jupyter-widgets/jupyterlab-manager",
    "anywidget",
]
# The folders of this environment (no user's) that hold the widget extensions.
EXTENSION_FOLDERS = [
    str(Path(sys.prefix) / "share" / "jupyter" / part)
    for part in ("labextensions", "voila/labextensions")
]
OPTIONS = {
    "VoilaConfiguration": {
        "multi_kernel_manager_class": kernels.ReaderKernels,
        "file_allowlist": [r"(?!)"],
        "allow_template_override": "NO",
        "allow_theme_override": "NO",
        "extension_allowlist": EXTENSIONS,
    },
    "ConnectionFileMixin": {"transport": "ipc"},
    "ReaderKernels": {
        "cull_idle_timeout": CULL_SECONDS,
        "cull_interval": 30,
        "buffer_offline_messages": False,
    },
    "Voila": {
        "identity_provider_class": identity.ReaderIdentity,
        "authorizer_class": identity.OwnKernelOnly,
        "tornado_settings": {
            "default_handler_class": routes.NotFound,
            "websocket_max_message_size": routes.LARGEST_BODY,
        },
    },
}


class ReadingServer(Voila):
    """Voila with the reading page's identity, kernels and routes, and none of its open doors."""

    proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded headers are believed

    def __init__(self, opened: setting.Setting, engine: Engine, **options):
        super().__init__(**options)
        self.setting, self.engine = opened, engine
        self.pool = ThreadPoolExecutor(8)
        self.code_limit, self.message_limit = (
            identity.RateLimit(),
            identity.RateLimit(most=MOST_MESSAGES),
        )
        self.health_check: asyncio.Future | None = None
        self.kernel_home = kernels.prepare_home(Path(tempfile.mkdtemp(prefix="reading_")))

    @default("cookie_secret")
    def _kept_cookie_secret(self) -> bytes:
        return study_key(self.setting.study, "cookie")

    def load_config_file(self, *_, **__) -> None:
        """Load no configuration: nothing on this machine changes how readers are served."""

    def say_trouble(self, error: Exception) -> None:
        """Log in one line why the record cannot be read or written; raise any other error."""
        if not (why := troubles.trouble(error)):
            raise error
        self.log.error("The record cannot be read or written: %s.", why)

    async def check_health(self) -> None:
        """Write to the store as an answer would be written. Simultaneous requests share one
        check.
        """
        if self.health_check is None or self.health_check.done():
            self.health_check = asyncio.get_running_loop().run_in_executor(
                self.pool, store.check_writable, self.engine
            )
        await asyncio.shield(self.health_check)

    def init_handlers(self) -> list:
        """The routes of this server, and no other routes of Voila or Jupyter."""
        prefix = re.escape(self.server_url.rstrip("/"))
        # a word that the page needs when it cannot ask for its words
        trouble = self.setting.page["words"]["page"]["trouble"]
        self.voila_configuration.extension_config = {"trouble": trouble}

        def at(path: str) -> str:  # a proxy may pass the prefix on or remove it
            return f"(?:{prefix})?{path}"

        images = at(r"/reading/image/([^/]+)/([^/]+)/([^/]+)")
        shown = {
            "notebook_path": os.path.relpath(self.notebook_path, self.root_dir),
            "template_paths": self.template_paths,
            "config": self.config,
            "voila_configuration": self.voila_configuration,
        }
        scripts = {"paths": self.static_paths}
        return [
            (at("/health"), routes.Health),
            (at("/login"), routes.SignIn),
            (at("/logout"), routes.SignOut),
            (at("/reading/state"), routes.State),
            (at("/reading/settings"), routes.Settings),
            (at("/reading/record"), routes.Record),
            (images, routes.Pixels),
            (at(r"/reading/static/(.*)"), routes.Assets, {"path": str(setting.STATIC)}),
            (at(rf"/api/kernels/{KERNEL}"), routes.OwnKernel),
            (at(rf"/api/kernels/{KERNEL}/channels"), kernel_socket.OwnSocket),
            (at(r"/voila/static/(.*)"), routes.VoilaAssets, scripts),
            (at(r"/voila/labextensions/(.*)"), routes.VoilaAssets, {"paths": EXTENSION_FOLDERS}),
            (at("/"), routes.Page, shown),
        ]

    def listen(self) -> None:
        """Serve on the port until Ctrl-C, then stop."""
        self.app.listen(self.port, self.ip, max_body_size=1_000_000)
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
        """End the kernels, delete their folders and close the store."""
        # Kernels hold no data, so there is nothing to wait for.
        run_sync(self.kernel_manager.shutdown_all)(now=True)
        shutil.rmtree(self.connection_dir, ignore_errors=True)
        shutil.rmtree(self.kernel_home, ignore_errors=True)
        self.pool.shutdown(wait=True)
        self.engine.dispose()
        print("Stopped. Every acknowledged answer is in the store.", flush=True)


def serve(opened: setting.Setting, engine: Engine, options: Namespace) -> None:
    """Serve readers until stopped."""
    app = ReadingServer(
        opened,
        engine,
        config=Config(OPTIONS),
        port=options.port,
        ip=options.ip,
        open_browser=False,
        base_url=options.base_url,
        log_level=logging.WARNING,
    )
    app.notebook_path, app.root_dir = str(setting.NOTEBOOK), str(setting.NOTEBOOK.parent)
    app.proxies = options.proxied
    app.initialize([])
    app.template_paths.insert(0, str(setting.STATIC / "template"))
    app.start()
