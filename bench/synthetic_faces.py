"""Synthetic participants: frames per second, and our renderer's core against a loop over triangles, in the same run.

    .venv/bin/python bench/synthetic_faces.py

One core. The loop draws the same triangles one by one with the same arithmetic; both must see the same surface
before they are timed (best of five).
"""

import datetime
import os
import platform
import timeit

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import pandas as pd

from facecomp.faces.rendering import Camera, triangle_map
from facecomp.faces.synthetic import participant, record
from facecomp.paper.tables import format_table


def loop_map(xy: np.ndarray, triangles: np.ndarray, height: int, width: int) -> np.ndarray:
    """What `triangle_map` gives, one triangle at a time."""
    xy = xy.astype(np.float32)
    seen = np.full((height, width), -1, np.int32)
    for number, (i, j, k) in enumerate(triangles):
        a, b, c = xy[i], xy[j], xy[k]
        low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
        x0, y0 = max(0, int(np.ceil(low[0]))), max(0, int(np.ceil(low[1])))
        x1, y1 = min(width - 1, int(np.floor(high[0]))), min(height - 1, int(np.floor(high[1])))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if x1 < x0 or y1 < y0 or abs(area) < 1e-9:
            continue
        y, x = np.mgrid[y0 : y1 + 1, x0 : x1 + 1]
        u = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
        v = ((y - a[1]) * (b[0] - a[0]) - (x - a[0]) * (b[1] - a[1])) / area
        inside = (u >= -1e-5) & (v >= -1e-5) & (u + v <= 1 + 1e-5)
        seen[y[inside], x[inside]] = number
    return seen


def best(function, repeat: int = 5) -> float:
    """Seconds of the fastest of `repeat` calls."""
    return min(timeit.repeat(function, number=1, repeat=repeat))


def main() -> None:
    """Print two tables."""
    cv2.setNumThreads(1)
    print(f"{datetime.date.today()} · {platform.machine()} · one core · numpy {np.__version__}\n")
    speed, cores = [], []
    for size in (64, 128, 256, 512):
        video = record(participant(1), 100, size=size)
        video.frame(0)
        frames = 20
        picture = best(lambda v=video: [v.frame(t) for t in range(frames)]) / frames
        flow = best(lambda v=video: [v.flow(t) for t in range(frames)]) / frames
        speed.append((f"{size} x {size}", f"{1 / picture:.0f}", f"{1 / flow:.0f}"))
        camera = Camera(size, size).times(2)
        xy, triangles = camera.project(video.vertices(0)), video.rig.triangles
        a, b = (f(xy, triangles, 2 * size, 2 * size) for f in (triangle_map, loop_map))
        assert (a == b).mean() > 0.9995, "the two do not see the same surface"
        ours = best(lambda v=(xy, triangles, size): triangle_map(v[0], v[1], 2 * v[2], 2 * v[2]))
        loop = best(lambda v=(xy, triangles, size): loop_map(v[0], v[1], 2 * v[2], 2 * v[2]), repeat=3)
        cores.append((f"{size} x {size}", f"{ours * 1e3:.2f}", f"{loop * 1e3:.1f}", f"{loop / ours:.1f}x"))
    print(format_table(pd.DataFrame(speed, columns=["picture", "frames/s", "exact flows/s"]), "github", index=False))
    print()
    columns = ["picture (drawn with 2 x 2 pixels each)", "triangle_map, ms", "loop, ms", "ratio"]
    print(format_table(pd.DataFrame(cores, columns=columns), "github", index=False))


if __name__ == "__main__":
    main()
