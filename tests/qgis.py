"""Debian's QGIS, asked from outside: it belongs to Debian's Python and not to the tests'."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

SYSTEM_PYTHON = Path("/usr/bin/python3")

FRAME = """
import json, os, sys
from qgis.core import QgsApplication
application = QgsApplication([], {gui})
application.initQgis()
{script}
print(json.dumps(answer), flush=True)
# Taking the layers down one by one, as Python does at its end, crashes QGIS.
os._exit(0)
"""


def ask_qgis(script: str, *arguments: object, gui: bool = False) -> Any:
    """Run PyQGIS offscreen and return what the script puts into `answer`.

    Skips the test where there is no QGIS.
    """
    _require()
    done = _run("-c", FRAME.format(script=script, gui=gui), *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _require():
    if not SYSTEM_PYTHON.exists() or _run("-c", "import qgis.core").returncode:
        pytest.skip(f"{SYSTEM_PYTHON} cannot import qgis.core: apt-get install python3-qgis")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    # What a virtual environment says of its own Python and PROJ does not hold for Debian's.
    for name in ("PYTHONPATH", "PYTHONHOME", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA"):
        environment.pop(name, None)
    return subprocess.run(
        [SYSTEM_PYTHON, *arguments], env=environment, capture_output=True, text=True, check=False
    )
