"""Runs of the command line in forked processes, which find everything imported already."""

from __future__ import annotations

import faulthandler
import importlib
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import terradelta
from terradelta.cli import main

CPU_SECONDS = 60
WALL_SECONDS = 240
MEMORY_BYTES = 4 * 1024**3
"""What a run may take beyond what it finds: the default of `--memory`."""
FILE_BYTES = 1024**3
NOT_IMPORTED = ("terradelta.cli.__main__",)
"""It runs."""
SERVING = "is shown at http"
"""What `view` prints before it waits for ever."""


@dataclass(frozen=True)
class Run:
    """How a run ended."""

    code: int
    """Exit code; negative, the signal that ended it."""
    stdout: str
    stderr: str
    is_late: bool
    """Whether it was stopped because it took too long."""
    peak_bytes: int
    """Memory at its peak, less what the process found."""


def warm_up():
    """Import what verbs import, so that forked processes need not."""
    for module in pkgutil.walk_packages(terradelta.__path__, "terradelta."):
        if module.name not in NOT_IMPORTED:
            importlib.import_module(module.name)
    for name in (
        "openvino",
        "uvicorn",
        "matplotlib.pyplot",
        "geopandas",
        "pystac",
        "lightning_fabric",
    ):
        importlib.import_module(name)


def run_line(words: Sequence[str], home: Path, scratch: Path) -> Run:
    """Run `terradelta WORDS...` in the folder `home`.

    Args:
        words: Verb, paths and options.
        home: The working directory.
        scratch: Where the process keeps what it prints, temporary files and caches.
    """
    scratch.mkdir()
    printed = [scratch / name for name in ("stdout", "stderr")]
    for path in printed:
        path.touch()
    found_bytes = psutil.Process().memory_info().rss
    child = os.fork()
    if not child:
        _become_line(words, home, scratch, printed)
    stopped_by, is_late, usage = _wait(child, printed[0])
    stdout, stderr = (path.read_text("utf-8", "backslashreplace") for path in printed)
    peak_bytes = max(0, usage.ru_maxrss * 1024 - found_bytes)
    return Run(os.waitstatus_to_exitcode(stopped_by), stdout, stderr, is_late, peak_bytes)


def _wait(child: int, printed: Path) -> tuple[int, bool, resource.struct_rusage]:
    started = time.monotonic()
    is_late = is_interrupted = False
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            _kill_group(child)
            return status, is_late, usage
        if time.monotonic() - started > WALL_SECONDS:
            is_late = True
            _kill_group(child)
        if not is_interrupted and SERVING in printed.read_text("utf-8", "replace"):
            # uvicorn takes the signal from the moment it serves.
            time.sleep(1)
            os.kill(child, signal.SIGINT)
            is_interrupted = True
        time.sleep(0.01)


def _kill_group(child: int):
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        return


def _become_line(words: Sequence[str], home: Path, scratch: Path, printed: list[Path]):
    """Turn this process into the command line; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(home)
        for number, path in enumerate((os.devnull, *printed)):
            flags = os.O_RDWR | os.O_CREAT
            os.dup2(os.open(path, flags, 0o644), number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", errors=errors, buffering=1)
            for number, mode, errors in (
                (0, "r", "strict"),
                (1, "w", "strict"),
                (2, "w", "backslashreplace"),
            )
        )
        sys.excepthook = sys.__excepthook__
        faulthandler.enable(sys.stderr)
        _limit(scratch)
        code = _call(words)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _limit(scratch: Path):
    os.environ |= {"TMPDIR": str(scratch), "HOME": str(scratch), "XDG_CACHE_HOME": str(scratch)}
    tempfile.tempdir = None
    taken = psutil.Process().memory_info().vms
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, taken + MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    # Writing beyond the limit fails as on a full disk, instead of killing the process.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _call(words: Sequence[str]) -> int:
    """Run the line and return the exit code that Python would give the process."""
    try:
        main(words)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
