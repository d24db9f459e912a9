"""What the checks of FOMM's animation and visualiser compute from a case; fomm/README.md documents them."""

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from facecomp.faces.images import read_image
from facecomp.fomm.animation import Animated, AnimationSettings, Animator, reference_animation
from facecomp.fomm.checkpoints import Networks
from facecomp.fomm.discriminator import MultiScaleDiscriminator
from facecomp.fomm.generator import Generator
from facecomp.fomm.outputs import write_strip
from facecomp.fomm.relative import RelativeSettings
from facecomp.fomm.visualiser import Visualiser

from .fomm_networks_checks import build, detector
from .harness import Case, CaseError, Outputs, Variants

PLAIN = {"as it is": AnimationSettings(batch_size=1, fast=False)}
FAST = {"fast": AnimationSettings(), "three at once": AnimationSettings(batch_size=3)}


def _networks(case: Case) -> Networks:
    given = case.model.get("args", {})
    painter = build(case, Generator, given.get("generator", {}))
    return Networks(
        detector(case, given.get("kp_detector", {})), painter, MultiScaleDiscriminator(num_blocks=1)
    )


def _strip(frames: list[np.ndarray]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return read_image(write_strip(Path(folder) / "strip.png", frames))


def _outputs(made: Iterator[Animated]) -> Outputs:
    made = list(made)
    images = [one.image for one in made]
    return {
        "prediction": np.stack(images),
        "value": np.concatenate([one.reached.value for one in made]),
        "jacobian": np.concatenate([one.reached.jacobian for one in made]),
        "l1": np.array([one.l1() for one in made]),
        "strip": _strip(images),
    }


def _frames(video: np.ndarray) -> list[np.ndarray]:
    """(1, 3, T, H, W) -> T times (H, W, 3)."""
    return list(video[0].transpose(1, 2, 3, 0))


def _animate(case: Case, ways: Mapping[str, AnimationSettings], published: bool) -> Variants:
    networks, relative = _networks(case), RelativeSettings(**case.args)
    source = _frames(case.value("source")[:, :, None])[0]
    given = (source, case.value("source_points")[0], _frames(case.value("driving")))
    given += (case.value("driving_points")[0],)
    made = Variants()
    if published:
        made["published"] = _outputs(reference_animation(networks, *given, relative))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of absolute animation
        for name, settings in ways.items():
            made[name] = _outputs(Animator(networks, settings).run(*given, relative=relative))
    return made


def animate(case: Case) -> Variants:
    """A clip by the published loop and by the animator with networks as they are."""
    return _animate(case, PLAIN, published=True)


def animate_fast(case: Case) -> Variants:
    """A clip by the animator with its faster networks."""
    return _animate(case, FAST, published=False)


def reconstruct(case: Case) -> Variants:
    """A clip from its own first frame."""
    networks, frames = _networks(case), _frames(case.value("driving"))
    points = case.value("points")[0]
    ways = {name: Animator(networks, settings) for name, settings in (PLAIN | FAST).items()}
    return Variants({name: _outputs(way.reconstruct(frames, points)) for name, way in ways.items()})


def visualiser(case: Case) -> Outputs:
    """The picture of what the case gives, under the argument names of `Visualiser.sheet`."""
    if unknown := set(case.args) - {"kp_size", "draw_border", "colormap"}:
        raise CaseError(f"case {case.id}: unknown arguments {sorted(unknown)}")
    given = {name: case.tensor(name) for name in case.inputs}
    return {"image": Visualiser(**case.args).sheet(**given)}


CHECKS = {
    "fomm.animate": animate,
    "fomm.animate_fast": animate_fast,
    "fomm.reconstruct": reconstruct,
    "fomm.visualiser": visualiser,
}
