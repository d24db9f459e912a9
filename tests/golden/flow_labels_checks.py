"""What the checks of flow labels compute from a case; README.md documents inputs, arguments and outputs."""

import numpy as np

from facecomp.flow.labels import compat_flows, corrected_flow, raster, triangulate
from facecomp.flow.landmarks import openface_points, openface_points_compat

from .harness import Case, CaseError, Outputs


def frames(case: Case) -> np.ndarray:
    """Key points (T, n, 2), row and col, of the inputs frame0, frame1, ..."""
    names = [f"frame{k}" for k in range(len(case.inputs))]
    if set(names) != set(case.inputs):
        raise CaseError(
            f"case {case.id}: inputs {sorted(case.inputs)}; must be frame0, frame1, ..."
        )
    return np.array([case.value(name) for name in names], dtype=np.float64)


def size(case: Case) -> tuple[int, int]:
    rows, columns = case.arg("size")
    return rows, columns


def compat(case: Case) -> Outputs:
    """Triangles, points and every pair of a sequence by the published rules."""
    landmarks = frames(case)
    triangles = triangulate(landmarks[0])
    outputs = {"triangles": triangles, "ends": raster(landmarks[0], triangles)[1]}
    for made in compat_flows(landmarks, size(case)):
        outputs |= {
            f"pair{made.pair}.points": made.points,
            f"pair{made.pair}.moved": made.moved,
            f"pair{made.pair}.moved_sum": made.moved.sum(axis=0),
            f"pair{made.pair}.count": np.array(len(made.points)),
            f"pair{made.pair}.origin": np.array([made.box.top, made.box.left]),
        }
        if not made.dropped:
            outputs |= {f"pair{made.pair}.grid": made.grid, f"pair{made.pair}.stored": made.stored}
    return outputs


def corrected(case: Case) -> Outputs:
    """Flow and mask of every pair by the corrected rule."""
    landmarks, outputs = frames(case), {}
    for k, pair in enumerate(zip(landmarks[:-1], landmarks[1:], strict=True)):
        made = corrected_flow(*pair, size(case))
        outputs |= {f"pair{k}.flow": made.flow, f"pair{k}.mask": made.mask}
    return outputs


def openface(case: Case) -> Outputs:
    """Key points of an OpenFace CSV: by the published rule, of each face (x, y), and of the best."""
    path = case.golden.folder / case.arg("csv")
    outputs = {"compat": openface_points_compat(path), "best": openface_points(path)[:, ::-1]}
    for face in case.args.get("faces", []):
        outputs[f"face{face}"] = openface_points(path, face)[:, ::-1]
    return outputs


CHECKS = {
    "flow.openface": openface,
    "flow.labels_compat": compat,
    "flow.labels_corrected": corrected,
}
