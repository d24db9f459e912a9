"""FOMM's animation, its files and the visualiser: what their notebooks and the reference arrays do not show."""

import copy
import gc
import multiprocessing
import os
import signal
import time
import tracemalloc
import warnings
import weakref

import numpy as np
import pytest
import torch
from conftest import ROOT
from golden.fomm_checks import CHECKS
from golden.harness import GoldenSet, run_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from facecomp.faces.alignment import FOMM_DEFAULT
from facecomp.faces.images import read_image
from facecomp.fomm import animation as module
from facecomp.fomm.animation import (
    AnimationSettings,
    Animator,
    best_frame,
    reconstruct,
    reference_animation,
)
from facecomp.fomm.checkpoints import ModelSettings, build_networks
from facecomp.fomm.outputs import (
    BAR,
    as_uint8,
    film_strip,
    side_by_side,
    write_movie,
    write_strip,
)
from facecomp.fomm.relative import RelativeMotion, RelativeSettings
from facecomp.fomm.visualiser import Visualiser
from facecomp.records.files import InputError

GOLDEN = ROOT / "tests" / "golden" / "fomm"
HOURGLASS = {"block_expansion": 4, "max_features": 16, "num_blocks": 2}
POINTS = FOMM_DEFAULT / 4  # of frames of 64 px
RNG = np.random.default_rng(0)
SOURCE = RNG.random((64, 64, 3), np.float32)
CLIP = [RNG.random((64, 64, 3), np.float32) for _ in range(7)]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model(detector=None, generator=None, motion=None, **given):
    """Small networks whose norms and Jacobians have something to say."""
    torch.manual_seed(5)
    painter = {"block_expansion": 4, "max_features": 16, "num_bottleneck_blocks": 1}
    painter |= {"dense_motion_params": HOURGLASS | (motion or {})} | (generator or {})
    networks = build_networks(
        ModelSettings(
            kp_detector_params=HOURGLASS | (detector or {}),
            generator_params=painter,
            discriminator_params={"num_blocks": 1},
            **given,
        )
    )
    torch.nn.init.normal_(networks.kp_detector.jacobian.weight, std=0.1)
    for network in networks.by_key().values():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.normal_(part.running_mean, std=0.2)
                nn.init.uniform_(part.running_var, 0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, std=0.3)
        network.eval()
    return networks


@pytest.fixture(scope="module")
def networks():
    return model()


def furthest(made, wanted) -> float:
    made = [getattr(one, "image", one) for one in made]
    return max(np.abs(a - b.image).max() for a, b in zip(made, wanted, strict=True))


