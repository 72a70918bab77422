import builtins
import csv
from dataclasses import replace

import numpy as np
import pytest

import terradelta as td
from terradelta.data.synthetic import write_folders
from terradelta.errors import ArgumentError, OutputError
from terradelta.mapping.handle import Shard


@pytest.fixture
def opened(prediction):
    return td.open_prediction(prediction.folder)


def test_a_folder_from_yesterday_is_the_prediction_it_was(opened, prediction):
    assert opened == prediction
    with pytest.raises(OutputError, match=r"summary\.json cannot be read"):
        td.open_prediction(prediction.folder.parent)


def test_transitions_are_those_of_the_csv(opened):
    table = opened.transitions
    with (opened.folder / "transitions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[:-3]
    assert table["from"].tolist() == [row["from"] for row in rows]
    assert table["to"].tolist() == [row["to"] for row in rows]
    assert table["area_ha"].tolist() == pytest.approx([float(row["area_ha"]) for row in rows])
    assert table["area_ha"].sum() == pytest.approx(opened.summary.changed_ha)


def test_changes_add_up_to_the_transitions(opened):
    changes = opened.changes
    assert len(changes) == opened.summary.patches
    assert changes.crs.to_epsg() == 32632
    by_transition = changes.groupby(["from", "to"])["area_m2"].sum() / 10_000
    expected = opened.transitions.set_index(["from", "to"])["area_ha"]
    assert (by_transition - expected).abs().max() < 1e-6


def test_the_plot_shows_the_map_in_its_colours_where_it_lies(opened):
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("agg")
    ax = opened.plot()
    picture = ax.images[0].get_array()
    is_changed = (picture[..., :3] != (235, 235, 235)).any(axis=-1)
    assert is_changed.mean() == pytest.approx(opened.summary.changed_percent / 100, rel=0.01)
    left, bottom, right, top = opened.changes.total_bounds
    west, east, south, north = ax.images[0].get_extent()
    assert west <= left < right <= east
    assert south <= bottom < top <= north
    assert opened.plot(ax) is ax
    pyplot.close("all")


def test_it_shows_itself_with_escaped_names(opened):
    html = opened._repr_html_()
    assert "changed, " in html
    assert "data:image/png;base64," in html
    row = replace(opened.summary.transitions[0], to_class="<script>")
    summary = replace(opened.summary, transitions=(row,))
    hostile = type(opened)(opened.folder.parent, summary)._repr_html_()
    assert "<script>" not in hostile
    assert "&lt;script&gt;" in hostile


def test_it_shows_its_cautions_above_the_headline(doubtful):
    prediction = td.open_prediction(doubtful)
    assert [caution.name for caution in prediction.cautions] == ["scale", "dates"]
    html = prediction._repr_html_()
    assert "pixels of &lt;b&gt;5&lt;/b&gt; m" in html
    assert html.index("2\u00a0reasons to doubt this map") < html.index("hectares changed")


def test_explore_colours_patches_by_what_they_became(opened):
    pytest.importorskip("folium", reason="folium is not installed")
    page = opened.explore(tiles=None).get_root().render()
    for name in opened.transitions["to"].unique():
        assert name in page


def test_without_folium_the_error_names_the_extra(opened, monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.split(".")[0] == "folium":
            raise ImportError("no folium")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ArgumentError, match=r"terradelta\[notebook\]"):
        opened.explore()


def test_maps_of_folders_and_shards_have_numbers_and_no_polygons(
    scene, model_folder, tmp_path, capsys
):
    write_folders(tmp_path / "drawn", 2, seed=7, size_px=96)
    folders = [tmp_path / "drawn" / name for name in ("im1", "im2")]
    result = td.predict(*folders, tmp_path / "out", model=model_folder)
    assert result.transitions["pixels"].sum() == result.summary.changed_pixels
    assert np.isnan(result.transitions["area_ha"]).all()
    assert "pixels changed" in result._repr_html_()
    for show in (lambda: result.changes, result.plot, result.explore):
        with pytest.raises(OutputError, match=r"has n(o|either) "):
            show()
    pair = (scene / "before.tif", scene / "after.tif")
    shard = td.predict(
        *pair, tmp_path / "part", maps=td.MapOptions(shard="1/2"), model=model_folder
    )
    assert "blocks are done" in shard._repr_html_()
    assert isinstance(shard, Shard)
    assert shard == Shard(tmp_path / "part.partial", blocks=1, blocks_done=0)
