import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from terradelta.classes import ClassTable
from terradelta.prediction.records import TransitionRow
from terradelta.reports.flow import MAX_CLASSES, FlowChart, FlowTable
from terradelta.reports.wording import Unit, say_m2, say_percent

CLASSES = ClassTable.numbered(30)
amounts = st.dictionaries(
    st.tuples(st.integers(1, 30), st.integers(1, 30)), st.floats(1e-3, 1e4), min_size=1
)


def tabulate(found):
    rows = [
        TransitionRow(
            from_class=CLASSES.names[start],
            to_class=CLASSES.names[end],
            pixels=1,
            area_ha=amount,
            share_percent=1.0,
        )
        for (start, end), amount in found.items()
    ]
    return FlowTable.of(rows, CLASSES, Unit(True))


@given(amounts)
def test_a_table_keeps_the_sum_whatever_it_joins(found):
    table = tabulate(found)
    assert len(table.names) == len(table.colours) <= MAX_CLASSES
    assert table.amounts_FT.sum() == pytest.approx(sum(found.values()))
    for (start, end), amount in found.items():
        cell = table.amounts_FT[table.groups[start], table.groups[end]]
        assert cell >= amount * (1 - 1e-9)


@given(amounts)
def test_bands_fill_their_classes_and_nothing_overlaps(found):
    table = tabulate(found)
    chart = FlowChart.of(table)
    for nodes, sums in (
        (chart.left, table.amounts_FT.sum(1)),
        (chart.right, table.amounts_FT.sum(0)),
    ):
        heights = {node.index: node.height for node in nodes}
        assert heights.keys() == set(np.flatnonzero(sums).tolist())
        scale = chart.left[0].height / chart.left[0].amount
        for node in nodes:
            assert node.height == pytest.approx(sums[node.index] * scale)
        for upper, lower in pairwise(nodes):
            assert upper.top + upper.height <= lower.top
            assert lower.label_y - upper.label_y >= 30, "labels of two lines do not collide"
        assert nodes[0].top >= -1e-6
        assert nodes[-1].top + nodes[-1].height <= chart.height + 1e-6
    thickness = [float(re.search(r"v([\d.]+)", band.path)[1]) for band in chart.bands]
    assert sum(thickness) == pytest.approx(
        sum(node.height for node in chart.left) * (1 - chart.hidden_share), abs=0.5
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (Unit(True).say(1234.5), "1,234 ha"),
        (Unit(True).say(0.0035), "35 m²"),
        (Unit(False).say(1234), "1,234 px"),
        (Unit(True).say_words(1.459), "1.46 hectares"),
        (say_m2(12_345), "1.23 ha"),
        (say_m2(0.25), "0.2 m²"),
        (say_percent(0), "0 %"),
        (say_percent(0.004), "less than 0.01 %"),
        (say_percent(99.99), "over 99.9 %"),
        (say_percent(100), "100 %"),
    ],
)
def test_numbers_are_said_with_unit_and_no_false_precision(text, expected):
    assert text.replace("\u00a0", " ") == expected


def test_a_column_has_as_many_decimals_everywhere_and_no_zero_that_is_none():
    column = [text.replace("\u00a0", " ") for text in Unit(True).say_column([12.5, 0.001, 0, 3])]
    assert column == ["12.50", "< 0.01", "0.00", "3.00"]


@given(st.floats(0, 100))
@example(99.9)
@example(99.95)
@example(np.nextafter(99.95, 0))
@example(np.nextafter(100, 0))
@example(np.nextafter(0, 1))
@example(0.995)
def test_a_share_is_rounded_to_half_of_its_last_digit_and_never_as_all_or_nothing(percent):
    words, number = re.fullmatch(
        r"(over |less than )?([\d.]+)\u00a0%", say_percent(percent)
    ).groups()
    told = float(number)
    if words is None:
        assert (told in (0, 100)) == (percent in (0, 100))
        least = 0.01 if percent < 1 else 0.1
        assert abs(told - percent) <= least / 2 + 1e-9
    else:
        assert (told < percent < 100) if words == "over " else (0 < percent < told)
        assert abs(told - percent) <= 0.1
