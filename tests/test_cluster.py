"""The same study on a cluster: a real scheduler and real workers as processes on loopback."""

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import ROOT, manifest, values
from reading_client import free_port
from small_training import QUICK, write_cases
from test_cases import CELL, hospital
from test_study import results, run

from helpers import study
from helpers.prepare_cases import cases
from helpers.runner import cluster, folders, runs

DASK = Path(sys.executable).with_name("dask")


class Cluster:
    """A scheduler and workers, each a process of its own; kill -9 takes one away."""

    def __init__(self, folder: Path, count: int = 2, scheduler=("--host", "127.0.0.1"), worker=()):
        self.folder, self.extra = folder, worker
        self.log = (folder / "dask.log").open("ab")
        place = folder / "scheduler.json"
        port = ("--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", place)
        self.scheduler = self._start("scheduler", *scheduler, *port)
        self.address = self._address(place)
        self.workers = [self.start_worker() for _ in range(count)]

    def _address(self, place: Path) -> str:
        """The scheduler's address, once its file is there and written to its end."""
        while self.scheduler.poll() is None:
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                return json.loads(place.read_text())["address"]
            time.sleep(0.05)
        raise AssertionError((self.folder / "dask.log").read_text())

    def _start(self, *command):
        return subprocess.Popen(
            [str(part) for part in (DASK, *command)],
            stdout=self.log, stderr=self.log, cwd=ROOT, start_new_session=True,
        )  # fmt: skip

    def start_worker(self):
        own = self.folder / "local"
        options = ("--no-nanny", "--nthreads", 1, "--local-directory", own, "--no-dashboard")
        return self._start("worker", self.address, *options, *self.extra)

    def busy(self):
        """The worker that has a run in a process of its own."""
        return next(one for one in self.workers if psutil.Process(one.pid).children())

    def stop(self):
        cluster.disconnect()
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
        self.log.close()


@pytest.fixture
def two(tmp_path, monkeypatch):
    """Two workers at a scheduler, and CLUSTER= with its address."""
    made = Cluster(tmp_path)
    monkeypatch.setenv("CLUSTER", made.address)
    yield made
    made.stop()


def wait_until(condition, process=None, seconds=600):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.02)


def kill_worker_at(folder: Path, pattern: str, dask: Cluster, which=lambda dask: dask.workers[0]):
    """Kill -9 one worker as soon as a file is there; in a thread, beside what is tested."""
    import threading

    def wait_and_kill():
        wait_until(lambda: any(folder.glob(pattern)))
        which(dask).kill()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    return thread


def test_a_study_gives_the_same_on_a_cluster(small, two, capfd, monkeypatch):
    (small / "params/small/01_count.yaml").write_text("wait: 0.5\n")
    assert run() == study.DONE
    said = capfd.readouterr().out
    there = results(small / "outputs")
    assert f"Cluster {two.address}, dashboard http://127.0.0.1:" in said
    assert "01_count: counted 3" in said, "what a run says is on the terminal too"
    assert "counted 3" in (small / "outputs/small/01_count/run.log").read_text()
    begun = {n: manifest(small / f"outputs/small/{n}") for n in ("01_count", "03_alone")}
    assert begun["03_alone"]["started_utc"] < begun["01_count"]["finished_utc"], "side by side"
    assert all("run.log" not in f["path"] for one in begun.values() for f in one["files"])
    assert run() == study.DONE and capfd.readouterr().out.count("finished, skipped") == 3
    shutil.rmtree(small / "outputs/small")
    monkeypatch.setenv("CLUSTER", "")
    assert run() == study.DONE
    assert results(small / "outputs") == there


def threads(where: str) -> str | None:
    """What a task sees of the number of threads."""
    try:
        with cluster.executor(where, {}) as executor:
            return executor.submit(os.environ.get, "OMP_NUM_THREADS").result()
    finally:
        cluster.disconnect()


def test_tasks_have_as_many_threads_as_the_study(two, monkeypatch):
    """The number changes the last bits of what is trained; Dask would make it one."""
    for given in ("2", None):
        if given is None:
            monkeypatch.delenv("OMP_NUM_THREADS")
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert threads("local:1") == given
        assert os.environ.get("OMP_NUM_THREADS") == given, "here"
        assert threads(two.address) == given


