"""Flow from key points: the published order against ours, same run, one thread, 512 x 384 pixels.

    .venv/bin/python bench/flow_labels.py [--pairs 3] [--rounds 5]

The reference is written from the specification, step for step: loops over test positions, points
and pixels, and SciPy's griddata on the list of pixels of fixed length. Before anything is timed,
points, moved points and stored fields of both must be equal to the bit. Reference, compat and
corrected take turns, and processor time is counted, so that other programs on the machine disturb
little; a ratio is the median over the rounds. A first pair holds the raster of the triangles,
later pairs do not.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy is loaded

import argparse
import datetime
import platform
import statistics
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy
from scipy.interpolate import griddata
from scipy.spatial import Delaunay

from facecomp.faces.synthetic import participant, record
from facecomp.flow.labels import SIZE, compat_flows, corrected_flow
from facecomp.paper.tables import format_table

QHULL = "Qhull alone"
COMPAT, CORRECTED = 2.5, 40.0  # times faster, at least


def inside(p, q, r, a: float, b: float) -> bool:
    """Whether the position (a, b) is in the triangle."""
    d = q[0] * r[1] - q[1] * r[0] + p[1] * (r[0] - q[0]) + p[0] * (q[1] - r[1])
    s = (p[1] * r[0] - p[0] * r[1] + (r[1] - p[1]) * a + (p[0] - r[0]) * b) / d
    u = (p[0] * q[1] - p[1] * q[0] + (p[1] - q[1]) * a + (q[0] - p[0]) * b) / d
    return s >= 0 and u >= 0 and s + u <= 1


def reference_points(first: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Section 6.2: the points of all triangles, one after the other."""
    points, ends = [], []
    for corners in first[triangles]:
        p, q, r = corners.tolist()  # Python's numbers are faster than NumPy's in loops
        points += [[int(x), int(y)] for x, y in (p, q, r)]
        columns = np.arange(0.9 * min(p[1], q[1], r[1]), 1.1 * max(p[1], q[1], r[1]), 1).tolist()
        for a in np.arange(0.9 * min(p[0], q[0], r[0]), 1.1 * max(p[0], q[0], r[0]), 1).tolist():
            points += [[int(a), int(b)] for b in columns if inside(p, q, r, a, b)]
        ends.append(len(points))
    return np.array(points, dtype=np.float64), ends


def reference_moved(points, ends, first, second, triangles) -> np.ndarray:
    """Section 6.3: the points of each triangle by the map of its corners."""
    moved, begin = [], 0
    for corners, end in zip(triangles, ends, strict=True):
        a = np.column_stack([first[corners], np.ones(3)])
        b = np.column_stack([second[corners], np.ones(3)])
        u = np.linalg.inv(a) @ b
        moved.append((np.column_stack([points[begin:end], np.ones(end - begin)]) @ u)[:, :2])
        begin = end
    return np.concatenate(moved)


def reference_flows(landmarks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sections 6.1 to 6.5: points, moved points and stored field of each pair."""
    triangles = Delaunay(landmarks[0]).simplices
    points, ends = reference_points(landmarks[0], triangles)
    field = np.zeros((*SIZE, 2))
    for first, second in zip(landmarks[:-1], landmarks[1:], strict=True):
        moved = reference_moved(points, ends, first, second, triangles)
        (top, left), (bottom, right) = points.min(0).astype(int), points.max(0).astype(int)
        asked, count = np.zeros((2 * len(points), 2), dtype=int), 0
        for column in range(left, right):
            for row in range(top, bottom):
                asked[count] = row, column
                count += 1
        field[asked[:, 0], asked[:, 1]] = griddata(points, moved - points, asked, method="linear")
        field = np.stack([-field[..., 1], -field[..., 0]], axis=-1)
        yield points, moved, field.astype(np.float32)
        points = moved


def times_between(items: Iterator) -> list[float]:
    """Seconds of processor time until each item."""
    found, start = [], time.process_time()
    for _ in items:
        found.append(time.process_time() - start)
        start = time.process_time()
    return found


def ratio(times: dict[str, list[float]], name: str) -> float:
    """How many times faster than the published order: median over the rounds."""
    pairs = zip(times["published order"], times[name], strict=True)
    return statistics.median(slow / own for slow, own in pairs)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    video = record(participant(3), args.pairs + 1, size=SIZE, expression="happiness")
    landmarks = video.landmarks[:, :, ::-1].copy()
    lists = []
    for wanted, made in zip(reference_flows(landmarks), compat_flows(landmarks), strict=True):
        assert not made.dropped
        for one, other in zip(wanted, (made.points, made.moved, made.stored), strict=True):
            assert np.array_equal(one, other, equal_nan=True), f"pair {made.pair} is not equal"
        lists.append(made.points)
    count = len(lists[0])

    def corrected():
        for pair in zip(landmarks[:-1], landmarks[1:], strict=True):
            yield corrected_flow(*pair)

    ways = {
        "published order": lambda: reference_flows(landmarks),
        "compat": lambda: compat_flows(landmarks),
        "corrected": corrected,
        QHULL: lambda: (Delaunay(points) for points in lists),
    }
    found = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            found[name].append(times_between(way()))
    first = {name: [rounds[0] for rounds in taken] for name, taken in found.items()}
    later = {name: [statistics.mean(r[1:]) for r in taken] for name, taken in found.items()}
    rows = []
    for name in ways:
        cells = []
        for part in (first, later):
            cells += [f"{statistics.median(part[name]):.4f}", f"{ratio(part, name):.2f}"]
        rows.append((name, *cells))
    versions = f"NumPy {np.__version__} · SciPy {scipy.__version__}"
    print(f"{datetime.date.today()} · {platform.machine()}, one thread · {versions}")
    print(f"{count} points · {args.pairs} pairs · median of {args.rounds} rounds")
    heads = ["first pair, s", "ratio", "a later pair, s", "ratio "]
    print(format_table(pd.DataFrame(rows, columns=["way", *heads]), "github", index=False))
    reached = f"{ratio(first, 'compat'):.2f} times faster for a first pair"
    print(f"\nCompat, equal to the bit: {reached}, {ratio(later, 'compat'):.2f} times for a later")
    print(f"one ({COMPAT} wanted). The triangles of all points, in Qhull's order, decide the bits;")
    most = f"{ratio(first, QHULL):.2f} and {ratio(later, QHULL):.2f}"
    print(f"with SciPy's defaults they alone leave at most {most}.")
    slowest = min(ratio(part, "corrected") for part in (first, later))
    print(f"Corrected: {slowest:.0f} times faster ({CORRECTED:.0f} wanted).")
    assert slowest >= CORRECTED, f"ratio {slowest:.1f} < {CORRECTED}"


if __name__ == "__main__":
    main()
