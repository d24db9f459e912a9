"""One training step of FOMM: the published order of passes against ours, same run, one thread.

    .venv/bin/python bench/fomm_step.py [--batch 1] [--steps 5] [--device cpu] [--process-time]

Shipped size, drawn VGG19 weights, frames of two synthetic participants at 256 x 256 px. Before
anything is timed both get the same transform and must give the same losses and gradients. Each
timed step is forward, backward and the three updates; they take turns, and the median of each
counts. The reference makes every pass where the published order has it, and with it what the
published code computes there: images blurred at full size before most pixels are thrown away, the
transform of every pixel from its distances, the moved source frame at full size.
"""

import argparse
import datetime
import os
import platform
import statistics
import time
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from facecomp.faces.alignment import FOMM_DEFAULT
from facecomp.faces.synthetic import participant, record
from facecomp.fomm.blocks import AntiAlias, ImagePyramid
from facecomp.fomm.checkpoints import build_networks
from facecomp.fomm.generator import Generated, Generator
from facecomp.fomm.motion import coordinate_grid
from facecomp.fomm.steps import (
    Batch,
    StepSettings,
    TrainStep,
    build_optimisers,
    reference_iteration,
)
from facecomp.fomm.transform import RandomTransform, draw_transform
from facecomp.layers.vgg import Vgg19, random_vgg
from facecomp.paper.tables import format_table

RATIO = 1.15  # at least


def published_reduction(module: AntiAlias, x: torch.Tensor) -> torch.Tensor:
    """Blur at full size, then every n-th pixel: (B, C, H, W) -> (B, C, H / n, W / n)."""
    if module.factor == 1:
        return x
    pad = module.weight.shape[-1] // 2
    blurred = F.conv2d(x, module.weight, padding=pad, groups=x.shape[1])
    return blurred[..., :: module.factor, :: module.factor]


class PublishedTransform(RandomTransform):
    """A transform that keeps nothing of the frame's pixels."""

    def warp_grid(self, height: int, width: int) -> torch.Tensor:
        grid = coordinate_grid(height, width).to(self.theta).flatten(0, 1)
        every = grid.expand(len(self.theta), -1, -1).contiguous()
        return self.warp_points(every).unflatten(1, (height, width))


def _move_source(_network, _given, made: Generated) -> None:
    made.deformed()


def as_published(network: torch.nn.Module) -> None:
    """Make a network's reductions the published way, and a generator's moved source frame."""
    for module in network.modules():
        if isinstance(module, AntiAlias):
            module.forward = partial(published_reduction, module)
    if isinstance(network, Generator):
        network.register_forward_hook(_move_source)


class Trainer:
    """Networks, optimisers and one of the steps, always from the same initial weights."""

    def __init__(self, way: str, device: torch.device):
        torch.manual_seed(2)
        self.networks, self.settings = build_networks(), StepSettings()
        self.vgg = Vgg19(random_vgg(0)).to(device)
        torch.nn.init.normal_(self.networks.kp_detector.jacobian.weight, std=0.01)
        layout = torch.channels_last if "last" in way else torch.contiguous_format
        for network in (*self.networks.by_key().values(), self.vgg):
            network.to(device, memory_format=layout)
        self.layout, self.pyramid = layout, ImagePyramid(self.settings.scales)
        self.optimisers = build_optimisers(self.networks)
        self.fast = None
        if way == "published order of passes":
            for network in (*self.networks.by_key().values(), self.pyramid):
                as_published(network)
        else:
            self.fast = TrainStep(self.networks, self.vgg, self.settings)

    def step(self, batch: Batch, transform) -> dict[str, torch.Tensor]:
        """One whole step; gives its losses."""
        frames = (x.contiguous(memory_format=self.layout) for x in (batch.source, batch.driving))
        batch = Batch(*frames, batch.keypoints)
        if self.fast is None:
            transform = PublishedTransform(**vars(transform))
            given = (self.networks, self.vgg, self.optimisers, batch, transform)
            return reference_iteration(*given, self.settings, self.pyramid).losses
        losses = self.fast(batch, transform).losses
        self.optimisers.step()
        return losses

    def gradients(self) -> list[torch.Tensor]:
        """Gradients of the last step."""
        networks = self.networks.by_key().values()
        return [p.grad.double() for network in networks for p in network.parameters()]


def check_equal(reference: Trainer, ours: Trainer, batch, transform) -> tuple[float, float]:
    """Largest relative difference of a step's losses and whole gradients; fails if not equal."""
    losses, same = (trainer.step(batch, transform) for trainer in (reference, ours))
    apart = max(float((loss - same[name]).abs() / loss.abs()) for name, loss in losses.items())
    pairs = zip(reference.gradients(), ours.gradients(), strict=True)
    worst = max(float((a - b).norm() / a.norm()) for a, b in pairs if a.norm() > 1e-3)
    limits = (1e-5, 2e-2) if batch.source.device.type == "cpu" else (1e-3, 1e-1)
    assert apart < limits[0], f"losses differ by {apart}"
    assert worst < limits[1], f"gradients differ by {worst}"
    return apart, worst


def frames(count: int, device: torch.device) -> Batch:
    """Pairs of frames of two synthetic participants, with the default points."""
    sides = []
    for number in (3, 9):
        seen = [
            list(record(participant(k % 2), 10, size=256, seed=k).frames()) for k in range(count)
        ]
        sides.append(torch.from_numpy(np.stack([clip[number] for clip in seen])))
    images = [side.permute(0, 3, 1, 2).float().div(255).contiguous() for side in sides]
    points = torch.from_numpy(FOMM_DEFAULT).expand(count, -1, -1).contiguous()
    return Batch(*images, points).to(device)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--process-time", action="store_true", help="for a busy machine")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.set_num_threads(1)
    if device.type == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clock = time.process_time if args.process_time else time.perf_counter
    batch = frames(args.batch, device)
    names = ("published order of passes", "ours", "ours, channels last")
    ways = {name: Trainer(name, device) for name in names}
    warp = draw_transform(args.batch, generator=torch.Generator().manual_seed(0), device=device)
    apart, worst = check_equal(*(ways[name] for name in names[:2]), batch, warp)
    ways[names[2]].step(batch, warp)
    times = {name: [] for name in ways}
    for _ in range(args.steps):
        for name, trainer in ways.items():
            start = clock()
            trainer.step(batch, warp)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(clock() - start)
    where = (
        platform.machine() + ", one thread"
        if device.type == "cpu"
        else torch.cuda.get_device_name()
    )
    kind = "process time, machine busy" if args.process_time else "wall time"
    print(
        f"{datetime.date.today()} · {where} · torch {torch.__version__} · float32 · "
        f"batch of {args.batch} · {kind}"
    )
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    slow = middle[names[0]]
    rows = [(k, f"{s:.3f}", f"{args.batch / s:.2f}", f"{slow / s:.2f}") for k, s in middle.items()]
    columns = ["step", "s", "pairs/s", "ratio"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))
    ratio = slow / middle["ours"]
    print(f"\nRatio {ratio:.2f} (at least {RATIO:.2f} is wanted). Equal numbers: losses to")
    print(f"{apart:.1e}, gradients of whole tensors to {worst:.1e}, relative.")
    assert ratio >= RATIO, f"ratio {ratio:.2f} < {RATIO}"


if __name__ == "__main__":
    main()
