"""What the checks of FOMM's key points compute from a case; fomm/README.md documents them."""

import tempfile
from pathlib import Path

import numpy as np

from facecomp.data.keypoints import default_points, points_of_landmarks, side_text
from facecomp.faces.alignment import fomm_points
from facecomp.fomm.points import read_frame_points, read_landmarks, read_points, write_points

from .harness import Case, Outputs, Variants


def _through_files(landmarks: np.ndarray) -> np.ndarray:
    """Points of faces by way of the files that keep them: a table of landmarks, then a tensor."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "clip.csv")
        table.write_text(side_text("clip", landmarks, "known"))
        points = points_of_landmarks(read_landmarks(table).points, 256)
        return read_frame_points(write_points(Path(folder, "clip.pt"), points))


def points(case: Case) -> Variants:
    """The 18 points of faces: one by one, all at once, and by way of files."""
    landmarks = case.value("landmarks")
    ways = {
        "one by one": np.stack([fomm_points(face) for face in landmarks]),
        "together": points_of_landmarks(landmarks, 256),
        "files": _through_files(landmarks),
    }
    return Variants({way: {"points": found} for way, found in ways.items()})


def default(case: Case) -> Outputs:
    """The default points, as they are and as they come back from a file."""
    with tempfile.TemporaryDirectory() as folder:
        kept = read_points(write_points(Path(folder, "clip.pt"), default_points(256)))
    return {"points": default_points(256), "kept": kept}


CHECKS = {"fomm.points": points, "fomm.default_points": default}
