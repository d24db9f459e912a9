"""One training step of PSM: the published order of passes against ours, same run, one thread.

    .venv/bin/python bench/psm_step.py [--pairs 4] [--steps 5] [--device cpu]

Full width, drawn VGG19 weights, faces of two synthetic participants at 64 x 64 px. Before anything
is timed all get the same noise and must give the same losses and gradients. Each timed step is
forward, backward and Adam; they take turns, and the median of each counts. Then the parts of
training are timed: data alone (frames from the store, augmented and normalised), compute alone (one
batch again and again) and both together.
"""

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from facecomp.data.sampling import EpochSampler
from facecomp.data.store import build_store
from facecomp.faces.synthetic import participant, record
from facecomp.layers.vgg import Vgg19, random_vgg
from facecomp.paper.tables import format_table
from facecomp.psm.networks import build_networks
from facecomp.psm.pairs import psm_pairs
from facecomp.psm.steps import TrainStep, build_optimiser, join_pairs, reference_step
from facecomp.psm.transforms import augment_batch, draw_augmentation, normalise

FRAMES = 120  # of a participant
RATIO = 1.10  # at least


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def frames(folder: Path):
    """A store of two participants, 64 px."""
    items = [
        (f"P{seed}", "video", k, k / 25, image)
        for seed in (0, 1)
        for k, image in enumerate(record(participant(seed), FRAMES, size=64, seed=seed).frames())
    ]
    return build_store(folder / "store", items)


def batches(near, pairs: int, device: torch.device, epoch: int = 1):
    """Augmented, normalised batches of pairs, without end."""
    couples = psm_pairs(len(near))
    while True:
        for items in EpochSampler(len(couples), 0, pairs, drop_last=True, epoch=epoch):
            chosen = [couples[item] for item in items]
            sides = []
            for side, places in enumerate(([c.first for c in chosen], [c.second for c in chosen])):
                draws = [item.torch(f"augment {side}") for item in items]
                changes = [draw_augmentation(generator=draw) for draw in draws]
                images = near.batch(places).to(device)
                sides.append(normalise(augment_batch(images, changes)))
            yield join_pairs(*sides)
        epoch += 1


class Trainer:
    """Networks, optimiser and one of the two steps, always from the same initial weights."""

    def __init__(self, fast: bool, device: torch.device, layout=torch.contiguous_format):
        torch.manual_seed(2)
        vgg = random_vgg(0)
        self.networks, self.vgg = build_networks(vgg=vgg).to(device), Vgg19(vgg).to(device)
        self.optimiser, self.device = build_optimiser(self.networks, 8e-5), device
        self.networks.to(memory_format=layout)
        self.vgg.to(memory_format=layout)
        self.layout, self.fast = layout, TrainStep(self.networks, self.vgg) if fast else None

    def loss(self, x, generator=None):
        x = x.contiguous(memory_format=self.layout)
        if self.fast:
            return self.fast(x, generator=generator).terms
        return reference_step(self.networks, self.vgg, x, generator=generator).terms

    def step(self, x, generator=None) -> torch.Tensor:
        self.optimiser.zero_grad()
        total = self.loss(x, generator).total
        total.backward()
        self.optimiser.step()
        return total.detach()


def seconds(device: torch.device, function, *arguments) -> float:
    synchronise(device)
    start = time.perf_counter()
    function(*arguments)
    synchronise(device)
    return time.perf_counter() - start


def check_equal(
    reference: Trainer, ours: Trainer, x: torch.Tensor, limit: float
) -> tuple[float, float]:
    """Largest relative difference of loss terms and of whole gradients; fails if not equal."""
    found = []
    for trainer in (reference, ours):
        draws = torch.Generator(x.device).manual_seed(7)
        terms = trainer.loss(x, draws)
        terms.total.backward()
        parts = (terms.pixel_parts, terms.perc_parts, terms.ssim_parts, terms.sym_parts)
        groups = [p for g in trainer.optimiser.param_groups for p in g["params"]]
        gradients = [p.grad.double() for p in groups if p.grad is not None]
        found.append((torch.cat(parts).detach(), gradients))
        trainer.optimiser.zero_grad()
    (losses, gradients), (our_losses, our_gradients) = found
    apart = float(((losses - our_losses).abs() / losses.abs()).max())
    pairs = zip(gradients, our_gradients, strict=True)
    worst = max(float((a - b).norm() / a.norm()) for a, b in pairs if a.norm() > 1e-6)
    limits = (1e-5, limit) if x.device.type == "cpu" else (1e-3, 5e-2)  # TF32 convolutions there
    assert apart < limits[0], f"losses differ by {apart}"
    assert worst < limits[1], f"gradients differ by {worst}"
    return apart, worst


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    if device.type == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        near = frames(Path(name)).to_device(device)
        source = batches(near, args.pairs, device)
        fixed = next(source)
        reference, ours = Trainer(False, device), Trainer(True, device)
        last = Trainer(True, device, torch.channels_last)
        ways = {"published order of passes": reference, "ours": ours, "ours, channels last": last}
        apart, worst = check_equal(reference, ours, fixed, 1e-3)
        last_apart, last_worst = check_equal(reference, last, fixed, 2e-2)
        times = {name: [] for name in ways}
        for k in range(args.steps + 1):  # the first is not counted
            for name, trainer in ways.items():
                taken = seconds(device, trainer.step, fixed)
                times[name] += [taken] if k else []
        count = max(args.steps, 3)
        parts = {
            "data only": [seconds(device, next, source) for _ in range(10 * count)],
            "compute only": [seconds(device, last.step, fixed) for _ in range(count)],
            "end to end": [seconds(device, lambda: last.step(next(source))) for _ in range(count)],
        }
    images, middle = 2 * args.pairs, statistics.median
    where = (
        platform.machine() + ", one thread"
        if device.type == "cpu"
        else torch.cuda.get_device_name()
    )
    versions = f"torch {torch.__version__} · float32 · {args.pairs} pairs"
    print(f"{datetime.date.today()} · {where} · {versions}")
    slow = middle(times["published order of passes"])
    rows = [
        (k, f"{middle(v):.3f}", f"{images / middle(v):.2f}", f"{slow / middle(v):.2f}")
        for k, v in times.items()
    ]
    columns = ["step", "s", "images/s", "ratio"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))
    ratio = slow / middle(times["ours"])
    print(f"\nRatio {ratio:.2f} (at least {RATIO:.2f} is wanted). Equal numbers: loss terms to")
    print(f"{apart:.1e}, gradients of whole tensors to {worst:.1e}, relative.")
    print(f"Channels last sums in another order: {last_apart:.1e} and {last_worst:.1e}.\n")
    rows = [(k, f"{middle(v):.4f}", f"{images / middle(v):.1f}") for k, v in parts.items()]
    print(
        format_table(pd.DataFrame(rows, columns=["part", "s", "images/s"]), "github", index=False)
    )
    share = middle(parts["compute only"]) / middle(parts["end to end"])
    print(f"\nEnd to end reaches {100 * share:.0f} % of compute only (at least 90 % is wanted).")
    assert ratio >= RATIO, f"ratio {ratio:.2f} < {RATIO}"


if __name__ == "__main__":
    main()
