"""What the checks of DFER's networks, masks and targets compute from a case; dfer/README.md documents them."""

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from facecomp.dfer.blocks import ClipSize
from facecomp.dfer.checkpoints import WeightsFile, import_encoder, kind_of
from facecomp.dfer.lgi import EncoderSettings, from_regions, patch_scores
from facecomp.dfer.mamba import MambaPretraining, MambaRecognition, MambaSettings, Mixer
from facecomp.dfer.masking import MaskRule
from facecomp.dfer.pretraining_network import DecoderSettings, PretrainingNetwork
from facecomp.dfer.recognition_network import HeadSettings, RecognitionNetwork
from facecomp.dfer.target import MEAN, STD, TargetRule, pixel_target, reconstruction_loss
from facecomp.training.schedules import parameter_groups

from .fill import fill
from .harness import Case, CaseError, Outputs

SIZE = {field.name for field in fields(ClipSize)}


def normalised(case: Case) -> Tensor:
    """The input `clips`, 0 ... 1, normalised by ImageNet's mean and deviation."""
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (MEAN, STD))
    return (case.tensor("clips") - mean) / std


def parts(case: Case, kind: type) -> tuple[Any, dict]:
    """Settings of the trunk, from flat arguments, and the arguments of what comes behind it."""
    given = dict(case.model.get("args", {}))
    behind = {name: given.pop(name) for name in ("decoder", "head", "token_order") if name in given}
    size = ClipSize(**{name: given.pop(name) for name in SIZE & set(given)})
    try:
        return kind(size=size, **given), behind
    except TypeError as error:
        raise CaseError(f"case {case.id}: model: {error}") from error


def pretraining_network(case: Case) -> nn.Module:
    if case.args.get("mamba"):
        settings, behind = parts(case, MambaSettings)
        decoder = behind.get("decoder", {})
        return MambaPretraining(settings, decoder.get("width", 768), decoder.get("depth", 1))
    settings, behind = parts(case, EncoderSettings)
    decoder = DecoderSettings(**behind.get("decoder", {}))
    return PretrainingNetwork(settings, decoder, behind.get("token_order", "compat"))


def recognition_network(case: Case) -> nn.Module:
    mamba = case.args.get("mamba", False)
    settings, behind = parts(case, MambaSettings if mamba else EncoderSettings)
    head = HeadSettings(**behind.get("head", {}))
    return (MambaRecognition if mamba else RecognitionNetwork)(settings, head)


def gradient_norms(module: nn.Module, names: np.ndarray) -> np.ndarray:
    """In float64; 0 where there is none."""
    own = dict(module.named_parameters())
    if missing := {str(name) for name in names} ^ set(own):
        raise CaseError(f"gradients: other names: {sorted(missing)[:3]}")
    grads = [own[str(name)].grad for name in names]
    return np.array([0.0 if g is None else g.double().norm().item() for g in grads])


def pretraining(case: Case) -> Outputs:
    """Encoder, prediction, target and losses; gradients if `grad_names` is given; steps of AdamW."""
    net = case.filled(pretraining_network(case)).eval()
    clips, masks = normalised(case), case.tensor("mask")
    visible, hidden = net.order(masks)
    with torch.set_grad_enabled(case.has("grad_names")):
        encoded = net.encode(clips, visible)
        decode = net.pixel_decoder if case.args.get("mamba") else net.decode
        predicted = decode(encoded, visible, hidden)
    target = pixel_target(clips, _size(net), hidden)
    loss = reconstruction_loss(predicted, target)
    weight = case.args.get("motion_weight", 0.3)
    outputs = {
        "pred": predicted,
        "label": target,
        "encoder_out": encoded,
        "loss_weighted": reconstruction_loss(predicted, target, weight).total,
        "losses": torch.stack(loss),
    }
    outputs |= {f"loss_{name}": value for name, value in loss._asdict().items()}
    if case.has("grad_names"):
        loss.total.backward()
        norms = gradient_norms(net, case.value("grad_names"))
        outputs |= {"grad_norm": norms, "grad_total_norm": np.sqrt((norms**2).sum())}
    if "steps" in case.args:
        outputs["train_losses"] = train_losses(case, net, clips, masks, target)
    return outputs


