"""Average end-point and angular error of one image: loops over the pixels against ours, one thread.

    .venv/bin/python bench/flow_metrics.py [--rounds 7]

Truth and prediction are 192 x 256 pixels, as in the study's evaluation. Two references, both
written from the definitions: loops whose pixels are NumPy vectors (cross product, norm, arc
tangent), which takes about as long as the specification says the published program takes, and
loops over plain numbers, the fastest that Python's loops get. Before anything is timed all three
must give sums and means that are equal to 1e-6. They take turns, and processor time is counted,
so that other programs on the machine disturb little; a ratio is the median over the rounds.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy is loaded

import argparse
import datetime
import math
import platform
import statistics
import time

import numpy as np
import pandas as pd

from facecomp.flow.metrics import flow_errors
from facecomp.paper.tables import format_table

WANTED = 200.0  # times faster than the loops over vectors, at least
SIZE = (192, 256)
SLOW = "loops, vectors"


def vectors(truth: np.ndarray, made: np.ndarray) -> tuple[float, float, float]:
    """Sum and mean of distances, mean angle; each pixel as a NumPy vector."""
    rows, columns = truth.shape[:2]
    distance = angle = 0.0
    for r in range(rows):
        for c in range(columns):
            distance += math.sqrt(
                (truth[r, c, 0] - made[r, c, 0]) ** 2 + (truth[r, c, 1] - made[r, c, 1]) ** 2
            )
    for r in range(rows):
        for c in range(columns):
            y, p = np.append(truth[r, c], 1.0), np.append(made[r, c], 1.0)
            angle += math.atan2(np.linalg.norm(np.cross(y, p)), np.dot(y, p))
    return distance, distance / (rows * columns), angle / (rows * columns)


def numbers(truth: np.ndarray, made: np.ndarray) -> tuple[float, float, float]:
    """The same with Python's own numbers."""
    distance = angle = 0.0
    pairs = zip(truth.reshape(-1, 2).tolist(), made.reshape(-1, 2).tolist(), strict=True)
    for (a, b), (c, d) in pairs:
        distance += math.sqrt((a - c) ** 2 + (b - d) ** 2)
        across = math.sqrt((b - d) ** 2 + (c - a) ** 2 + (a * d - b * c) ** 2)
        angle += math.atan2(across, a * c + b * d + 1)
    count = truth.shape[0] * truth.shape[1]
    return distance, distance / count, angle / count


def ours(truth: np.ndarray, made: np.ndarray) -> tuple[float, float, float]:
    found = flow_errors(truth, made)
    return found.epe_sum, found.epe, found.aae


def seconds(function, *arguments, times: int = 1) -> float:
    """Processor time of one call."""
    start = time.process_time()
    for _ in range(times):
        function(*arguments)
    return (time.process_time() - start) / times


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    flows = [rng.uniform(-3, 3, (*SIZE, 2)) for _ in range(2)]
    ways = {SLOW: vectors, "loops, numbers": numbers, "ours": ours}
    answers = {name: np.array(way(*flows)) for name, way in ways.items()}
    apart = max(float(np.abs(a / answers[SLOW] - 1).max()) for a in answers.values())
    assert apart <= 1e-6, f"not equal: {apart:.1e} relative"
    found = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            found[name].append(seconds(way, *flows, times=20 if way is ours else 1))
    ratios = {
        name: statistics.median(a / b for a, b in zip(found[name], found["ours"], strict=True))
        for name in ways
    }
    print(f"{datetime.date.today()} · {platform.machine()}, one thread · NumPy {np.__version__}")
    print(f"EPE and AAE of one image, {SIZE[0]} x {SIZE[1]} px · median of {args.rounds} rounds")
    rows = [(name, f"{statistics.median(found[name]):.5f}", f"{ratios[name]:.1f}") for name in ways]
    heads = ["way", "s (processor time)", "times as long as ours"]
    print(format_table(pd.DataFrame(rows, columns=heads), "github", index=False))
    text = f"({WANTED:.0f} wanted); largest relative difference {apart:.1e}"
    print(f"\nOurs is {ratios[SLOW]:.0f} times faster {text}.")
    assert ratios[SLOW] >= WANTED, f"ratio {ratios[SLOW]:.1f} < {WANTED}"


if __name__ == "__main__":
    main()
