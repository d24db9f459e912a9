"""What the checks of DFER's sampling, augmentation, mixing, gaze, scores and frame lists compute from a case; dfer/README.md documents them."""

import numpy as np
import torch

from facecomp.data.sampling import (
    dense_indices,
    legacy_generator,
    span_indices,
    view_indices,
)
from facecomp.dfer.augmentation import (
    Draws,
    apply_operations,
    draw_crop,
    draw_erase,
    draw_multi_scale,
    draw_operations,
    read_policy,
    resized_crop,
    to_tensor,
)
from facecomp.dfer.frame_runs import frame_runs, relabel_input
from facecomp.dfer.gaze import (
    AngularMean,
    Bins,
    angles_of,
    angular_error,
    bins_loss,
    combined_loss,
    gaze_target,
    regression_loss,
    vectors_of,
)
from facecomp.dfer.mixing import (
    MixingSettings,
    class_loss,
    draw_box,
    kept_share,
    mix,
    mixed_targets,
    paste,
)
from facecomp.dfer.pretraining_network import PretrainingNetwork
from facecomp.dfer.recognition_network import RecognitionNetwork
from facecomp.dfer.scores import Scores, View, confusion, merge_views
from facecomp.faces.alignment import gaze360_box
from facecomp.training.schedules import cosine, parameter_groups

from .harness import Case, CaseError, Outputs

SAMPLERS = {"finetune": dense_indices, "pretrain": span_indices}


def sampling(case: Case) -> Outputs:
    """Frames by name of the output: how, frames of the clip, rate, and spans or views."""
    outputs, length = {}, case.args.get("length", 16)
    for name, given in case.arg("clips").items():
        how, n, rate = given["how"], given["n"], given.get("rate", 4)
        parts = given.get("parts", 1)
        if how == "test":
            outputs[name] = view_indices(n, rate, length, parts)
        elif how in SAMPLERS:
            draws = legacy_generator(case.arg("seed"))
            outputs[name] = SAMPLERS[how](n, draws, rate, length, parts).ravel()
        else:
            raise CaseError(f"case {case.id}: how {how!r}; known: test, {', '.join(SAMPLERS)}")
    return outputs


def head_boxes(case: Case) -> Outputs:
    width, height = map(int, case.value("image_wh"))
    boxes = [gaze360_box(tuple(map(int, box)), height, width) for box in case.value("boxes")]
    return {"corners": np.array([[b.left, b.top, b.right, b.bottom] for b in boxes])}


def runs(case: Case) -> Outputs:
    lines = case.value("lines")
    limits = int(case.value("gap")), int(case.value("length"))
    kept, discarded = frame_runs([tuple(line) for line in lines.tolist()], *limits)
    outputs: Outputs = {"kept": len(kept), "discarded": len(discarded)}
    for name, found in (("kept", kept), ("discarded", discarded)):
        outputs |= {f"{name}_{k}": lines[run] for k, run in enumerate(found)}
    return outputs


def relabel(case: Case) -> Outputs:
    image = np.ascontiguousarray(case.value("image_bgr")[..., ::-1])
    return {"tensor": relabel_input(image, case.arg("size"), case.arg("legacy_colours"))}


def schedule(case: Case) -> Outputs:
    """The rate in every step of a run."""
    given = case.args
    steps = given["epochs"] * given["niter_per_ep"]
    warmup = given.get("warmup_epochs", 0) * given["niter_per_ep"]
    warmup = given["warmup_steps"] if given.get("warmup_steps", -1) > 0 else warmup
    limits = given["base_value"], given["final_value"]
    return {"rates": [cosine(step, *limits, steps, warmup) for step in range(steps)]}


def groups(case: Case) -> Outputs:
    """Groups of a network of published size, and what they are for each of the given names."""
    network = {"finetune": RecognitionNetwork, "pretrain": PretrainingNetwork}[case.arg("network")]
    with torch.device("meta"):
        model = network()
    decay, blocks = case.arg("decay"), case.arg("blocks")
    made = parameter_groups(model, case.arg("weight_decay"), network.NO_DECAY, blocks, decay)
    by_name = {name: group for group in made for name in group["names"]}
    ordered = [by_name[str(name)] for name in case.value("names")]
    outputs = {"groups": len(made), "parameters": len(by_name)}
    outputs["values"] = sorted({group["lr_scale"] for group in made})
    outputs["layer"] = [int(group["name"].split(",")[0].split()[1]) for group in ordered]
    return outputs | {name: [g[name] for g in ordered] for name in ("lr_scale", "weight_decay")}


def rand_augment(case: Case) -> Outputs:
    policy = read_policy(case.arg("policy"))
    operations = draw_operations(policy, Draws.legacy(case.arg("seed")))
    return {"frames": apply_operations(case.value("frames"), operations)}


def crop(case: Case) -> Outputs:
    clip = to_tensor(case.value("frames"))
    draws = Draws.legacy(case.arg("seed")).python
    box = draw_crop(*clip.shape[2:], draws, tuple(case.arg("area")), tuple(case.arg("aspect")))
    return {"box": box, "clip": resized_crop(clip, box, case.arg("size"))}


def erasing(case: Case) -> Outputs:
    """Boxes of successive clips; -1, -1, 0, 0: none."""
    draws = Draws.legacy(case.arg("seed")).python
    calls = range(case.arg("calls"))
    found = [draw_erase(*case.arg("size"), draws, case.arg("probability")) for _ in calls]
    return {f"box_{k}": boxes[0] if boxes else (-1, -1, 0, 0) for k, boxes in enumerate(found)}


