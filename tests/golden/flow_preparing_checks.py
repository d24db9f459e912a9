"""What the checks of the flow study's prepared pairs compute from a case (README.md)."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from facecomp.data.sampling import EpochSampler
from facecomp.faces.openface import XY
from facecomp.flow.files import motion_to_crop, write_flo
from facecomp.flow.landmarks import openface_points_compat
from facecomp.flow.pair_sets import Batch, PairSet, collate, folder_pairs
from facecomp.flow.preparing import points_range, prepare
from facecomp.training.loop import make_loader

from .harness import Case, Outputs, Variants


def prepared(case: Case) -> Outputs:
    """One pair by the published rules."""
    points = openface_points_compat(case.golden.folder / case.arg("csv"))
    images = case.value("first"), case.value("second")
    levels = (2, 64, 32, 16, 8, 4)
    made = prepare(*images, case.value("flow"), points, case.arg("size"), "compat", levels=levels)
    outputs = {"box": np.array(points_range(points)), "x1": made.first, "x2": made.second}
    for level, target in made.targets.items():
        outputs[f"target{level}"] = target
        outputs[f"target{level}.row_col"] = motion_to_crop(target)
    return outputs


def _write_tree(case: Case, root: Path) -> Path:
    """The published folders: frames without loss, whatever their names say, flows and key points."""
    train = root / "single_directory" / "train"
    own = root / "generated_dataset" / "F001" / "T1"
    train.mkdir(parents=True)
    own.mkdir(parents=True)
    for k, xy in enumerate(case.value("points")):
        stem = f"F001_T1_{k + 1:04d}"
        image = case.value(f"image{k}").astype(np.uint8)
        cv2.imencode(".png", image[..., ::-1])[1].tofile(train / f"{stem}.jpg")
        if k < len(case.value("points")) - 1:
            write_flo(train / f"{stem}.flo", case.value(f"flow{k}"))
        values = ",".join(map(repr, xy.T.ravel().tolist()))
        (own / f"{stem}.csv").write_text(f"face, {', '.join(XY)}\n0,{values}\n")
    return train


def _outputs(batches: list[Batch]) -> Outputs:
    outputs = {}
    for k, batch in enumerate(batches):
        outputs |= {f"b{k}.x1": batch.first, f"b{k}.x2": batch.second}
        outputs |= {f"b{k}.y{s}": y for s, y in zip((2, 4, 8, 16, 32), batch.truths, strict=True)}
    return {name: tensor.permute(0, 2, 3, 1) for name, tensor in outputs.items()}


def batches(case: Case) -> Variants:
    """All batches of the first pass, with and without worker processes."""
    size, batch_size, cache = case.arg("size"), case.arg("batch_size"), case.arg("cache")
    made = Variants()
    for workers in case.arg("workers"):
        with tempfile.TemporaryDirectory() as folder:
            pairs = folder_pairs(_write_tree(case, Path(folder)))
            data = PairSet(pairs, size, "compat", cache, batch_size=batch_size)
            sampler = EpochSampler(len(data), 0, batch_size, order=data.order, epoch=1)
            loader = make_loader(data, sampler, workers, collate)
            made[f"{workers} workers"] = _outputs(list(loader))
    return made


CHECKS = {"flow.prepared": prepared, "flow.batches": batches}
