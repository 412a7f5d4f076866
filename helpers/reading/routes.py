"""The routes of the reading page: sign in, where am I, one message, one image.

Everything is the asking reader's own.
"""

import asyncio
import functools
import json
from urllib.parse import urlparse

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from tornado import web
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler

from helpers.reading import accounts, identity, kernels, reader_state, store
from helpers.reading.setting import STATIC, decoded

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


class Strict:
    """The strict headers of every answer; an error is its number and nothing else."""

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **_) -> None:
        self.finish({"saved": False, "error": f"{status_code}"})


class ReaderHandler(Strict, JupyterHandler):
    """What every route shares: strict headers, JSON answers, no traceback and no echo of what was
    sent.
    """

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    def check_xsrf_cookie(self) -> None:
        """A page of another site can neither set this header nor come from our origin."""
        origin = self.request.headers.get("Origin")
        own = origin is None or urlparse(origin).netloc == self.request.host
        if self.request.headers.get("X-Reading") != "1" or not own:
            raise web.HTTPError(403)

    @property
    def reading_app(self):
        return self.settings["voila"]

    @property
    def reader_id(self) -> str:
        return self.current_user.username

    def signed_out(self) -> bool:
        """Whether nobody is signed in: that is then the answer."""
        if self.current_user is None:
            self.refuse(401, "signed out")
        return self._finished

    def braked(self, brake: identity.Brake, key: str) -> bool:
        """Whether this key has to wait: that is then the answer."""
        wait = brake.wait(key)
        if wait:
            self.set_header("Retry-After", str(int(wait) + 1))
            self.refuse(429, "wait")
        return self._finished

    async def run(self, function, *arguments):
        """A call into the store, off the event loop.

        What cannot be saved now answers 503, what is not accepted 422.
        """
        app = self.reading_app
        try:
            call = functools.partial(function, app.engine, app.setting, self.reader_id, *arguments)
            return await asyncio.get_running_loop().run_in_executor(app.pool, call)
        except store.Refused as refusal:
            self.refuse(422, str(refusal))
        except Exception as error:
            if not store.trouble(error):
                raise
            app.say_trouble(error)
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


class Nothing(ReaderHandler):
    """Any address that is no route."""

    @allow_unauthenticated
    def prepare(self) -> None:
        self.refuse(404, "404")


class SignIn(ReaderHandler):
    """The sign-in page, and the exchange of a personal code for a session."""

    @allow_unauthenticated
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        page = self.reading_app.setting.page
        given = json.dumps({"title": page["title"], "words": page["words"]})
        text = (STATIC / "signin.html").read_text()
        self.finish(text.replace("{{given}}", given.replace("<", "\\u003c")))

    @allow_unauthenticated
    async def post(self) -> None:
        sent, brake, address = self.body(), self.reading_app.brake, identity.address_of(self)
        if self.braked(brake, address):
            return None
        digest = accounts.code_digest(sent.get("code", "") if isinstance(sent, dict) else "")
        if not await self.identity_provider.ask(accounts.code_holder, digest):
            brake.count(address)
            return self.refuse(403, "code")
        await self.identity_provider.sign_in(self, digest)
        return self.finish({"signed_in": True})


class SignOut(ReaderHandler):
    """End this session, wherever its cookie was copied to; what was answered stays."""

    @allow_unauthenticated
    async def post(self) -> None:
        await self.identity_provider.sign_out(self)
        self.finish({"signed_in": False})


class State(ReaderHandler):
    """Where this reader is. Signed out answers 401."""

    @allow_unauthenticated
    async def get(self) -> None:
        if self.signed_out():
            return
        await self.run(reader_state.enter)
        state = None if self._finished else await self.run(reader_state.state)
        if not self._finished:
            self.finish(state)


class Settings(ReaderHandler):
    """The study's texts and settings and the words of the page: what the widget is given too."""

    @allow_unauthenticated
    def get(self) -> None:
        if not self.signed_out():
            self.finish(self.reading_app.setting.page)


class Record(ReaderHandler):
    """Take one message of this reader; the answer is the acknowledgement and where the reader is
    now.
    """

    @allow_unauthenticated
    async def post(self) -> None:
        messages = self.reading_app.messages
        if self.signed_out() or self.braked(messages, self.reader_id):
            return None
        messages.count(self.reader_id)
        sent = self.body()
        if not isinstance(sent, dict):
            return self.refuse(422, "The message is not an object.")
        if sent.get("reader", self.reader_id) != self.reader_id:
            return self.refuse(401, "another reader has signed in")
        message = sent.get("message")
        locking = isinstance(message, dict) and message.get("event") == "locked"
        if locking and not await self.own_code(sent.get("code")):
            return None
        kept = await self.run(reader_state.receive, message)
        state = None if self._finished else await self.run(reader_state.state)
        return None if self._finished else self.finish({**kept, "state": state})

    async def own_code(self, code) -> bool:
        """Locking is signed with the reader's own code, braked like signing in."""
        brake, key = self.reading_app.brake, f"lock {self.reader_id}"
        if self.braked(brake, key):
            return False
        digest = accounts.code_digest(code if isinstance(code, str) else "")
        own = await self.identity_provider.ask(accounts.code_holder, digest) == self.reader_id
        if not own:
            brake.count(key)
            self.refuse(403, "code")
        return own


class Pixels(ReaderHandler):
    """One image as raw little-endian pixels, for its reader only, while it is open or next."""

    @allow_unauthenticated
    async def get(self, study: str, reader_id: str, blind_id: str) -> None:
        if self.signed_out():
            return None
        app = self.reading_app
        if study != app.setting.study or reader_id != self.reader_id:
            return self.refuse(403, "not yours")
        if not await self.run(reader_state.may_fetch, blind_id):
            return None if self._finished else self.refuse(403, "not now")
        width, height, wide, pixels = await asyncio.get_running_loop().run_in_executor(
            app.pool, decoded, app.setting.images[blind_id].path
        )
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Picture", f"{width} {height} {wide}")
        return self.finish(pixels)

    def compute_etag(self) -> None:
        return None  # a tag of the content would be the same for a repeat


class Health(ReaderHandler):
    """For the machine that watches: whether pages are served and an answer could be written."""

    @allow_unauthenticated
    async def get(self) -> None:
        try:
            await self.reading_app.check_health()
        except Exception as error:
            if not store.trouble(error):
                raise
            self.reading_app.say_trouble(error)
            self.set_status(503)
        self.finish({"ok": self.get_status() == 200})


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


class VoilaAssets(Strict, MultiStaticFileHandler):
    """Voila's own scripts."""


class Page(Strict, TornadoVoilaHandler):
    """The page itself: Voila's own rendering, for a signed-in reader, without anything from the
    address.
    """

    async def get(self) -> None:
        reader_id, brake = self.current_user.username, self.settings["voila"].messages
        if brake.wait(reader_id):
            raise web.HTTPError(429)
        brake.count(reader_id)
        kernels.VISITOR.set(reader_id)
        self.request.arguments.clear()
        self.request.query = ""
        await super().get()


class OwnKernel(Strict, KernelHandler):
    """Jupyter's kernel route for the kernel's own reader; readers end no kernels."""

    async def delete(self, kernel_id: str) -> None:
        raise web.HTTPError(403)
