"""Runs tasks on a cluster's workers with Dask distributed (the extra [cluster]).

CLUSTER=local:4 means four workers on this machine, tls://host:8786 a running scheduler, and slurm:8
eight SLURM jobs (Dask's own jobqueue.yaml says what each job gets).
"""

import functools
import logging
import os
import platform
import re
import shlex
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import dask
from distributed import Client, LocalCluster, Security
from distributed.cfexecutor import ClientExecutor
from filelock import FileLock, Timeout

from helpers.files import sha256, write_atomically
from helpers.loopback import on_loopback
from helpers.runner import folders, freshness, run_folder
from helpers.runner.runs import RunError, lock

# A worker gets these variables from here. The number of threads changes the last bits of a result,
# and Dask gives its workers one thread. No secret is handed on: a worker has its own.
HANDED_ON = ("NOTEBOOKS", "STUDY_FORCE")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_opened: list = []  # clients and clusters of this process
_tasks = Counter()  # of this process: submitted, done, failed


class OtherCode(RunError):
    """A worker has other code or packages than this process; the message names both versions."""


@contextmanager
def session(where: str, study: str) -> Iterator[Client]:
    """Connect to the cluster that CLUSTER names and check it, for as long as a study runs on it.

    Its workers have the same code and packages, see the study's folder and respect its locks.
    Meanwhile CLUSTER holds the scheduler's address. Raises RunError.
    """
    folder = folders.outputs_folder(study)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"Study '{study}' runs on a cluster already: wait until it ends."
    held = lock(folder / ".cluster.lock", busy)
    try:
        opened = client(where)
        address = os.environ["CLUSTER"] = opened.scheduler.address
        print(f"Cluster {address}, dashboard {opened.dashboard_link}", flush=True)
        slots(opened)
        opened.wait_for_workers(1)
        _refuse_open(opened)
        try:
            opened.run(_check_worker, _about(), held.lock_file)
        except (ImportError, AttributeError) as error:
            raise OtherCode(
                f"A worker cannot run this checkout's code ({error}): start it from this checkout,"
                f" {_worker_command(address)}"
            ) from None
        yield opened
    finally:
        os.environ["CLUSTER"] = where
        disconnect()
        held.release()


@functools.cache
def client(where: str) -> Client:
    """Connect to the cluster that CLUSTER names, once per process. Raises RunError."""
    kind, _, count = where.partition(":")
    if kind in ("local", "slurm"):
        if not re.fullmatch(r"local:[1-9]\d*|slurm(:[1-9]\d*)?", where):
            raise RunError(f"CLUSTER={where}: write {kind}:4 for four workers.")
        _opened.append((_local if kind == "local" else _slurm)(int(count or 4)))
        return client(_opened[-1].scheduler_address)
    if kind not in ("tcp", "tls"):
        raise RunError(
            f"CLUSTER={where}: leave it empty, or write local:4, slurm:8 or tls://host:8786."
        )
    if not re.fullmatch(r"t(cp|ls)://[^\s/@]+:\d+", where):
        raise RunError(f"CLUSTER={where}: write the scheduler's address as {kind}://host:8786.")
    if kind == "tcp" and not on_loopback(where):
        raise RunError(_OPEN.format(address=where) + _commands(where.replace("tcp:", "tls:")))
    try:
        _opened.append(Client(where, security=_security() if kind == "tls" else None, timeout=10))
        return _opened[-1]
    except (OSError, TimeoutError):
        raise RunError(f"No scheduler answers at {where}. {_commands(where)}") from None


def disconnect() -> None:
    """Close what `client` opened. Tasks that nobody waits for are abandoned."""
    client.cache_clear()
    while _opened:
        _opened.pop().close()


def executor(where: str, needs: dict[str, float]) -> "_Executor":
    """An executor whose tasks run on the cluster; see workers.executor."""
    opened = client(where)
    declared = [set(worker["resources"]) for worker in _workers(opened).values()]
    known = set().union(*declared)
    return _Executor(opened, resources={k: v for k, v in needs.items() if k in known} or None)


def tally(where: str) -> str:
    """How many tasks of this process are done or failed, and how many the cluster is running."""
    if not _tasks["submitted"]:
        return ""
    counts = [worker["metrics"]["task_counts"] for worker in _workers(client(where)).values()]
    running = sum(count.get(at, 0) for count in counts for at in ("executing", "long-running"))
    return f"; tasks: {_tasks['done']} done, {running} running, {_tasks['failed']} failed"


def slots(opened: Client) -> int:
    """How many tasks the cluster runs at once. If it has no worker, print once how to start one."""
    workers = _workers(opened).values()
    if not workers:
        ours = not isinstance(_opened[0], Client)  # its workers start by themselves
        _say_waiting("." if ours else f": {_worker_command(opened.scheduler.address)}")
    return sum(worker["nthreads"] for worker in workers)


@functools.cache
def _say_waiting(how: str) -> None:
    print(f"No worker is there; waiting for one{how}", flush=True)


def environment() -> dict[str, str | None]:
    """The environment of a task: the study's folders and the number of threads; None for a variable
    that is not set.
    """
    usual = {"PARAMS": "params", "OUTPUTS": "outputs", "KEYS": ".keys"}
    roots = {name: str(folders.placed(name, folder).resolve()) for name, folder in usual.items()}
    own = {name: os.environ.get(name) for name in (*HANDED_ON, *THREADS)}
    return roots | own | {"CLUSTER": None}  # tasks submit no tasks


