"""What the checks of FOMM's transform, losses, steps and augmentation compute from a case; README.md documents them."""

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from facecomp.fomm.augmentation import AugmentationSettings, augment_pair, change_colours
from facecomp.fomm.blocks import ImagePyramid
from facecomp.fomm.checkpoints import Networks
from facecomp.fomm.discriminator import MultiScaleDiscriminator
from facecomp.fomm.generator import Generator
from facecomp.fomm.losses import (
    LossWeights,
    Terms,
    differences,
    disc_gan,
    gen_gan,
    perceptual_table,
    vgg_features,
)
from facecomp.fomm.relative import RelativeMotion, RelativeSettings, hull_area
from facecomp.fomm.steps import (
    Batch,
    StepSettings,
    TrainStep,
    build_optimisers,
    reference_iteration,
)
from facecomp.fomm.transform import RandomTransform
from facecomp.layers.vgg import VGG19_LAYERS, Vgg19

from .fomm_networks_checks import build, detector, points_of
from .harness import Case, CaseError, Outputs, Variants

SLICES = (2, 7, 12, 21, 30)  # first layer of torchvision's `features` that is no longer in a slice


def loss_network(case: Case) -> Vgg19:
    """VGG19 filled under the names of its published slices, slice1.0.weight to slice5.28.bias."""
    rename = {}
    for name, index in VGG19_LAYERS.items():
        part = next(k for k, end in enumerate(SLICES, 1) if index < end)
        for kind in ("weight", "bias"):
            rename[f"{name}.{int(name == 'conv5_1')}.{kind}"] = f"slice{part}.{index}.{kind}"
    case.model.setdefault("fixed", ())
    return case.filled(Vgg19(), rename)


def drawn(case: Case, theta: str = "theta", control: str = "control") -> RandomTransform:
    """A transform from (B, 2, 3) and, if the case has them, (B, 1, P) coefficients."""
    coefficients = case.tensor(control).flatten(1) if case.has(control) else None
    return RandomTransform(case.tensor(theta), coefficients, case.args.get("points_tps", 5))


def transform(case: Case) -> Outputs:
    warp, points = drawn(case), case.tensor("points")
    outputs = {"points": warp.warp_points(points), "jacobian": warp.jacobian(points)}
    if case.has("frame"):
        align = case.args.get("align_corners", False)
        outputs["frame"] = warp.warp_frame(case.tensor("frame"), align)
    return outputs


def relative(case: Case) -> Outputs:
    source, driving, initial = (points_of(case, face) for face in ("src", "drv", "ini"))
    moved = RelativeMotion(source, initial, RelativeSettings(**case.args))(driving)
    areas = {face: hull_area(case.tensor(f"{face}_value")[0]) for face in ("src", "ini")}
    outputs = {"value": moved.value, "jacobian": moved.jacobian}
    return outputs | {f"hull_{face}": area for face, area in areas.items()}


@torch.no_grad()
def losses(case: Case) -> Outputs:
    """Terms of a real and a generated frame, tables unweighted; features of the real one at half size."""
    judge, vgg = build(case, MultiScaleDiscriminator), loss_network(case)
    pyramid = ImagePyramid(case.arg("scales"))
    real, fake = (pyramid(case.tensor(side)) for side in ("real", "fake"))
    seen, judged = judge(real), judge(fake)
    sides = ([scale.features for scale in side.values()] for side in (judged, seen))
    maps = [[scale.prediction for scale in side.values()] for side in (seen, judged)]
    perceptual = perceptual_table(vgg, fake.values(), real.values())
    terms = Terms(perceptual, gen_gan(maps[1]), differences(*sides), disc_gan=disc_gan(*maps))
    outputs = {"perceptual_table": perceptual, "feature_matching_table": terms.feature_matching}
    outputs |= terms.losses(LossWeights(**case.args.get("weights", {})))
    outputs |= {f"pyramid_{scale:g}": image for scale, image in real.items()}
    found = vgg_features(vgg, real[0.5])
    return outputs | {f"relu{k}_1": feature for k, feature in enumerate(found, 1)}


def colours(case: Case) -> Outputs:
    steps = [tuple(step) for step in case.arg("colours")]
    return {"frames": [change_colours(frame, steps) for frame in case.value("frames")]}


