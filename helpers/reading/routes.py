"""The routes of the reading page: sign in, where am I, one message, one image.

Everything is the asking reader's own.
"""

import asyncio
import functools
import json
from collections import OrderedDict
from pathlib import Path
from urllib.parse import urlparse

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from PIL import Image
from tornado import web

from helpers.reading import desk, identity, store

STATIC = Path(__file__).resolve().parent / "static"
LARGEST_BODY = 64_000
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self'"
    " 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' ws:"
    " wss:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # No idle connections: one that has silently broken would be taken for the next answer or
    # reload, and hang.
    "Connection": "close",
}


class ReaderHandler(JupyterHandler):
    """What every route shares: strict headers, JSON answers, no traceback and no echo of what was
    sent.
    """

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """A page of another site can neither set this header nor come from our origin."""
        origin = self.request.headers.get("Origin")
        own = origin is None or urlparse(origin).netloc == self.request.host
        if self.request.headers.get("X-Reading") != "1" or not own:
            raise web.HTTPError(403)

    @property
    def desk_app(self):
        return self.settings["voila"]

    @property
    def reader_id(self) -> str:
        return self.current_user.username

    async def run(self, function, *arguments):
        """A call into the store, off the event loop.

        What cannot be saved now answers 503, what is not accepted 422.
        """
        app = self.desk_app
        try:
            call = functools.partial(function, app.engine, app.setting, self.reader_id, *arguments)
            return await asyncio.get_running_loop().run_in_executor(app.pool, call)
        except store.Refused as refusal:
            self.refuse(422, str(refusal))
        except Exception as error:
            if not (store.unavailable(error) or isinstance(error, OSError)):
                raise
            self.refuse(503, "The answer cannot be saved just now.")
        return None

    def refuse(self, status: int, sentence: str) -> None:
        self.set_status(status)
        self.finish({"saved": False, "error": sentence})

    def body(self):
        """The JSON body. Raises 400 or 413."""
        if len(self.request.body) > LARGEST_BODY:
            raise web.HTTPError(413)
        try:
            return json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400) from None

    def get_login_url(self) -> str:
        return self.base_url + "login"

    def write_error(self, status_code: int, **_) -> None:
        self.finish({"saved": False, "error": f"{status_code}"})


class SignIn(ReaderHandler):
    """The sign-in page, and the exchange of a personal code for a session."""

    @allow_unauthenticated
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        told = self.desk_app.page_told()
        page = (
            (STATIC / "signin.html")
            .read_text()
            .replace(
                "{{told}}",
                json.dumps({"title": told["title"], "language": told["language"]}).replace(
                    "<", "\\u003c"
                ),
            )
        )
        self.finish(page)

    @allow_unauthenticated
    async def post(self) -> None:
        sent = self.body()
        place, brake = self.request.remote_ip, self.desk_app.brake
        wait = brake.wait(place)
        if wait:
            self.set_header("Retry-After", str(int(wait) + 1))
            return self.refuse(429, "wait")
        digest = identity.code_digest(sent.get("code", "") if isinstance(sent, dict) else "")
        holder = await self.identity_provider.holder(digest)
        if not holder:
            brake.count(place)
            return self.refuse(403, "code")
        self.identity_provider.sign_in(self, holder, digest)
        return self.finish({"signed_in": True})


class SignOut(ReaderHandler):
    """End this browser's session; what was answered stays."""

    @allow_unauthenticated
    def post(self) -> None:
        self.identity_provider.sign_out(self)
        self.finish({"signed_in": False})


class Where(ReaderHandler):
    """Where this reader is. Signed out answers 401."""

    @allow_unauthenticated
    async def get(self) -> None:
        if self.current_user is None:
            return self.refuse(401, "signed out")
        app = self.desk_app
        await self.run(desk.enter)
        if self._finished:
            return None
        state = await self.run(desk.where)
        return (
            None
            if state is None
            else self.finish({**state, "reader": self.reader_id, "page": app.page_told()})
        )


