"""FOMM's transform, losses, relative motion, augmentation and step: what their notebooks do not show."""

import random

import numpy as np
import pytest
import torch
from conftest import ROOT
from golden.fomm_checks import CHECKS
from golden.harness import GoldenSet, run_case

from facecomp.fomm.augmentation import (
    AugmentationSettings,
    apply_augmentation,
    change_colours,
    draw_augmentation,
)
from facecomp.fomm.blocks import ImagePyramid
from facecomp.fomm.checkpoints import ModelSettings, build_networks
from facecomp.fomm.losses import LossWeights, equivariance_jacobian, equivariance_value
from facecomp.fomm.motion import KeyPoints, coordinate_grid
from facecomp.fomm.relative import RelativeMotion, RelativeSettings
from facecomp.fomm.steps import (
    Batch,
    StepSettings,
    TrainStep,
    build_optimisers,
    reference_iteration,
)
from facecomp.fomm.transform import TransformSettings, draw_transform
from facecomp.layers.vgg import Vgg19, random_vgg
from facecomp.records.files import InputError

GOLDEN = ROOT / "tests" / "golden" / "fomm"
HOURGLASS = {"block_expansion": 4, "max_features": 16, "num_blocks": 2}
PAINTER = {"block_expansion": 4, "max_features": 16, "num_bottleneck_blocks": 1}
PAINTER["dense_motion_params"] = HOURGLASS
JUDGE = {"block_expansion": 4, "max_features": 16, "num_blocks": 2}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(discriminator=None, **settings):
    torch.manual_seed(3)
    networks = build_networks(
        ModelSettings(
            kp_detector_params=HOURGLASS,
            generator_params=PAINTER,
            discriminator_params=JUDGE | (discriminator or {}),
            **settings,
        )
    )
    torch.nn.init.normal_(networks.kp_detector.jacobian.weight, std=0.1)
    return networks


def pairs(count=2, size=32, keypoints=True):
    draw = torch.Generator().manual_seed(5)
    frames = torch.rand(2, count, 3, size, size, generator=draw)
    points = 4 + 24 * torch.rand(count, 18, 2, generator=draw)
    return Batch(*frames, points if keypoints else None)


