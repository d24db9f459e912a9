"""Time of one pair for each way to find its motion, crops of 384 x 512 pixels.

    .venv/bin/python bench/flow_network.py [--rounds 5] [--device cpu]

Ours at full width, RAFT small and large of torchvision (12 updates, as it is by default),
Farneback and DIS of OpenCV, on the same two crops of a synthetic face. The networks have random
weights: their time does not depend on the numbers. On the CPU all run in one thread and processor
time is counted, so that other programs on the machine disturb little; on a GPU the clock is read
after everything is done there. They take turns; the median of the rounds counts, the first is
left out. Preparing crops and reading files is not part of it; enlarging ours to the size of the
crop is.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy is loaded

import argparse
import datetime
import platform
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
import torchvision

from facecomp.faces.synthetic import participant, record
from facecomp.flow.methods import SEEN, Method, check_device, find_method
from facecomp.flow.networks import FlowNetwork
from facecomp.paper.tables import format_table


def crops() -> tuple[np.ndarray, np.ndarray]:
    """Two adjacent frames of a synthetic face, cut and stretched to 384 x 512."""
    video = record(participant(3), 12, size=(512, 384), expression="happiness")
    low, high = (
        video.landmarks[5].min(0).astype(int) - 10,
        video.landmarks[5].max(0).astype(int) + 10,
    )
    cut = np.s_[max(low[1], 0) : high[1], max(low[0], 0) : high[0]]
    size = SEEN[::-1]
    return tuple(cv2.resize(video.frame(t)[cut].astype(np.float32), size) for t in (5, 6))


def methods(device: str) -> list[tuple[Method, str]]:
    """What is timed, and its number of weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "drawn.pth")
        torch.save(FlowNetwork().state_dict(), path)
        ours = find_method("ours", str(path), device)
    rafts = [find_method(name, "random", device) for name in ("raft_small", "raft_large")]
    found = [(ours, "49.4 M"), *zip(rafts, ("1.0 M", "5.3 M"), strict=True)]
    if device == "cpu":
        found += [(find_method(name), "") for name in ("farneback", "dis")]
    return found


def seconds(method: Method, pair: tuple[np.ndarray, np.ndarray], device: str) -> float:
    """Processor time of one pair; on a GPU the time until it is done."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    flow = method.estimate(*pair)  # comes back as a NumPy array: the GPU has finished
    taken = clock() - start
    assert flow.shape == (*SEEN, 2) and np.isfinite(flow).all()
    return taken


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = check_device(args.device)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pair, ways = crops(), methods(device)
    found = {method.name: [] for method, _ in ways}
    for turn in range(args.rounds + 1):  # the first is not counted
        for method, _ in ways:
            taken = seconds(method, pair, device)
            found[method.name] += [taken] if turn else []
    middle = {name: statistics.median(times) for name, times in found.items()}
    rows = [
        (m.name, size, f"{middle[m.name]:.4f}", f"{middle[m.name] / middle['ours']:.2f}")
        for m, size in ways
    ]
    where = platform.machine() + ", one thread, processor time"
    where = torch.cuda.get_device_name() if device.startswith("cuda") else where
    versions = f"torch {torch.__version__} · torchvision {torchvision.__version__}"
    print(f"{datetime.date.today()} · {where}")
    print(f"{versions} · OpenCV {cv2.__version__} · float32")
    print(f"One pair of {SEEN[0]} x {SEEN[1]} px · random weights · median of {args.rounds} rounds")
    heads = ["way", "weights", "s", "times as long as ours"]
    print(format_table(pd.DataFrame(rows, columns=heads), "github", index=False))
    if device == "cpu":
        print("\nRows of a GPU need one: --device cuda.")


if __name__ == "__main__":
    main()
