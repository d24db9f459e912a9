"""The networks of the first-order motion model: right properties, right names, wrong weight files refused."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from golden.fill import fill, make_input
from golden.fomm_networks_checks import CHECKS
from golden.harness import GoldenSet, run_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from facecomp.fomm import checkpoints as cp
from facecomp.fomm.blocks import (
    AntiAlias,
    Hourglass,
    ImagePyramid,
    antialias_kernel,
    synchronised,
)
from facecomp.fomm.detector import KeyPointDetector
from facecomp.fomm.discriminator import MultiScaleDiscriminator
from facecomp.fomm.generator import Generator
from facecomp.fomm.motion import (
    DenseMotion,
    KeyPoints,
    coordinate_grid,
    gaussian_maps,
    heat_maps,
    inverse_jacobian,
    moved_copies,
    sample,
    sparse_motions,
)
from facecomp.fomm.prior import PriorCache, prior_maps
from facecomp.records.files import InputError

GOLDEN = ROOT / "tests" / "golden" / "fomm"
HOURGLASS = {"block_expansion": 4, "max_features": 8, "num_blocks": 2}
GENERATOR = {"block_expansion": 4, "max_features": 8, "num_bottleneck_blocks": 1}
GENERATOR |= {"dense_motion_params": HOURGLASS}
JUDGE = {"block_expansion": 4, "max_features": 8, "num_blocks": 2}


def small(**given) -> cp.Networks:
    torch.manual_seed(given.pop("seed", 0))
    parts = {"kp_detector_params": HOURGLASS, "generator_params": GENERATOR}
    return cp.build_networks(
        cp.ModelSettings(**{"num_kp": 3, **parts, "discriminator_params": JUDGE, **given})
    )


def faces(count=2, points=3, seed=0, spread=0.2) -> KeyPoints:
    made = torch.Generator().manual_seed(seed)
    value = 1.2 * torch.rand(count, points, 2, generator=made) - 0.6
    turn = torch.eye(2) + spread * torch.randn(count, points, 2, 2, generator=made)
    return KeyPoints(value, turn)


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def refused(action, *words) -> None:
    """`action` raises an error of one line that holds `words`."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# --- names -------------------------------------------------------------------------------------------

LISTED = json.loads((GOLDEN / "state_dict.json").read_text())
FOMM = {"prior": False, "keypoint_source": "network", "num_kp": 10}
MODELS = {
    "facial prior": {},
    "vox-256": FOMM | {"discriminator_params": {"sn": True}},
    "vox-adv-256": FOMM | {"discriminator_params": {"use_kp": True}},
}


@pytest.fixture(scope="module", params=MODELS)
def shipped(request):
    """The name of a published model and its networks, without memory for the weights."""
    with torch.device("meta"):
        return request.param, cp.build_networks(cp.ModelSettings(**MODELS[request.param]))


def listed(model: str, key: str) -> tuple[dict, int]:
    """Shapes by name and the number of parameters, as published."""
    part = LISTED["networks"][key]
    if model == "facial prior":
        return part["tensors"], part["parameters"]
    change = LISTED["changes"][model][key]
    tensors = {k: v for k, v in {**part["tensors"], **change["tensors"]}.items() if v is not None}
    return tensors, change["parameters"]


def test_names_shapes_and_numbers_of_weights_are_the_published_ones(shipped):
    model, networks = shipped
    for key, network in networks.by_key().items():
        tensors, count = listed(model, key)
        found = {name: list(x.shape) for name, x in network.state_dict().items()}
        assert found == tensors, (model, key)
        assert sum(p.numel() for p in network.parameters()) == count


def test_weights_stand_in_the_published_order_since_optimisers_count_them():
    with torch.device("meta"):
        networks = cp.build_networks()
    for key, network in networks.by_key().items():
        assert list(network.state_dict()) == list(LISTED["networks"][key]["tensors"]), key


# --- blocks ------------------------------------------------------------------------------------------


