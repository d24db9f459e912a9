"""What the checks of the flow network compute from a case; README.md documents them. Arrays are N, H, W, C."""

import hashlib

import torch
from torch import Tensor

from facecomp.flow.checkpoints import load_published, read_published
from facecomp.flow.losses import (
    KerasAdam,
    angular_error,
    end_point_error,
    flow_terms,
    huber,
    loss_weights,
    robust,
    roughness,
)
from facecomp.flow.networks import WIDTHS, FlowNetwork, warp_back, warped_image
from facecomp.layers.tf_resize import bicubic_corners, up2

from .harness import Case, CaseError, Outputs

LEVELS = (1, 5, 4, 3, 2)  # the published order of the losses


def planes(case: Case, name: str) -> Tensor:
    """The input `name`, (N, H, W, C), as (N, C, H, W)."""
    return case.tensor(name).permute(0, 3, 1, 2).contiguous()


def last(x: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def build(case: Case) -> FlowNetwork:
    widths = case.model.get("args", {}).get("widths", WIDTHS)
    return case.filled(FlowNetwork(tuple(widths)))


@torch.no_grad()
def network(case: Case) -> Outputs:
    """Every layer after its activation; layers that see both frames as `<layer>.x1` and `.x2`."""
    net, seen = build(case), {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda _layer, _x, y, name=name: seen.update({name: last(y)}))
    first, second = planes(case, "x1"), planes(case, "x2")
    flows = net(first, second, warp=True)
    for name in ("conv1", "conv2", "conv3"):
        halves = seen.pop(name).chunk(2)
        seen |= {f"{name}.x{k}": half for k, half in enumerate(halves, 1)}
    own = {f"predict{k}": last(getattr(flows, f"p{k}")) for k in range(1, 7)}
    assert all(torch.equal(seen[name], flow) for name, flow in own.items())
    return seen | {"warped_output": last(flows.warped)}


def warp(case: Case) -> Outputs:
    image, flow = planes(case, "image"), planes(case, "flow")
    small = bicubic_corners(image, *flow.shape[-2:])
    made = {"small": small, "warped_half": warp_back(small, flow), "flow_up2": up2(flow)}
    made |= {"warped_full": warped_image(image, flow)}
    return {name: last(value) for name, value in made.items()}


def loss(case: Case) -> Outputs:
    pred, truth = planes(case, "pred"), planes(case, "truth")
    epe, rows = end_point_error(pred, truth), roughness(pred).mean(2)
    made = {"epe": epe, "epe_sum": epe * pred[0, 0].numel(), "smoothness": rows}
    return made | {"aae": angular_error(pred, truth)}


def image_loss(case: Case) -> Outputs:
    divisor = case.args.get("divisor", 1)
    pred, target = (planes(case, name) / divisor for name in ("pred", "target"))
    return {"huber": huber(pred, target), "robust": robust(pred, target)}


def weights(case: Case) -> Outputs:
    """The published lists: fine EPE with image, angle and smoothness where they count; coarse EPE."""
    found = loss_weights(case.arg("experiment"), case.args.get("loss_variant", "meant"))
    others = [w for w in (found.image, found.angle, found.smooth) if w]
    return {"weights": [found.epe[0], *others], "coarse": found.epe[1:]}


def train_steps(case: Case) -> Outputs:
    net = build(case)
    variant = loss_weights(case.arg("experiment"), case.arg("loss_variant"))
    first, second = planes(case, "x1"), planes(case, "x2")
    truths = [planes(case, f"y{2**k}") for k in range(1, 6)]
    adam, outputs = KerasAdam(net.parameters(), lr=case.arg("rate")), {}

    def terms():
        return flow_terms(net(first, second, variant.warps), truths, second)

    for step in range(case.arg("steps")):
        made = terms()
        outputs[f"step{step}"] = _metrics(made, variant)
        adam.zero_grad()
        made.total(variant).backward()
        if step == 0:
            outputs |= {f"grad.{name}": p.grad.clone() for name, p in net.named_parameters()}
        adam.step()
    with torch.no_grad():
        outputs["after"] = _metrics(terms(), variant)
    return outputs | {name: p.detach() for name, p in net.named_parameters()}


def _metrics(made, variant) -> Tensor:
    """Total, then each output's loss in the published order; p1's is the one that counts there."""
    fine = made.epe[0]
    if not variant.epe[0]:
        fine = made.smooth if variant.smooth else made.angle
    each = [fine, *(made.epe[level - 1] for level in LEVELS[1:])]
    if made.image is not None:
        each.append(made.image)
    return torch.stack([made.total(variant), *each]).detach()


def checkpoint(case: Case) -> Outputs:
    """SHA-256 of every tensor of a file, little-endian float32; the file must also load."""
    path = case.golden.folder / case.arg("checkpoint")
    if not any(path.parent.glob(f"{path.name}*")):
        raise CaseError(f"{path}: is missing")
    tensors = read_published(path)
    net = FlowNetwork(tuple(case.model.get("args", {}).get("widths", WIDTHS)))
    load_published(net, path)
    assert all(torch.equal(value, tensors[name]) for name, value in net.state_dict().items())
    arrays = {name: value.numpy().astype("<f4") for name, value in tensors.items()}
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}


CHECKS = {
    "flow.network": network,
    "flow.warp": warp,
    "flow.loss": loss,
    "flow.image_loss": image_loss,
    "flow.loss_weights": weights,
    "flow.train_steps": train_steps,
    "flow.checkpoint": checkpoint,
}
