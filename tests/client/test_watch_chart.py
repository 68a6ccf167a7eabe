"""The chart of `watch`: its size, its shape and its axes."""

import pytest

from server.client.chart import draw_chart
from tests.client.patches import NOW


@pytest.mark.parametrize("size", [(20, 4), (40, 10), (80, 24), (250, 100)])
@pytest.mark.parametrize("prices", [[1.0, 2.0], [5.0] * 9, [1e-8, 3e-8], [70_000.5, 0.01] * 90])
def test_chart_fills_its_size(size, prices):
    """The plot and both axes have exactly the width and the height, and the extremes are named."""
    width, height = size
    points = [(NOW + number, price) for number, price in enumerate(prices)]
    chart = draw_chart(points, width, height)
    assert chart is not None
    lines = [plot + price for plot, price in zip(chart.plot, chart.prices, strict=True)]
    assert len(lines) == height - 2
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= width
    assert len(chart.axis) == len(chart.plot[0]) + 1
    assert len(chart.times) == len(chart.plot[0])
    # A line from the left to the right.
    assert all(any(row[x] != " " for row in chart.plot) for x in range(len(chart.plot[0])))


def test_chart_has_the_shape_of_the_prices():
    """A rise goes from the lower left to the upper right, and the axis names both ends."""
    chart = draw_chart([(NOW + each, 100.0 + each) for each in range(200)], 60, 12)
    assert chart is not None
    heights = [
        next(y for y, row in enumerate(chart.plot) if row[x] != " ")
        for x in range(len(chart.plot[0]))
    ]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (9, 0)
    assert chart.prices[0].split() == ["┤", "299.00"]
    assert chart.prices[-1].split() == ["┤", "100.00"]


def test_chart_needs_two_times():
    """Without them, or without room, there is none."""
    assert draw_chart([], 80, 24) is None
    assert draw_chart([(NOW, 1.0)], 80, 24) is None
    assert draw_chart([(NOW, 1.0), (NOW, 2.0)], 80, 24) is None
    assert draw_chart([(NOW, 1.0), (NOW + 1, 2.0)], 9, 24) is None
    assert draw_chart([(NOW, 1.0), (NOW + 1, 2.0)], 80, 3) is None


@pytest.mark.parametrize("price", [5e-324, 1e300])
def test_prices_of_any_size_make_a_chart(price):
    """Nearly no difference and the largest one, as a server with a fault may send them."""
    points = [(NOW, -price), (NOW + 1, 0.0), (NOW + 2, price)]
    assert draw_chart(points, 900, 12) is not None
