"""What the checks of the FOMM networks compute from a case; fomm/README.md documents them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facecomp.fomm.blocks import AntiAlias, ImagePyramid
from facecomp.fomm.detector import KeyPointDetector
from facecomp.fomm.discriminator import MultiScaleDiscriminator
from facecomp.fomm.generator import Generated, Generator
from facecomp.fomm.motion import (
    DenseMotion,
    KeyPoints,
    coordinate_grid,
    gaussian_maps,
    heat_maps,
    sparse_motions,
)
from facecomp.fomm.prior import PriorCache, prior_maps

from .fill import make_input
from .harness import Case, CaseError, Outputs, Variants

KERNELS = ("down.weight", "dense_motion_network.down.weight")  # Gaussian, not filled


def network(case: Case, made: torch.nn.Module) -> torch.nn.Module:
    """Filled by the rule but for the Gaussian kernels; training or evaluation as the case says."""
    case.model.setdefault("fixed", KERNELS)
    return case.filled(made).train(case.args.get("train", False))


def build(case: Case, kind, given: dict | None = None):
    return network(case, kind(**(case.model.get("args", {}) if given is None else given)))


def detector(case: Case, given: dict | None = None) -> KeyPointDetector:
    """Jacobian weights by the rule x 0.25; the identity is added to their bias."""
    net = build(case, KeyPointDetector, given)
    with torch.no_grad():
        net.jacobian.weight.mul_(0.25)
        net.jacobian.bias.add_(torch.eye(2).flatten().repeat(len(net.jacobian.bias) // 4))
    return net


def points_of(case: Case, face: str) -> KeyPoints:
    """`<face>_value` and, if the case has it, `<face>_jac`."""
    jacobian = case.tensor(f"{face}_jac") if case.has(f"{face}_jac") else None
    return KeyPoints(case.tensor(f"{face}_value"), jacobian)


def prior(case: Case) -> Outputs | Variants:
    points, size, image = case.tensor("points"), case.arg("size"), case.arg("image_size")
    sigma = case.args.get("sigma", 0.75)
    if case.args.get("single"):  # every point as a face of its own
        points = points.reshape(-1, 1, 2)
    cache, one = PriorCache(sigma), points[:1].clone()
    cache(one, size, image)
    ways = {
        "together": prior_maps(points, size, image, sigma),
        "cached": cache(points, size, image),
        "alone": torch.cat([prior_maps(p[None], size, image, sigma) for p in points]),
    }
    return Variants({way: {"maps": maps[:, 0]} for way, maps in ways.items()})


def antialias(case: Case) -> Outputs:
    x = case.tensor("x")
    down = AntiAlias(x.shape[1], case.arg("scale"))
    return {"kernel": down.weight[0, 0], "y": down(x)}


def gaussians(case: Case) -> Outputs:
    size = case.arg("size")
    outputs = {"grid": coordinate_grid(*size)}
    if case.has("points"):
        outputs["gauss"] = gaussian_maps(case.tensor("points"), *size, case.arg("variance"))
    return outputs


@torch.no_grad()
def key_points(case: Case) -> Outputs:
    """Value and Jacobian; in training also the running numbers of the first encoder block."""
    net = detector(case)
    found = net(case.tensor("x"), case.tensor("points"))
    norm = net.predictor.encoder.down_blocks[0].norm
    outputs = {"value": found.value, "jacobian": found.jacobian}
    return outputs | {"running_mean": norm.running_mean, "running_var": norm.running_var}


@torch.no_grad()
def dense_motion(case: Case) -> Outputs:
    net, source = build(case, DenseMotion), case.tensor("source")
    faces = points_of(case, "src"), points_of(case, "drv")
    motion = net(source, *faces)
    size = tuple(motion.mask.shape[-2:])
    return {
        "sparse_motion": sparse_motions(*faces, *size),
        "heatmap": heat_maps(*(face.value for face in faces), size),
        "sparse_deformed": motion.sparse_deformed,
        "mask": motion.mask,
        "deformation": motion.deformation,
        "occlusion_map": motion.occlusion_map,
    }


def generated(made: Generated) -> Outputs:
    return {
        "prediction": made.prediction,
        "deformed": made.deformed(),
        "mask": made.motion.mask,
        "occlusion_map": made.motion.occlusion_map,
        "sparse_deformed": made.motion.sparse_deformed,
    }


@torch.no_grad()
def generator(case: Case) -> Outputs:
    net = build(case, Generator)
    made = net(case.tensor("source"), points_of(case, "src"), points_of(case, "drv"))
    norm = net.first.norm
    running = {"running_mean": norm.running_mean, "running_var": norm.running_var}
    return generated(made) | running


@torch.no_grad()
def discriminator(case: Case) -> Outputs:
    """Per scale `features_<scale>_<block>` and `prediction_<scale>`."""
    args = case.model.get("args", {})
    net = build(case, MultiScaleDiscriminator)
    points = case.tensor("points") if case.has("points") else None
    outputs = {}
    for scale, judged in net(
        ImagePyramid(args.get("scales", [1]))(case.tensor("x")), points
    ).items():
        outputs[f"prediction_{scale:g}"] = judged.prediction
        outputs |= {f"features_{scale:g}_{i}": f for i, f in enumerate(judged.features)}
    return outputs


def smooth(case: Case, name: str) -> Tensor:
    """The rule `smooth` of the case's shape (B, 3, S, S): an enlarged 8 x 8 picture and some noise."""
    shape, salt = case.arg("shape"), case.golden.salt
    coarse = torch.from_numpy(make_input(name, (*shape[:2], 8, 8), salt=salt))
    fine = F.interpolate(coarse, tuple(shape[2:]), mode="bicubic", align_corners=True)
    noise = torch.from_numpy(make_input(f"{name}_n", shape, salt=salt))
    return 0.8 * fine.clamp(0, 1) + 0.2 * noise


@torch.no_grad()
def full(case: Case) -> Outputs:
    """Detector on both frames, generator and discriminator on its prediction, one after the other."""
    given = case.model.get("args", {})
    unknown = set(given) - {"kp_detector", "generator", "discriminator"}
    if unknown:
        raise CaseError(f"case {case.id}: model has no part {sorted(unknown)}")
    frames = {face: smooth(case, case.arg(face)) for face in ("source", "driving")}
    net = detector(case, given.get("kp_detector", {}))
    found = {face: net(x, case.tensor(f"{face}_keypoint")) for face, x in frames.items()}
    made = build(case, Generator, given.get("generator", {}))(
        frames["source"], found["source"], found["driving"]
    )
    judge = build(case, MultiScaleDiscriminator, given.get("discriminator", {}))
    judged = judge({1: made.prediction})[1]
    outputs = frames | generated(made) | {"disc_prediction": judged.prediction}
    outputs |= {f"disc_features_{i}": f for i, f in enumerate(judged.features)}
    for face, points in found.items():
        outputs |= {f"{face}_value": points.value, f"{face}_jacobian": points.jacobian}
    return outputs | {"prediction_mean": made.prediction.double().mean()}


CHECKS = {
    "fomm.prior": prior,
    "fomm.antialias": antialias,
    "fomm.gaussians": gaussians,
    "fomm.detector": key_points,
    "fomm.dense_motion": dense_motion,
    "fomm.generator": generator,
    "fomm.discriminator": discriminator,
    "fomm.full": full,
}
