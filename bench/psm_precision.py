"""What precision, torch.compile and the memory layout change in PSM training, and what they cost.

    .venv/bin/python bench/psm_precision.py [--width 8] [--pairs 4] [--steps 20] [--device cpu]

All variants train the same networks on the same batches (faces of two synthetic participants at
64 x 64 px, drawn VGG19 weights) by the step, the optimiser and the precision that
facecomp.psm.training uses. They take turns, step by step, with the same seed before each step. Then
losses, weights and codes are compared with those of fp32 eager. One variant only draws other noise:
a difference of that size says nothing.

Where there is a GPU, the same follows on it at full width, and how many participants share it best:
1, 2 and 4 processes (`--packed 1 2 4`), each training a model of its own at the same time.
"""

import argparse
import datetime
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from psm_step import batches, frames, synchronise

from facecomp.layers.vgg import Vgg19, random_vgg
from facecomp.paper.tables import format_table
from facecomp.psm.networks import build_networks
from facecomp.psm.steps import TrainStep, build_optimiser
from facecomp.psm.training import check_compiler, step_terms
from facecomp.psm.transforms import normalise
from facecomp.records.files import InputError
from facecomp.training.options import Options, make_fabric, seed_all

ABOUT = """\
Differences are relative to fp32 eager: of the total loss at a step; after the last step of all
trained weights, of the same over the way that they went, and of the codes of 60 frames. The first
step holds the compilation, which PyTorch's cache may shorten. s/step: the median of the others."""
RATE = 8e-5  # the published one
LOSS = {"32": 1e-3, "bf16": 5e-2, "16": 5e-2}  # of the total loss after the last step, at most


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    name: str
    precision: str = "32"
    compiled: bool = False
    layout: torch.memory_format = torch.contiguous_format
    seed: int = 0  # of the noise


VARIANTS = (
    Variant("fp32 eager"),
    Variant("fp32 eager, other noise", seed=1),
    Variant("fp32 compile", compiled=True),
    Variant("fp32 channels_last", layout=torch.channels_last),
    Variant("bf16 eager", "bf16"),
    Variant("bf16 compile", "bf16", True),
    Variant("bf16 channels_last", "bf16", layout=torch.channels_last),
    Variant("16 eager", "16"),
    Variant("16 compile", "16", True),
)


class Trainer:
    """A variant in training; raises `InputError` if it cannot be here."""

    def __init__(self, variant: Variant, width: int, device: torch.device):
        self.variant, self.losses, self.seconds = variant, [], []
        options = Options(device=device.type, precision=variant.precision)
        if device.type == "cpu" and variant.precision == "16":
            raise InputError("needs a GPU")
        if variant.compiled:
            check_compiler(device)
        self.fabric = make_fabric(options)
        seed_all(2)
        weights = random_vgg(0, width)
        vgg, self.networks = Vgg19(weights, width), build_networks(width, weights)
        optimiser = build_optimiser(self.networks, RATE)
        for network in self.networks.by_key().values():
            self.fabric.setup_module(network)
        self.optimiser = self.fabric.setup_optimizers(optimiser)
        for part in (self.networks, vgg.to(self.fabric.device)):
            part.to(memory_format=variant.layout)
        self.terms = step_terms(TrainStep(self.networks, vgg), variant.compiled)
        self.start = self.weights()

    def step(self, x: torch.Tensor, seed: int) -> None:
        """One step of training, timed."""
        torch.manual_seed(2 * seed + self.variant.seed)
        synchronise(x.device)
        begun = time.perf_counter()
        with self.fabric.autocast():
            total = self.terms(x.contiguous(memory_format=self.variant.layout), 1.0).total
        self.optimiser.zero_grad()
        self.fabric.backward(total)
        self.optimiser.step()
        synchronise(x.device)
        self.seconds.append(time.perf_counter() - begun)
        self.losses.append(float(total.detach()))

    def weights(self) -> torch.Tensor:
        """All trained weights in one row, a copy."""
        groups = self.networks.parameter_groups()
        trained = [p for group in groups for p in group["params"] if p.requires_grad]
        return torch.cat([p.detach().double().flatten() for p in trained])

    def codes(self, x: torch.Tensor) -> torch.Tensor:
        """Codes of pictures, in 32 bit."""
        with torch.no_grad():
            return self.networks.encoder(x).double().flatten(1)


def apart(ours: torch.Tensor, reference: torch.Tensor, scale: torch.Tensor | None = None) -> str:
    """Norm of the difference, relative to that of the reference."""
    scale = reference if scale is None else scale
    return f"{float((ours - reference).norm() / scale.norm()):.1e}"


def compare(args: argparse.Namespace, device: torch.device) -> None:
    """Train all variants and print their table."""
    reasons, trainers = {}, {}
    for variant in VARIANTS:
        try:
            trainers[variant] = Trainer(variant, args.width, device)
        except InputError as error:
            reasons[variant] = str(error)
    with tempfile.TemporaryDirectory() as name:
        near = frames(Path(name)).to_device(device)
        given = list(islice(batches(near, args.pairs, device), args.steps))
        shown = normalise(near.batch(list(range(0, len(near), 4))))
    for k, x in enumerate(given):
        for trainer in trainers.values():
            trainer.step(x, k)
    reference = trainers[VARIANTS[0]]
    places = sorted({1, min(10, args.steps), args.steps})
    usual = statistics.median(reference.seconds[1:])
    rows = []
    for variant in VARIANTS:
        if variant in reasons:
            rows.append([variant.name, reasons[variant], *[""] * (len(places) + 5)])
            continue
        t = trainers[variant]
        middle = statistics.median(t.seconds[1:])
        losses = [f"{abs(t.losses[k - 1] / reference.losses[k - 1] - 1):.1e}" for k in places]
        way = apart(t.weights(), reference.weights(), reference.weights() - reference.start)
        rows.append(
            [variant.name, *losses, apart(t.weights(), reference.weights()), way]
            + [apart(t.codes(shown), reference.codes(shown)), f"{t.seconds[0]:.1f}"]
            + [f"{middle:.3f}", f"{usual / middle:.2f}"]
        )
    columns = ["variant", *(f"loss, step {k}" for k in places), "weights", "of their way"]
    columns += ["codes", "first step, s", "s/step", "ratio"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))
    check(trainers, reference)


