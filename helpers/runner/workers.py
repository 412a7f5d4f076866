"""Where work goes: to processes of this machine or, with CLUSTER=, to a cluster's workers. A stage
sees an executor and does not know which.
"""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor


def executor(count: int, preload: str, **needs: float) -> Executor:
    """An executor as in concurrent.futures. With CLUSTER= its tasks go to workers that have the
    resources in `needs` (GPU=1, MEMORY=bytes), if the cluster's workers declare resources.

    Otherwise they go to `count` processes that have imported the module `preload`. If `count` is 0
    they run in this process, one after another. The cluster's scheduler sees the arguments, so they
    must hold nothing about patients.
    """
    if where := os.environ.get("CLUSTER"):
        from helpers.runner import cluster

        return cluster.executor(where, needs)
    return worker_pool(count, preload) if count else _Here()


def died(error: BaseException | None) -> bool:
    """Whether a task has this error because its worker died, here or on the cluster."""
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def cores() -> int:
    """How many cores this process may use. OMP_NUM_THREADS limits them; it may be a list, a number
    for each level, and what is no number is ignored, as by OpenMP.
    """
    outer = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return (outer.isdecimal() and int(outer)) or len(os.sched_getaffinity(0))


def width(count: int) -> int:
    """How many tasks of an executor of `count` processes run at once."""
    if not (where := os.environ.get("CLUSTER")):
        return max(count, 1)
    from helpers.runner import cluster

    return max(cluster.slots(cluster.client(where)), 1)


def tally() -> str:
    """How many tasks are done, running and failed; "" without a cluster."""
    if not (where := os.environ.get("CLUSTER")):
        return ""
    from helpers.runner import cluster

    return cluster.tally(where)


class _Here(Executor):
    """Runs tasks immediately in this process."""

    def submit(self, function, /, *arguments) -> Future:
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


def worker_pool(count: int, preload: str) -> ProcessPoolExecutor:
    """`count` processes that have imported the module `preload`, and that end with the process that
    started them, even if it is killed.

    The processes are not forked: a notebook kernel has threads, and a forked child may wait for
    their locks forever.
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