@given(st.integers(8, 40), st.integers(8, 40), st.sampled_from([0.5, 0.25, 0.125]))
@settings(max_examples=20, deadline=None)
def test_reducing_equals_a_whole_blur_and_then_every_nth_pixel(height, width, scale):
    x, step = picture(1, 2, height, width), round(1 / scale)
    kernel = antialias_kernel(scale).repeat(2, 1, 1, 1)
    whole = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=2)
    assert torch.allclose(AntiAlias(2, scale)(x), whole[..., ::step, ::step], atol=1e-6)


def test_reducing_keeps_a_flat_picture_away_from_the_border():
    small_picture = AntiAlias(1, 0.25)(torch.full((1, 1, 64, 64), 0.7))
    assert torch.allclose(small_picture[..., 2:-2, 2:-2], torch.tensor(0.7))
    assert (small_picture[..., 0] < 0.7).all()  # zeros outside


def test_a_pyramid_has_no_kernel_for_the_whole_picture():
    assert list(ImagePyramid([1, 0.5]).state_dict()) == ["downs.1.weight"]


def test_the_hourglass_ends_with_its_input():
    net, x = Hourglass(4, 3, 2, 8).eval(), picture(2, 3, 8, 12)
    assert torch.equal(net(x)[:, -3:], x)


def test_synchronised_norms_change_neither_names_nor_numbers():
    net = DenseMotion(3, **HOURGLASS)
    before = {name: x.clone() for name, x in net.state_dict().items()}
    after = synchronised(net)
    assert not [m for m in after.modules() if type(m) is nn.BatchNorm2d]
    assert list(after.state_dict()) == list(before)
    assert all(torch.equal(x, before[name]) for name, x in after.state_dict().items())


# --- prior -------------------------------------------------------------------------------------------


def plain_prior(points, size, image, sigma=0.75):
    """The prior of one face, pixel by pixel."""
    total = np.zeros((size, size))
    for px, py in np.asarray(points, np.float32) * np.float32(size / image):
        bump = np.empty((size, size))
        for r in range(size):
            for c in range(size):
                distance = abs(r + 1 - float(py)) + abs(c + 1 - float(px))
                bump[r, c] = np.exp(-np.sqrt(distance) / (2 * sigma**2))
        bump /= bump.max()
        bump[bump < bump.mean()] = 0
        total += bump
    return total / total.max()


@pytest.mark.parametrize("size,image,sigma", [(9, 40, 0.75), (12, 48, 1.3)])
def test_the_prior_equals_a_loop_over_points_and_pixels(size, image, sigma):
    points = image * (1.4 * picture(2, 5, 2) - 0.2)  # some outside the frame
    made = prior_maps(points, size, image, sigma)
    for k in range(2):
        wanted = plain_prior(points[k].numpy(), size, image, sigma)
        assert np.allclose(made[k, 0].numpy(), wanted, atol=1e-6)


def test_the_prior_does_not_depend_on_the_order_of_points_or_faces():
    points = 64 * picture(3, 6, 2)
    made = prior_maps(points, 16, 64)
    assert torch.allclose(prior_maps(points.flip(1), 16, 64), made, atol=1e-6)
    assert torch.equal(prior_maps(points.flip(0), 16, 64), made.flip(0))


def test_no_gradient_flows_through_the_prior():
    points = (64 * picture(1, 3, 2)).requires_grad_()
    assert not prior_maps(points, 16, 64).requires_grad


def test_kept_priors_belong_to_points_and_sizes():
    cache, points = PriorCache(), 64 * picture(2, 3, 2)
    first = cache(points, 16, 64)
    assert cache(points, 8, 64).shape[-1] == 8 and len(cache.kept) == 4
    first[0] = 7  # what the caller does with it must not come back
    assert torch.equal(cache(points, 16, 64), prior_maps(points, 16, 64))
    assert torch.equal(cache(points, 16, 128), prior_maps(points, 16, 128))