def test_a_worker_killed_in_the_middle_of_import_changes_nothing(
    tmp_path, study_folders, two, monkeypatch
):
    folder = hospital(tmp_path / "Doe_Jane", 40)
    seen = []
    submit = cluster._Executor.submit
    monkeypatch.setattr(
        cluster._Executor, "submit",
        lambda self, *task: (seen.append(pickle.dumps(task)), submit(self, *task))[1],
    )  # fmt: skip
    killing = kill_worker_at(study_folders / "outputs/there", "01_prepare_cases/images/*", two)
    there = imported(folder, "there", monkeypatch)
    killing.join()
    assert seen and not any(b"Doe_Jane" in task or b".dcm" in task for task in seen)
    logs = (two.folder / "dask.log").read_bytes()  # what scheduler and workers say
    assert logs and b"Doe_Jane" not in logs
    monkeypatch.setenv("CLUSTER", "")
    here = imported(folder, "here", monkeypatch)
    assert there == here and len(there) > 40


def imported(folder: Path, name: str, monkeypatch) -> dict[str, bytes]:
    """The tables and images of an import of `folder`, by their paths."""
    monkeypatch.setenv("CASES", str(folder))
    (folders.keys_folder(name) / "pseudonyms").write_text("ab" * 32)
    asked = values("01_prepare_cases", **CELL | {"workers": 2})
    opened = runs.begin(name, "01_prepare_cases", asked)
    cases.prepare(opened)
    opened.release()
    return content(opened.folder)


def content(folder: Path) -> dict[str, bytes]:
    wanted = (".csv", ".png", ".safetensors")
    paths = (path for path in folder.rglob("*") if path.suffix in wanted)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_worker_killed_in_the_middle_of_training_and_sampling_changes_nothing(
    study_folders, two, monkeypatch
):
    """03 is a run on a worker, the shards of 04 are tasks: both with a worker killed, and here."""
    begun_study("alike")
    here, there = study_folders / "here", study_folders / "outputs" / "alike"
    shutil.copytree(there, here / "alike")
    monkeypatch.setenv("STUDY_FORCE", "")
    checkpoints = "03_finetune_diffusion/.state/training/step-*"
    killing = kill_worker_at(there, checkpoints, two, Cluster.busy)
    assert study.main(["run", "alike", "--only", "03_finetune_diffusion"]) == study.DONE
    killing.join()
    two.workers.append(two.start_worker())
    images_of_04 = "04_sample_diffusion/images/*"
    killing = kill_worker_at(there, images_of_04, two, lambda dask: dask.workers[-1])
    assert study.main(["run", "alike", "--from", "04_sample_diffusion"]) == study.DONE
    killing.join()
    monkeypatch.setenv("CLUSTER", "")
    monkeypatch.setenv("OUTPUTS", str(here))  # the same study: seeds follow from its name
    assert study.main(["run", "alike"]) == study.DONE
    for name in ("03_finetune_diffusion/checkpoint", "04_sample_diffusion"):
        assert content(there / name) == content(here / "alike" / name) and content(there / name)


def begun_study(name: str) -> None:
    """A study whose 01 is finished, with a quick 03, and a 04 in four shards."""
    folder = folders.params_folder(name)
    folder.mkdir()
    write_cases(name)
    quick = QUICK | {"steps": 8}
    (folder / "03_finetune_diffusion.yaml").write_text(
        "".join(f"{key}: {json.dumps(value)}\n" for key, value in quick.items())
    )
    sampling = 'shards: 4\nsteps: ["3"]\nbatch: 2\nprecision: fp32\nframes: 3\n'
    (folder / "04_sample_diffusion.yaml").write_text(sampling)
    (folder / "sampling_prompts.csv").write_text(
        "prompt_id,modality,view,finding,side,wording,count\n"
        "normal,xray,PA,no_finding,,caption,8\neffusion,xray,PA,effusion,left,caption,8\n"
    )


