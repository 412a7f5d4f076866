"""The routes of the reading page: sign-in, state, one message, one image.

Every route serves only the asking reader's own data.
"""

import asyncio
import json
from typing import NoReturn
from urllib.parse import urlparse

from jinja2 import Environment, FileSystemLoader
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler, PublicStaticFileHandler
from jupyter_server.services.kernels.handlers import KernelHandler
from tornado import web
from voila.static_file_handler import MultiStaticFileHandler
from voila.tornado.handler import TornadoVoilaHandler

from helpers.reading import accounts, identity, kernels, reader_state, store
from helpers.reading.setting import STATIC, decoded

LARGEST_BODY = 64_000
TRY_AGAIN_SECONDS = 5  # after which an error page opens again
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
    # No idle connections: a silently broken one would be used for the next answer or reload, and
    # hang.
    "Connection": "close",
}


TEMPLATES = Environment(loader=FileSystemLoader(STATIC / "template"), autoescape=True)


class Strict:
    """The strict headers of every answer. An error answer holds only its number, or a sentence for
    a browser that was to show it as a page.
    """

    def set_default_headers(self) -> None:
        """Set the strict headers."""
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **_) -> None:
        """Answer with the number of the error alone, or with a page that says what to do."""
        if "text/html" not in self.request.headers.get("Accept", ""):
            self.finish({"saved": False, "error": f"{status_code}"})
            return
        page = self.settings["voila"].setting.page
        words = page["words"]["page"]
        if status_code != 404:
            self.set_header("Refresh", f"{TRY_AGAIN_SECONDS}")
        said = {"sentence": words["nothing" if status_code == 404 else "trouble"]}
        said |= {"title": page["title"], "language": page["words"]["language"]}
        said |= {"base": self.settings["voila"].base_url}
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(TEMPLATES.get_template("error.html.j2").render(said))


class ReaderHandler(Strict, JupyterHandler):
    """Shared by every route: strict headers, JSON answers, no traceback and no echo of the
    request.
    """

    def set_default_headers(self) -> None:
        """Set the strict headers, and forbid caching."""
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
        """The server (app.ReadingServer)."""
        return self.settings["voila"]

    @property
    def reader_id(self) -> str:
        """The id of the reader who is signed in."""
        return self.current_user.username

    def refuse_signed_out(self) -> None:
        """Refuse with 401 if nobody is signed in."""
        if self.current_user is None:
            self.refuse(401, "signed out")

    def refuse_over_limit(self, limit: identity.RateLimit, key: str) -> None:
        """Refuse with 429 if this key must wait."""
        if wait := limit.wait(key):
            self.set_header("Retry-After", str(int(wait) + 1))
            self.refuse(429, "wait")

    async def refuse_wrong_code(self, code, key: str, reader_id: str = "") -> str:
        """The digest of a code. Refuses with 403 a code that is not valid, or is not that of
        `reader_id` if given; with 429 after too many wrong codes for `key`.
        """
        limit, digest = self.reading_app.code_limit, accounts.code_digest(code)
        self.refuse_over_limit(limit, key)
        holder = await self.identity_provider.ask(accounts.code_holder, digest)
        if not holder or reader_id not in ("", holder):
            limit.count(key)
            self.refuse(403, "code")
        return digest

    async def run(self, function, *arguments):
        """Call the store about this reader.

        If something cannot be saved now the answer is 503; if it is not accepted, 422.
        """
        about = self.reading_app.setting, self.reader_id
        try:
            return await self.identity_provider.ask(function, *about, *arguments)
        except store.Refused as refusal:
            return self.refuse(422, str(refusal))

    def refuse(self, status: int, sentence: str) -> NoReturn:
        """Answer with an error status and its reason, and end the request here."""
        self.set_status(status)
        raise web.Finish({"saved": False, "error": sentence})

    def body(self) -> dict:
        """The JSON object of the body. Refuses with 400, 413 or 422."""
        if len(self.request.body) > LARGEST_BODY:
            raise web.HTTPError(413)
        try:
            sent = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400) from None
        return sent if isinstance(sent, dict) else self.refuse(422, "The message is not an object.")

    def get_login_url(self) -> str:
        """The address of the sign-in page."""
        return self.base_url + "login"


class NotFound(ReaderHandler):
    """Any address that is not a route."""

    @allow_unauthenticated
    def prepare(self) -> None:
        """Answer 404."""
        raise web.HTTPError(404)


