"""Preparing a video for four studies: ours in one pass against a plain two-pass loop, same run.

    .venv/bin/python bench/prepare.py

The video is a synthetic participant, 400 x 320 px, h264; one process. The plain loop works as the
published scripts do: a pass that seeks every frame by its number, detects, adds a row to a table;
then, study by study, a pass that seeks every frame again, warps or crops it with PIL and saves it.
Points must agree to 1e-9 and the PSM pictures to 3 grey levels on average before times are shown.
The last table prepares 10 times as many frames, with dlib, each video in a process of its own.
"""

import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from facecomp.data.prepare import prepare_video
from facecomp.faces.alignment import (
    TEMPLATE,
    Rule,
    eye_centres,
    five_points,
    rule_named,
    similarity,
)
from facecomp.faces.detection import (
    BOX,
    XY,
    DlibDetector,
    make_table,
    points_of,
    read_landmark_table,
    write_landmark_table,
)
from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_video
from facecomp.paper.tables import format_table

FRAMES, SIZE = 200, (320, 400)  # frames; height, width
STUDIES = ("psm", "dfer", "fomm", "flow")


def frame_at(capture: cv2.VideoCapture, k: int) -> np.ndarray:
    """Frame `k` by random access, RGB."""
    capture.set(cv2.CAP_PROP_POS_FRAMES, k)
    return cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)


def plain_points(path: Path, points: Path | None) -> pd.DataFrame:
    """First pass: a table of points, row by row."""
    names, capture, detector = ["frame", *BOX, *XY], cv2.VideoCapture(str(path)), DlibDetector()
    table = pd.DataFrame(columns=names)
    known = None if points is None else read_landmark_table(points)
    for k in range(FRAMES):
        if known is not None:
            row = known.loc[k, names].to_dict()
        else:
            face = detector(frame_at(capture, k))[0]
            row = dict(zip(names, [k, *face.box, *face.points.T.ravel()], strict=True))
        table.loc[len(table)] = row
    return table


def plain_matrix(rule: Rule, points: np.ndarray, image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The map that the study's rule asks for."""
    h, w = rule.shape
    if rule.name == "psm":
        eyes = np.array([[0.375 * w, 0.48 * h], [0.625 * w, 0.48 * h]]) - 0.5
        return similarity(eye_centres(points), eyes)
    if rule.name == "dfer":
        return similarity(five_points(points), (TEMPLATE + 14.5) * w / 140 - 0.5)
    left, top, right, bottom = box if rule.name == "fomm" else (0, 0, *image.shape[1::-1])
    sx, sy = w / (right - left), h / (bottom - top)
    return np.array([[sx, 0, -left * sx], [0, sy, -top * sy]])


def plain(path: Path, out: Path, points: Path | None) -> pd.DataFrame:
    """Both passes of the plain loop."""
    table = plain_points(path, points)
    landmarks = points_of(table.astype(float))
    for study in STUDIES:
        rule = rule_named(study)
        (out / study).mkdir(parents=True)
        capture = cv2.VideoCapture(str(path))
        for k in range(FRAMES):
            image, box = frame_at(capture, k), table.loc[0, BOX].to_numpy(float)
            inverse = cv2.invertAffineTransform(plain_matrix(rule, landmarks[k], image, box))
            inverse[:, 2] += 0.5 - inverse[:, :2].sum(axis=1) / 2  # PIL counts from pixel corners
            picture = Image.fromarray(image).transform(
                rule.shape[::-1], Image.AFFINE, inverse.ravel(), Image.BILINEAR
            )
            picture.save(out / study / Path(rule.file.format(k)), quality=95)
    table.to_csv(out / "landmarks.csv", index=False)
    return table


def check(ours: Path, theirs: Path, table: pd.DataFrame) -> None:
    """Both must have done the same work."""
    found = read_landmark_table(ours / "reports/P/film/landmarks.csv")
    assert np.abs(points_of(found) - points_of(table.astype(float))).max() < 1e-9
    for k in range(0, FRAMES, 20):
        a, b = ours / f"psm/P/film/face_only_aligned/frame{k}.jpg", theirs / f"psm/frame{k}.jpg"
        difference = np.asarray(Image.open(a)).astype(float) - np.asarray(Image.open(b))
        assert np.abs(difference).mean() < 3


def speeds(folder: Path, film: Path, points: Path) -> tuple[list, list]:
    """Rows of the two tables: frames a second, and shares of our time."""
    rows, shares = [], []
    for name, options in {
        "dlib": {},
        "points from a file": {"detector": "files", "points": points},
    }.items():
        ours, theirs = folder / f"ours {name}", folder / f"plain {name}"
        if options == {}:
            DlibDetector()(
                np.zeros((80, 80, 3), np.uint8)
            )  # loads the model before the clock starts
        outcome = prepare_video(film, "P", STUDIES, ours, quiet=True, **options)
        begin = time.perf_counter()
        table = plain(film, theirs, options.get("points"))
        seconds = time.perf_counter() - begin
        check(ours, theirs, table)
        a, b = FRAMES / outcome.seconds, FRAMES / seconds
        rows.append((name, f"{a:.1f}", f"{b:.1f}", f"{a / b:.1f}x"))
        whole = sum(outcome.shares.values())
        kinds = ("decode", "detect", "align", "write", "report")
        shares.append((name, *(f"{100 * outcome.shares[k] / whole:.1f} %" for k in kinds)))
    return rows, shares


GROWTH = """
import json, sys
import numpy as np
from facecomp.data.prepare import prepare_video
from facecomp.faces.detection import DlibDetector
DlibDetector()(np.zeros((80, 80, 3), np.uint8))
outcome = prepare_video(sys.argv[1], "P", out=sys.argv[2], quiet=True)
peak = next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]
print(json.dumps([outcome.frames, outcome.seconds, int(peak) / 1024]))
"""


def growth(folder: Path) -> list:
    """Time and peak memory for a video and one of 10 times its length."""
    person, rows = record(participant(1), FRAMES, size=SIZE), []
    images = [person.frame(k) for k in range(20)]
    for frames in (FRAMES // 2, FRAMES * 5):
        film = folder / f"{frames}.mp4"
        write_video(film, (images[k % 20] for k in range(frames)), 25)
        command = [sys.executable, "-c", GROWTH, film, folder / f"out {frames}"]
        rows.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    return [(n, f"{s:.1f}", f"{n / s:.1f}", f"{m:.0f}") for n, s, m in rows]


def show(rows: list, columns: list[str]) -> None:
    """Print one table."""
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False), end="\n\n")


def main() -> None:
    """Print the tables."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film, points = folder / "film.mp4", folder / "film.csv"
        person = record(participant(1), FRAMES, size=SIZE)
        write_video(film, person.frames(), 25)
        write_landmark_table(points, make_table(person.landmarks, np.arange(FRAMES) / 25))
        rows, shares = speeds(folder, film, points)
        machine = f"{platform.machine()}, one process"
        print(f"{datetime.date.today()} · {machine} · OpenCV {cv2.__version__}")
        print(f"{FRAMES} frames of {SIZE[1]} x {SIZE[0]} px for {', '.join(STUDIES)}\n")
        show(rows, ["points", "ours, frames/s", "plain loop, frames/s", "ratio"])
        show(shares, ["points", "decode", "detect", "align", "write", "report"])
        show(growth(folder), ["frames", "seconds", "frames/s", "peak memory, MiB"])


if __name__ == "__main__":
    main()