def test_the_printed_commands_start_a_cluster_with_tls(small, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("CLUSTER", f"tls://127.0.0.1:{free_port()}")
    assert run("--only", "03_alone") == study.FAILED
    error = capfd.readouterr().err
    assert "No scheduler answers" in error and "Traceback" not in error
    commands = re.findall(r"^ *(\S+/dask (?:scheduler|worker) [^#\n]*)", error, re.M)
    assert len(commands) == 2 and all("--tls-key" in command for command in commands)
    with (tmp_path / "dask.log").open("ab") as log, contextlib.ExitStack() as started:
        for command in commands:
            words = ["exec", command, "--local-directory", str(tmp_path)]
            words = words if "worker" in command else words[:2]
            process = subprocess.Popen(" ".join(words), shell=True, stdout=log, stderr=log)
            started.callback(process.terminate)
        wait_until(lambda: run("--only", "03_alone") == study.DONE)
        cluster.disconnect()
    assert (folders.keys_folder("small").parent / "cluster.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("local:no", "write local:4 for four workers"),
        ("everywhere", "leave it empty, or write local:4, slurm:8 or tls://host:8786"),
        ("tcp://192.0.2.1:8786", "Other machines can reach tcp://192.0.2.1:8786 without TLS"),
        ("tcp://", "write the scheduler's address as tcp://host:8786"),
        ("tls://gpu1", "write the scheduler's address as tls://host:8786"),
        ("tcp://localhost:port", "write the scheduler's address as tcp://host:8786"),
        ("local:0", "write local:4 for four workers"),
        (" ", "leave it empty, or write local:4, slurm:8 or tls://host:8786"),
    ],
)
def test_a_place_that_is_none_is_one_sentence(small, monkeypatch, capfd, where, said):
    monkeypatch.setenv("CLUSTER", where)
    assert run() == study.FAILED
    error = capfd.readouterr().err
    assert said in error and "Traceback" not in error
    assert not list((small / "outputs").glob("*/*/manifest.json"))


def test_workers_of_other_code_or_without_the_folder_or_its_locks_are_refused(
    small, two, monkeypatch, capfd
):
    other = cluster._about() | {"numpy": "1.0"}
    monkeypatch.setattr(cluster, "_about", lambda: other)
    assert run() == study.FAILED
    error = capfd.readouterr().err
    assert "has another numpy (" in error and np.__version__ in error and "1.0 here" in error
    monkeypatch.undo()
    about = cluster._about()
    with pytest.raises(runs.RunError, match="does not see"):
        cluster._check_worker(about, str(small / "nowhere/.cluster.lock"))
    (small / ".cluster.lock").write_text("")
    with pytest.raises(runs.RunError, match="does not lock files between machines"):
        cluster._check_worker(about, str(small / ".cluster.lock"))


def test_a_full_shared_folder_and_a_run_that_kills_its_workers_are_one_sentence_each(
    small, two, monkeypatch, capfd
):
    """The log of the run is on the full disk too; the other run ends the worker under it."""
    (small / "params/small/03_alone.yaml").write_text("mishap: full\n")
    log = small / "outputs/small/03_alone/run.log"
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    assert run("--only", "03_alone") == study.FAILED
    error = capfd.readouterr().err
    assert "The disk is full" in error and "OUTPUTS=" in error and "Traceback" not in error
    log.unlink()
    two.workers.append(two.start_worker())
    path = small / "notebooks/03_alone.ipynb"  # ends the worker, the parent of the run's process
    path.write_text(
        path.read_text().replace(
            "os.kill(os.getpid(), 9)",
            "import psutil; psutil.Process().parent().parent().kill(); time.sleep(60)",
        )
    )
    (small / "params/small/03_alone.yaml").write_text("mishap: kill\n")
    two.workers.append(two.start_worker())
    assert run("--only", "03_alone") == study.FAILED
    error = capfd.readouterr().err
    assert "03_alone: its workers died" in error and "Traceback" not in error


@pytest.mark.parametrize("gone", ["scheduler", "client"])
def test_when_scheduler_or_client_is_gone_the_study_ends_and_goes_on_later(
    small, two, monkeypatch, gone
):
    (small / "params/small/01_count.yaml").write_text("numbers: 6\nwait: 1\n")
    command = [sys.executable, "-m", "helpers.study", "run", "small"]
    with (small / "said.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until((small / "outputs/small/01_count/parts/1.json").exists, process)
        (two.scheduler if gone == "scheduler" else process).send_signal(signal.SIGKILL)
        code = process.wait(timeout=120)
    said = (small / "said.log").read_text()
    if gone == "scheduler":
        assert code == study.FAILED and "the cluster's scheduler is gone" in said
    monkeypatch.setenv("CLUSTER", "")
    wait_until(lambda: run() == study.DONE)
    assert len(results(small / "outputs/small/01_count")) == 6