class SignIn(ReaderHandler):
    """The sign-in page, and the exchange of a personal code for a session."""

    @allow_unauthenticated
    def get(self) -> None:
        """The sign-in page."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        page = self.reading_app.setting.page
        given = {"title": page["title"], "words": page["words"]["signin"], "base": ""}
        given |= {"language": page["words"]["language"]}
        self.finish(TEMPLATES.get_template("signin.html.j2").render(given))

    @allow_unauthenticated
    async def post(self) -> None:
        """Begin a session for the reader of a code; 403 for a wrong code, 429 after too many."""
        code = self.body().get("code")
        digest = await self.refuse_wrong_code(code, identity.address_of(self))
        await self.identity_provider.sign_in(self, digest)
        self.finish({"signed_in": True})


class SignOut(ReaderHandler):
    """End this session, wherever its cookie was copied to; the answers stay."""

    @allow_unauthenticated
    async def post(self) -> None:
        """End the session."""
        await self.identity_provider.sign_out(self)
        self.finish({"signed_in": False})


class State(ReaderHandler):
    """The state of this reader. 401 if nobody is signed in."""

    @allow_unauthenticated
    async def get(self) -> None:
        """The reader's state as JSON."""
        self.refuse_signed_out()
        await self.run(reader_state.enter)
        self.finish(await self.run(reader_state.state))


class Settings(ReaderHandler):
    """The study's texts and settings and the words of the page, the same that the widget gets."""

    @allow_unauthenticated
    def get(self) -> None:
        """The settings and words of the page as JSON."""
        self.refuse_signed_out()
        self.finish(self.reading_app.setting.page)


class Record(ReaderHandler):
    """Receive one message of this reader; the answer is the acknowledgement and the reader's new
    state.
    """

    @allow_unauthenticated
    async def post(self) -> None:
        """Receive a message: 200 when saved, 422 when not accepted, 401, 403, 429 or 503 else."""
        self.refuse_signed_out()
        messages = self.reading_app.message_limit
        self.refuse_over_limit(messages, self.reader_id)
        messages.count(self.reader_id)
        sent = self.body()
        if sent.get("reader", self.reader_id) != self.reader_id:
            self.refuse(401, "another reader has signed in")
        message = sent.get("message")
        if isinstance(message, dict) and message.get("event") == "locked":  # signed with the code
            own = f"lock {self.reader_id}", self.reader_id
            await self.refuse_wrong_code(sent.get("code"), *own)
        kept = await self.run(reader_state.receive, message)
        self.finish(kept | {"state": await self.run(reader_state.state)})


class Pixels(ReaderHandler):
    """One image as raw little-endian pixels, for its reader only, while it is open or next."""

    @allow_unauthenticated
    async def get(self, study: str, reader_id: str, blind_id: str) -> None:
        """The pixels of an image; 403 if this reader may not load it now."""
        self.refuse_signed_out()
        app = self.reading_app
        if study != app.setting.study or reader_id != self.reader_id:
            self.refuse(403, "not yours")
        if not await self.run(reader_state.may_fetch, blind_id):
            self.refuse(403, "not now")
        width, height, wide, pixels = await asyncio.get_running_loop().run_in_executor(
            app.pool, decoded, app.setting.images[blind_id].path
        )
        self.set_header("Content-Type", "application/octet-stream")
        self.set_header("X-Picture", f"{width} {height} {wide}")
        self.finish(pixels)

    def compute_etag(self) -> None:
        """No tag: one made from the content would be the same for a repeat."""
        return None


class Health(ReaderHandler):
    """For monitoring: whether pages are served and an answer could be written."""

    @allow_unauthenticated
    async def get(self) -> None:
        """200 if an answer could be written, else 503."""
        try:
            await self.reading_app.check_health()
        except Exception as error:
            self.reading_app.say_trouble(error)
            self.set_status(503)
        self.finish({"ok": self.get_status() == 200})


class Assets(Strict, PublicStaticFileHandler):
    """Scripts and styles of the page; no study data among them."""

    def set_extra_headers(self, path: str) -> None:
        """Let browsers ask for newer files each time."""
        self.set_header("Cache-Control", "no-cache")


class VoilaAssets(Strict, MultiStaticFileHandler):
    """Voila's own scripts."""


class Page(Strict, TornadoVoilaHandler):
    """The page itself: Voila's own rendering for a signed-in reader, without parameters from the
    address.
    """

    async def get(self) -> None:
        """The page in a kernel for this reader; 429 after too many visits."""
        reader_id, limit = self.current_user.username, self.settings["voila"].message_limit
        if limit.wait(reader_id):
            raise web.HTTPError(429)
        limit.count(reader_id)
        kernels.VISITOR.set(reader_id)
        self.request.arguments.clear()
        self.request.query = ""
        await super().get()


class OwnKernel(Strict, KernelHandler):
    """Jupyter's kernel route for the kernel's own reader; readers cannot end kernels."""

    async def delete(self, kernel_id: str) -> None:
        """Refuse: readers cannot end kernels."""
        raise web.HTTPError(403)
