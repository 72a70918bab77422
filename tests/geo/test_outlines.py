import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio import features
from shapely.geometry import shape

from terradelta.geo.outlines import find_areas

from .drawings import draw_maps


def polygonize(values_HW):
    """GDAL's answer: value and outline of each area."""
    found = features.shapes(values_HW, mask=values_HW > 0, connectivity=4)
    return sorted((int(value), shapely.normalize(shape(outline)).wkt) for outline, value in found)


@settings(max_examples=200, deadline=None)
@given(draw_maps())
def test_areas_are_those_of_gdal_and_own_their_pixels(values_HW):
    areas = find_areas(values_HW)
    found = zip(areas.values_P.tolist(), areas.outlines_P, strict=True)
    assert sorted((v, shapely.normalize(p).wkt) for v, p in found) == polygonize(values_HW)
    assert shapely.is_valid(areas.outlines_P).all()

    numbers = np.arange(1, len(areas.values_P) + 1)
    if len(numbers):
        burnt_HW = features.rasterize(
            zip(areas.outlines_P, numbers.tolist(), strict=True),
            out_shape=values_HW.shape,
            dtype="int32",
        )
        assert (areas.owner_HW == burnt_HW).all()
    # Numbered by their first pixels, so that equal maps give equal files.
    present, first = np.unique(areas.owner_HW, return_index=True)
    assert (np.diff(first[present > 0]) > 0).all()
    assert set(present) - {0} == set(numbers)


@settings(deadline=None)
@given(draw_maps())
def test_rings_turn_as_simple_features_ask_where_rows_point_south(values_HW):
    outlines_P = shapely.transform(find_areas(values_HW).outlines_P, lambda xy_N2: xy_N2 * (1, -1))
    for outline in outlines_P:
        assert outline.exterior.is_ccw
        assert not any(hole.is_ccw for hole in outline.interiors)


@pytest.mark.parametrize("shape_HW", [(1, 1), (1, 9), (9, 1), (3, 4)])
@pytest.mark.parametrize("value", [0, 7])
def test_a_plain_array_is_one_area_or_none(shape_HW, value):
    areas = find_areas(np.full(shape_HW, value, np.uint16))
    height, width = shape_HW
    assert (areas.owner_HW == bool(value)).all()
    assert [p.equals(shapely.box(0, 0, width, height)) for p in areas.outlines_P] == [True] * bool(
        value
    )


@given(st.integers(1, 65535))
def test_values_of_two_bytes_are_kept(value):
    assert find_areas(np.array([[0, value]], np.uint16)).values_P.tolist() == [value]