class _Executor(ClientExecutor):
    """A task is checked on its worker, finds the study's folders, and is named in the dashboard
    after its function.
    """

    def submit(self, function, /, *arguments) -> Future:
        key = f"{function.__name__}-{uuid.uuid4().hex}"
        future = super().submit(_at_study, _about(), environment(), function, *arguments, key=key)
        future.add_done_callback(_count)
        _tasks["submitted"] += 1
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait and not cancel_futures)


def _count(future: Future) -> None:
    if not future.cancelled():
        _tasks["failed" if future.exception() else "done"] += 1


def _at_study(expected: dict, environment: dict, function, *arguments):
    _check_code(expected)
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    return function(*arguments)


@functools.cache
def _about() -> dict[str, str]:
    """What has to be the same on every worker, as it was when this process began."""
    code = sorted([*folders.ROOT.glob("helpers/**/*.py"), *folders.ROOT.glob("notebooks/*.ipynb")])
    files = freshness.digest([[path.name, sha256(path)] for path in code])
    commit = run_folder.git()["commit"] or "none"
    about = {"commit": commit[:12], "helpers and notebooks": files[:12]}
    return about | {"python": platform.python_version()} | run_folder.versions()


def _check_code(expected: dict) -> None:
    for what, value in expected.items():
        if (found := _about().get(what, "none")) != value:
            raise OtherCode(
                f"The worker on {platform.node()} has another {what} ({found} there, {value} here)."
                " Start it again from the same commit with the same packages."
            )


def _check_worker(expected: dict, held: str) -> None:
    _check_code(expected)
    if not Path(held).exists():
        raise RunError(
            f"The worker on {platform.node()} does not see {Path(held).parent}: the folder of"
            " OUTPUTS must be shared by all machines, under the same path."
        )
    try:
        FileLock(held).acquire(blocking=False).lock.release()
    except Timeout:
        return
    raise RunError(
        f"{Path(held).parent} does not lock files between machines, so two machines could work on"
        " one run. Set OUTPUTS=<a folder on a file system that does>, such as NFS 4."
    )


def _workers(opened: Client) -> dict[str, dict]:
    return opened.scheduler_info(n_workers=-1)["workers"]


def _local(count: int) -> LocalCluster:
    """Workers on this machine that nobody else can reach. The operating system manages memory, as
    it does without a cluster.
    """
    # Dask would set the number of threads to one in this process too, and so in every task.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": {}}):
        return LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.ERROR,  # Dask warns of workers that are slow to end
            preload="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",  # for Ctrl-C
        )


def _slurm(jobs: int):
    """SLURM jobs as Dask's configuration describes them, connected over TLS."""
    from dask_jobqueue import SLURMCluster

    try:
        cluster = SLURMCluster(
            protocol="tls://",
            log_directory=dask.config.get("jobqueue.slurm.log-directory")
            or f"{environment()['OUTPUTS']}/.slurm",
            security=_security(),
            scheduler_options={"dashboard_address": "127.0.0.1:0"},
        )
    except ValueError:
        raise RunError(
            "CLUSTER=slurm: Dask's configuration does not say what a job gets. Write it into"
            " ~/.config/dask/jobqueue.yaml, for example"
            " `jobqueue: {slurm: {cores: 4, memory: 16GB, processes: 4, queue: gpu}}`."
        ) from None
    # It listens on this machine alone.
    dask.config.set({"distributed.dashboard.link": "http://127.0.0.1:{port}/status"})
    # A job that ends, by its time limit or otherwise, is followed by another.
    cluster.adapt(minimum_jobs=jobs, maximum_jobs=jobs)
    return cluster


_OPEN = (
    "Other machines can reach {address} without TLS, and anybody who reaches a scheduler or worker"
    " can run any code on it. Nothing was sent. "
)


def _refuse_open(opened: Client) -> None:
    for address in (opened.scheduler.address, *_workers(opened)):
        if not address.startswith("tls:") and not on_loopback(address):
            raise RunError(_OPEN.format(address=address) + _commands("tls://<host>:8786"))


def _certificate() -> Path:
    """One key with its certificate for everybody in the cluster, made when absent or after 300 of
    its 365 days.
    """
    path = Path(environment()["KEYS"]) / "cluster.pem"
    if not path.exists() or path.stat().st_mtime < time.time() - 300 * 86400:
        made = Security.temporary()
        write_atomically(path, (made.tls_client_key + made.tls_client_cert).encode(), mode=0o600)
    return path


def _security() -> Security:
    """TLS as Dask's configuration says, else with the study's own certificate."""
    if dask.config.get("distributed.comm.tls.ca-file", None):
        return Security(require_encryption=True)
    pem = str(_certificate())
    roles = {f"tls_{role}_{part}": pem for role in ("client", "scheduler", "worker")
             for part in ("cert", "key")}  # fmt: skip
    return Security(require_encryption=True, tls_ca_file=pem, **roles)


def _commands(address: str) -> str:
    host, _, port = address.partition("://")[2].rpartition(":")
    return (
        f"Start the scheduler on {host}, and one worker per GPU or core on each machine that shares"
        f" this folder:\n  {_dask()} scheduler --host {host} --port {port} --dashboard-address"
        f" 127.0.0.1:8787{_tls(address)}\n  {_worker_command(address)}"
    )


def _worker_command(address: str) -> str:
    tls = _tls(address)
    alone = "--nthreads 1 --no-dashboard"
    return f"{_dask()} worker {address} {alone}{tls}   # with a GPU: --resources GPU=1"


def _dask() -> str:
    return shlex.quote(str(Path(sys.executable).with_name("dask")))


def _tls(address: str) -> str:
    if not address.startswith("tls:"):
        return ""
    pem = shlex.quote(str(_certificate()))
    return "".join(f" --tls-{part} {pem}" for part in ("ca-file", "cert", "key"))
