"""The three benchmark data sets, small enough for short runs on a processor.

`composed`: pairs composed from the 72 labelled scenes of dubai72, split by area, scenes at half
their resolution. Masks are coarse and of one city; that of area t8 was made differently.

`naip`: two years of one site in North Dakota. **Labels are derived**: indices that use the near
infrared, which the images (red, green, blue) do not hold. NDWI > 0.1 is water, else NDVI > 0.1
vegetation, else ground; crop seasons count as change, strips under 3 px (15 m) do
not; 2014 is left out. Split by area, with a gap; the pairs of a split partly overlap,
so they are not independent samples.

`drawn`: scenes of terradelta.data.synthetic.

Run from the repository: `python benchmarks/ual/data.py --shared ../shared/data --output DIR`.

Legend of the array names: C bands, H rows, W columns, T dates.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image, ImageFilter
from rasterio.enums import Resampling
from rasterio.features import sieve
from rasterio.vrt import WarpedVRT
from tqdm import tqdm

from terradelta.classes import ClassTable
from terradelta.data.class_file import write_classes
from terradelta.data.composite import compose
from terradelta.data.images import read_image, read_mask, write_mask
from terradelta.data.layouts import find_pairs
from terradelta.data.synthetic import write_folders
from terradelta.geo.source import WARP_TOLERANCE_PX
from terradelta.outputs import stage_folder

SIZE_PX = 128
PAIRS = {"train": 400, "val": 60, "test": 100}
SEEDS = {"train": 100, "val": 101, "test": 102}

DUBAI = ClassTable(
    names=("unchanged", "building", "land", "road", "vegetation", "water"),
    colours=(
        (155, 155, 155),
        (60, 16, 152),
        (132, 41, 246),
        (110, 193, 228),
        (254, 221, 58),
        (226, 169, 41),
    ),
)
"""Id 0 has the colour that means unlabelled in the masks of dubai72."""
DUBAI_AREAS = {"train": (1, 4, 5, 6, 7), "val": (2,), "test": (3, 8)}
DUBAI_REDUCTION = 2

NAIP = ClassTable(
    names=("unchanged", "water", "vegetation", "ground"),
    colours=((255, 255, 255), (0, 0, 255), (0, 128, 0), (128, 128, 128)),
)
NAIP_COLUMNS = {"train": (8, 512), "val": (544, 672), "test": (704, 926)}
"""First column and the one after the last; gaps of 32 px, 160 m."""
NAIP_MARGIN_PX = 8
NAIP_SMALLEST_PX = 24
INDEX_THRESHOLD = 0.1
NAIP_LEFT_OUT = ("2014",)
"""Its infrared is weaker: the index maps 46 % of the site as water, including fields (else 13-26
%)."""

DRAWN_GSD_M = 1.0
NAMES = ("composed", "naip", "drawn")


def build_composed(shared: Path, output: Path, *, overwrite: bool = False):
    """Compose pairs from dubai72: five areas train, one is validation, two are the test."""
    with stage_folder(output, overwrite=overwrite) as staged:
        for split, areas in DUBAI_AREAS.items():
            with tempfile.TemporaryDirectory() as folder:
                sources = Path(folder)
                _reduce_dubai(shared / "dubai72", sources, areas)
                compose(
                    sources / "images",
                    sources / "masks",
                    staged / split,
                    pairs=PAIRS[split],
                    seed=SEEDS[split],
                    size_px=SIZE_PX,
                    classes=DUBAI,
                )


def build_naip(shared: Path, output: Path, *, overwrite: bool = False):
    """Cut pairs of two distinct years, the earlier one before, at any place of each split."""
    images_TCHW, classes_THW, years = _read_naip(shared / "naip_nd10")
    couples = list(combinations(range(len(years)), 2))
    height = images_TCHW.shape[2]
    with stage_folder(output, overwrite=overwrite) as staged:
        for split, (left, right) in NAIP_COLUMNS.items():
            rng = np.random.default_rng(SEEDS[split])
            folder = staged / split
            for name in ("im1", "im2"):
                (folder / name).mkdir(parents=True)
            write_classes(folder, NAIP)
            for number in range(PAIRS[split]):
                row = int(rng.integers(NAIP_MARGIN_PX, height - NAIP_MARGIN_PX - SIZE_PX + 1))
                column = int(rng.integers(left, right - SIZE_PX + 1))
                place = slice(row, row + SIZE_PX), slice(column, column + SIZE_PX)
                dates = couples[rng.integers(len(couples))]
                name = f"{number:05d}_r{row}_c{column}_{years[dates[0]]}_{years[dates[1]]}.png"
                classes = [classes_THW[date][place] for date in dates]
                change_HW = _drop_slivers(classes[0] != classes[1])
                for index, date in enumerate(dates):
                    picture = Image.fromarray(np.moveaxis(images_TCHW[date][:, *place], 0, -1))
                    picture.save(folder / f"im{index + 1}" / name)
                    labels_HW = np.where(change_HW, classes[index], 0)
                    write_mask(folder / f"label{index + 1}" / name, labels_HW, NAIP)


def build_drawn(output: Path, *, overwrite: bool = False):
    """Draw scenes, every split from its own seed."""
    with stage_folder(output, overwrite=overwrite) as staged:
        for split, pairs in PAIRS.items():
            write_folders(staged / split, pairs, SEEDS[split], size_px=SIZE_PX, gsd_m=DRAWN_GSD_M)


def describe(root: Path) -> str:
    """Return a table of the shares of changed pixels, and of each class among those, by split."""
    names = find_pairs(root, "train").classes.names[1:]
    lines = [f"{root.name:10} pairs  changed " + " ".join(f"{name:>14}" for name in names)]
    for split in PAIRS:
        found = find_pairs(root, split)
        counts = np.zeros((2, len(names) + 1), np.int64)
        for pair in found.pairs:
            for date, path in enumerate((pair.before_label, pair.after_label)):
                assert path is not None
                labels_HW = read_mask(path, found.classes)
                counts[date] += np.bincount(labels_HW.ravel(), minlength=len(names) + 1)
        shares = counts[:, 1:] / counts[:, 1:].sum(axis=1, keepdims=True)
        cells = " ".join(f"{before:6.1%} {after:>6.1%} " for before, after in shares.T)
        changed = counts[0, 1:].sum() / counts[0].sum()
        lines.append(f"{split:10} {len(found.pairs):5} {changed:8.1%} {cells}")
    return "\n".join(lines)


def _reduce_dubai(source: Path, output: Path, areas: tuple[int, ...]):
    """Write an area's scenes and masks at half resolution; black in a mask is not labelled."""
    palette = ClassTable((*DUBAI.names, "black"), (*DUBAI.colours, (0, 0, 0)))
    for name in ("images", "masks"):
        (output / name).mkdir()
    paths = sorted(p for area in areas for p in (source / "images").glob(f"t{area}_*.jpg"))
    for path in tqdm(paths, desc="reducing", unit="scene", disable=None):
        image_HWC = np.moveaxis(read_image(path), 0, -1)
        ids_HW = read_mask(source / "masks" / f"{path.stem}.png", palette)
        ids_HW[ids_HW > DUBAI.num_classes] = 0
        reduced = Image.fromarray(image_HWC).reduce(DUBAI_REDUCTION)
        reduced.save(output / "images" / f"{path.stem}.png", compress_level=1)
        # Nearest neighbour, on the pixels of the reduced image (an odd last row makes one too).
        every = slice(None, None, DUBAI_REDUCTION)
        write_mask(output / "masks" / f"{path.stem}.png", ids_HW[every, every], DUBAI)