class Record(ReaderHandler):
    """Take one message of this reader; the answer is the acknowledgement and where the reader is
    now.
    """

    @allow_unauthenticated
    async def post(self) -> None:
        if self.current_user is None:
            return self.refuse(401, "signed out")
        sent = self.body()
        if not isinstance(sent, dict):
            return self.refuse(422, "The message is not an object.")
        if (
            isinstance(sent.get("message"), dict)
            and sent["message"].get("event") == "locked"
            and not await self.own_code(sent.get("code"))
        ):
            return None
        kept = await self.run(desk.receive, sent.get("message"))
        if kept is None:
            return None
        state = await self.run(desk.where)
        return (
            None
            if state is None
            else self.finish({**kept, "state": {**state, "reader": self.reader_id}})
        )

    async def own_code(self, code) -> bool:
        """Locking is signed with the reader's own code, braked like signing in."""
        brake, place = self.desk_app.brake, f"lock {self.reader_id}"
        wait = brake.wait(place)
        if wait:
            self.set_header("Retry-After", str(int(wait) + 1))
            self.refuse(429, "wait")
        elif (
            not isinstance(code, str)
            or await self.identity_provider.holder(identity.code_digest(code)) != self.reader_id
        ):
            brake.count(place)
            self.refuse(403, "code")
        else:
            return True
        return False


class Picture(ReaderHandler):
    """One image as raw little-endian pixels, for its reader only, while it is open or next."""

    @allow_unauthenticated
    async def get(self, study: str, reader_id: str, blind_id: str) -> None:
        if self.current_user is None:
            return self.refuse(401, "signed out")
        app = self.desk_app
        if study != app.setting.study or reader_id != self.reader_id:
            return self.refuse(403, "not yours")
        if not await self.run(desk.may_fetch, blind_id):
            return None if self._finished else self.refuse(403, "not now")
        width, height, wide, pixels = await asyncio.get_running_loop().run_in_executor(
            app.pool, app.pixels.of, app.setting.pictures[blind_id].path
        )
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Picture", f"{width} {height} {wide}")
        return self.finish(pixels)

    def compute_etag(self) -> None:
        return None  # a tag of the content would be the same for a repeat


class Pixels:
    """Decoded images, the last few kept: readers of a study often look at the same ones."""

    def __init__(self, largest_bytes: int = 96_000_000):
        self.kept, self.largest = OrderedDict(), largest_bytes

    def of(self, path: Path) -> tuple[int, int, int, bytes]:
        """Width, height, bytes a pixel (1 or 2) and the pixels, row by row, little-endian.

        Raises ValueError for another kind of image.
        """
        if path in self.kept:
            self.kept.move_to_end(path)
            return self.kept[path]
        with Image.open(path) as picture:
            if picture.mode not in ("L", "I;16"):
                raise ValueError(f"{path.name} is no one-channel 8- or 16-bit PNG.")
            found = (
                picture.width,
                picture.height,
                1 if picture.mode == "L" else 2,
                picture.tobytes(),
            )
        self.kept[path] = found
        while (
            sum(len(entry[3]) for entry in list(self.kept.values())) > self.largest
            and len(self.kept) > 1
        ):
            self.kept.popitem(last=False)
        return found


class Health(ReaderHandler):
    """For the machine that watches: whether pages are served and the record can be read."""

    @allow_unauthenticated
    async def get(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(
                self.desk_app.pool, store.readers, self.desk_app.engine
            )
        except Exception as error:
            if not store.unavailable(error):
                raise
            self.set_status(503)
            return self.finish({"ok": False})
        return self.finish({"ok": True})


class Assets(ReaderHandler, web.StaticFileHandler):
    """Scripts and styles of the page; no study data among them."""

    def initialize(self, path: str) -> None:
        web.StaticFileHandler.initialize(self, path)

    @allow_unauthenticated
    async def get(self, path: str, include_body: bool = True) -> None:
        await web.StaticFileHandler.get(self, path, include_body)

    @allow_unauthenticated
    async def head(self, path: str) -> None:
        await self.get(path, include_body=False)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")


class OwnKernel(KernelHandler):
    """Jupyter's kernel route for the kernel's own reader; readers end no kernels."""

    async def delete(self, kernel_id: str) -> None:
        raise web.HTTPError(403)
