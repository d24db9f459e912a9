"""Labelling a tree with one process and with two, same run: the same files, how much faster.

    .venv/bin/python bench/flow_label_jobs.py [--sequences 8] [--frames 150] [--rounds 2]

The tree is of synthetic participants at 640 x 490 px with their true key points. Both ways take
turns; what is timed is the whole call by the clock on the wall, with the start of the processes,
which takes some seconds: the machine must be quiet and have two free cores. All files must be
equal, byte for byte. Both ways are also timed without pictures; the table says what a pair costs.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # before NumPy is loaded

import argparse
import datetime
import hashlib
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import pandas as pd

from facecomp.data.schema import SYNTHETIC
from facecomp.faces.openface import write_points
from facecomp.faces.synthetic import participant, record
from facecomp.flow.labelling import label_tree
from facecomp.paper.tables import format_table

WANTED = 1.8  # times faster with two processes


def make_tree(root: Path, sequences: int, frames: int) -> Path:
    """A tree like that of CK+, one sequence a subject."""
    for k in range(sequences):
        subject = f"S{k:03d}"
        video = record(participant(k), frames, size=(490, 640), seed=k, expression="happiness")
        images = root / "cohn-kanade-images" / subject / "001"
        images.mkdir(parents=True)
        for t, image in enumerate(video.frames()):
            name = f"{subject}_001_{t + 1:08d}"
            cv2.imwrite(str(images / f"{name}.png"), image[..., ::-1])
            own = root / "Landmarks" / subject / "001" / f"{name}_landmarks.txt"
            write_points(own, video.landmarks[t])
    (root / SYNTHETIC).write_text("made for a measurement")
    return root


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of all files that must be the same."""
    skip = (".receipt.json", ".log", ".lock", ".holder")
    names = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(skip)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


def timed(tree: Path, out: Path, mode: str, jobs: int, previews: bool) -> float:
    """Seconds to label the tree into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    label_tree(tree, out, mode, jobs, previews=previews, quiet=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--mode", choices=("corrected", "compat"), default="corrected")
    args = parser.parse_args()
    ways = {
        "1 process": (1, True),
        "2 processes": (2, True),
        "1 process, no pictures": (1, False),
        "2 processes, no pictures": (2, False),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        tree = make_tree(Path(folder, "tree"), args.sequences, args.frames)
        for _ in range(args.rounds):
            made = []
            for name, (jobs, previews) in ways.items():
                out = Path(folder, f"{jobs}-{previews}")
                found[name].append(timed(tree, out, args.mode, jobs, previews))
                made.append(hashes(out))
            assert made[0] == made[1] and made[2] == made[3], "the files differ"
    pairs = args.sequences * (args.frames - 1)
    rows = []
    for name, slow in zip(ways, ["1 process"] * 2 + ["1 process, no pictures"] * 2, strict=True):
        ratio = statistics.median(a / b for a, b in zip(found[slow], found[name], strict=True))
        seconds = statistics.median(found[name])
        rows.append((name, f"{seconds:.1f}", f"{1000 * seconds / pairs:.1f}", f"{ratio:.2f}"))
    print(f"{datetime.date.today()} · {platform.machine()}, {os.cpu_count()} cores · {args.mode}")
    print(f"{args.sequences} sequences, {pairs} pairs · median of {args.rounds} rounds")
    heads = ["way", "seconds", "ms a pair", "times faster"]
    print(format_table(pd.DataFrame(rows, columns=heads), "github", index=False))
    reached = float(rows[1][3])
    print(f"\nTwo processes: {reached} times faster ({WANTED} wanted); the files are the same.")
    if os.getloadavg()[0] > os.cpu_count():
        print(f"The machine was not quiet (load {os.getloadavg()[0]:.1f}): measure again.")
    else:
        assert reached >= WANTED, f"ratio {reached} < {WANTED}"


if __name__ == "__main__":
    main()
