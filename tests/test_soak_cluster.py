"""Clusters at length: a real SLURM on loopback, and twenty variants of 03 and 04 by one command."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
from conftest import ROOT
from reading_client import free_port
from small_training import QUICK, write_cases
from test_cluster import content, wait_until
from test_study import results, run

from helpers import study
from helpers.runner import folders

CONFIGURATION = """ClusterName=small
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM of one node with two cores, its daemons as processes of this user."""
    folder = tmp_path / "slurm"
    (folder / "spool").mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    host, user = socket.gethostname().partition(".")[0], psutil.Process().username()
    ports = {"controller": free_port(), "node": free_port()}
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, user=user, folder=folder, **ports))
    jobs = "jobqueue: {slurm: {cores: 1, memory: 2GB, processes: 1, walltime: '01:00:00'}}\n"
    (folder / "jobqueue.yaml").write_text(jobs)
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    monkeypatch.setenv("DASK_CONFIG", str(folder))
    monkeypatch.setenv("PATH", os.environ["PATH"] + ":/usr/sbin")
    places_of_munge = [
        f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")
    ]
    commands = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *places_of_munge],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    )
    started = []
    with (folder / "daemons.log").open("ab") as log:
        for command in commands:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
            wait_until((folder / "munge.socket").exists, started[0], 60)
        wait_until(lambda: "idle" in asked("sinfo"), seconds=60)
        yield folder
        asked("scancel", "--user", user)
        wait_until(lambda: not asked("squeue", "--noheader"), seconds=60)
        for process in reversed(started):
            process.terminate()
            process.wait()


def asked(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout


@pytest.mark.soak
def test_a_real_slurm_runs_a_study_and_a_job_that_ends_is_followed_by_another(
    small, slurm, monkeypatch
):
    monkeypatch.setenv("CLUSTER", "slurm:2")
    (small / "params/small/01_count.yaml").write_text("numbers: 8\nwait: 1\n")
    # A process of its own: DASK_CONFIG is read when dask is imported.
    command = [sys.executable, "-m", "helpers.study", "run", "small"]
    with (slurm / "said.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until((small / "outputs/small/01_count/parts/1.json").exists, process)
        jobs = asked("squeue", "--noheader", "--format=%i").split()
        asked("scancel", *jobs)
        assert process.wait(timeout=500) == study.DONE, (slurm / "said.log").read_text()
    said = (slurm / "said.log").read_text()
    print(said)
    assert len(jobs) == 2 and "Cluster tls://" in said and "01_count: counted 7" in said
    there = results(small / "outputs")
    shutil.rmtree(small / "outputs/small")
    monkeypatch.setenv("CLUSTER", "")
    assert run() == study.DONE
    assert results(small / "outputs") == there


@pytest.mark.timeout(3600)
@pytest.mark.soak
def test_twenty_variants_of_03_and_04_by_one_command_stand_in_one_table(study_folders, monkeypatch):
    folder = folders.params_folder("many")
    folder.mkdir()
    write_cases("many")
    shutil.copy(ROOT / "params/rehearsal/sampling_prompts.csv", folder)
    for number in range(20):
        rate = {"learning_rate": (number + 1) / 1e4}
        write(folder / f"03_finetune_diffusion.v{number:02d}.yaml", QUICK | rate)
        sampling = {"checkpoint": f"03_finetune_diffusion.v{number:02d}", "steps": ["3"]}
        sampling |= {"label": f"rate {number + 1}", "batch": 8, "precision": "fp32"}
        write(folder / f"04_sample_diffusion.v{number:02d}.yaml", sampling)
    write(folder / "05_audit_images.yaml", {"reading_size": 30, "feature_size": 30})
    monkeypatch.setenv("CLUSTER", "local:2")
    began = time.monotonic()
    assert study.main(["run", "many"]) == study.DONE
    print(f"41 runs: {time.monotonic() - began:.0f} s")
    quality = pd.read_csv(folders.outputs_folder("many") / "05_audit_images" / "quality.csv")
    distance = quality[quality.metric == quality.metric.iloc[-1]]
    print(quality.groupby(["metric"]).source.nunique(), distance.to_string(), sep="\n")
    assert quality.source.nunique() == 20
    drawn = [content(path) for path in folders.outputs_folder("many").glob("04_*")]
    assert len({one["samples.csv"] for one in drawn}) == 20


def write(path, values: dict) -> None:
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
