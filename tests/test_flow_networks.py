"""The flow network, its losses and its weight files: right properties, wrong files refused."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.flow import checkpoints as cp
from facecomp.flow.losses import (
    NUMBERS,
    KerasAdam,
    angular_error,
    end_point_error,
    flow_terms,
    loss_weights,
    roughness,
)
from facecomp.flow.networks import SMALL, FlowNetwork, warp_back, warped_image
from facecomp.layers.tf_resize import bicubic_corners, cubic_taps, up2
from facecomp.records.files import InputError

GOLDEN = ROOT / "tests" / "golden" / "flow" / "ckpt"


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(3)
    return FlowNetwork(SMALL)


@pytest.fixture
def state(small):
    return {name: tensor.clone() for name, tensor in small.state_dict().items()}


@pytest.fixture
def frames():
    return 255 * torch.rand(2, 2, 3, 64, 128, generator=torch.Generator().manual_seed(4))


def refused(action, *words) -> None:
    """`action` raises an error of one line that holds `words`."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# --- network ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_every_pair_of_a_batch_is_seen_alone(small, frames):
    together = small(*frames, warp=True)
    alone = [small(*frames[:, k : k + 1], warp=True) for k in range(2)]
    for name in ("p1", "p6", "warped"):
        each = torch.cat([getattr(flows, name) for flows in alone])
        assert torch.allclose(getattr(together, name), each, rtol=1e-4, atol=1e-3)


@torch.no_grad()
def test_the_order_of_the_frames_matters(small, frames):
    assert not torch.allclose(small(*frames).p1, small(*frames.flip(0)).p1, atol=1e-2)


@torch.no_grad()
def test_a_flow_of_one_pixel_moves_the_image_by_one_pixel():
    image = torch.rand(1, 2, 6, 9)
    flow = torch.zeros(1, 2, 6, 9)
    flow[:, 0], flow[:, 1] = 2, -1  # right by two, up by one
    warped = warp_back(image, flow)
    assert torch.allclose(warped[..., :-1, 2:], image[..., 1:, :-2], atol=1e-5)
    assert torch.allclose(warped[..., -1, 2:], image[..., -1, :-2], atol=1e-5)  # border repeated


def test_no_gradient_where_the_warp_looks_outside():
    flow = torch.full((1, 2, 4, 4), 50.0, requires_grad=True)
    warp_back(torch.rand(1, 3, 4, 4), flow).sum().backward()
    assert flow.grad.abs().max() == 0


def test_the_warped_image_has_a_gradient_to_the_flow(frames):
    flow = torch.full((2, 2, 32, 64), 0.3, requires_grad=True)
    warped_image(frames[0], flow).square().mean().backward()
    assert flow.grad.abs().mean() > 0


@given(st.integers(2, 40), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_bicubic_weights_sum_to_one_and_stay_inside(size, wanted):
    pixels, weights = cubic_taps(size, wanted)
    assert pixels.min() >= 0 and pixels.max() < size
    assert np.allclose(weights.sum(1), 1, atol=1e-6)


def test_constant_images_stay_constant_under_both_resizers():
    image = torch.full((1, 3, 8, 12), 7.0)
    assert torch.allclose(bicubic_corners(image, 5, 3), torch.tensor(7.0))
    assert torch.equal(up2(image), torch.full((1, 3, 16, 24), 7.0))


# --- losses -------------------------------------------------------------------------------------------


def test_errors_refuse_flows_of_different_shapes():
    a, b = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 5)
    for error in (end_point_error, angular_error):
        refused(lambda error=error: error(a, b), "(1, 2, 4, 5)")


