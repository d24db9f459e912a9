"""Networks, weights, losses and steps: wrong files are refused, numbers have the properties they should."""

import json

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.layers.attention import AttentionBlock
from facecomp.layers.ssim import ssim
from facecomp.layers.vgg import VGG19_LAYERS, Vgg19, load_vgg_parts, random_vgg, vgg_weights
from facecomp.layers.warp import inverse_flow, sample, warp_features, warp_image
from facecomp.layers.weights import file_kind, key_faults, read_weights
from facecomp.psm import networks as nw
from facecomp.psm.losses import gram, neutral_weight, symmetry
from facecomp.psm.steps import TrainStep, build_optimiser, reference_step, swap
from facecomp.records.files import InputError

WIDTH = 16


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(2)
    return nw.build_networks(WIDTH, random_vgg(0, WIDTH))


@pytest.fixture
def state(small):
    return nw.published_state(small)


def refused(action, *words) -> str:
    """The one line of the error of `action`, which must hold `words`."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message
    return message


# --- names, shapes, sizes -----------------------------------------------------------------------------

SIZES = {
    nw.MotionEncoder: (48, 4_240_000, 4_240_000),
    nw.MotionDecoder: (31, 2_996_544, 2_996_544),
    nw.FaceGenerator: (62, 13_409_475, 12_854_147),
    nw.IdentityNormaliser: (54, 10_014_275, 9_458_947),
    Vgg19: (26, 12_944_960, 0),
}


@pytest.mark.parametrize("kind", SIZES, ids=lambda k: k.__name__)
def test_tensors_and_parameters(kind):
    network = kind()
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert (len(network.state_dict()), total, trained) == SIZES[kind]
    assert not list(network.buffers())


def test_names_and_order_are_the_published_ones():
    shipped = ROOT / "tests" / "golden" / "psm" / "state_dict.json"
    for key, entries in json.loads(shipped.read_text()).items():
        made = {
            "codegeneration": nw.MotionEncoder,
            "exptoflow": nw.MotionDecoder,
            "Swap_Generator": nw.FaceGenerator,
            "Swap_Norm": nw.IdentityNormaliser,
            "vgg19": Vgg19,
        }[key]()
        ours = [f"{name} {list(t.shape)}" for name, t in made.state_dict().items()]
        assert ours == entries, key


def test_initial_values():
    torch.manual_seed(2)
    encoder, decoder = nw.MotionEncoder(), nw.MotionDecoder()
    for conv in (encoder.conv1[2], encoder.layer2_2[0], decoder.motiongen1[0]):
        out, _, kh, kw = conv.weight.shape
        assert abs(conv.weight.std() / (2 / (kh * kw * out)) ** 0.5 - 1) < 0.03
        assert conv.bias.abs().max() == 0
    assert abs(encoder.expresscode[0].weight.std() - 0.01) < 1e-4
    assert abs(decoder.toflow4[1].weight.std() - 0.05) < 2e-3
    torch.manual_seed(2)
    assert torch.equal(nw.MotionEncoder().conv1[0].weight, encoder.conv1[0].weight)


@pytest.mark.parametrize("width", [0, 3, 128])
def test_a_width_that_does_not_divide_is_refused(width):
    refused(lambda: nw.MotionEncoder(width), f"width {width}")


# --- wrong weights ------------------------------------------------------------------------------------


def edited(state, key, change):
    part = dict(state[key])
    change(part)
    return {**state, key: part}


def rename(part):
    part["conv1.0.wieght"] = part.pop("conv1.0.weight")


def transpose(part):
    part["expresscode.0.weight"] = part["expresscode.0.weight"].T.contiguous()


def not_finite(part):
    part["conv1.0.bias"] = part["conv1.0.bias"].clone().fill_(float("nan"))


WRONG = {
    "missing": (lambda p: p.pop("conv1.0.bias"), ("1 missing (conv1.0.bias)",)),
    "extra": (lambda p: p.update(more=torch.zeros(1)), ("1 extra (more)",)),
    "renamed": (rename, ("conv1.0.wieght should be conv1.0.weight",)),
    "transposed": (transpose, ("expresscode.0.weight", "transposed")),
    "mis-shaped": (lambda p: p.update({"conv1.0.bias": torch.zeros(5)}), ("is [5], not [4]",)),
    "not finite": (not_finite, ("not finite",)),
    "no tensors": (lambda p: p.update(epoch=3), ("not a mapping from names to tensors",)),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_checkpoints_are_refused_and_change_nothing(small, state, tmp_path, fault):
    change, words = WRONG[fault]
    before = {k: {n: t.clone() for n, t in part.items()} for k, part in state.items()}
    path = tmp_path / "ExpCode_10.tar"
    wrong = edited(state, "codegeneration", change)
    wrong["exptoflow"] = {n: t + 1 for n, t in wrong["exptoflow"].items()}
    torch.save(dict(reversed(wrong.items())), path)
    message = refused(lambda: nw.load_published(small, path), str(path), "codegeneration", *words)
    assert "give a file saved by" in message
    after = nw.published_state(small)
    assert all(torch.equal(t, after[k][n]) for k, part in before.items() for n, t in part.items())


def test_the_prefix_of_data_parallel_is_taken_off(small, state, tmp_path):
    path = tmp_path / "prefixed.tar"
    prefixed = {k: {f"module.{n}": t for n, t in part.items()} for k, part in state.items()}
    torch.save(prefixed, path)
    other = nw.build_networks(WIDTH)
    nw.load_published(other, path)
    assert torch.equal(other.encoder.conv1[0].weight, small.encoder.conv1[0].weight)
    mixed = edited(prefixed, "exptoflow", lambda p: p.update(plain=torch.zeros(1)))
    torch.save(mixed, path)
    refused(lambda: nw.load_published(other, path), "exptoflow", "missing", "extra")


def test_the_complete_file_of_facecycle_loads(small, state, tmp_path):
    path = tmp_path / "FaceCycleModel.tar"
    encoder, normaliser = nw.MotionEncoder(WIDTH), nw.IdentityNormaliser(WIDTH)
    whole = {**state, "idcodegen": encoder.state_dict(), "Swap_Norm": normaliser.state_dict()}
    torch.save(whole, path)
    nw.load_published(small, path)
    again = nw.MotionEncoder(WIDTH)
    nw.load_identity(again, nw.IdentityNormaliser(WIDTH), path)
    assert torch.equal(again.conv1[0].weight, encoder.conv1[0].weight)
    torch.save(state, path)
    refused(lambda: nw.load_identity(again, normaliser, path), "lacks idcodegen, Swap_Norm")
    torch.save({**state, "optimiser": {}}, path)
    refused(lambda: nw.load_published(small, path), "unknown optimiser")
    torch.save(state["exptoflow"], path)
    refused(lambda: nw.load_published(small, path), "lacks codegeneration", "unknown")
    torch.save([1, 2], path)
    refused(lambda: nw.load_published(small, path), "holds a list")


def test_a_checkpoint_of_another_width_is_refused(small, tmp_path):
    path = tmp_path / "ExpCode_10.tar"
    torch.save(nw.published_state(nw.build_networks(32)), path)
    refused(lambda: nw.load_published(small, path), "of another shape", "width")


class Harmful:
    def __reduce__(self):
        return print, ("code ran",)


FOREIGN = {
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "empty": (b"", "empty file"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "unpack it first"),
    "text": (b"version https://git-lfs", "git lfs pull"),
    "old and damaged": (b"\x80\x02garbage", "the file is damaged"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_named_for_what_they_are(tmp_path, kind):
    content, words = FOREIGN[kind]
    path = tmp_path / "vgg19.pth"
    path.write_bytes(content)
    refused(lambda: vgg_weights(path), str(path), words)


def test_truncated_files_and_files_with_code(tmp_path, capsys):
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(50_000)}, path)
    whole = path.read_bytes()
    for size in (10, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(lambda: read_weights(path), "a.pth")
    torch.save({"w": Harmful()}, path)
    refused(lambda: read_weights(path), "holds objects")
    assert "code ran" not in capsys.readouterr().out
    refused(lambda: file_kind(tmp_path), "cannot be read")
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    assert file_kind(path) == "torch (old format)" and read_weights(path)["w"].sum() == 3
    path.write_bytes(path.read_bytes()[:-10])
    refused(lambda: read_weights(path), "is damaged")


def test_vgg_weights_from_cache_file_and_seed(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    refused(lambda: vgg_weights("imagenet"), "are not there", "random")
    given = random_vgg(3)
    names = {
        f"features.{VGG19_LAYERS[k.split('.')[0]]}.{k.split('.')[1]}": k for k in given.tensors
    }
    whole = {name: given.tensors[k] for name, k in names.items()}
    whole |= {f"features.{i}.{k}": torch.zeros(1) for i in (30, 32, 34) for k in ("weight", "bias")}
    whole |= {"classifier.0.weight": torch.zeros(1)}
    cache = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    cache.parent.mkdir(parents=True)
    torch.save(whole, cache)
    found = vgg_weights("imagenet")
    assert torch.equal(found.tensors["conv4_1.weight"], given.tensors["conv4_1.weight"])
    assert not found.random and len(found.sha256) == 64 and vgg_weights("random:3").random
    network = Vgg19(found)
    torch.save(network.state_dict(), cache)
    assert list(vgg_weights(cache).tensors) == list(given.tensors)
    del whole["features.10.weight"]
    torch.save(whole, cache)
    refused(lambda: vgg_weights(cache), "is not VGG19", "1 missing (conv3_1.weight)")
    refused(lambda: load_vgg_parts(Vgg19(width=2), given), "other width")


@given(st.permutations(["a", "b", "c"]), st.integers(1, 4))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_key_faults_see_every_difference(names, size):
    want = {name: (size + i, 7) for i, name in enumerate("abc")}
    assert key_faults({n: want[n] for n in names}, want) == []
    assert key_faults({n: want[n] for n in names[1:]}, want)
    assert key_faults({**want, names[0]: (99,)}, want)
    assert key_faults({**want, "d": (1,)}, want)


# --- shapes and sizes that do not fit -----------------------------------------------------------------


def test_inputs_of_wrong_size_are_refused(small):
    refused(lambda: small.encoder(torch.zeros(1, 3, 32, 32)), "(B, 3, 64, 64)")
    for shape in ((1, 3, 30, 30), (1, 3, 32, 64), (1, 1, 32, 32), (3, 32, 32)):
        refused(lambda shape=shape: small.generator(torch.zeros(shape)), "multiple of 4")
    refused(lambda: sample(torch.zeros(2, 1, 4, 4), torch.zeros(1, 2, 4, 4)), "same B")
    refused(lambda: swap(torch.zeros(3)), "even number")
    refused(lambda: symmetry(torch.zeros(1, 1, 2, 3)), "width 3")
    code, face = torch.zeros(1, 256, 1, 1), torch.zeros(1, 3, 32, 32)
    refused(lambda: nw.IdentityNormaliser(WIDTH)(face, code, "norm"), "denorm or renorm")
    for setting, epoch in (([], 1), ([1, 2, 3], 1), (None, 0), (None, 9)):
        refused(lambda s=setting, e=epoch: neutral_weight(s, e, 8), "neu_face_loss_weight")


# --- properties ---------------------------------------------------------------------------------------


def test_warps_resize_and_clamp_as_they_should():
    x = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    still = torch.zeros(2, 2, 5, 5)
    assert torch.allclose(warp_image(x, still), x, atol=1e-5)
    assert torch.equal(warp_features(x, still + 3), torch.zeros_like(x))  # all outside
    assert torch.allclose(warp_image(x, still + 3), warp_image(x, still + 1), atol=1e-4)  # clamped
    flow = 0.1 * torch.ones(1, 2, 16, 16)
    assert torch.allclose(inverse_flow(flow)[..., 4:12, 4:12], -flow[..., 4:12, 4:12])


def test_warp_keeps_float32_positions_for_half_precision():
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    flow = torch.zeros(1, 2, 16, 16, dtype=torch.bfloat16)
    assert torch.allclose(warp_image(x, flow), x.float(), atol=1e-2)


def test_theta_bias_has_no_gradient():
    torch.manual_seed(0)
    block = AttentionBlock(8)
    block(torch.randn(2, 8, 5, 5)).square().sum().backward()
    assert block.theta.bias.grad.norm() < 1e-4 < block.theta.weight.grad.norm()


def test_ssim_and_gram_are_what_they_are_called():
    a, b = torch.rand(2, 3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ssim(a, b), ssim(b, a), atol=1e-5) and ssim(a, b) < ssim(a, a)
    assert torch.allclose(ssim(a, b, per_image=True).mean(), ssim(a, b), atol=1e-6)
    shuffled = a.flatten(2)[..., torch.arange(575, -1, -1)].view_as(a)
    assert torch.allclose(gram(a), gram(shuffled), atol=1e-5)  # places do not count


def test_noise_is_drawn_in_order_and_only_with_a_flow(small):
    face = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(2, 2, 8, 8)
    with torch.no_grad():
        before = torch.get_rng_state()
        small.generator(face)
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(5)
        drawn = small.generator(face, flow)
        torch.manual_seed(5)
        features = small.generator.features(face)
        z4, z2 = torch.randn(features.f4.shape), torch.randn(features.f2.shape)
        assert torch.equal(small.generator(face, flow, nw.Noise(z4, z2)), drawn)


@pytest.mark.parametrize("seed", [0, 1], ids=["shared prefix", "other prefix"])
def test_the_fast_step_equals_the_reference(small, seed):
    vgg = Vgg19(random_vgg(seed, WIDTH), WIDTH)
    x = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    fast = TrainStep(small, vgg)
    assert fast.shared == (seed == 0)
    gradients, totals, drawn = [], [], []
    for step in (
        lambda **k: reference_step(small, vgg, x, 0.7, **k),
        lambda **k: fast(x, 0.7, **k),
    ):
        optimiser = build_optimiser(small)
        optimiser.zero_grad()
        generator = torch.Generator().manual_seed(4)
        result = step(generator=generator)
        result.terms.total.backward()
        totals.append(result.terms.total.item())
        drawn.append(generator.get_state())
        gradients.append(
            [
                p.grad.clone()
                for g in optimiser.param_groups
                for p in g["params"]
                if p.grad is not None
            ]
        )
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)
    assert torch.equal(*drawn)
    apart = [(a - b).norm() / a.norm() for a, b in zip(*gradients, strict=True) if a.norm() > 1e-6]
    assert len(apart) > 120 and max(apart) < 1e-3


def test_mixed_precision_keeps_the_terms_in_float32(small):
    vgg = Vgg19(random_vgg(0, WIDTH), WIDTH)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    step, draws = TrainStep(small, vgg), [torch.Generator().manual_seed(4) for _ in range(2)]
    exact = step(x, generator=draws[0]).terms
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = step(x, generator=draws[1]).terms
    assert rough.total.dtype == torch.float32
    assert rough.total.item() == pytest.approx(exact.total.item(), rel=0.05)