MODELS = {
    "shipped form": {},
    "corner-aligned": {"align_corners": True},
    "one Jacobian map, padded": {"detector": {"single_jacobian_map": True, "pad": 3}},
    "no occlusion map": {"generator": {"estimate_occlusion_map": False}},
    "no bottleneck": {"generator": {"num_bottleneck_blocks": 0}},
    "one down block, resized flow": {"generator": {"num_down_blocks": 1}},
    "half size for the motion": {"motion": {"scale_factor": 0.5}},
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_faster_way_gives_the_published_frames(kind):
    networks = model(**MODELS[kind])
    given = (SOURCE, POINTS, CLIP, POINTS)
    wanted = list(reference_animation(networks, *given))
    assert furthest(Animator(networks).animate(*given), wanted) <= 2e-6
    spread = wanted[0].image.std()
    assert spread > 1e-3 and furthest([w.image for w in wanted[1:]], wanted[:-1]) > 1e-5


def test_a_model_that_finds_its_own_points_needs_none():
    networks = model(prior=False, keypoint_source="network", num_kp=5)
    given = (SOURCE, None, CLIP, None)
    wanted = list(reference_animation(networks, *given))
    assert furthest(Animator(networks).animate(*given), wanted) <= 2e-6
    values = [made.reached.value for made in wanted]
    assert not torch.equal(values[0], values[3])  # its points do move


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("movement", [False, True])
@pytest.mark.parametrize("jacobian", [False, True])
def test_all_switches_of_the_transfer_give_the_published_frames(
    networks, scale, movement, jacobian
):
    relative = RelativeSettings(scale, movement, jacobian)
    given = (SOURCE, POINTS, CLIP[:3], POINTS + 1)
    wanted = list(reference_animation(networks, *given, relative))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        animator = Animator(networks, AnimationSettings(relative))
        assert furthest(animator.animate(*given), wanted) <= 2e-6


@pytest.mark.parametrize("together", [1, 2, 3, 7, 50])
def test_a_frame_does_not_depend_on_those_beside_it(networks, together):
    animator = Animator(networks, AnimationSettings(batch_size=together))
    wanted = list(animator.run(SOURCE, POINTS, CLIP, POINTS))
    order = [3, 0, 6, 1]
    mixed = animator.animate(SOURCE, POINTS, [CLIP[k] for k in order], POINTS, initial=CLIP[0])
    assert len(wanted) == 7 and furthest(mixed, [wanted[k] for k in order]) <= 2e-6


def test_frames_are_taken_when_they_are_needed_and_not_kept(networks):
    taken, alive = [], weakref.WeakSet()

    def endless():
        while True:
            taken.append(1)
            yield CLIP[len(taken) % 7]

    made = Animator(networks).run(SOURCE, POINTS, endless(), POINTS)
    assert not taken
    for count in range(1, 11):
        one = next(made)
        alive.add(one.generated.prediction)
        alive.add(one.generated.motion.mask)
        assert len(taken) == 4 * -(-count // 4)
    del one
    gc.collect()
    assert len(alive) <= 2  # what the generator holds of the last frame


def test_the_networks_themselves_stay_as_they_are(networks):
    given = copy.deepcopy(networks)
    given.generator.train()
    before = {key: copy.deepcopy(net.state_dict()) for key, net in given.by_key().items()}
    made = next(Animator(given).run(SOURCE, POINTS, CLIP, POINTS))
    next(Animator(given, AnimationSettings(precision="bf16")).animate(SOURCE, POINTS, CLIP, POINTS))
    assert not made.generated.prediction.requires_grad
    assert given.generator.training and not given.kp_detector.training
    for key, net in given.by_key().items():
        after = net.state_dict()
        assert list(after) == list(before[key])
        assert all(torch.equal(after[name], x) for name, x in before[key].items())


def test_with_bf16_the_motion_is_that_of_float32(networks):
    ways = [
        Animator(networks, AnimationSettings(precision=precision)).run(
            SOURCE, POINTS, CLIP[:3], POINTS
        )
        for precision in ("32", "bf16")
    ]
    for fine, rough in zip(*map(list, ways), strict=True):
        assert torch.equal(fine.generated.motion.deformation, rough.generated.motion.deformation)
        assert torch.equal(fine.reached.jacobian, rough.reached.jacobian)
        assert rough.image.dtype == np.float32
        assert 1e-5 < np.abs(fine.image - rough.image).max() < 0.05


def test_points_of_every_frame_move_those_that_are_reached(networks):
    moving = POINTS + np.linspace(0, 3, 7)[:, None, None]
    animator = Animator(networks, per_frame=True)
    made = list(animator.run(SOURCE, POINTS, CLIP, iter(moving)))
    shifts = [float((m.reached.value - m.source.value).mean()) for m in made]
    np.testing.assert_allclose(shifts, np.linspace(0, 3, 7) * 2 / 64, atol=1e-6)
    start = animator.run(SOURCE, POINTS, CLIP, moving, initial=CLIP[6], initial_points=moving[6])
    assert float((next(start).reached.value - made[0].source.value).mean()) < -0.09
    with torch.no_grad():
        found = [
            networks.kp_detector(module.frame_tensor(x), torch.from_numpy(p).float()[None])
            for x, p in ((SOURCE, POINTS), (CLIP[0], moving[0]), (CLIP[5], moving[5]))
        ]
        reached = RelativeMotion(found[0], found[1])(found[2])
    assert torch.allclose(reached.value, made[5].reached.value, atol=1e-6)
    assert torch.allclose(reached.jacobian, made[5].reached.jacobian, atol=1e-4)


def test_points_of_another_kind_than_in_training_are_refused(networks):
    moving = np.repeat(POINTS[None], 7, 0)
    with pytest.raises(InputError, match="every frame.*per_frame: false"):
        Animator(networks).run(SOURCE, POINTS, CLIP, moving)
    with pytest.raises(InputError, match="whole clip.*per_frame: true"):
        Animator(networks, per_frame=True).run(SOURCE, POINTS, CLIP, POINTS)
    with pytest.raises(InputError, match="5 sets"):
        list(Animator(networks, per_frame=True).run(SOURCE, POINTS, CLIP, moving[:5]))


def test_a_reconstruction_is_absolute_whatever_the_settings_say(networks):
    wanted = reference_animation(
        networks, CLIP[0], POINTS, CLIP, POINTS, RelativeSettings(False, False, False)
    )
    wanted = list(wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = list(reconstruct(networks, iter(CLIP), POINTS))
    assert furthest([image for image, _ in made], wanted) <= 2e-6
    errors = [
        np.abs(w.image - frame).mean(dtype=float) for w, frame in zip(wanted, CLIP, strict=True)
    ]
    np.testing.assert_allclose([l1 for _, l1 in made], errors, atol=1e-6)
    moving = np.repeat(POINTS[None], 7, 0)
    again = reconstruct(networks, CLIP, moving, per_frame=True)
    assert furthest([image for image, _ in again], wanted) <= 2e-6
    with pytest.raises(InputError, match="no frame"):
        reconstruct(networks, [], POINTS)


def test_one_frame_is_a_clip_and_looks_as_if_nothing_moved(networks):
    (image,) = Animator(networks).animate(SOURCE, POINTS, CLIP[2:3], POINTS)
    other = next(Animator(networks).animate(SOURCE, POINTS, CLIP[4:], POINTS))
    np.testing.assert_allclose(image, other, atol=2e-5)  # its own start: J J^-1


@given(st.floats(0.01, 100), st.floats(-500, 500), st.integers(0, 5), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_best_frame_does_not_depend_on_size_and_place(size, shift, best, seed):
    rng = np.random.default_rng(seed)
    face = rng.normal(size=(68, 2))
    clip = face + 0.3 * rng.normal(size=(6, 68, 2))
    clip[best] = face + 0.01 * rng.normal(size=(68, 2))
    assert best_frame(size * face + shift, clip) == best
    assert best_frame(face, size * clip - shift) == best


def frames_until(marker, count=6):
    """Some frames, and then none for a long time."""
    for k in range(count):
        yield np.full((32, 32, 3), k / count)
    marker.write_text("here")
    time.sleep(60)


@pytest.mark.parametrize("name", ["clip.png", "clip.mp4", "clip.gif"])
def test_a_writer_that_is_killed_leaves_no_file_of_that_name(tmp_path, name):
    write = write_strip if name.endswith("png") else write_movie
    path, marker = tmp_path / name, tmp_path / "marker"
    work = multiprocessing.get_context("fork").Process(
        target=write, args=(path, frames_until(marker))
    )
    work.start()
    for _ in range(600):
        if marker.exists():
            break
        time.sleep(0.05)
    os.kill(work.pid, signal.SIGKILL)
    work.join()
    assert marker.exists() and not path.exists()


def test_a_strip_does_not_stay_in_memory(tmp_path):
    frame = RNG.random((64, 64, 3), np.float32)

    def peak(count):
        tracemalloc.start()
        write_strip(tmp_path / "strip.png", (np.roll(frame, k, 0) for k in range(count)))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    short, long = peak(20), peak(200)
    assert long < short + 0.2 * 180 * 64 * 64 * 3  # rows grow; the strip is five times that
    strip = read_image(tmp_path / "strip.png")
    assert strip.shape == (64, 200 * 64, 3)
    assert np.array_equal(strip[:, 64 * 7 : 64 * 8], as_uint8(np.roll(frame, 7, 0)))


def test_pictures_for_the_eye_take_frames_one_by_one():
    endless = (CLIP[k % 7] for k in iter(int, 1))
    pictures = side_by_side(SOURCE, endless, (x for x in CLIP), marks=("synthetic",))
    one = next(pictures)
    assert one.shape == (64 + 2 * BAR, 256, 3) and (one[-BAR:] < 128).any()
    plain = next(side_by_side(SOURCE, CLIP, CLIP))
    assert plain.shape == (64 + BAR, 256, 3) and np.array_equal(plain, one[:-BAR])
    rows = {"a": (CLIP[k % 7] for k in iter(int, 1)), "b": CLIP}
    film = film_strip(rows, (1, 4), marks=("synthetic",))
    assert film.shape == (2 * (64 + BAR), 128, 3)
    with pytest.raises(ValueError, match="shorter"):
        list(side_by_side(SOURCE, CLIP, CLIP[:3]))


def test_the_sheet_of_an_animated_frame_has_the_published_columns(networks):
    made = next(Animator(networks).run(SOURCE, POINTS, CLIP, POINTS))
    visualiser = Visualiser(kp_size=2, draw_border=False)
    sheet = made.sheet(visualiser)
    assert sheet.shape == (64, 6 * 64, 3)
    assert np.array_equal(sheet[:, 4 * 64 : 5 * 64], as_uint8(made.image))
    without = made.sheet(visualiser, reached=False)
    assert np.array_equal(without, np.delete(sheet, slice(3 * 64, 4 * 64), 1))
    assert not np.array_equal(sheet[:, :64], as_uint8(SOURCE))  # points are on it


@pytest.mark.parametrize(
    ("case", "name", "broken"),
    [
        ("animate-relative-fast", "transposed", lambda block: block),
        ("animate-relative-fast", "by_columns", lambda conv: conv),
        ("animate-relative-fast", "fold_norms", lambda network: network),
    ],
)
def test_each_change_of_the_networks_alone_meets_the_reference(monkeypatch, case, name, broken):
    monkeypatch.setattr(module, name, broken)
    if name == "fold_norms":  # the transposed form needs folded norms
        monkeypatch.setattr(module, "transposed", broken)
    run_case(GoldenSet.read(GOLDEN, None).case(case), CHECKS)


def test_a_wrong_transfer_does_not_meet_the_reference(monkeypatch):
    monkeypatch.setattr(module, "RelativeMotion", lambda *_: lambda driving: driving)
    with pytest.raises(AssertionError, match="prediction"):
        run_case(GoldenSet.read(GOLDEN, None).case("animate-relative"), CHECKS)
