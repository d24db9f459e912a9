"""A small study: a convolutional network on random pictures; every kind of state has a part in its numbers.

As a program: `python toy_training.py FOLDER '{"option": value}'`; alone or under torchrun.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from facecomp.data.sampling import EpochSampler
from facecomp.training.checkpoint import Parts
from facecomp.training.loop import Run, make_loader
from facecomp.training.options import Options, make_fabric, seed_all


class Pictures(Dataset):
    """Random pictures, a little changed in every epoch; item 0 may take long to read."""

    def __init__(self, slow: float = 0.0):
        self.slow = slow

    def __getitem__(self, item):
        if self.slow and item.index == 0:
            time.sleep(self.slow)
        picture = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(item.index))
        return picture + 0.1 * torch.rand(2, 6, 6, generator=item.torch("noise"))


class Net(nn.Sequential):
    def __init__(self, dropout: float):
        super().__init__(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 1)
        )


def train(
    folder: Path | str,
    workers: int = 0,
    batch: int = 4,
    die: tuple[int, str] | None = None,  # (steps from this start, where in the step)
    kill: int = signal.SIGKILL,
    nan: tuple[int, int] | None = None,  # (epoch, step) whose loss is NaN
    dropout: float = 0.3,
    slow: float = 0.0,
    pause: float = 0.0,
    sheet=None,
    items: int = 22,
    drop_last: bool = False,
    group: bool = False,
    identity: dict | None = None,
    **options,
) -> dict[str, torch.Tensor]:
    """Train, or go on; returns the weights at the end."""
    torch.set_num_threads(1)
    chosen = {"epochs": 3, "device": "cpu", "checkpoint_steps": 2, "progress": False}
    options = Options(**(chosen | options))
    fabric = make_fabric(options)
    fabric.launch()
    seed_all(options.seed)
    net, noise = Net(dropout), np.random.default_rng(options.seed)
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    decay = torch.optim.lr_scheduler.StepLR(adam, 4, 0.8)
    parts = Parts({"net": net}, {"adam": adam}, {"decay": decay}, {"noise": noise})
    rank, world = fabric.global_rank, fabric.world_size
    sampler = EpochSampler(items, options.seed, batch, rank, world, drop_last=drop_last)
    loader = make_loader(Pictures(slow), sampler, workers)
    count = 0
    with Run(folder, parts, options, identity, "toy", sheet=sheet, fabric=fabric) as run:
        send = os.killpg if group else os.kill
        for epoch in run.epochs():
            for x in run.batches(loader):
                count += 1
                goal = 1 + (noise.normal() if dropout else 0)
                loss = (run.models["net"](x) - goal).square().mean()
                if nan == (epoch, run.position.step):
                    loss = loss * float("nan")
                run.record({"square": loss, "half": loss / 2}, rate=adam.param_groups[0]["lr"])
                if die == (count, "middle"):
                    send(os.getpid(), kill)
                run.optimizers["adam"].zero_grad()
                run.backward(loss)
                run.optimizers["adam"].step()
                decay.step()
                time.sleep(pause)
                if die == (count, "end"):
                    send(os.getpid(), kill)
    return {name: value.clone() for name, value in net.state_dict().items()}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    train(Path(sys.argv[1]), **given)