def test_a_batch_larger_than_the_cache_is_still_whole():
    cache, points = PriorCache(limit=2), 64 * picture(5, 3, 2)
    assert torch.equal(cache(points, 16, 64), prior_maps(points, 16, 64))
    assert torch.equal(cache(points, 16, 64), prior_maps(points, 16, 64)) and len(cache.kept) == 2


def test_points_that_are_no_numbers_are_refused():
    refused(lambda: PriorCache()(torch.full((1, 2, 2), float("nan")), 16, 64), "not finite")


# --- detector ----------------------------------------------------------------------------------------


def trained(detector: KeyPointDetector) -> KeyPointDetector:
    """As after training: the Jacobian head is no longer zero."""
    nn.init.normal_(detector.jacobian.weight, std=0.05)
    return detector.eval()


@torch.no_grad()
def test_a_prior_at_hand_is_taken_instead_of_a_new_one():
    net, frame, points = trained(small().kp_detector), picture(2, 3, 64, 64), 64 * picture(2, 3, 2)
    own = net(frame, points)
    given_prior = net(frame, points, prior_maps(points, 16, 64))
    other = net(frame, points, torch.zeros(2, 1, 16, 16))
    assert torch.equal(own.jacobian, given_prior.jacobian)
    assert not torch.allclose(own.jacobian, other.jacobian, atol=1e-4)


@torch.no_grad()
def test_every_face_of_a_batch_is_seen_alone():
    net, frame, points = trained(small().kp_detector), picture(3, 3, 64, 64), 64 * picture(3, 3, 2)
    together = net(frame, points)
    alone = net(frame[1:2], points[1:2])
    assert torch.allclose(together.jacobian[1:2], alone.jacobian, atol=1e-5)


@torch.no_grad()
def test_positions_from_the_network_are_where_its_map_is_bright():
    net = small(prior=False, keypoint_source="network").kp_detector.eval()
    maps = torch.zeros(1, 3, 10, 14)
    maps[0, 0, 2, 5] = maps[0, 1, 9, 0] = 50.0  # the third map is flat
    net.kp.forward = lambda _: maps
    value = net(picture(1, 3, 64, 80)).value[0]
    grid = coordinate_grid(10, 14)
    assert torch.allclose(value[:2], torch.stack((grid[2, 5], grid[9, 0])), atol=1e-6)
    assert value[2].abs().max() < 1e-6


def test_the_bias_of_the_position_maps_has_no_effect():
    net = trained(small().kp_detector)
    frame, points = picture(1, 3, 64, 64), 64 * picture(1, 3, 2)
    before = net(frame, points).jacobian
    before.square().sum().backward()
    assert net.kp.bias.grad.abs().max() < 1e-4 < net.kp.weight.grad.abs().max()
    with torch.no_grad():
        net.kp.bias += 3 * picture(3)
    assert torch.allclose(net(frame, points).jacobian, before, atol=1e-4)


def test_a_detector_without_jacobians_gives_none():
    net = small(estimate_jacobian=False).kp_detector.eval()
    assert net(picture(1, 3, 64, 64), 64 * picture(1, 3, 2)).jacobian is None
    assert not [name for name in net.state_dict() if name.startswith("jacobian")]


def test_one_jacobian_map_serves_all_points():
    net = KeyPointDetector(3, **HOURGLASS, single_jacobian_map=True)
    found = trained(net)(picture(2, 3, 64, 64), 64 * picture(2, 3, 2)).jacobian
    assert net.jacobian.out_channels == 4 and found.shape == (2, 3, 2, 2)
    assert not torch.allclose(found[:, 0], found[:, 1])  # each point weights it in its own way


@pytest.mark.parametrize("points", [None, torch.zeros(1, 4, 2), torch.zeros(2, 3, 2)])
def test_a_detector_with_prior_needs_the_points_of_every_face(points):
    refused(lambda: small().kp_detector(picture(1, 3, 64, 64), points), "points", "(1, 3, 2)")


