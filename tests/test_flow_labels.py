"""Flow from key points where faces are unusual: at the border, tiny, without area, without motion."""

import numpy as np
import pytest

from facecomp.flow.labels import (
    QHULL,
    Box,
    DegenerateTriangle,
    compat_flows,
    corrected_flow,
    raster,
    triangulate,
)
from facecomp.records.files import InputError

SIZE = (60, 50)


def points(seed: int, n: int = 20, low=(8, 6), high=(50, 42)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (n, 2))


def moved(first: np.ndarray, seed: int = 9) -> np.ndarray:
    return first + np.random.default_rng(seed).normal(0, 0.7, first.shape)


def plain_raster(corners: np.ndarray) -> list[list[int]]:
    """The published rule, position by position."""
    (p0, p1), (q0, q1), (r0, r1) = corners.tolist()
    d = q0 * r1 - q1 * r0 + p1 * (r0 - q0) + p0 * (q1 - r1)
    found = [[int(y), int(x)] for y, x in corners.tolist()]
    for a in np.arange(0.9 * min(p0, q0, r0), 1.1 * max(p0, q0, r0), 1).tolist():
        for b in np.arange(0.9 * min(p1, q1, r1), 1.1 * max(p1, q1, r1), 1).tolist():
            s = (p1 * r0 - p0 * r1 + (r1 - p1) * a + (p0 - r0) * b) / d
            u = (p0 * q1 - p1 * q0 + (p1 - q1) * a + (q0 - p0) * b) / d
            if s >= 0 and u >= 0 and s + u <= 1:
                found.append([int(a), int(b)])
    return found


@pytest.mark.parametrize("seed", range(3))
def test_points_of_triangles_are_those_of_the_rule_position_by_position(seed):
    first = points(seed, low=(-6, -4) if seed == 2 else (8, 6))
    triangles = triangulate(first)
    listed, ends = raster(first, triangles)
    wanted = [plain_raster(first[corners]) for corners in triangles]
    assert listed.tolist() == [point for part in wanted for point in part]
    assert np.diff(ends, prepend=0).tolist() == [len(part) for part in wanted]


@pytest.mark.parametrize("seed", range(3))
def test_the_options_left_out_change_no_triangle(seed):
    from scipy.spatial import Delaunay

    first = points(seed, 40, (20, 20), (150, 120))
    listed, _ = raster(first, triangulate(first))
    for given in (listed, listed * [1.01, 0.99] + 0.3):  # on a lattice and off it
        ours, default = Delaunay(given, qhull_options=QHULL), Delaunay(given)
        assert np.array_equal(ours.simplices, default.simplices)
        assert np.array_equal(ours.neighbors, default.neighbors)


def test_compat_keeps_old_values_outside_of_the_box_turned_once_more():
    first = points(1)
    sequence = np.array([first, moved(first) + [6.0, 4.0], moved(first, 3) + [6.0, 4.0]])
    one, two = compat_flows(sequence, SIZE)
    left = np.ones(SIZE, dtype=bool)
    left[two.box.top : two.box.bottom, two.box.left : two.box.right] = False
    left[0, 0] = False
    assert (one.stored[left] != 0).any()  # else nothing is tested
    assert np.array_equal(two.stored[left], -one.stored[left][:, ::-1], equal_nan=True)
    assert np.isnan(one.stored[0, 0]).all() and np.isnan(two.stored[0, 0]).all()


def test_compat_drops_a_pair_below_the_picture_and_its_points_move_on():
    first = points(1)
    outside = first + [SIZE[0] - first[:, 0].max() + 3.0, 0.0]
    back = list(compat_flows(np.array([outside, first, moved(first)]), SIZE))
    assert back[0].stored is None and "outside" in back[0].dropped
    assert back[1].stored is not None and np.array_equal(back[1].points, back[0].moved)
    box = back[1].box
    assert not back[1].stored[1 : box.top].any()  # the dropped pair left nothing there


def test_compat_wraps_round_above_the_picture():
    first = points(1) - [14.0, 0.0]
    assert first[:, 0].min() < -3
    (made,) = compat_flows(np.array([first, moved(first)]), SIZE)
    box, wrapped = made.box, made.grid[: -made.box.top]
    assert box.top < 0 and np.isfinite(wrapped).any()
    rows = made.stored[SIZE[0] + box.top :, box.left : box.right]
    assert np.array_equal(rows, -wrapped[..., ::-1].astype(np.float32), equal_nan=True)


