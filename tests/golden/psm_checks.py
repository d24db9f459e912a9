"""What the checks of PSM compute from a case; README.md documents inputs, arguments and outputs."""

import dataclasses
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facecomp.data.sampling import legacy_generator
from facecomp.layers.attention import AttentionBlock, ResidualBlock
from facecomp.layers.ssim import gaussian_window, ssim
from facecomp.layers.vgg import VGG19_LAYERS, Vgg19
from facecomp.layers.warp import warp_features, warp_flow, warp_image
from facecomp.psm import losses
from facecomp.psm.losses import Terms, neutral_weight
from facecomp.psm.networks import (
    FaceGenerator,
    IdentityNormaliser,
    MotionDecoder,
    MotionEncoder,
    Networks,
    Noise,
)
from facecomp.psm.pairs import ctl_pairs, gm_pair, increase, learning_rate, psm_order, psm_pairs
from facecomp.psm.steps import TrainStep, build_optimiser, join_pairs, reference_step
from facecomp.psm.transforms import (
    collate,
    evaluation_image,
    evaluation_tensor,
    normalise,
    training_image,
)
from facecomp.training.schedules import set_rate

from .fill import make_input
from .harness import Case, CaseError, Outputs, Variants


def model_args(case: Case) -> dict:
    return case.model.get("args", {})


def build(case: Case, kind: type) -> torch.nn.Module:
    return case.filled(kind(**model_args(case))).eval()


def loss_network(case: Case) -> Vgg19:
    """The loss network, filled under torchvision's names."""
    names = {f"{own}.{int(own == 'conv5_1')}": f"features.{i}" for own, i in VGG19_LAYERS.items()}
    rename = {f"{a}.{kind}": f"{b}.{kind}" for a, b in names.items() for kind in ("weight", "bias")}
    return case.filled(Vgg19(**model_args(case)), rename).eval()


def choose(case: Case, options: dict, name: str):
    """The option that the argument `name` names."""
    given = case.arg(name)
    if given not in options:
        raise CaseError(f"case {case.id}: {name} {given!r}; known: {', '.join(options)}")
    return options[given]


# --- networks ---------------------------------------------------------------------------------------


@torch.no_grad()
def encoder(case: Case) -> Outputs:
    network, x = build(case, MotionEncoder), case.tensor("x")
    return {"code": network(x), "features": network.features(x)}


@torch.no_grad()
def decoder(case: Case) -> Outputs:
    flow, back = build(case, MotionDecoder)(case.tensor("code"))
    return {"flow": flow, "backflow": back}


@torch.no_grad()
def generator(case: Case) -> Outputs:
    network, flow, noise = build(case, FaceGenerator), None, None
    if case.has("flow"):
        flow = case.tensor("flow")
    if case.has("noise4") or case.has("noise2"):
        noise = Noise(case.tensor("noise4"), case.tensor("noise2"))
    if "torch_seed" in case.args:
        torch.manual_seed(case.args["torch_seed"])
    return {"image": network(case.tensor("x"), flow, noise)}


@torch.no_grad()
def normaliser(case: Case) -> Outputs:
    network = build(case, IdentityNormaliser)
    return {"image": network(case.tensor("x"), case.tensor("code"), case.arg("layer"))}


@torch.no_grad()
def vgg19(case: Case) -> Outputs:
    names = [f"r{name[4]}{name[6]}" for name in VGG19_LAYERS if name < "conv4_2"]
    return loss_network(case).run(case.tensor("x"), names)


@torch.no_grad()
def attention(case: Case) -> Outputs:
    return {"y": build(case, AttentionBlock)(case.tensor("x"))}


@torch.no_grad()
def residual(case: Case) -> Outputs:
    return {"y": build(case, ResidualBlock)(case.tensor("x"))}


def warp(case: Case) -> Outputs:
    kinds = {"image": warp_image, "features": warp_features, "flow": warp_flow}
    return {"y": choose(case, kinds, "kind")(case.tensor("x"), case.tensor("flow"))}


# --- losses -----------------------------------------------------------------------------------------