@given(st.floats(-50, 50), st.floats(-50, 50))
@settings(max_examples=40, deadline=None)
def test_errors_of_a_constant_flow_against_none_are_its_length_and_angle(u, v):
    flow = torch.tensor([u, v]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    length = float(np.hypot(np.float32(u), np.float32(v)))
    none = torch.zeros_like(flow)
    assert end_point_error(flow, none).item() == pytest.approx(length, rel=1e-5, abs=1e-6)
    angle = angular_error(flow, none).item()
    assert angle == pytest.approx(np.arctan(length), rel=1e-5, abs=1e-6)
    assert roughness(flow).max().item() == pytest.approx(0.04)


@pytest.mark.parametrize("experiment", NUMBERS)
def test_gradients_are_finite_even_for_a_perfect_prediction(small, frames, experiment):
    flows = small(*frames, warp=True)
    truths = [p.detach() for p in flows.levels()]
    terms = flow_terms(flows, truths, flows.warped.detach())
    small.zero_grad()
    terms.total(loss_weights(experiment)).backward()
    assert all(torch.isfinite(p.grad).all() for p in small.parameters() if p.grad is not None)


def test_a_weighted_image_that_was_not_made_is_an_error(small, frames):
    flows = small(*frames)
    terms = flow_terms(flows, [p.detach() for p in flows.levels()], frames[1])
    refused(lambda: terms.total(loss_weights("exp2II")), "was not made")
    assert terms.total(loss_weights("exp1")) == 0


def test_resumed_optimiser_goes_on_with_its_own_epsilon():
    numbers = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    grads = [torch.tensor([1e-7, -2e-8, 1e-6]) * k for k in (1, 2, -1, 3)]
    whole, first = KerasAdam([numbers[0]], lr=1e-3), KerasAdam([numbers[1]], lr=1e-3)
    for k, grad in enumerate(grads):
        if k == 2:
            again = KerasAdam([numbers[1]], lr=1e-3)
            again.load_state_dict(first.state_dict())
            first = again
        for adam, number in ((whole, numbers[0]), (first, numbers[1])):
            number.grad = grad.clone()
            adam.step()
    assert torch.equal(*numbers) and numbers[0].abs().max() > 0


# --- wrong weights: PyTorch files ---------------------------------------------------------------------


def _without(state):
    del state["conv_redir.bias"]


def _with_more(state):
    state["conv7.weight"] = torch.zeros(1)


def _renamed(state):
    state["fuse5.kernel"] = state.pop("fuse5.weight")


def _transposed(state):
    state["conv1.weight"] = state["conv1.weight"].permute(2, 3, 1, 0)


def _not_finite(state):
    state["conv6.bias"][0] = torch.nan


WRONG = {
    _without: ("1 missing", "conv_redir.bias"),
    _with_more: ("1 extra", "conv7.weight"),
    _renamed: ("fuse5.kernel should be fuse5.weight",),
    _transposed: ("conv1.weight", "axes are permuted"),
    _not_finite: ("conv6.bias", "not finite"),
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda f: f.__name__.strip("_"))
def test_wrong_tensors_are_refused_and_nothing_is_loaded(tmp_path, state, spoil):
    torch.manual_seed(5)
    network = FlowNetwork(SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    spoil(state)
    torch.save(state, tmp_path / "cp.ckpt")
    refused(lambda: cp.load_published(network, tmp_path / "cp.ckpt"), "cp.ckpt", *WRONG[spoil])
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_weights_of_another_width_are_refused(tmp_path, state):
    torch.save(state, tmp_path / "cp.ckpt")
    wide = FlowNetwork((8, 16, 32, 32, 32, 128, 8))
    refused(lambda: cp.load_published(wide, tmp_path / "cp.ckpt"), "of another shape", "conv6")


@pytest.mark.parametrize(
    "content, word",
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "HTML page"),
        (b"", "empty file"),
        (b"\x00\x01\x02", "no known kind"),
        (b'model_checkpoint_path: "cp.ckpt"\n', "no known kind"),
    ],
)
def test_other_files_called_ckpt_are_refused(tmp_path, small, content, word):
    (tmp_path / "cp.ckpt").write_bytes(content)
    refused(lambda: cp.load_published(small, tmp_path / "cp.ckpt"), "cp.ckpt", word)


