"""FOMM's animation: the published loop over the frames against ours, same run, one thread.

    .venv/bin/python bench/fomm_animate.py [--frames 12] [--rounds 3] [--device cpu]

Shipped size, 256 x 256 px, weights by the fill rule of the golden tests, synthetic participants.
The reference computes for every frame what the published loop does: detector with the prior, the
transfer, the generator with the source's own part, blurs at full size before most pixels are
thrown away, the moved source frame (but not the visualiser's picture, which nothing shows).
Processor time on a CPU. The ways take turns; the median counts. Memory is the largest resident
size of a fresh process that animates a clip and writes its strip.
"""

import argparse
import datetime
import itertools
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from fomm_step import as_published
from golden.fill import fill

from facecomp.faces.alignment import FOMM_DEFAULT
from facecomp.faces.synthetic import participant, record
from facecomp.fomm.animation import AnimationSettings, Animator, reference_animation
from facecomp.fomm.checkpoints import Networks, build_networks
from facecomp.fomm.outputs import write_strip
from facecomp.fomm.prior import PriorCache
from facecomp.paper.tables import format_table

RATIOS = {"ours": 1.25, "ours, bf16": 2.0}  # at least
LIMIT = 2e-6  # of a pixel, 0 ... 1
WAYS = {
    "ours, frame by frame": AnimationSettings(batch_size=1),
    "ours": AnimationSettings(),
    "ours, bf16": AnimationSettings(precision="bf16"),
}
Frames = list[np.ndarray]


def networks() -> Networks:
    """The shipped model with weights by the rule."""
    made = build_networks()
    for network in (made.kp_detector, made.generator):
        state = network.state_dict()
        fill(state, fixed=[name for name in state if name.endswith("down.weight")])
        network.load_state_dict(state)
        network.eval()
    with torch.no_grad():
        made.kp_detector.jacobian.weight.mul_(0.25)
        made.kp_detector.jacobian.bias.add_(torch.eye(2).flatten().repeat(18))
    return made


def faces() -> tuple[np.ndarray, Frames]:
    """A source face and ten frames of another person."""
    source = next(iter(record(participant(4), 1, size=256).frames()))
    return source, list(record(participant(2), 10, size=256, seed=1).frames())


class Published:
    """The loop as published."""

    def __init__(self, made: Networks, device: str):
        self.networks = made
        for network in (made.kp_detector, made.generator):
            network.to(device)
            as_published(network)
        made.kp_detector.priors = PriorCache(limit=0)  # drawn for every frame

    def animate(self, *given) -> Iterator[np.ndarray]:
        return (made.image for made in reference_animation(self.networks, *given))


def timed(way, source: np.ndarray, driving: Iterable[np.ndarray], cpu: bool) -> tuple:
    """Frames, and seconds for each."""
    clock = time.process_time if cpu else time.perf_counter
    start = clock()
    made = list(way.animate(source, FOMM_DEFAULT, driving, FOMM_DEFAULT))
    return made, (clock() - start) / len(made)


def apart(first: Frames, second: Frames) -> float:
    """Largest difference of a pixel."""
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


def with_contrast(made: Networks) -> Networks:
    """Weights of the last layer twelvefold: pictures from black to white, as of a trained model."""
    with torch.no_grad():
        for parameter in made.generator.final.parameters():
            parameter.mul_(12)
    return made


def peak(frames: int) -> float:
    """MiB that a fresh process needs at most to animate so many frames."""
    command = [sys.executable, __file__, "--memory", str(frames)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def animate_once(frames: int) -> None:
    """Animate to a file and print the process's largest size."""
    source, some = faces()
    driving = itertools.islice(itertools.cycle(some), frames)
    made = Animator(networks()).animate(source, FOMM_DEFAULT, driving, FOMM_DEFAULT)
    with tempfile.TemporaryDirectory() as folder:
        write_strip(Path(folder) / "strip.png", made)
    status = Path("/proc/self/status").read_text()  # getrusage tells the parent's size, if larger
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def bf16_units() -> str:
    """What this CPU says of its units for bfloat16."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "bfloat16 units: unknown"
    found = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if name in flags]
    return f"bfloat16 units: {', '.join(found) or 'none, so bf16 is not faster here'}"


def compare(frames: int, rounds: int, device: str) -> None:
    """Time all ways, and print how far they are apart and what memory a clip takes."""
    cpu = device == "cpu"
    source, driving = faces()
    driving = list(itertools.islice(itertools.cycle(driving), frames))
    ways = {"published loop": Published(networks(), device)}
    ways |= {name: Animator(networks(), given, device) for name, given in WAYS.items()}
    times, made = {name: [] for name in ways}, {}
    for turn in range(rounds + 1):  # the first is not counted
        for name, way in ways.items():
            made[name], taken = timed(way, source, driving, cpu)
            times[name] += [taken] if turn else []
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    slow, true = middle["published loop"], made["published loop"]
    rows = [
        (name, f"{s:.4f}", f"{1 / s:.2f}", f"{slow / s:.2f}", f"{apart(made[name], true):.1e}")
        for name, s in middle.items()
    ]
    where = f"{platform.machine()}, one thread, processor time · {bf16_units()}"
    where = where if cpu else torch.cuda.get_device_name()
    print(f"{datetime.date.today()} · {where}")
    print(f"torch {torch.__version__} · {frames} frames of 256 x 256 px · {rounds} rounds")
    heads = ["way", "s/frame", "frames/s", "ratio", "largest difference"]
    print(format_table(pd.DataFrame(rows, columns=heads), "github", index=False))
    wanted = ", ".join(f"{name} at least {ratio:.2f}" for name, ratio in RATIOS.items())
    print(f"\nWanted ratios: {wanted}.")
    print("Differences are those of a pixel, 0 ... 1, to the published loop; at most")
    print(f"{LIMIT:.0e} is wanted without bf16.")
    loop = Published(with_contrast(networks()), device)
    true, given = timed(loop, source, driving[:4], cpu)[0], with_contrast(networks())
    for name in ("ours", "ours, bf16"):
        way = Animator(given, WAYS[name], device)
        far = apart(timed(way, source, driving[:4], cpu)[0], true)
        print(f"Pictures from black to white (last weights x 12), {name}: {far:.1e}.")
    if cpu and Path("/proc/self/status").exists():
        sizes = {length: peak(length) for length in (50, 400)}
        text = ", ".join(f"{length} frames {size:.0f} MiB" for length, size in sizes.items())
        print(f"\nLargest memory: {text}.")
        assert sizes[400] < 1.05 * sizes[50], "memory grows with the clip"
    for name, ratio in RATIOS.items():
        assert slow / middle[name] >= ratio, f"{name}: ratio {slow / middle[name]:.2f}"
    assert apart(made["ours"], made["published loop"]) <= LIMIT


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.memory:
        animate_once(args.memory)
    else:
        compare(args.frames, args.rounds, args.device)


if __name__ == "__main__":
    main()