# --- motion ------------------------------------------------------------------------------------------


def test_each_motion_takes_the_driving_point_to_the_source_point():
    source, driving = faces(seed=1), faces(seed=2)
    grid = coordinate_grid(33, 33)
    place = grid[20, 7].expand(2, 3, 2)
    at_pixel = KeyPoints(place, driving.jacobian)  # driving points exactly on a pixel
    moved = sparse_motions(source, at_pixel, 33, 33)[:, 1:, 20, 7]
    assert torch.allclose(moved, source.value, atol=1e-6)


def test_equal_points_and_jacobians_leave_every_place_where_it_is():
    face = faces()
    moved = sparse_motions(face, face, 12, 16)
    assert torch.allclose(moved, coordinate_grid(12, 16).expand_as(moved), atol=1e-5)
    assert heat_maps(face.value, face.value, (12, 16)).abs().max() == 0


def test_a_single_source_face_serves_many_driving_faces():
    source, driving = faces(1, seed=1), faces(4, seed=2)
    together = sparse_motions(source, driving, 6, 8)
    each = [sparse_motions(source, driving[k : k + 1], 6, 8) for k in range(4)]
    assert torch.equal(together, torch.cat(each))


def test_jacobians_of_one_face_alone_are_not_used():
    source, driving = faces(seed=1), faces(seed=2)
    shifted = sparse_motions(source, KeyPoints(driving.value), 6, 8)
    assert torch.equal(shifted, sparse_motions(KeyPoints(source.value), driving, 6, 8))
    assert torch.allclose(
        shifted[0, 2] - coordinate_grid(6, 8), source.value[0, 1] - driving.value[0, 1], atol=1e-6
    )


@pytest.mark.parametrize("align_corners", [False, True])
def test_one_tall_grid_gives_the_pictures_of_single_calls_and_their_gradients(align_corners):
    image, points = picture(2, 3, 9, 11), faces(seed=3)
    grids = [sparse_motions(points, faces(seed=4), 9, 11).requires_grad_() for _ in range(2)]
    together = moved_copies(image, grids[0], align_corners)
    single = torch.stack(
        [
            F.grid_sample(image, grids[1][:, k], align_corners=align_corners)
            for k in range(grids[1].shape[1])
        ],
        1,
    )
    assert torch.equal(together, single)
    for made, grid in zip((together, single), grids, strict=True):
        made.square().sum().backward()
        assert grid.grad.abs().max() > 0
    assert torch.equal(grids[0].grad, grids[1].grad)


def test_a_bump_is_one_at_its_point():
    grid = coordinate_grid(9, 17)
    assert gaussian_maps(grid[3, 12].view(1, 1, 2), 9, 17)[0, 0].argmax() == 3 * 17 + 12


def test_a_singular_jacobian_is_an_error():
    with pytest.raises(torch.linalg.LinAlgError):
        inverse_jacobian(torch.zeros(1, 2, 2))