def test_compat_drops_a_box_of_more_pixels_than_its_list_holds():
    fault = Box(0, 0, 10, 10).fault(SIZE, 99)
    assert "more than 99" in fault and Box(0, 0, 10, 10).fault(SIZE, 100) == ""


def test_compat_ends_with_a_name_where_a_triangle_does_not_move_or_has_no_area():
    still = np.array([[0.0, 0.0], [0.0, 16.0], [16.0, 0.0]])
    flows = compat_flows(np.array([still + 0.5, still, still]), SIZE)
    assert next(flows).pair == 0
    with pytest.raises(DegenerateTriangle, match="pair 1"):
        next(flows)
    line = np.array([[8.0, 8.0], [10.0, 8.0], [12.0, 8.0]])
    flows = compat_flows(np.array([still, line, still]), SIZE)
    next(flows)
    with pytest.raises(DegenerateTriangle, match="pair 1: a triangle has no area"):
        next(flows)


def test_corrected_gives_the_key_points_their_motion_and_nothing_outside():
    first = np.round(points(4))
    second = moved(first)
    made = corrected_flow(first, second, SIZE)
    rows, columns = first.astype(int).T
    assert made.mask[rows, columns].all()
    assert np.allclose(made.flow[rows, columns], (second - first)[:, ::-1], atol=1e-5)
    assert (made.flow[~made.mask] == 0).all() and not made.mask[0, 0]


def test_corrected_is_the_rule_pixel_by_pixel():
    first = points(5, 9)
    second, triangles = moved(first), triangulate(first)
    made = corrected_flow(first, second, SIZE)
    for row in range(0, SIZE[0], 3):
        for column in range(0, SIZE[1], 3):
            flow = None
            for corners in triangles:
                system = np.vstack([first[corners].T, np.ones(3)])
                parts = np.linalg.solve(system, [row, column, 1.0])
                if (parts >= -1e-9).all():
                    flow = (parts @ (second - first)[corners])[::-1]
                    break
            assert made.mask[row, column] == (flow is not None)
            assert np.allclose(made.flow[row, column], 0 if flow is None else flow, atol=1e-5)


def test_corrected_without_motion_is_zero_inside_the_mask():
    made = corrected_flow(points(6), points(6), SIZE)
    assert (made.flow == 0).all() and made.mask.any() and made.outside == 0 and made.skipped == ()


def test_corrected_cuts_a_face_at_the_border_and_reports_it():
    first = points(7)
    whole, shift = corrected_flow(first, moved(first), SIZE), np.array([20.0, 15.0])
    cut = corrected_flow(first - shift, moved(first) - shift, SIZE)
    assert cut.outside == ((first - shift) < 0).any(axis=1).sum() > 0
    part = slice(0, SIZE[0] - 20), slice(0, SIZE[1] - 15)
    assert np.allclose(cut.flow[part], whole.flow[20:, 15:], atol=1e-5)
    assert np.array_equal(cut.mask[part], whole.mask[20:, 15:])
    gone = corrected_flow(first + 500.0, moved(first) + 500.0, SIZE)
    assert not gone.mask.any() and gone.outside == len(first)


def test_a_triangle_within_one_pixel_labels_at_most_that_pixel():
    corners = np.array([[9.9, 9.9], [9.9, 10.3], [10.3, 9.9]])
    made = corrected_flow(corners, corners + 0.5, SIZE)
    assert np.argwhere(made.mask).tolist() == [[10, 10]]
    assert not corrected_flow(corners + 0.3, corners, SIZE).mask.any()
    with pytest.raises(InputError, match="too close"):
        next(compat_flows(np.array([corners + 0.2, corners + 0.5]), SIZE))


@pytest.mark.parametrize(
    "wrong, words",
    [
        (np.zeros((2, 68)), "shape"),
        (np.zeros((1, 68, 2)), "2 or more"),
        (np.zeros((2, 2, 2)), "3 or more"),
        (np.full((2, 68, 2), np.inf), "frame 0: not finite"),
        (np.ones((2, 68, 2)), "on one line"),
    ],
)
def test_wrong_key_points_are_one_clear_line(wrong, words):
    with pytest.raises(InputError, match=words) as caught:
        next(compat_flows(wrong, SIZE))
    assert "\n" not in str(caught.value)


def test_wrong_sizes_and_unlike_frames_are_refused():
    with pytest.raises(InputError, match="size"):
        corrected_flow(points(0), points(0), (0, 50))
    with pytest.raises(InputError, match="alike"):
        corrected_flow(points(0), points(0)[:5], SIZE)
