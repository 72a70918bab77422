import json
import subprocess
import sys

import geopandas
import numpy as np
import rasterio
from PIL import Image


def test_the_demo_draws_maps_and_prints_what_changed(tmp_path):
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "terradelta.cli", "demo", "-o", str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    summary = json.loads((out / "summary.json").read_text())
    assert f"{summary['changed_ha']:,.3f} of {summary['valid_ha']:,.3f} ha" in done.stdout
    assert "\x1b[" not in done.stdout, "colours do not belong into a pipe"
    with Image.open(out / "picture.png") as picture:
        assert min(picture.size) > 400
    assert summary["patches"] == len(geopandas.read_file(out / "changes.gpkg", layer="changes"))

    maps = {}
    for name, path in (("mapped", "change.tif"), ("true", "scene/change.tif")):
        with rasterio.open(out / path) as dataset:
            maps[name] = dataset.read(1)
            assert dataset.crs.to_epsg() == 32632
    mapped, true = maps["mapped"] > 0, maps["true"] > 0
    iou = (mapped & true).sum() / (mapped | true).sum()
    assert iou > 0.5, "the embedded model finds the changes of a scene it never saw"
    right_transition = (maps["mapped"] == maps["true"])[mapped & true].mean()
    assert right_transition > 0.7
    assert np.isclose(summary["valid_ha"], 768 * 768 * 0.25 / 10_000, rtol=2e-3)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
