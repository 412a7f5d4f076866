"""Who is asking: personal codes, signed sessions, one identity a reader, a brake on guessing."""

import asyncio
import hashlib
import json
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from jupyter_server.auth import Authorizer, IdentityProvider, User
from sqlalchemy import Engine
from tornado import web

from helpers.reading import store

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # no 0, 1, I, O: codes are read aloud and typed
GROUPS, GROUP = 4, 5  # 20 letters of 32: 100 bits, nothing to guess
TRIES, WINDOW_SECONDS = 5, 60.0


def new_code(engine: Engine, reader_id: str, days: int) -> str:
    """A new personal code for a reader, like ABCDE-FGHJK-LMNPQ-RSTUV; only its digest is kept.

    Earlier ones end.
    """
    letters = "".join(secrets.choice(ALPHABET) for _ in range(GROUPS * GROUP))
    expires = (
        (datetime.now(UTC) + timedelta(days=days))
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )
    store.set_code(engine, reader_id, code_digest(letters), expires)
    return "-".join(letters[i : i + GROUP] for i in range(0, len(letters), GROUP))


def code_digest(code: str) -> str:
    """SHA-256 of a code as it is kept: spaces, dashes and case do not matter."""
    plain = re.sub(r"[^0-9A-Z]", "", str(code)[:200].upper())
    return hashlib.sha256(f"reading code {plain}".encode()).hexdigest()


class Brake:
    """At most TRIES wrong codes a minute from one place; a right one does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.wrong = clock, {}

    def wait(self, place: str) -> float:
        """Seconds until this place may try again; 0 when it may."""
        times = self.wrong.get(place, deque())
        while times and self.clock() - times[0] > WINDOW_SECONDS:
            times.popleft()
        if not times:
            self.wrong.pop(place, None)
        return WINDOW_SECONDS - (self.clock() - times[0]) if len(times) >= TRIES else 0.0

    def count(self, place: str) -> None:
        """Note a wrong code from this place."""
        self.wrong.setdefault(place, deque()).append(self.clock())


class ReaderIdentity(IdentityProvider):
    """One identity a reader, from a signed cookie that holds while the reader's code holds.

    There is no other way in.
    """

    @property
    def engine(self) -> Engine:
        return self.parent.engine

    async def get_user(self, handler: web.RequestHandler) -> User | None:
        known = getattr(handler, "_jupyter_current_user", None)
        if known is not None:
            return known
        session = handler.get_secure_cookie(self.cookie, max_age_days=366)
        if not session:
            return None
        reader_id, digest = json.loads(session)
        if await self.holder(digest) != reader_id:
            return None
        return User(reader_id)

    async def holder(self, digest: str) -> str:
        """The reader whose valid code has this digest.

        A store that cannot be read just now answers 503.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(
                None, store.code_holder, self.engine, digest
            )
        except Exception as error:
            if store.unavailable(error):
                raise web.HTTPError(503) from None
            raise

    @property
    def cookie(self) -> str:
        return f"reading-{self.parent.setting.study}"

    def sign_in(self, handler: web.RequestHandler, reader_id: str, digest: str) -> None:
        """Give the browser its session."""
        told = {
            "httponly": True,
            "samesite": "Lax",
            "path": handler.base_url,
            "secure": handler.request.protocol == "https",
        }
        handler.set_secure_cookie(
            self.cookie, json.dumps([reader_id, digest]), expires_days=366, **told
        )

    def sign_out(self, handler: web.RequestHandler) -> None:
        """Take the session from the browser."""
        handler.clear_cookie(self.cookie, path=handler.base_url)

    def get_handlers(self) -> list:
        return []  # signing in is a route of its own; there is no token and no password


class OwnKernelOnly(Authorizer):
    """A reader may reach the kernels that were started for that reader, and nothing else of
    Jupyter's.
    """

    def is_authorized(self, handler, user: User, action: str, resource: str) -> bool:
        kernel_id = handler.path_kwargs.get("kernel_id", "")
        return (
            resource == "kernels" and handler.kernel_manager.owners.get(kernel_id) == user.username
        )
