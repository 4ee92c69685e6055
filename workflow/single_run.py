"""One `make book` at a time in a folder of runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import psutil

from safn_book.workflow import RUN

PATIENCE = 5  # seconds in which a run that was killed may still be ending
SLURM_JOB = "SLURM_JOB_ID"  # environment variable of what runs in a job of Slurm


def alone(runs: Path) -> IO[str]:
    """Take the lock of a folder of runs, and end what a killed run has left running there.

    The system takes the lock back however this process ends. Processes that are left are known by their environment. Those
    of jobs of a cluster are its own: they are named, not ended.

    Returns:
        the open file, which holds the lock until it is closed.

    Raises:
        SystemExit: another run is at work there, or jobs of one that was killed are in the queue of a cluster.
    """
    lock = (runs / ".lock").open("w")
    until = time.monotonic() + PATIENCE
    while not _locked(lock):
        if time.monotonic() > until:
            lock.close()
            sys.exit(f"another `make book` is at work in {runs}: wait for it, or stop it")
        time.sleep(0.1)
    left = [process for process in psutil.process_iter(["environ"]) if _belongs(process, runs)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    if jobs := in_queue(runs):
        lock.close()
        sys.exit(
            f"An earlier `make book` was killed, and Slurm still has its jobs in {runs}. Wait until they have ended: what"
            f" they finish counts. Or end them: scancel {' '.join(jobs)}"
        )
    os.environ[RUN] = str(runs)
    return lock


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _belongs(process: psutil.Process, runs: Path) -> bool:
    environment = process.info["environ"] or {}
    ours = environment.get(RUN) == str(runs) and environment.get(SLURM_JOB) == os.environ.get(SLURM_JOB)
    return ours and process.pid != os.getpid()


def in_queue(runs: Path) -> list[str]:
    """The numbers of the user's Slurm jobs that were submitted in this folder; none where there is no Slurm."""
    if not shutil.which("squeue"):
        return []
    command = ["squeue", "--me", "--noheader", "--format=%i %Z"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    jobs = dict(line.split(maxsplit=1) for line in lines)
    return [job for job, folder in jobs.items() if folder == str(runs) and job != os.environ.get(SLURM_JOB)]