def multi_scale(case: Case) -> Outputs:
    draws = Draws.legacy(case.arg("seed")).python
    sizes = *case.arg("frame"), case.arg("target")
    return {"boxes": [draw_multi_scale(*sizes, draws) for _ in range(case.arg("calls"))]}


def mixing(case: Case) -> Outputs:
    """Successive batches with one generator."""
    settings, draws = MixingSettings(**case.arg("settings")), legacy_generator(case.arg("seed"))
    given = case.tensor("x"), case.tensor("labels"), case.arg("classes")
    outputs = {}
    for k in range(case.args.get("calls", 1)):
        outputs[f"x_{k}"], outputs[f"target_{k}"] = mix(*given, settings, draws)
    return outputs


def blending(case: Case) -> Outputs:
    """Mixup and CutMix by a given lambda, and targets with and without smoothing."""
    x, labels, share = case.tensor("x"), case.tensor("labels"), case.arg("share")
    box = draw_box(*x.shape[-2:], share, legacy_generator(case.arg("seed")))
    outputs = {"mixup": x * share + x.flip(0) * (1 - share), "cutmix": paste(x, x.flip(0), box)}
    outputs |= {"box": box, "kept": kept_share(box, *x.shape[-2:])}
    for smoothing in case.arg("smoothing"):
        targets = mixed_targets(labels, case.arg("classes"), share, smoothing)
        outputs[f"target_smooth{smoothing}"] = targets
    return outputs


def class_losses(case: Case) -> Outputs:
    logits, labels = case.tensor("logits"), case.tensor("labels")
    share, smoothing = case.arg("share"), case.arg("smoothing")
    soft = mixed_targets(labels, logits.shape[1], share, smoothing)
    losses = class_loss(logits, soft), class_loss(logits, labels, smoothing)
    return dict(zip(("soft", "smoothed"), losses, strict=True))


def gaze(case: Case) -> Outputs:
    vectors, predicted = case.tensor("vectors"), case.tensor("predicted")
    angles, mean = angles_of(vectors), AngularMean()
    mean.add(predicted, angles)
    return {
        "angles": angles,
        "vectors": vectors_of(angles),
        "errors": angular_error(predicted, angles),
        "mean_error": mean.degrees,
        "mse": regression_loss(predicted, angles),
    }


def gaze_bins(case: Case) -> Outputs:
    bins, truth = Bins(**case.args.get("bins", {})), case.tensor("truth")
    pitch, yaw = (case.tensor(name).requires_grad_() for name in ("pitch", "yaw"))
    parts = bins_loss(pitch, yaw, truth, bins, case.arg("alpha"))
    parts.total.backward()
    decoded = [bins.angles(logits).detach() for logits in (pitch, yaw)]
    classes, mean = bins.classes(truth), AngularMean()
    mean.add(torch.stack(decoded, -1), truth)
    named = {"total": parts.total, "classes": parts.classes, "squares": parts.angles}
    outputs = {name: value.detach() for name, value in named.items()}
    outputs |= {"gradient_pitch": pitch.grad, "mean_error": mean.degrees}
    outputs |= {"pitch": decoded[0], "yaw": decoded[1]}
    return outputs | {"class_pitch": classes[..., 0], "class_yaw": classes[..., 1]}


def combined(case: Case) -> Outputs:
    logits, angles, labels = (case.tensor(name) for name in ("cls", "reg", "labels"))
    parts = {a: combined_loss(logits, angles, labels, a) for a in case.arg("alphas")}
    outputs = {f"total_alpha{a}": found.total for a, found in parts.items()}
    mean, one = AngularMean(), next(iter(parts.values()))
    mean.add(angles, gaze_target(labels[..., 1:], frame_level=True))
    truth, said = labels[..., 0].long().ravel(), logits.argmax(-1).ravel()
    accuracy = Scores(confusion(truth, said, logits.shape[-1])).war
    outputs |= {"classes": one.classes, "squares": one.angles}
    return outputs | {"accuracy": accuracy, "mean_error": mean.degrees}


def views(case: Case) -> Outputs:
    """Views in the order (c, s) = 00, 01, 10, 11; each comes twice."""
    logits, labels = case.value("logits"), case.value("labels")
    order = [(c, s) for c in range(2) for s in range(2)]
    each = [
        View(f"clip{k}", logits[k, v], int(labels[k]), *order[v])
        for k in range(len(labels))
        for v in range(logits.shape[1])
    ]
    merged = merge_views([*each, *each[::3]])
    outputs = {"probabilities": merged.probabilities, "said": merged.said, "top5": merged.top(5)}
    return outputs | numbers(merged.scores)


def numbers(scores: Scores) -> Outputs:
    found = {"counts": scores.counts, "clips": scores.counts.sum(), "recalls": scores.recalls}
    return found | scores.table() | {"percent_recalls": 100 * scores.recalls}


def published_scores(case: Case) -> Outputs:
    found = numbers(Scores(np.array(case.value("confusion"), np.int64)))
    return found | {f"percent_{name}": 100 * found[name] for name in ("uar", "war")}


CHECKS = {
    "dfer.sampling": sampling,
    "dfer.head_boxes": head_boxes,
    "dfer.frame_runs": runs,
    "dfer.relabel_input": relabel,
    "dfer.schedule": schedule,
    "dfer.parameter_groups": groups,
    "dfer.rand_augment": rand_augment,
    "dfer.crop": crop,
    "dfer.erasing": erasing,
    "dfer.multi_scale": multi_scale,
    "dfer.mixing": mixing,
    "dfer.blending": blending,
    "dfer.class_losses": class_losses,
    "dfer.gaze": gaze,
    "dfer.gaze_bins": gaze_bins,
    "dfer.combined": combined,
    "dfer.views": views,
    "dfer.scores": published_scores,
}