def drawn(count=2, seed=0):
    return draw_transform(count, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def vgg():
    return Vgg19(random_vgg(0, width=16), width=16)


def gradients(networks):
    return {
        f"{key}.{name}": None if p.grad is None else p.grad.clone()
        for key, network in networks.by_key().items()
        for name, p in network.named_parameters()
    }


def assert_equal_gradients(found, wanted):
    assert {k for k, g in found.items() if g is None} == {k for k, g in wanted.items() if g is None}
    for name, gradient in wanted.items():
        if gradient is not None:
            apart = float((found[name] - gradient).norm())
            assert apart <= 1e-4 * float(gradient.norm()) + 1e-5, name


# --- golden cases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["losses", "train-steps"])
def test_golden_cases_fail_with_weights_of_another_salt(name):
    with pytest.raises(AssertionError):
        run_case(GoldenSet.read(GOLDEN, "other").case(name), CHECKS)


WRONG = {
    "transform": lambda case: case.inputs.update(control={"zeros": [2, 1, 25]}),
    "relative-reljs": lambda case: case.args.update(adapt_movement_scale=False),
    "augmentation": lambda case: case.args.update(hue=0.11),
    "train-steps": lambda case: case.inputs.update(theta1="theta_0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_golden_cases_fail_with_another_input(name):
    case = GoldenSet.read(GOLDEN, None).case(name)
    WRONG[name](case)
    with pytest.raises(AssertionError):
        run_case(case, CHECKS)


# --- transform --------------------------------------------------------------------------------------


def test_draws_come_theta_first_then_coefficients_for_every_device_alike():
    torch.manual_seed(8)
    theta, control = torch.randn(3, 2, 3), torch.randn(3, 16)
    torch.manual_seed(8)
    warp = draw_transform(3, TransformSettings(0.1, 0.2, 4))
    assert torch.allclose(warp.theta, torch.eye(2, 3) + 0.1 * theta)
    assert torch.allclose(warp.control, 0.2 * control) and warp.points == 4


def test_a_frame_that_is_not_square_is_sampled_where_its_points_go():
    warp, size = drawn(), (6, 10)
    places = coordinate_grid(*size).flatten(0, 1).expand(2, -1, -1)
    assert torch.allclose(warp.warp_grid(*size).flatten(1, 2), warp.warp_points(places), atol=1e-6)
    columns = torch.linspace(-1, 1, 10).expand(2, 1, 6, 10)
    sampled = warp.warp_frame(columns, align_corners=True)[:, 0]
    wanted = warp.warp_grid(*size)[..., 0]
    inside = (warp.warp_grid(*size).abs() < 1).all(-1)
    assert inside.float().mean() > 0.5
    assert torch.allclose(sampled[inside], wanted[inside], atol=1e-5)


def test_points_that_a_network_finds_get_a_gradient_through_the_transform():
    value = torch.rand(2, 4, 2).requires_grad_()
    jacobian = torch.eye(2).expand(2, 4, 2, 2)
    found, fixed = KeyPoints(value, jacobian), KeyPoints(value.detach(), jacobian)
    loss = equivariance_value(fixed, found, drawn()) + equivariance_jacobian(fixed, found, drawn())
    (gradient,) = torch.autograd.grad(loss, value)
    assert torch.isfinite(gradient).all() and (gradient != 0).all()


# --- relative motion --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [False, True])
def test_frames_of_a_clip_at_once_equal_frames_one_by_one(scale):
    draw = torch.Generator().manual_seed(1)
    made = [torch.rand(n, 18, 2, generator=draw) for n in (1, 1, 5)]
    sets = [
        KeyPoints(v, torch.eye(2) + 0.1 * torch.rand(*v.shape, 2, generator=draw)) for v in made
    ]
    source, initial, driving = sets
    motion = RelativeMotion(source, initial, RelativeSettings(adapt_movement_scale=scale))
    together = motion(driving)
    for k in range(5):
        alone = motion(driving[k : k + 1])
        assert torch.allclose(together.value[k : k + 1], alone.value)
        assert torch.allclose(together.jacobian[k : k + 1], alone.jacobian, atol=1e-6)


def test_a_face_without_extent_is_an_error_only_where_its_size_matters():
    line = KeyPoints(torch.stack((torch.arange(5.0), torch.arange(5.0)), -1)[None])
    assert torch.equal(RelativeMotion(line, line)(line).value, line.value)
    with pytest.raises(InputError, match="5 points span no area"):
        RelativeMotion(line, line, RelativeSettings(adapt_movement_scale=True))


# --- augmentation -----------------------------------------------------------------------------------


def test_four_colours_are_drawn_in_one_order_and_shuffled_from_another():
    settings = AugmentationSettings(False, False, 0.1, 0.2, 0.3, 0.05)
    plain = random.Random(11)
    factors = {n: plain.uniform(1 - a, 1 + a) for n, a in (("brightness", 0.1), ("contrast", 0.2))}
    factors["saturation"], factors["hue"] = plain.uniform(0.7, 1.3), plain.uniform(-0.05, 0.05)
    order = ["brightness", "saturation", "hue", "contrast"]
    plain.shuffle(order)
    change = draw_augmentation(settings, random.Random(11))
    assert change.colours == tuple((name, factors[name]) for name in order)
    assert not (change.swap or change.mirror)


def test_colours_are_changed_one_after_the_other():
    frame = np.random.default_rng(2).random((6, 5, 3), np.float32)
    both = change_colours(frame, [("contrast", 0.5), ("hue", 0.1)])
    assert np.array_equal(
        both, change_colours(change_colours(frame, [("contrast", 0.5)]), [("hue", 0.1)])
    )
    assert not np.array_equal(both, change_colours(frame, [("hue", 0.1), ("contrast", 0.5)]))


def test_the_given_pair_is_never_written_to():
    frames = np.random.default_rng(0).random((2, 4, 4, 3), np.float32)
    points, before = np.ones((18, 2), np.float32), frames.copy()
    for seed in range(8):
        change = draw_augmentation(AugmentationSettings(), random.Random(seed))
        moved, kept = apply_augmentation(frames, points, change, flip_keypoints=True)
        moved[:], kept[:] = 0, 0
    assert np.array_equal(frames, before) and (points == 1).all()


def test_frames_of_another_shape_are_an_error():
    with pytest.raises(InputError, match=r"must be \(2, H, W, 3\)"):
        apply_augmentation(np.zeros((3, 4, 4, 3)), np.zeros((18, 2)), None)


# --- the step ---------------------------------------------------------------------------------------


VARIANTS = {
    "as shipped": ({}, {}, {}),
    "two scales, key points seen": ({}, {"scales": [1, 0.5], "use_kp": True}, {}),
    "spectral norm": ({}, {"sn": True}, {}),
    "points from the network": ({"prior": False, "keypoint_source": "network"}, {}, {}),
    "corners aligned": ({"align_corners": True}, {}, {}),
    "one Jacobian weight": ({}, {}, {"equivariance_value": 0.0, "feature_matching": (0.0, 0.0)}),
    "no adversary": ({}, {}, {"generator_gan": 0.0}),
    "no equivariance": ({}, {}, {"equivariance_value": 0.0, "equivariance_jacobian": 0.0}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_both_steps_give_the_same_losses_and_gradients(vgg, variant):
    model, judge, given = VARIANTS[variant]
    settings = StepSettings(LossWeights(**given), scales=(1, 0.5))
    batch, found = pairs(keypoints="prior" not in model), []
    for fast in (False, True):
        networks = tiny(judge, **model)
        if fast:
            made = TrainStep(networks, vgg, settings)(batch, drawn())
        else:
            adam = build_optimisers(networks)
            made = reference_iteration(networks, vgg, adam, batch, drawn(), settings)
        found.append((made, gradients(networks)))
    (plain, wanted), (made, ours) = found
    assert list(made.losses) == list(plain.losses)
    for name, loss in plain.losses.items():
        assert torch.allclose(made.losses[name], loss, rtol=1e-4), name
    assert_equal_gradients(ours, wanted)
    assert (made.warped is None) == (variant == "no equivariance")


def test_a_second_call_forgets_the_gradients_of_the_first(vgg):
    networks = tiny()
    step = TrainStep(networks, vgg, StepSettings(scales=(1,)))
    for network in networks.by_key().values():
        network.eval()  # so that running means do not move
    step(pairs(), drawn())
    first = gradients(networks)
    step(pairs(), drawn())
    assert_equal_gradients(gradients(networks), first)


def test_each_loss_pulls_at_its_own_networks_alone(vgg):
    def made(**weights):
        networks = tiny()
        settings = StepSettings(LossWeights(**weights), scales=(1,))
        TrainStep(networks, vgg, settings)(pairs(), drawn())
        return gradients(networks)

    plain, other = made(), made(discriminator_gan=3.0)
    for name, gradient in plain.items():
        if name.startswith("discriminator"):
            assert torch.allclose(other[name], 3 * gradient, rtol=1e-3, atol=1e-5), name
        else:
            assert torch.equal(other[name], gradient), name
    other = made(generator_gan=2.0, equivariance_jacobian=0.0)
    changed = {name.split(".")[0] for name in plain if not torch.equal(plain[name], other[name])}
    assert changed == {"kp_detector", "generator"}


def test_filters_that_read_heat_maps_alone_never_change_and_the_value_loss_trains_nothing(vgg):
    networks = tiny()
    step = TrainStep(networks, vgg, StepSettings(scales=(1,)))
    step(pairs(), drawn())
    motion = networks.generator.dense_motion_network
    first = motion.hourglass.encoder.down_blocks[0].conv.weight.grad
    assert (first[:, ::4] == 0).all() and (first[:, 1::4] != 0).any()
    before = gradients(networks)
    heavy = LossWeights(equivariance_value=1000.0)
    TrainStep(networks, vgg, StepSettings(heavy, (1,)))(pairs(), drawn())
    after = gradients(networks)
    assert all(torch.allclose(after[n], g, rtol=1e-3, atol=1e-5) for n, g in before.items())


def test_nothing_of_the_step_keeps_a_gradient_to_the_losses_that_are_logged(vgg):
    made = TrainStep(tiny(), vgg, StepSettings(scales=(1,)))(pairs(), drawn())
    assert not any(loss.requires_grad for loss in made.losses.values())
    assert made.generated.prediction.shape == made.warped_frame.shape == (2, 3, 32, 32)


def test_training_without_jacobians_is_refused(vgg):
    step = TrainStep(tiny_without_jacobians(), vgg, StepSettings(scales=(1,)))
    with pytest.raises(InputError, match="estimate_jacobian"):
        step(pairs(), drawn())


def tiny_without_jacobians():
    settings = ModelSettings(
        estimate_jacobian=False,
        kp_detector_params=HOURGLASS,
        generator_params=PAINTER,
        discriminator_params=JUDGE,
    )
    return build_networks(settings)


def test_the_reference_takes_another_pyramid(vgg):
    class Darker(ImagePyramid):
        def forward(self, image):
            return {scale: image / 2 for scale, image in super().forward(image).items()}

    losses = []
    for kind in (ImagePyramid, Darker):
        networks = tiny()
        made = reference_iteration(
            networks,
            vgg,
            build_optimisers(networks),
            pairs(),
            drawn(),
            StepSettings(scales=(1,)),
            kind((1,)),
        )
        losses.append(made.losses["perceptual"])
    assert losses[1] < losses[0]
