"""Flow from key points where faces are unusual: at the border, tiny, without area, without motion."""

import numpy as np
import pytest
from scipy.interpolate import griddata
from scipy.spatial import Delaunay

from facecomp.flow.labels import (
    QHULL,
    Box,
    DegenerateTriangle,
    Mesh,
    certain_pixels,
    compat_flows,
    corrected_flow,
    raster,
    resample,
    triangulate,
    with_lead,
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
    first = points(seed, 40, (20, 20), (150, 120))
    listed, _ = raster(first, triangulate(first))
    for given in (listed, listed * [1.01, 0.99] + 0.3):  # on a lattice and off it
        ours, default = Delaunay(given, qhull_options=QHULL), Delaunay(given)
        assert np.array_equal(ours.simplices, default.simplices)
        assert np.array_equal(ours.neighbors, default.neighbors)


def published(given: np.ndarray, motion: np.ndarray, box: Box) -> np.ndarray:
    """SciPy's griddata, column by column as published; float32 (cols, rows, 2)."""
    found = griddata(given, motion, box.asked()[:-1], method="linear")
    return found.reshape(*box.shape[::-1], 2).astype(np.float32)


def sequences() -> dict[str, np.ndarray]:
    """Key points of three frames in which SciPy's search is easy, hard, and depends on its way."""
    first, rng = points(2, 24), np.random.default_rng(5)
    whole, flat = np.round(first), first.copy()
    flat[:10, 0] = 7.3 + 1e-5 * rng.normal(size=10)  # nearly a line at the rim
    return {
        "anywhere": np.array([first, moved(first), moved(first, 3)]),
        "onto the lattice again": np.array([whole, whole + [2.0, 1.0], moved(whole + [2.0, 1.0])]),
        "on tenths": np.round([first, moved(first), moved(first, 3)], 1),
        "nearly still": np.array([first, moved(first) * 1e-7 + first * (1 - 1e-7), moved(first)]),
        "straight rim": np.array([flat, flat * [1.01, 0.99] + 0.2, flat * [0.99, 1.02] + 0.3]),
        "folded": np.array([first, first + rng.normal(0, 4, first.shape), moved(first)]),
    }


@pytest.mark.parametrize("name", sequences())
def test_compat_resamples_as_griddata_does_to_the_last_bit(name):
    made = [one for one in compat_flows(sequences()[name], SIZE) if not one.dropped]
    assert len(made) == 2
    for one in made:
        wanted = published(one.points, one.moved - one.points, one.box)
        ours = one.grid.transpose(1, 0, 2).astype(np.float32)
        assert np.isfinite(wanted).any() and np.isnan(wanted).any()
        assert np.array_equal(ours, wanted, equal_nan=True)


@pytest.mark.parametrize("lattice", [False, True])
def test_values_halfway_between_two_float32_are_rounded_as_scipys(lattice):
    given = points(0, 400)
    if (
        lattice
    ):  # partly: there the way of the search decides, so it has to begin in the right place
        given[given[:, 0] < 30] = np.round(given[given[:, 0] < 30])
    motion, box = np.full(given.shape, 1 + 2.0**-24), Box.around(given)  # the last bits decide
    assert certain_pixels(Mesh(given), box)[1].any() == lattice
    wanted = published(given, motion, box)
    assert len(np.unique(wanted[np.isfinite(wanted)])) == 2  # else nothing is tested
    ours = resample(given, motion, box)[0].transpose(1, 0, 2).astype(np.float32)
    assert np.array_equal(ours, wanted, equal_nan=True)


@pytest.mark.parametrize("name", sequences())
def test_certain_positions_are_in_the_triangle_scipy_finds_or_outside(name):
    _, one = compat_flows(sequences()[name], SIZE)
    mesh = Mesh(one.points)
    found, unclear = certain_pixels(mesh, one.box)
    wanted = Delaunay(one.points).find_simplex(one.box.asked())
    known = np.full(len(unclear), -1)
    known[found.place] = found.number
    assert np.array_equal(known[~unclear], wanted[~unclear])
    assert not unclear[found.place].any()
    assert (len(found.place) > 100) == (name != "onto the lattice again")  # else little is tested


def test_no_pixel_is_certain_if_a_flat_triangle_at_the_rim_may_turn_the_search_back():
    rim = [[1.999, 1.0], [1.999 + 1e-9, 4.0], [1.999, 8.0], [1.9995, 23.0]]
    given, box = np.array([*rim, [24.6, 5.3], [22.3, 18.2]]), Box(2, 1, 22, 23)
    mesh = Mesh(given)
    found, unclear = certain_pixels(mesh, box)
    assert [0, 1, 2] in np.sort(mesh.simplices).tolist()  # it is flat
    assert len(found.place) == 0 and unclear.sum() > 200
    given[1, 0] += 0.01
    assert len(certain_pixels(Mesh(given), box)[0].place) > 200


def test_folded_faces_make_no_long_list_of_pixels():
    line = np.stack([np.linspace(3, 103, 900), np.linspace(4.0, 101, 900)], axis=1)
    given = np.append(line + 1e-3 * np.sin(line), [[90.3, 8.2], [7.9, 95.1]], axis=0)
    found, unclear = certain_pixels(Mesh(given), Box(3, 4, 103, 101))
    assert len(found.place) == 0 and unclear.all()


def test_maps_written_down_are_those_scipy_computes():
    first = points(3, 30)
    listed, _ = raster(first, triangulate(first))
    for given in (listed, listed * [1.01, 0.99] + 0.3):
        mesh, wanted = Mesh(given), Delaunay(given).transform
        assert np.array_equal(mesh.transform, wanted, equal_nan=True)
        assert np.array_equal(mesh.maps(np.arange(7)), wanted[:7], equal_nan=True)


def test_a_search_begins_with_the_last_certain_position():
    unclear, certain = np.zeros((2, 9), dtype=bool)
    unclear[[2, 7]] = certain[[4, 8]] = True
    assert np.flatnonzero(with_lead(unclear, certain)).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert not with_lead(certain & False, certain).any()


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
