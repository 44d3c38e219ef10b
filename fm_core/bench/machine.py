"""Where figures come from: the machine, the versions, the commit. Times mean nothing without them."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fm_core
from fm_core.bench.records import Run

__all__ = ["command_line", "git", "machine", "this_run", "versions"]

PACKAGES = ("fm-core", "torch", "numpy", "scipy", "torchdiffeq")
PEERS = ("diffusers", "torchcfm", "flow_matching", "azula", "torchsde", "POT")
"""Libraries that are compared with, named where they are installed."""


def this_run(command: str | None = None) -> Run:
    """A new run on this machine.

    Args:
        command: What was typed; by default the process's own arguments.
    """
    return Run(
        run=secrets.token_hex(6),
        command=command_line() if command is None else command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(),
        git=git(),
    )


def command_line(arguments: Sequence[str] | None = None) -> str:
    """The process's command, the program without its folder.

    >>> command_line(["/usr/bin/fm", "bench", "solvers", "--out", "a b"])
    "fm bench solvers --out 'a b'"
    """
    program, *rest = sys.argv if arguments is None else arguments
    return shlex.join([Path(program).name, *rest])


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, torch's threads, memory, GPU and system."""
    import torch

    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of Python, of what the library runs on, and of the peers that are installed."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *PEERS):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git(package: Path | None = None) -> dict[str, Any]:
    """Commit of the checkout that the library is imported from, and whether it is changed; empty outside of one.

    Args:
        package: Folder of the package; by default this library's.
    """
    folder = package or Path(fm_core.__file__).parent
    # A package installed inside of somebody's repository is not that repository's: git must know its files.
    if not _git(folder, "ls-files", "__init__.py"):
        return {}
    commit = _git(folder, "rev-parse", "HEAD")
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str:
    try:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]  # whoever commits meanwhile may
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