def augmentation(case: Case) -> Outputs:
    settings, frames = AugmentationSettings(**case.args), case.value("frames")
    nowhere = np.zeros((18, 2), np.float32)
    seeds = [random.Random(int(seed)) for seed in case.value("seeds")]
    return {"frames": [augment_pair(frames, nowhere, settings, draws)[0] for draws in seeds]}


def train_steps(case: Case) -> Variants:
    """The same iterations by the reference and by the fast step."""
    ways = case.args.get("ways", ["reference", "fast"])
    if not ways or set(ways) - {"reference", "fast"}:
        raise CaseError(f"case {case.id}: ways {ways}; known: reference, fast")
    return Variants({way: _steps(case, fast=way == "fast") for way in ways})


def _steps(case: Case, fast: bool) -> Outputs:
    given = case.model.get("args", {})
    networks = Networks(
        detector(case, given.get("kp_detector", {})).train(),
        build(case, Generator, given.get("generator", {})).train(),
        build(case, MultiScaleDiscriminator, given.get("discriminator", {})).train(),
    )
    settings = StepSettings(LossWeights(**case.args.get("weights", {})), tuple(case.arg("scales")))
    vgg, optimisers = loss_network(case), build_optimisers(networks, *[case.arg("rate")] * 3)
    step, outputs = TrainStep(networks, vgg, settings), {}
    unseen = [weight.clone() for weight in _zero_fed(networks.generator)]
    for k in range(case.arg("steps")):
        frames = (case.tensor(f"{name}{k}") for name in ("source", "driving", "keypoints"))
        batch, warp = Batch(*frames), drawn(case, f"theta{k}", f"control{k}")
        if fast:
            made = step(batch, warp)
            optimisers.step()
        else:
            made = reference_iteration(networks, vgg, optimisers, batch, warp, settings)
        outputs[f"step{k}.losses"] = torch.stack(list(made.losses.values()))
        outputs[f"step{k}.prediction"] = made.generated.prediction
        for face in ("source", "driving", "warped"):
            outputs[f"step{k}.jacobian_{face}"] = getattr(made, face).jacobian
        for key, network in networks.by_key().items():
            outputs |= _numbers(case, f"step{k}", key, network)
    outputs["loss_names"] = list(made.losses)
    pairs = zip(unseen, _zero_fed(networks.generator), strict=True)
    outputs["unseen_moved"] = max(float((a - b).abs().max()) for a, b in pairs)
    return outputs


@torch.no_grad()
def _numbers(case: Case, step: str, key: str, network: torch.nn.Module) -> Outputs:
    """Names and gradients of a network; how far its sums are from the given ones, in tolerances."""
    named = dict(network.named_parameters())
    state = {n: t for n, t in network.state_dict().items() if t.is_floating_point()}
    norms = [float(p.grad.double().norm()) for p in named.values()]
    outputs = {f"{key}.params": list(named), f"{key}.states": list(state)}
    outputs[f"{step}.{key}.gradients"] = np.array(norms)
    fixed, share = case.arg("sums")[int(step[4:])]  # what the given sums may be apart
    given = {kind: case.value(f"{kind}_{key}{step[4:]}") for kind in ("sum", "abssum")}
    allowed = fixed + share * given["abssum"]
    for kind, values in (("sum", state.values()), ("abssum", [t.abs() for t in state.values()])):
        sums = np.array([float(t.double().sum()) for t in values])
        outputs[f"{step}.{key}.{kind}_apart"] = (sums - given[kind]) / allowed
    return outputs


def _zero_fed(generator: Generator) -> Iterator[Tensor]:
    """Weights that see heat maps alone, which are 0 in training."""
    motion = generator.dense_motion_network
    first = motion.hourglass.encoder.down_blocks[0].conv.weight
    yield first.detach()[:, ::4]
    for head in (motion.mask, motion.occlusion):
        yield head.weight.detach()[:, -first.shape[1] :][:, ::4]


CHECKS = {
    "fomm.transform": transform,
    "fomm.relative": relative,
    "fomm.losses": losses,
    "fomm.colours": colours,
    "fomm.augmentation": augmentation,
    "fomm.train_steps": train_steps,
}