def _size(net: nn.Module) -> ClipSize:
    return net.settings.size if isinstance(net, MambaPretraining) else net.size


def train_losses(case: Case, net: nn.Module, clips: Tensor, masks: Tensor, target: Tensor) -> list:
    """Loss before each step of AdamW and after the last, on one batch, in training mode."""
    net.train()
    decay = case.args.get("weight_decay", 0.05)
    groups = parameter_groups(net, decay, net.NO_DECAY)
    rate, betas = case.args.get("rate", 1e-3), tuple(case.args.get("betas", (0.9, 0.95)))
    optimiser, losses = torch.optim.AdamW(groups, rate, betas), []
    for step in range(case.arg("steps") + 1):
        loss = reconstruction_loss(net(clips, masks), target).total
        losses.append(loss.item())
        if step < case.arg("steps"):
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return losses


@torch.no_grad()
def recognition(case: Case) -> Outputs:
    """Features and answers; `flat` is the answer with one row per clip."""
    net = case.filled(recognition_network(case)).eval()
    features = net.features(normalised(case))
    answer = net.head(features) if case.args.get("mamba") else net.answer(features)
    outputs = {"features": features, "nparams": sum(p.numel() for p in net.parameters())}
    if isinstance(answer, dict):
        return outputs | answer
    return outputs | {"logits": answer, "flat": answer.flatten(1)}


@torch.no_grad()
def attention(case: Case) -> Outputs:
    """Tokens in both orders, and the scores of attention pictures."""
    net, clips = case.filled(recognition_network(case)).eval(), normalised(case)
    tokens, settings = net.tokens(clips), net.settings
    block = case.args.get("block", -1)
    return {
        "tokens": tokens,
        "tokens_raster": from_regions(tokens, settings.size.grid, settings.region),
        "scores": patch_scores(net.attention(clips, block)),
        "grid": net.attention_grid(clips, block),
    }


@torch.no_grad()
def carried(case: Case) -> Outputs:
    """Pre-training weights in a recognition network that has another salt (`model`'s)."""
    settings, behind = parts(case, EncoderSettings)
    given = PretrainingNetwork(settings, DecoderSettings(**behind.get("decoder", {})))
    state = given.state_dict()
    fill(state, case.golden.salt)
    net = case.filled(RecognitionNetwork(settings, HeadSettings(**behind.get("head", {})))).eval()
    report = import_encoder(net, WeightsFile("given", kind_of(state), state, {}, None))
    names = {
        "missing": np.array(sorted(report.missing)),
        "unexpected": np.array(sorted(report.unexpected)),
    }
    return names | {"logits": net(normalised(case))}


def target(case: Case) -> Outputs:
    """Targets of all tokens by the rule in `args`."""
    size = ClipSize(**case.model.get("args", {}))
    return {"target": pixel_target(normalised(case), size, rule=TargetRule(**case.args))}


def masks(case: Case) -> Outputs:
    """`count` masks drawn one after the other from NumPy's old generator, and first slots of as many."""
    given, grid = dict(case.args), tuple(case.arg("grid"))
    seed, count = given.pop("seed"), given.pop("count")
    del given["grid"]
    rule, outputs = MaskRule(**given), {}
    for name in ("draw", "picture"):
        drawn = np.random.RandomState(seed)
        outputs[name] = np.stack([getattr(rule, name)(grid, drawn).ravel() for _ in range(count)])
    return outputs


def mixer(case: Case) -> Outputs:
    """One mixer; the gradients are those of the mean of the squared outputs."""
    net, x = case.filled(Mixer(**case.model.get("args", {}))), case.tensor("x").requires_grad_()
    y = net(x)
    y.square().mean().backward()
    return {"y": y, "gradient": x.grad, "grad_norms": gradient_norms(net, case.value("names"))}


CHECKS = {
    "dfer.pretraining": pretraining,
    "dfer.recognition": recognition,
    "dfer.attention": attention,
    "dfer.carried": carried,
    "dfer.target": target,
    "dfer.masks": masks,
    "dfer.mixer": mixer,
}
