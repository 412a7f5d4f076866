"""Kernels of the reading page: one per visit, owned by its reader and started in advance. Their
environment holds only allowed variables.
"""

import asyncio
import json
import os
from contextvars import ContextVar
from pathlib import Path

from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets import Bool, Dict, Integer, List

from helpers.runner.folders import ROOT

PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SYSTEMROOT")
PAGE = "READING_PAGE"
VISITOR: ContextVar[str] = ContextVar("VISITOR")  # the reader for whom a kernel is being started
STUBS = "stubs"  # folder of modules that kernels find before the installed ones
MOST_KERNELS = 2  # per reader: each tab has one, and an earlier tab works without one
# Errors in a kernel are neither sent to a browser nor written to the server's log.
KERNEL_SETTINGS = """import logging
logging.disable(logging.CRITICAL)
c.HistoryManager.enabled = False
c.IPKernelApp.exec_lines = []
"""


def environment(page: dict, home: Path) -> dict[str, str]:
    """The environment of a kernel: the allowed variables, an empty home, and the page's texts and
    settings.
    """
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {
        "HOME": str(home),
        "IPYTHONDIR": str(home),
        "PYTHONPATH": f"{home / STUBS}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return passed | own | {PAGE: json.dumps(page)}


class ReaderKernels(AsyncMappingKernelManager):
    """Gives each visit its own kernel from a small pool started in advance, and remembers the
    reader of each kernel.
    """

    owners = Dict()
    turns = Dict()
    warm = List()
    stock = Integer(1)
    starting = Integer(0)
    filling = Bool(False)

    async def start_kernel(self, **_) -> str:
        """A kernel for the reader of the current request. The reader's kernels without a page are
        ended, and the oldest one if there would be too many.
        """
        reader_id = VISITOR.get()
        loop = asyncio.get_running_loop()
        async with self.turns.setdefault(reader_id, asyncio.Lock()):
            kernel_id = await self._ready() or await self._fresh()
            earlier = [kernel for kernel, owner in self.owners.items() if owner == reader_id]
            self.owners[kernel_id] = reader_id
            await self._end(earlier[: -(MOST_KERNELS - 1)])
        loop.call_later(1.5, lambda: asyncio.ensure_future(self.keep_warm()))
        loop.call_later(10, lambda: asyncio.ensure_future(self._retire(earlier)))
        return kernel_id

    async def _ready(self) -> str:
        while self.warm:
            kernel_id = self.warm.pop()
            if kernel_id in self and await self.get_kernel(kernel_id).is_alive():
                return kernel_id
        return ""

    async def _fresh(self) -> str:
        self.starting += 1
        try:
            given = environment(self.parent.setting.page, Path(self.parent.kernel_home))
            return await super().start_kernel(kernel_name="python3", path="", env=given)
        finally:
            self.starting -= 1

    async def keep_warm(self) -> None:
        """Refill the pool when no visitor is waiting for a kernel."""
        if self.starting or self.filling or len(self.warm) >= self.stock:
            return
        self.filling = True
        try:
            kernel_id = await self._fresh()
            if await self._warmed(kernel_id):
                self.warm.append(kernel_id)
            elif kernel_id in self:
                await self.shutdown_kernel(kernel_id, now=True)
        finally:
            self.filling = False

    async def _warmed(self, kernel_id: str) -> bool:
        """Whether the kernel came up and imported the page."""
        client = self.get_kernel(kernel_id).client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=60)
            reply = await client.execute_interactive(
                "from helpers.reading import page", store_history=False, silent=True, timeout=60
            )
            return reply["content"]["status"] == "ok"
        except (RuntimeError, TimeoutError):
            return False
        finally:
            client.stop_channels()

    async def _retire(self, earlier: list[str]) -> None:
        """End what reloads left behind: a reader's earlier kernels that no page is connected to."""
        await self._end([kernel for kernel in earlier if not self._kernel_connections.get(kernel)])

    async def _end(self, kernels: list[str]) -> None:
        for kernel_id in kernels:
            if kernel_id in self:
                await self.shutdown_kernel(kernel_id, now=True)
            self.owners.pop(kernel_id, None)

    async def cull_kernel_if_idle(self, kernel_id: str) -> None:
        """End an idle kernel, but not one that waits in the pool."""
        if kernel_id not in self.warm:
            await super().cull_kernel_if_idle(kernel_id)


def prepare_home(home: Path) -> Path:
    """An empty home for kernels. Their IPython keeps no history, and they have no debugger, which
    would take 40 % of their memory.
    """
    profile = home / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(KERNEL_SETTINGS)
    (home / STUBS).mkdir()
    (home / STUBS / "debugpy.py").write_text("raise ImportError('a page needs no debugger')\n")
    return home
