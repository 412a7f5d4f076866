"""A TCP proxy between browser and server that can cut connections or freeze them half-open."""

import contextlib
import selectors
import socket
import threading


class Proxy:
    """Forwards 127.0.0.1:`port` to `target`.

    `mode` is pass, cut (connections are reset and refused) or freeze (packets vanish).
    """

    def __init__(self, target: int):
        self.target, self.mode, self.open = target, "pass", []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            if self.mode == "cut":
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target), timeout=2)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            pair = [near, far, self.mode == "freeze"]
            self.open.append(pair)
            threading.Thread(target=self._carry, args=(pair,), daemon=True).start()

    def _carry(self, pair: list) -> None:
        near, far, _ = pair
        chosen = selectors.DefaultSelector()
        with contextlib.suppress(OSError, ValueError):
            chosen.register(near, selectors.EVENT_READ, far)
            chosen.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in chosen.select():
                    data = key.fileobj.recv(65536)
                    if not data:
                        raise OSError
                    if not pair[2]:
                        key.data.sendall(data)
        for end in (near, far):
            end.close()

    def set(self, mode: str) -> None:
        """Change the mode; what is frozen stays frozen until it is cut, as with packets that
        vanish.
        """
        self.mode = mode
        if mode == "freeze":
            for pair in self.open:
                pair[2] = True
        if mode == "cut":
            for near, far, _ in self.open:
                for end in (near, far):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
            self.open.clear()

    def close(self) -> None:
        self.server.close()
        self.set("cut")
