"""Who is asking: sessions, one identity per reader, and a limit on guessing."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from jupyter_server.auth import Authorizer, IdentityProvider, User
from tornado import web

from helpers.reading import accounts

WRONG_CODES, WINDOW_SECONDS = 5, 60.0
MOST_KEYS = 10_000  # keys that a rate limit remembers: many addresses must not fill the memory
COOKIE_DAYS = 366


class RateLimit:
    """A rate limit: at most `most` attempts per minute for one key (an address, a reader)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = WRONG_CODES):
        self.clock, self.most = clock, most
        self.counted: OrderedDict[str, deque] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until this key may try again; 0 if it may now."""
        times = self.counted.get(key, deque())
        while times and self.clock() - times[0] > WINDOW_SECONDS:
            times.popleft()
        if not times:
            self.counted.pop(key, None)
        return WINDOW_SECONDS - (self.clock() - times[0]) if len(times) >= self.most else 0.0

    def count(self, key: str) -> None:
        """Count one attempt of this key. If there are too many keys, the oldest is forgotten."""
        self.counted.setdefault(key, deque(maxlen=self.most)).append(self.clock())
        self.counted.move_to_end(key)
        if len(self.counted) > MOST_KEYS:
            self.counted.popitem(last=False)


def forwarded(handler: web.RequestHandler, name: str, otherwise: str) -> str:
    """The value that the proxy in front gives in an X-Forwarded header: the last entry, which it
    wrote itself.

    It is trusted only with --proxied, and only from the proxy's own address. No other header is
    trusted.
    """
    believed = handler.request.remote_ip in handler.settings["voila"].proxies
    said = handler.request.headers.get(name, "").split(",")[-1].strip()
    return said if believed and said else otherwise


def address_of(handler: web.RequestHandler) -> str:
    """The address for which wrong codes are counted: an IPv4 address, or the /64 of an IPv6
    host.
    """
    peer = handler.request.remote_ip
    try:
        address = ip_address(forwarded(handler, "X-Forwarded-For", peer))
    except ValueError:
        return peer
    address = getattr(address, "ipv4_mapped", None) or address
    return str(ip_network((address, 64), strict=False) if address.version == 6 else address)


class ReaderIdentity(IdentityProvider):
    """One identity per reader, from a session that lasts until sign-out or until the reader's code
    ends. There is no other way in.
    """

    async def get_user(self, handler: web.RequestHandler) -> User | None:
        """The reader whose session the browser sends; None without one."""
        known = getattr(handler, "_jupyter_current_user", None)
        token = self.session_token(handler)
        if known is not None or not token:
            return known
        reader_id = await self.ask(accounts.session_holder, token)
        return User(reader_id) if reader_id else None

    def session_token(self, handler: web.RequestHandler) -> str:
        """The session token that the browser sends; "" for none."""
        kept = handler.get_secure_cookie(self.cookie, max_age_days=COOKIE_DAYS)
        return kept.decode("ascii", "ignore") if kept else ""

    async def ask(self, function: Callable, *arguments):
        """Call the store outside the event loop; 503 if it cannot be reached now."""
        app, loop = self.parent, asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(app.pool, function, app.engine, *arguments)
        except Exception as error:
            app.say_trouble(error)
            raise web.HTTPError(503) from None

    @property
    def cookie(self) -> str:
        """The name of the session cookie."""
        return f"reading-{self.parent.setting.study}"

    async def sign_in(self, handler: web.RequestHandler, code_sha256: str) -> None:
        """Give the browser a session for the reader of this code."""
        handler.set_secure_cookie(
            self.cookie,
            await self.ask(accounts.open_session, code_sha256),
            expires_days=COOKIE_DAYS,
            httponly=True,
            samesite="Lax",
            path=handler.base_url,
            secure=forwarded(handler, "X-Forwarded-Proto", handler.request.protocol) == "https",
        )

    async def sign_out(self, handler: web.RequestHandler) -> None:
        """End the session, here and wherever its cookie was copied to."""
        await self.ask(accounts.end_session, self.session_token(handler))
        handler.clear_cookie(self.cookie, path=handler.base_url)

    def get_handlers(self) -> list:
        """No routes: signing in has its own route; there is no token and no password."""
        return []


class OwnKernelOnly(Authorizer):
    """A reader may reach the kernels that were started for that reader, and nothing else of
    Jupyter's.
    """

    def is_authorized(self, handler, user: User, action: str, resource: str) -> bool:
        """Whether the request is about a kernel of this reader."""
        kernel_id = handler.path_kwargs.get("kernel_id", "")
        owner = handler.kernel_manager.owners.get(kernel_id)
        return resource == "kernels" and owner == user.username