def _read_naip(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return RGB (T, 3, H, W), class ids (T, H, W) and years, all on the first date's grid."""
    images, classes = [], []
    paths = sorted(p for p in folder.glob("*.tif") if p.stem[-8:-4] not in NAIP_LEFT_OUT)
    with rasterio.open(paths[0]) as first:
        grid = {"crs": first.crs, "transform": first.transform}
        grid |= {"width": first.width, "height": first.height}
    for path in paths:
        with (
            rasterio.open(path) as dataset,
            WarpedVRT(
                dataset, **grid, resampling=Resampling.bilinear, tolerance=WARP_TOLERANCE_PX
            ) as warped,
        ):
            bands_CHW = warped.read()
        images.append(bands_CHW[:3])
        classes.append(_derive_classes(bands_CHW))
    return np.stack(images), np.stack(classes), [path.stem[-8:-4] for path in paths]


def _derive_classes(bands_CHW: np.ndarray) -> np.ndarray:
    """Return water, vegetation or ground from red, green, blue, near infrared; no small patches."""
    red, green, _, infrared = bands_CHW.astype(np.float32)
    ndwi = (green - infrared) / np.maximum(green + infrared, 1)
    ndvi = (infrared - red) / np.maximum(infrared + red, 1)
    is_water, is_green = ndwi > INDEX_THRESHOLD, ndvi > INDEX_THRESHOLD
    ids_HW = np.select([is_water, is_green], [1, 2], default=3).astype(np.uint8)
    smooth_HW = np.asarray(Image.fromarray(ids_HW).filter(ImageFilter.ModeFilter(5)))
    return sieve(smooth_HW, NAIP_SMALLEST_PX)


def _drop_slivers(change_HW: np.ndarray) -> np.ndarray:
    """Return the change without parts narrower than 3 px: the dates align to half a pixel."""
    mask = Image.fromarray(change_HW.astype(np.uint8))
    opened = mask.filter(ImageFilter.MinFilter(3)).filter(ImageFilter.MaxFilter(3))
    return np.asarray(opened) > 0


def main():
    """Build the requested data sets and print their shares of change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder of dubai72, naip_nd10")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.only:
        output = arguments.output / name
        if name == "drawn":
            build_drawn(output, overwrite=arguments.overwrite)
        else:
            build = {"composed": build_composed, "naip": build_naip}[name]
            build(arguments.shared, output, overwrite=arguments.overwrite)
        print(describe(output), flush=True)


if __name__ == "__main__":
    main()
