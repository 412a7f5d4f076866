"""Worker processes that end with the process that started them, however that one ends."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(count: int, preload: str) -> ProcessPoolExecutor:
    """`count` processes that have imported the module `preload`.

    Not fork: a notebook kernel has threads, and a child of it may wait for their locks for ever.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return ProcessPoolExecutor(count, mp_context=context, initializer=_follow_parent)


def _follow_parent() -> None:
    """End at once at Ctrl-C, which the parent gets too, and when the parent is gone."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
