"""The socket between a page and its reader's kernel. It passes on only what a widget needs."""

import json

from jupyter_server.services.kernels.connection.base import (
    deserialize_binary_message,
    deserialize_msg_from_ws_v1,
)
from tornado import web
from voila.tornado.kernel_websocket_handler import VoilaKernelWebsocketHandler

from helpers.reading.routes import Strict

MOST_SOCKETS = 2  # sockets at one kernel: the page's, and the one that it replaces
# A page gets only these messages from its kernel: no output and no error.
HEARD = ("status", "kernel_info_reply", "comm_info_reply", "comm_open", "comm_msg", "comm_close")
TARGET = "jupyter.widget.control"  # asks for the states of all widgets


class OwnSocket(Strict, VoilaKernelWebsocketHandler):
    """The socket between a page and its reader's kernel. It drops forged messages and messages
    above the limit.
    """

    async def pre_get(self) -> None:
        """Refuse with 429 if the kernel already has its maximum number of sockets."""
        manager = self.kernel_manager
        own = manager.owners.get(self.kernel_id) == self.current_user.username
        if own and manager._kernel_connections.get(self.kernel_id, 0) >= MOST_SOCKETS:
            raise web.HTTPError(429)
        await super().pre_get()

    def on_message(self, message) -> None:
        """Pass a message of the page on to the kernel, or drop it."""
        limit, reader_id = self.settings["voila"].message_limit, self.current_user.username
        try:
            proper = _well_formed(*self.parts(message))
        except Exception:  # any other message is not the page's and is dropped
            return
        if proper and not limit.wait(reader_id):
            limit.count(reader_id)
            super().on_message(message)

    def write_message(self, message, binary: bool = False):
        """Pass a message of the kernel on to the page if it is one of HEARD."""
        if self.parts(message)[0] in HEARD:
            return super().write_message(message, binary)
        return None

    def parts(self, message) -> tuple[str, dict]:
        """The kind and content of a message, in any of Jupyter's formats."""
        if self.selected_subprotocol:
            _, parts = deserialize_msg_from_ws_v1(message)
            return json.loads(parts[0])["msg_type"], json.loads(parts[3])
        if isinstance(message, str):
            message = json.loads(message)
        elif isinstance(message, bytes):
            message = deserialize_binary_message(message)
        return message["header"]["msg_type"], message["content"]


def _well_formed(kind: str, content: dict) -> bool:
    """Whether this is a message as the page's own widget code sends it."""
    data = content.get("data", {})
    named = isinstance(content.get("comm_id"), str) and isinstance(data, dict)
    of_comm = named and not data.get("buffer_paths")
    target = content.get("target_name", TARGET)
    return {
        "kernel_info_request": True,
        "comm_info_request": isinstance(target, str),
        "comm_open": of_comm and target == TARGET,
        "comm_msg": of_comm,
        "comm_close": of_comm,
    }.get(kind, False)
