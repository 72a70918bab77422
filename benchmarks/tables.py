"""Rows of numbers as Markdown, under a header that names machine and commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

Tables = dict[str, list[dict]]
PACKAGES = ("terradelta", "torch", "openvino", "onnxruntime", "nncf", "rasterio", "numpy")


def format_tables(tables: Tables) -> str:
    """Return the tables as Markdown."""
    parts = []
    for title, rows in tables.items():
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [f"**{title}**", "", f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
        lines += [f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def print_tables(tables: Tables):
    """Print the machine and the tables."""
    print(f"{describe_machine()}\n\n{format_tables(tables)}")


def describe_machine() -> str:
    """Return processor, cores, load, versions and commit in a line each."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = os.getloadavg()[1] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"Processor: {read_processor()}, {torch.get_num_threads()} threads; "
        f"load over the last five minutes {load:.1f}\n"
        f"Python {platform.python_version()}, {versions}\n"
        f"Commit {describe_commit()}"
    )


def read_processor() -> str:
    """Return the processor's name and its known matrix units."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    units = [flag for flag in ("avx2", "avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    return f"{names[0] if names else platform.processor()} ({' '.join(units)})"


def describe_commit() -> str:
    """Return the commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