def check(trainers: dict[Variant, Trainer], reference: Trainer) -> None:
    """Every variant must learn what the reference learns."""
    for variant, t in trainers.items():
        difference = abs(t.losses[-1] / reference.losses[-1] - 1)
        limit = LOSS["bf16" if variant.seed else variant.precision]
        assert math.isfinite(t.losses[-1]), f"{variant.name}: loss {t.losses[-1]}"
        assert difference < limit, f"{variant.name}: loss differs by {difference:.1e}"


# ---------------------------------------------------------------- several on one device


def work(args: argparse.Namespace, device: torch.device) -> None:
    """One of several processes: say "ready", wait for a line, train, say how fast."""
    trainer = Trainer(Variant("", args.worker, args.compile), args.width, device)
    with tempfile.TemporaryDirectory() as name:
        source = batches(frames(Path(name)).to_device(device), args.pairs, device)
    for k in range(3):
        trainer.step(next(source), k)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < args.seconds:
        trainer.step(next(source), done)
        done += 1
    memory = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    print(done / (time.perf_counter() - begun), memory / 1e9, flush=True)


def together(count: int, precision: str, args: argparse.Namespace, device: torch.device) -> list:
    """Steps per second and reserved GB of `count` processes at the same time; [] if one failed."""
    command = [sys.executable, __file__, "--worker", precision, "--device", device.type]
    command += ["--width", str(args.width), "--pairs", str(args.pairs)]
    command += ["--seconds", str(args.seconds), *(["--compile"] if args.compile else [])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(count)]
    try:
        if not all(any(line == "ready\n" for line in w.stdout) for w in workers):
            return []
        for w in workers:
            w.stdin.write("go\n")
            w.stdin.flush()
        said = [w.communicate(timeout=60 + 20 * args.seconds)[0].split() for w in workers]
        return [[float(v) for v in words[-2:]] for words in said if len(words) >= 2]
    finally:
        for w in workers:
            w.kill()


def pack(args: argparse.Namespace, device: torch.device) -> None:
    """Print what 1, 2, ... participants on one device do together."""
    rows = []
    precisions = ("32", "bf16", "16") if device.type == "cuda" else ("32", "bf16")
    for precision in precisions:
        alone = None
        for count in args.packed:
            found = together(count, precision, args, device)
            if len(found) < count:
                rows.append([precision, count, "failed (memory?)", "", "", ""])
                continue
            total = sum(rate for rate, _ in found)
            alone = alone or total / count
            each, images = count / total, 2 * args.pairs * total
            memory = f"{max(m for _, m in found):.2f}"
            rows.append([precision, count, f"{each:.4f}", f"{images:.0f}"])
            rows[-1] += [f"{total / alone:.2f}", memory]
    columns = ["precision", "participants", "s/step of each", "images/s of all", "of one alone"]
    columns += ["GB reserved, each"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))


# ---------------------------------------------------------------- all of it


def heading(args: argparse.Namespace, device: torch.device) -> None:
    name = f"{platform.machine()}, one thread"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    sizes = f"width 1/{args.width} · {args.pairs} pairs · {args.steps} steps"
    print(f"\n{datetime.date.today()} · {name} · torch {torch.__version__} · {sizes}\n")


def main() -> None:
    """Print the tables: of the CPU, and of a GPU where there is one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, help="divides the channels; 8, on a GPU 1")
    parser.add_argument("--pairs", type=int, help="of a step; 4, on a GPU 16")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="only this one")
    parser.add_argument("--packed", type=int, nargs="*", help="processes; on a GPU 1 2 4")
    parser.add_argument("--seconds", type=float, default=10.0, help="that they train together")
    parser.add_argument("--compile", action="store_true", help="they train compiled steps")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*srun.*")
    torch.set_num_threads(1)
    if args.worker:
        given = torch.device(args.device)
        return work(args, given)
    print(ABOUT)
    asked = args
    for kind in ("cpu", "cuda"):
        device = torch.device(kind)
        if (asked.device or kind) != kind or (kind == "cuda" and not torch.cuda.is_available()):
            continue
        args = argparse.Namespace(**vars(asked))
        large = kind == "cuda"
        args.width = asked.width or (1 if large else 8)
        args.pairs = asked.pairs or (16 if large else 4)
        args.packed = asked.packed if asked.packed is not None else ([1, 2, 4] if large else [])
        heading(args, device)
        compare(args, device)
        if args.packed:
            print("\nParticipants that share the device, one process each:\n")
            pack(args, device)
    if not torch.cuda.is_available():
        print("\nRows of a GPU (full width, 1, 2 and 4 participants on it) need a GPU.")
    return None


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