def test_a_truncated_pytorch_file_is_refused(tmp_path, small, state):
    torch.save(state, tmp_path / "cp.ckpt")
    whole = (tmp_path / "cp.ckpt").read_bytes()
    (tmp_path / "cp.ckpt").write_bytes(whole[: len(whole) // 2])
    refused(lambda: cp.load_published(small, tmp_path / "cp.ckpt"), "truncated")


def test_an_absent_file_is_named(tmp_path, small):
    for name in ("cp.ckpt", "cp.ckpt.index"):
        path = tmp_path / name
        refused(lambda path=path: cp.load_published(small, path), str(path), "cannot be read")


# --- wrong weights: TensorFlow bundles ----------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _varint(number << 3 | 2) + _varint(len(value)) + value
    return _varint(number << 3) + _varint(value)


def _entry(values: np.ndarray, offset: int) -> bytes:
    shape = b"".join(_field(2, _field(1, size)) for size in values.shape)
    crc = cp.masked(cp.crc32c(values.tobytes())).to_bytes(4, "little")
    place = _field(4, offset) + _field(5, values.nbytes) + _varint(6 << 3 | 5) + crc
    return _field(1, 1) + _field(2, shape) + place


def _table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A block of a table: no shared starts, one restart point, type, check sum."""
    body = b"".join(b"\0" + _varint(len(name)) + _varint(len(value)) + name + value for name, value in entries)
    body += bytes(4) + (1).to_bytes(4, "little") + b"\0"
    return body + cp.masked(cp.crc32c(body)).to_bytes(4, "little")


def write_bundle(prefix, arrays: dict[str, np.ndarray], parts: int = 1) -> None:
    """A bundle as TensorFlow writes it, as far as the reader looks at it."""
    data, entries = b"", [(b"", _field(1, parts))]
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name], "<f4")
        entries.append((name.encode(), _entry(values, len(data))))
        data += values.tobytes()
    block = _table(entries)
    index = _table([(b"z", _varint(0) + _varint(len(block) - 5))])
    end = _varint(0) + _varint(0) + _varint(len(block)) + _varint(len(index) - 5)
    footer = end.ljust(40, b"\0") + cp.TABLE_END
    prefix.with_name(prefix.name + ".index").write_bytes(block + index + footer)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def key(number: int, kind: str) -> str:
    return f"layer_with_weights-{number}/{kind}/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def keras(state):
    """The state as TensorFlow has it."""
    arrays = {"save_counter/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(())}
    for number, name in enumerate(cp.LAYERS):
        arrays[key(number, "kernel")] = state[f"{name}.weight"].numpy().transpose(2, 3, 1, 0)
        arrays[key(number, "bias")] = state[f"{name}.bias"].numpy()
    return arrays


def test_a_bundle_is_read_by_its_prefix_and_by_both_files(tmp_path, state, keras):
    write_bundle(tmp_path / "cp.ckpt", keras)
    for end in ("", ".index", ".data-00000-of-00001"):
        found = cp.read_published(tmp_path / f"cp.ckpt{end}")
        assert set(found) == set(state)
        assert all(torch.equal(found[name], state[name]) for name in state)


def _bundle_without(arrays):
    del arrays[key(3, "bias")]


def _bundle_with_more(arrays):
    arrays[key(25, "kernel")] = np.zeros((1, 1, 2, 2))


def _bundle_renamed(arrays):
    arrays[key(3, "gamma")] = arrays.pop(key(3, "kernel"))


def _bundle_transposed(arrays):
    arrays[key(0, "kernel")] = arrays[key(0, "kernel")].transpose(3, 2, 0, 1)


def _bundle_by_name(arrays):
    for name in list(arrays):
        arrays[name.replace("layer_with_weights-", "layer")] = arrays.pop(name)


WRONG_BUNDLES = {
    _bundle_without: ("1 missing", "conv_redir.bias"),
    _bundle_with_more: ("1 extra", "layer_with_weights-25"),
    _bundle_renamed: ("1 missing", "conv_redir.weight"),
    _bundle_transposed: ("conv1.weight", "axes are permuted"),
    _bundle_by_name: ("no weights of a Keras model",),
}


@pytest.mark.parametrize("spoil", WRONG_BUNDLES, ids=lambda f: f.__name__.strip("_"))
def test_wrong_bundles_are_refused(tmp_path, small, keras, spoil):
    spoil(keras)
    write_bundle(tmp_path / "cp.ckpt", keras)
    refused(lambda: cp.load_published(small, tmp_path / "cp.ckpt"), "cp.ckpt", *WRONG_BUNDLES[spoil])


def test_a_bundle_in_several_parts_is_refused(tmp_path, small, keras):
    write_bundle(tmp_path / "cp.ckpt", keras, parts=2)
    refused(lambda: cp.load_published(small, tmp_path / "cp.ckpt"), "one data file")


@pytest.mark.parametrize("name", ["index", "data-00000-of-00001"])
def test_a_damaged_truncated_or_absent_part_of_a_bundle_is_refused(tmp_path, small, keras, name):
    write_bundle(tmp_path / "cp.ckpt", keras)
    path = tmp_path / f"cp.ckpt.{name}"
    whole, half = path.read_bytes(), path.stat().st_size // 2
    load = lambda: cp.load_published(small, tmp_path / "cp.ckpt.index")  # noqa: E731
    path.write_bytes(whole[:half])
    refused(load, path.name, "cut off")
    path.write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
    refused(load, path.name, "damaged")
    path.write_text("<html><title>Sign in</title></html>")
    refused(load, path.name, "copy or download")
    path.unlink()
    refused(load, path.name, "cannot be read")


def test_every_cut_of_an_index_is_refused_in_one_line(tmp_path):
    whole = (GOLDEN / "tf_object" / "cp.ckpt.index").read_bytes()
    path = tmp_path / "cp.ckpt.index"
    for start in range(0, len(whole), 97):
        path.write_bytes(whole[start + 1 :])
        refused(lambda: cp.read_index(path), "cp.ckpt.index")
        path.write_bytes(whole[:start] + cp.TABLE_END)
        refused(lambda: cp.read_index(path), "cp.ckpt.index")


@given(st.binary(max_size=3 * cp.LINES))
@settings(max_examples=25, deadline=None)
def test_check_sum_of_lines_is_the_check_sum_of_bytes(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = int(cp._TABLE[(crc ^ byte) & 255]) ^ (crc >> 8)
    assert cp.crc32c(data) == crc ^ 0xFFFFFFFF


# --- wrong weights: HDF5 ------------------------------------------------------------------------------


def test_hdf5_without_its_package_says_what_to_install(monkeypatch, small):
    monkeypatch.setitem(sys.modules, "h5py", None)
    path = GOLDEN / "keras_hdf5" / "cp.ckpt"
    refused(lambda: cp.load_published(small, path), "HDF5", "pip install h5py")


def test_keras_and_bundle_hold_the_same_weights(small):
    pytest.importorskip("h5py")
    keras = cp.read_published(GOLDEN / "keras_hdf5" / "cp.ckpt")
    bundle = cp.read_published(GOLDEN / "tf_object" / "cp.ckpt")
    assert set(keras) == set(bundle) == set(small.state_dict())
    assert all(torch.equal(keras[name], bundle[name]) for name in keras)


def test_wrong_hdf5_files_are_refused(tmp_path, small):
    h5py = pytest.importorskip("h5py")
    whole = (GOLDEN / "keras_hdf5" / "cp.ckpt").read_bytes()
    path = tmp_path / "cp.ckpt"
    load = lambda: cp.load_published(small, path)  # noqa: E731
    path.write_bytes(whole[: len(whole) // 2])
    refused(load, "cp.ckpt", "without readable Keras weights")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        at = [name.decode() if isinstance(name, bytes) else name for name in names]
        names[at.index("conv4")], names[at.index("conv5")] = b"conv5", b"conv4"
        file.attrs["layer_names"] = np.array(names, "S")
    refused(load, "layer 5 is conv5, not conv4")
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["conv4"].attrs["weight_names"] = np.array([b"conv4/kernel:0"])
    refused(load, "conv4 has 1 weights")
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    refused(load, "without readable Keras weights")
