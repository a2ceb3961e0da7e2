import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Outline

from client.extract.volumes.polygon_fill import Polygon, fill, fill_slice

SHAPE = (40, 50)


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


def circle(x: float, y: float, radius: float, n: int = 200) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def test_square_covers_the_centres_inside_it() -> None:
    mask = fill(square(9.5, 4.5, 6), SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[5:11, 10:16] = True
    assert (mask == expected).all()


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(
        st.tuples(st.floats(-5, 55), st.floats(-5, 45)), min_size=3, max_size=12, unique=True
    )
)
def test_agrees_with_matplotlib_away_from_edges(points: list[tuple[float, float]]) -> None:
    """Matplotlib's path test is the outside truth; centres within 1e-3 of an edge are left out."""
    polygon = np.array(points)
    x, y = np.meshgrid(np.arange(SHAPE[1]), np.arange(SHAPE[0]))
    centres = np.stack([x.ravel(), y.ravel()], axis=1).astype(float)
    even_odd = _crossings(centres, polygon) % 2 == 1
    near = _distance(centres, polygon) < 1e-3
    mine = fill(polygon, SHAPE).ravel()
    assert (mine[~near] == even_odd[~near]).all()
    if len(polygon) == 3:
        assert (mine[~near] == Outline(polygon).contains_points(centres)[~near]).all()


def _crossings(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    count = np.zeros(len(points), int)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        spans = (y0 <= points[:, 1]) != (y1 <= points[:, 1])
        if y0 != y1:
            with np.errstate(over="ignore"):  # a nearly level edge; no centre is between its ends
                at = x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0)
            count += spans & (at > points[:, 0])
    return count


def _distance(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    best = np.full(len(points), np.inf)
    for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        length = max(float((b - a) @ (b - a)), 1e-12)
        t = np.clip((points - a) @ (b - a) / length, 0, 1)
        best = np.minimum(best, np.linalg.norm(points - a - t[:, None] * (b - a), axis=1))
    return best


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 40), x=st.floats(18, 26), y=st.floats(15, 22), radius=st.floats(3, 12))
def test_two_halves_share_no_pixel_and_miss_none(
    cut: int, x: float, y: float, radius: float
) -> None:
    whole = circle(x, y, radius, 42)
    first, second = whole[: cut + 1], np.concatenate([whole[cut:], whole[:1]])
    one, two = (fill(p, SHAPE) if len(p) > 2 else np.zeros(SHAPE, bool) for p in (first, second))
    assert not (one & two).any()
    assert ((one | two) == fill(whole, SHAPE)).all()


def test_area_of_a_circle() -> None:
    polygon = Polygon(circle(24.3, 19.8, 17.2))
    assert polygon.area == pytest.approx(np.pi * 17.2**2, rel=1e-3)
    assert fill(polygon.points, SHAPE).sum() == pytest.approx(polygon.area, rel=0.01)


def test_what_leaves_the_grid_is_cut_off() -> None:
    assert fill(square(-10.5, -10.5, 15), SHAPE).sum() == 25
    assert fill(square(-20.5, 3.0, 5), SHAPE).sum() == 0


def test_hole_island_overlap_and_repeat() -> None:
    outer, hole, island = square(1.5, 1.5, 30), square(9.5, 9.5, 10), square(12.5, 12.5, 4)
    beside = square(27.5, 27.5, 8)
    nested = [Polygon(p) for p in (island, outer, hole)]
    assert fill_slice(nested, SHAPE).sum() == 900 - 100 + 16
    repeated = [*nested, Polygon(outer[::-1]), Polygon(np.roll(hole, 1, axis=0))]
    assert (fill_slice(repeated, SHAPE) == fill_slice(nested, SHAPE)).all()
    joined = fill_slice([Polygon(outer), Polygon(beside)], SHAPE)
    assert joined.sum() == 900 + 64 - 16
    exclusive = fill_slice([Polygon(outer), Polygon(beside, exclusive=True)], SHAPE)
    assert exclusive.sum() == 900 + 64 - 32


def test_keyhole_contour_leaves_its_hole_empty() -> None:
    """One contour that runs in along a line, around the hole and out again."""
    outer, hole = square(1.5, 1.5, 30), square(9.5, 9.5, 10)[::-1]
    keyhole = np.concatenate([outer, outer[:1], hole, hole[:1]])
    assert fill(keyhole, SHAPE).sum() == 900 - 100