def loss(case: Case) -> Outputs | Variants:
    """Value and gradient of a loss; SSIM both ways."""
    pair = {
        "l1": lambda p, t: (p - t).abs().mean(),
        "gram_mse": losses.gram_mse,
        "margin": losses.margin_loss,
        "ternary": losses.ternary_loss,
        "symmetry": lambda p, _: losses.symmetry(p),
        "total_variation": lambda p, _: losses.total_variation(p),
        "ssim": lambda p, t: losses.ssim_loss(t, p),
        "ssim_plain": lambda p, t: losses.ssim_loss_plain(t, p),
    }
    if case.arg("name") == "perceptual":
        network = loss_network(case)
        parts = lambda p, t: losses.perceptual_parts(network, p, t)  # noqa: E731
        return _with_gradient(case, lambda p, t: parts(p, t).sum(), parts)
    function = choose(case, pair, "name")
    ways = {"fast": function}
    if case.arg("name") == "ssim":
        ways["plain"] = pair["ssim_plain"]
    return Variants({way: _with_gradient(case, function) for way, function in ways.items()})


def _with_gradient(case: Case, function, parts=None) -> Outputs:
    pred = case.tensor("pred").requires_grad_()
    target = case.tensor("target") if case.has("target") else None
    value = function(pred, target)
    (gradient,) = torch.autograd.grad(value, pred)
    outputs = {"value": value, "gradient": gradient}
    if parts is not None:
        outputs["parts"] = parts(pred, target)
    return outputs


def similarity(case: Case) -> Outputs:
    a, b = case.tensor("a"), case.tensor("b")
    each = ssim(a, b, per_image=True)
    return {"value": ssim(a, b), "per_image": each, "window": gaussian_window()}


# --- steps ------------------------------------------------------------------------------------------


PICTURES = ("code", "flow", "backflow", "neu_face", "direct_forward", "direct_backward")
PICTURES += ("swap_backward", "recon_face", "rec_img")
TERMS = ("pixel_parts", "perc_parts", "ssim_parts", "sym_parts")
TERMS += ("pixel", "perc", "ssim", "sym", "total")


def train_steps(case: Case) -> Variants:
    """The same steps by the reference and by the fast step."""
    ways = case.args.get("ways", ["reference", "fast"])
    if not ways or set(ways) - {"reference", "fast"}:
        raise CaseError(f"case {case.id}: ways {ways}; known: reference, fast")
    return Variants({way: _steps(case, fast=way == "fast") for way in ways})


def _steps(case: Case, fast: bool) -> Outputs:
    networks = Networks(*(build(case, k) for k in (MotionEncoder, MotionDecoder, FaceGenerator)))
    vgg, images = loss_network(case), (case.value("im0"), case.value("im1"))
    x = join_pairs(*(normalise(torch.from_numpy(np.array(image))) for image in images))
    steps, rates = case.arg("steps"), case.arg("rate")
    rates = rates if isinstance(rates, list) else [rates] * steps
    optimiser = build_optimiser(networks)
    named = {
        f"{key}.{name}": p
        for key in ("Swap_Generator", "codegeneration", "exptoflow")
        for name, p in networks.by_key()[key].named_parameters()
    }
    start = {name: p.detach().clone() for name, p in named.items()}
    step, outputs = TrainStep(networks, vgg), {"param_names": list(named)}
    weight = neutral_weight(**case.args.get("neutral", {"setting": None, "epoch": 1, "epochs": 1}))
    for k, rate in zip(range(steps), rates, strict=True):
        noise = _noise(case, k, x.shape, networks.generator)
        made = step(x, weight, noise) if fast else reference_step(networks, vgg, x, weight, noise)
        outputs |= {f"step{k}.{name}": getattr(made.terms, name).detach() for name in TERMS}
        if k == 0:
            outputs |= {f"step0.{name}": getattr(made, name).detach() for name in PICTURES}
            outputs |= _other_weights(case, made.terms)
        set_rate(optimiser, rate)
        optimiser.zero_grad()
        made.terms.total.backward()
        outputs |= {f"step{k}.{name}": v for name, v in _gradient_norms(named).items()}
        optimiser.step()
        outputs |= {f"step{k}.{name}": v for name, v in _weights(named, start).items()}
    return outputs