def test_a_deformation_of_another_size_is_enlarged_between_pixel_centres():
    image, coarse = picture(1, 2, 16, 16), coordinate_grid(4, 4)[None]
    flow = coarse.permute(0, 3, 1, 2)
    fine = F.interpolate(flow, (16, 16), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    wanted = F.grid_sample(image, fine, align_corners=True)
    assert torch.equal(sample(image, coarse, align_corners=True), wanted)


def test_filters_that_read_heat_maps_never_learn_from_pairs_with_equal_points():
    torch.manual_seed(0)
    net = DenseMotion(3, **HOURGLASS)
    source, driving = faces(seed=1), KeyPoints(faces(seed=1).value, faces(seed=2).jacobian)
    motion = net(picture(2, 3, 64, 64), source, driving)
    (motion.deformation.square().sum() + motion.occlusion_map.sum()).backward()
    first = net.hourglass.encoder.down_blocks[0].conv.weight.grad
    assert first[:, 0::4].abs().max() == 0 < first[:, 1::4].abs().max()
    for head in (net.mask, net.occlusion):  # they see the input again in the last channels
        seen = head.weight.grad[:, -16:]
        assert seen[:, 0::4].abs().max() == 0 < seen[:, 1::4].abs().max()


# --- generator ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("down_blocks", [1, 2, 3])  # features larger, equal, smaller than motion
def test_a_source_face_computed_once_gives_the_same_clip(down_blocks):
    torch.manual_seed(0)
    net = Generator(3, **GENERATOR, num_down_blocks=down_blocks).eval()
    frame, source, driving = picture(1, 3, 64, 64), faces(1, seed=1), faces(3, seed=2)
    clip = net.decode(net.encode(frame), source, driving)
    each = [net(frame, source, driving[k : k + 1]) for k in range(3)]
    assert torch.allclose(clip.prediction, torch.cat([e.prediction for e in each]), atol=1e-6)
    assert torch.allclose(clip.deformed(), torch.cat([e.deformed() for e in each]), atol=1e-6)


@torch.no_grad()
def test_nothing_of_the_source_is_seen_where_all_is_hidden():
    net = small().generator.eval()
    net.dense_motion_network.occlusion.weight.zero_()
    net.dense_motion_network.occlusion.bias.fill_(-1e4)
    source, driving = faces(seed=1), faces(seed=2)
    one, two = (net(picture(2, 3, 64, 64, seed=s), source, driving) for s in (1, 2))
    assert torch.equal(one.prediction, two.prediction)
    assert not torch.equal(one.deformed(), two.deformed())


@torch.no_grad()
def test_a_generator_without_occlusion_map():
    torch.manual_seed(0)
    net = Generator(3, **GENERATOR, estimate_occlusion_map=False).eval()
    made = net(picture(2, 3, 64, 64), faces(seed=1), faces(seed=2))
    assert made.motion.occlusion_map is None and made.prediction.shape == (2, 3, 64, 64)


@torch.no_grad()
def test_the_sampler_setting_reaches_every_sampler():
    pictures = {}
    for align_corners in (False, True):
        net = small(align_corners=align_corners).generator.eval()
        pictures[align_corners] = net(picture(2, 3, 64, 64), faces(seed=1), faces(seed=2))
    apart = {
        "copies": [p.motion.sparse_deformed for p in pictures.values()],
        "deformed": [p.deformed() for p in pictures.values()],
        "prediction": [p.prediction for p in pictures.values()],
    }
    assert all(not torch.allclose(a, b, atol=1e-5) for a, b in apart.values())


def test_every_weight_of_the_generator_gets_a_gradient():
    net = small().generator
    made = net(picture(2, 3, 64, 64), faces(seed=1), faces(seed=2))
    made.prediction.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []


# --- discriminator -----------------------------------------------------------------------------------


def test_recorded_and_predicted_frames_may_be_one_batch():
    net, frames = small().discriminator, picture(4, 3, 64, 64)
    together, first = net({1: frames})[1], net({1: frames[:2]})[1]
    assert torch.allclose(together.prediction[:2], first.prediction, atol=1e-5)
    for a, b in zip(together.features, first.features, strict=True):
        assert torch.allclose(a[:2], b, atol=1e-5)


def test_spectral_norm_makes_the_largest_singular_value_one():
    torch.manual_seed(0)
    net = MultiScaleDiscriminator(**JUDGE, sn=True)
    for _ in range(60):
        net({1: picture(1, 3, 64, 64)})
    for block in net.discs["1"].down_blocks:
        assert abs(torch.linalg.matrix_norm(block.conv.weight.flatten(1), 2) - 1) < 1e-2


def test_key_points_change_what_the_discriminator_says():
    torch.manual_seed(0)
    net, frame = MultiScaleDiscriminator(**JUDGE, use_kp=True, num_kp=3), picture(1, 3, 64, 64)
    one, two = (net({1: frame}, faces(1, seed=s).value)[1].prediction for s in (1, 2))
    assert not torch.allclose(one, two, atol=1e-4)
    refused(lambda: net({1: frame}), "key points")
    refused(lambda: net({0.5: frame}), "scale 1")


# --- weight files ------------------------------------------------------------------------------------

KINDS = {
    "facial prior": {},
    "FOMM plain": {"prior": False, "keypoint_source": "network"}
    | {"discriminator_params": JUDGE | {"sn": True}},
    "FOMM adversarial": {"prior": False, "keypoint_source": "network"}
    | {"discriminator_params": JUDGE | {"use_kp": True, "scales": [1, 0.5]}},
}


def content_of(networks: cp.Networks) -> dict:
    return {
        key: {name: x.clone() for name, x in network.state_dict().items()}
        for key, network in networks.by_key().items()
    }


@pytest.fixture
def write(tmp_path):
    def save(content, name="w.pth.tar"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_every_kind_of_file_builds_its_own_networks(kind, wrapped, write):
    networks = small(**KINDS[kind])
    content = content_of(networks)
    if wrapped:
        content = {
            k: {f"module.{name}": x for name, x in part.items()} for k, part in content.items()
        }
    read, checkpoint = cp.import_model(write(content | {"epoch": 99}))
    assert checkpoint.kind == kind and checkpoint.others == {"epoch": 99}
    frame, points = picture(1, 3, 64, 64), 64 * picture(1, 3, 2)
    given = (points,) if kind == "facial prior" else ()
    for key, network in networks.by_key().items():
        other = read.by_key()[key]
        assert not other.training
        assert {k: x.tolist() for k, x in network.state_dict().items()} == {
            k: x.tolist() for k, x in other.state_dict().items()
        }
    found = [net.kp_detector.eval()(frame, *given) for net in (networks, read)]
    assert torch.equal(found[0].value, found[1].value)
    made = [net.generator.eval()(frame, found[0], found[1]) for net in (networks, read)]
    assert torch.equal(made[0].prediction, made[1].prediction)


FAULTS = {
    "no part named generator": lambda c: c.pop("generator"),
    "no part named kp_detector": lambda c: c.pop("kp_detector"),
    "bottleneck.r0.conv1.bias": lambda c: c["generator"].pop("bottleneck.r0.conv1.bias"),
    "extra (more)": lambda c: c["discriminator"].update(more=torch.zeros(1)),
    "final.weight is [3, 4, 7, 5]": lambda c: c["generator"].update(
        {"final.weight": torch.zeros(3, 4, 7, 5)}
    ),
    "not finite": lambda c: c["kp_detector"]["kp.weight"].fill_(float("nan")),
    "no fitting tensor kp.weight": lambda c: c["kp_detector"].pop("kp.weight"),
    "no fitting tensor first.conv.weight": lambda c: c["generator"].pop("first.conv.weight"),
    "not a mapping from names to tensors": lambda c: c.update(kp_detector={"kp.weight": 1.0}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_or_partial_file_is_refused_and_nothing_is_loaded(fault, write):
    target = small(seed=1)
    before, content = content_of(target), content_of(small())
    FAULTS[fault](content)
    path = write(content)
    refused(lambda: cp.load_model(target, cp.read_model(path)), str(path), fault)
    for key, part in content_of(target).items():
        assert all(torch.equal(x, before[key][name]) for name, x in part.items()), key


def test_weights_of_another_size_are_refused(write):
    path = write(content_of(small(num_kp=4)))
    refused(lambda: cp.load_model(small(), cp.read_model(path)), "of another shape", "kp.weight")


def test_a_file_that_is_no_weight_file_is_refused(tmp_path):
    (tmp_path / "page").write_text("<!DOCTYPE html>")
    refused(lambda: cp.import_model(tmp_path / "page"), "HTML page")
    refused(lambda: cp.import_model(tmp_path / "absent"), "absent")


def test_a_missing_discriminator_is_told_and_counters_of_batches_may_be_absent(write):
    content = content_of(small())
    del content["discriminator"]
    for part in content.values():
        for name in [name for name in part if name.endswith("num_batches_tracked")]:
            del part[name]
    target = small(seed=1)
    assert cp.load_model(target, cp.read_model(write(content))) == ["discriminator"]
    loaded = target.generator.state_dict()
    assert all(torch.equal(x, loaded[name]) for name, x in content["generator"].items())


@torch.no_grad()
def test_a_warm_start_copies_what_fits_and_begins_without_effect_of_the_prior(write):
    fomm, ours = small(**KINDS["FOMM plain"], seed=1), small(seed=2)
    found = cp.warm_start(ours, cp.read_model(write(content_of(fomm))))
    assert found.widened == (f"kp_detector.{cp.FIRST}",)
    assert "generator.final.weight" in found.copied and "kp_detector.kp.weight" in found.new
    assert torch.equal(ours.generator.final.weight, fomm.generator.final.weight)
    encoders = [net.kp_detector.predictor.encoder.eval() for net in (fomm, ours)]
    seen = picture(1, 3, 16, 16)
    with_prior = torch.cat((seen, picture(1, 1, 16, 16, seed=5)), 1)
    assert torch.allclose(encoders[0](seen)[-1], encoders[1](with_prior)[-1], atol=1e-6)


def test_a_warm_start_from_quite_another_network_is_refused(write):
    other = cp.Checkpoint("w", {"generator": {"a": torch.zeros(1)}}, cp.ModelSettings(), {})
    refused(lambda: cp.warm_start(small(), other), "no tensor has the shape")


# --- reference arrays --------------------------------------------------------------------------------


def test_another_set_of_reference_arrays_passes_with_its_salt_only(tmp_path):
    salt, size = "other", [1, 3, 48, 48]
    net = DenseMotion(5, **HOURGLASS | {"block_expansion": 6})
    fill(net.state_dict(), salt, ["down.weight"])
    made = {
        "source": make_input("s", size, salt=salt),
        "src_value": make_input("a", [1, 5, 2], -0.5, 0.5, salt),
        "drv_value": make_input("b", [1, 5, 2], -0.5, 0.5, salt),
    }
    x = {name: torch.from_numpy(array) for name, array in made.items()}
    with torch.no_grad():
        motion = net.eval()(x["source"], KeyPoints(x["src_value"]), KeyPoints(x["drv_value"]))
    np.savez(tmp_path / "m.npz", mask=motion.mask.numpy())
    case = {
        "id": "shifts",
        "check": "fomm.dense_motion",
        "file": "m.npz",
        "model": {"args": {"num_kp": 5, **HOURGLASS, "block_expansion": 6}},
        "inputs": {
            "source": {"make_input": "s", "shape": size},
            "src_value": {"make_input": "a", "shape": [1, 5, 2], "low": -0.5, "high": 0.5},
            "drv_value": {"make_input": "b", "shape": [1, 5, 2], "low": -0.5, "high": 0.5},
        },
        "expect": [{"output": "mask", "array": "mask", "rtol": 1e-4, "atol": 5e-6}],
    }
    (tmp_path / "cases.json").write_text(json.dumps({"format": 1, "cases": [case]}))
    run_case(GoldenSet.read(tmp_path, salt).case("shifts"), CHECKS)
    with pytest.raises(AssertionError, match="outside"):
        run_case(GoldenSet.read(tmp_path, "").case("shifts"), CHECKS)


def test_every_shipped_array_is_compared_or_an_input():
    text = (GOLDEN / "cases.json").read_text()
    files = ("prior", "antialias_grid_gaussian", "kp_detector", "dense_motion", "generator")
    for file in (*files, "discriminator", "full_256"):
        with np.load(GOLDEN / f"{file}.npz") as arrays:
            assert [name for name in arrays if f'"{name}"' not in text] == [], file