def _noise(case: Case, k: int, shape, painter: FaceGenerator) -> tuple[Noise, Noise]:
    rule, (b, _, size, _) = case.arg("noise"), shape
    c4, c2 = painter.conv3_1[0].out_channels, painter.conv2_1[0].out_channels
    shapes = [(b, c4, size // 4, size // 4), (b, c2, size // 2, size // 2)] * 2
    salt = rule.get("salt", case.golden.salt)
    draws = [
        make_input(rule["name"].format(step=k, draw=d), s, rule["low"], rule["high"], salt)
        for d, s in enumerate(shapes)
    ]
    z = [torch.from_numpy(draw) for draw in draws]
    return Noise(z[0], z[1]), Noise(z[2], z[3])


def _other_weights(case: Case, terms: Terms) -> Outputs:
    outputs = {}
    for name, rule in case.args.get("neutral_variants", {}).items():
        weight = neutral_weight(**rule)
        other = dataclasses.replace(terms, weight=weight)
        values = {"weight": weight, "sym": other.sym.detach(), "total": other.total.detach()}
        outputs |= {f"neutral.{name}.{key}": value for key, value in values.items()}
    return outputs


def _norm(x: Tensor) -> float:
    """Length of a tensor; summed in float64, since float32 sums of a million squares lose digits."""
    return float(x.double().norm())


def _gradient_norms(named: dict[str, Tensor]) -> Outputs:
    norms = {n: math.nan if p.grad is None else _norm(p.grad) for n, p in named.items()}
    groups = {name.partition(".")[0]: [] for name in norms}
    for name, norm in norms.items():
        groups[name.partition(".")[0]].append(0.0 if math.isnan(norm) else norm)
    together = [math.sqrt(sum(norm**2 for norm in group)) for group in groups.values()]
    return {"grad_norms": np.array(list(norms.values())), "group_grad_norms": np.array(together)}


def _weights(named: dict[str, Tensor], start: dict[str, Tensor]) -> Outputs:
    now = {name: p.detach().double() for name, p in named.items()}
    return {
        "weight_sum": np.array([float(p.sum()) for p in now.values()]),
        "weight_l2": np.array([_norm(p) for p in now.values()]),
        "delta_l2": np.array([_norm(p - start[name].double()) for name, p in now.items()]),
    }


# --- pairs, schedules and transforms ----------------------------------------------------------------


def pairs_psm(case: Case) -> Outputs:
    n = int(case.value("n"))
    order, pairs = psm_order(n), psm_pairs(n)
    flat = [k for pair in pairs for k in (pair.first, pair.second)]
    assert flat == order[: 2 * len(pairs)], "pairs do not follow the order"
    return {"order": order, "pairs": len(pairs), "flat": flat}


def pairs_wctl(case: Case) -> Outputs:
    frames, distance = list(case.value("frames")), increase(int(case.value("epoch")))
    pairs = ctl_pairs(len(frames), distance)
    flat = [frames[k] for pair in pairs for k in (pair.first, pair.second)]
    return {"increase": distance, "pairs": len(pairs), "flat": flat}


def pairs_gm(case: Case) -> Outputs:
    generator = legacy_generator(int(case.value("numpy_seed")))
    distance = increase(int(case.value("epoch"))) if case.has("epoch") else None
    n = int(case.value("n"))
    drawn = [gm_pair(n, generator, distance) for _ in range(case.arg("count"))]
    return {"draws": [[pair.first, pair.second, pair.mirror] for pair in drawn]}


def increases(case: Case) -> Outputs:
    if case.has("epochs"):
        return {"increase": [increase(int(epoch)) for epoch in case.value("epochs")]}
    return {"table": {epoch: increase(int(epoch)) for epoch in case.value("table")}}


def rates(case: Case) -> Outputs:
    limits = float(case.value("initial")), float(case.value("least"))
    if case.has("epochs"):
        return {"rate": [learning_rate(int(e), *limits) for e in case.value("epochs")]}
    return {"table": {e: learning_rate(int(e), *limits) for e in case.value("table")}}


def transform(case: Case) -> Outputs:
    image = Image.fromarray(np.array(case.value("image")))
    if "torch_seed" in case.args:
        torch.manual_seed(case.args["torch_seed"])
        return {"training": np.asarray(training_image(image))}
    crop = evaluation_image(image)
    outputs = {"evaluation": np.asarray(crop), "tensor": evaluation_tensor(image)}
    return outputs | {"loader": normalise(collate([crop]))}


CHECKS = {
    "psm.encoder": encoder,
    "psm.decoder": decoder,
    "psm.generator": generator,
    "psm.normaliser": normaliser,
    "psm.loss": loss,
    "psm.train_steps": train_steps,
    "psm.pairs_psm": pairs_psm,
    "psm.pairs_wctl": pairs_wctl,
    "psm.pairs_gm": pairs_gm,
    "psm.increase": increases,
    "psm.learning_rate": rates,
    "psm.transform": transform,
    "layers.vgg19": vgg19,
    "layers.attention": attention,
    "layers.residual": residual,
    "layers.warp": warp,
    "layers.ssim": similarity,
}
