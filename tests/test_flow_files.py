"""Flow files, conventions, colours and errors: damaged files are refused, masks and NaN do what is documented."""

import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecomp.flow.colours import direction_colours, flow_colours, legend
from facecomp.flow.files import (
    CONVENTIONS,
    Flow,
    convert,
    disk_to_crop,
    flo_bytes,
    flow_from,
    parse_flo,
    read_flo,
    read_flow,
    write_flo,
    write_flow,
)
from facecomp.flow.metrics import (
    angular_errors,
    dis,
    endpoint_errors,
    farneback,
    flow_errors,
    method_errors,
    resize_flow,
    same_size,
    stretched,
    write_error_files,
)
from facecomp.records.files import InputError


def field(seed: int = 0, height: int = 5, width: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(height, width, 2)).astype(np.float32)


DATA = flo_bytes(field())


def head(width: int, height: int, magic: bytes = b"PIEH") -> bytes:
    return magic + np.array([width, height], "<i4").tobytes()


def one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text and all(part in text for part in parts), text


# --- .flo -------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.binary(min_size=288, max_size=288))
def test_any_bits_in_a_flo_file_are_read_and_written_unchanged(height, width, noise):
    data = head(width, height) + noise[: 8 * width * height]
    assert flo_bytes(parse_flo(data)) == data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_noise_is_refused_with_an_input_error_or_is_a_flow(noise):
    for data in (noise, b"PIEH" + noise, head(2, 1) + noise):
        try:
            flow = parse_flo(data)
        except InputError:
            continue
        assert len(data) == 12 + 4 * flow.size


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 11), st.integers(1, 255))
def test_one_changed_byte_in_the_head_is_always_noticed(position, change):
    damaged = bytearray(DATA)
    damaged[position] ^= change
    with pytest.raises(InputError):
        parse_flo(bytes(damaged))


@pytest.mark.parametrize("length", [0, 3, 11, 12, 13, len(DATA) - 1, len(DATA) + 1, len(DATA) + 8])
def test_every_wrong_length_is_refused_with_file_value_and_rule(tmp_path, length):
    path = tmp_path / "S005_001.flo"
    path.write_bytes((DATA + bytes(8))[:length])
    with pytest.raises(InputError) as error:
        read_flo(path)
    one_line(error, "S005_001.flo", f"{length} bytes")


@pytest.mark.parametrize("sides", [(0, 5), (5, 0), (-1, 5), (2**31 - 1, 2**31 - 1), (100_000, 1)])
def test_absurd_sides_are_refused_before_memory_is_asked_for(sides):
    with pytest.raises(InputError) as error:
        parse_flo(head(*sides) + bytes(80), "a.flo")
    one_line(error, "a.flo", f"{sides[0]} x {sides[1]}", "1 to 99999")


def test_a_file_of_the_other_byte_order_is_refused():
    swapped = b"HEIP" + np.array([7, 5], ">i4").tobytes() + field().astype(">f4").tobytes()
    with pytest.raises(InputError, match="starts with b'HEIP'"):
        parse_flo(swapped)


def test_missing_files_and_folders_are_input_errors(tmp_path):
    for path in (tmp_path / "none.flo", tmp_path / "none.npz"):
        with pytest.raises(InputError, match="cannot be read"):
            read_flow(path, "disk" if path.suffix == ".flo" else None)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_flow(tmp_path / "folder.npz")


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2)), np.zeros((2, 2, 3)), np.zeros((0, 2, 2)), np.zeros((1, 1, 2), complex)],
)
def test_what_is_no_flow_is_not_written_and_leaves_the_old_file(tmp_path, wrong):
    path = write_flo(tmp_path / "a.flo", field())
    with pytest.raises(InputError):
        write_flo(path, wrong)
    assert path.read_bytes() == DATA and list(tmp_path.iterdir()) == [path]


def test_channels_and_rows_stand_where_the_format_says():
    flow = np.zeros((2, 3, 2))
    flow[1, 2] = 5, -6  # row 1, column 2
    numbers = np.frombuffer(flo_bytes(flow), "<f4", offset=12)
    assert list(np.flatnonzero(numbers)) == [10, 11] and list(numbers[10:]) == [5, -6]
    assert parse_flo(flo_bytes(flow[:, ::-1])).tolist() == flow[:, ::-1].tolist()


# --- conventions ------------------------------------------------------------------------------------


def test_every_convention_leads_to_every_other_and_back():
    for of in CONVENTIONS:
        for to in CONVENTIONS:
            assert np.array_equal(convert(convert(field(), of, to), to, of), field())


def test_disk_to_crop_swaps_channels_only_and_keeps_the_sign_of_zero():
    stored = np.array([[[-0.0, 2.0]]], np.float32)
    assert disk_to_crop(stored).tobytes() == stored[..., ::-1].tobytes()


def test_a_conversion_never_changes_its_input_nor_shares_memory():
    values = field()
    same = convert(values, "motion", "motion")
    same[:] = 0
    assert np.array_equal(values, field())
    with pytest.raises(InputError, match="must have a sign"):
        convert(np.zeros((1, 1, 2), np.uint8), "disk", "motion")


# --- flow with mask ---------------------------------------------------------------------------------


def masked() -> Flow:
    values = field()
    values[0, 0], values[1, 1, 0], values[2, 2, 1] = np.nan, 2e9, -np.inf
    return flow_from(values, "disk")


def test_nan_infinite_and_huge_numbers_are_masked_and_zero():
    flow = masked()
    assert (~flow.mask).sum() == 3 and not flow.motion[~flow.mask].any()
    assert np.array_equal(flow.motion[flow.mask], -field()[flow.mask])


def test_a_masked_flow_comes_back_and_its_file_has_the_same_bytes_again(tmp_path):
    first, again = (write_flow(tmp_path / f"{n}.npz", masked()) for n in "ab")
    back = read_flow(first)
    assert np.array_equal(back.motion, masked().motion) and np.array_equal(back.mask, masked().mask)
    assert first.read_bytes() == again.read_bytes()


def test_a_mask_without_pixels_is_a_flow_that_knows_nothing(tmp_path):
    nothing = flow_from(np.full((3, 4, 2), np.nan), "motion")
    back = read_flow(write_flow(tmp_path / "a.npz", nothing))
    assert not back.mask.any() and not back.motion.any() and back.size == (3, 4)


def test_a_file_of_another_convention_is_converted_by_its_own_word(tmp_path):
    np.savez(tmp_path / "a.npz", flow=field(), mask=np.ones((5, 7), bool), convention="crop")
    assert np.array_equal(read_flow(tmp_path / "a.npz").motion, -field()[..., ::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": "upward"}, "convention 'upward': must be one of"),
        ({"convention": None}, "no array 'convention'"),
        ({"mask": np.ones((5, 6), bool)}, "mask: bool"),
        ({"mask": np.ones((5, 7))}, "mask: float64"),
        ({"flow": np.full((5, 7, 2), np.nan)}, "35 pixels of the mask"),
        ({"flow": np.zeros((5, 7))}, "must be (height, width, 2)"),
        ({"flow": np.array([{"a": 1}], object)}, "damaged"),
    ],
)
def test_npz_files_that_contradict_themselves_are_refused(tmp_path, change, message):
    content = {"flow": field(), "mask": np.ones((5, 7), bool), "convention": "motion"} | change
    np.savez(tmp_path / "a.npz", **{k: v for k, v in content.items() if v is not None})
    with pytest.raises(InputError) as error:
        read_flow(tmp_path / "a.npz")
    one_line(error, "a.npz", message)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_npz_file_is_refused_or_reads_as_a_flow(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    whole = bytearray(write_flow(path, masked()).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    try:
        assert isinstance(read_flow(path), Flow)
    except InputError as error:
        assert "a.npz" in str(error) and "\n" not in str(error)


def test_an_array_that_claims_more_than_the_memory_is_refused(tmp_path):
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (10**6, 10**7, 2), }"
    text = text.replace("10**6", "1000000").replace("10**7", "10000000").ljust(117) + "\n"
    liar = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    write_flow(tmp_path / "a.npz", masked())
    with (
        zipfile.ZipFile(tmp_path / "a.npz") as old,
        zipfile.ZipFile(tmp_path / "b.npz", "w") as new,
    ):
        for name in old.namelist():
            new.writestr(name, liar if name == "flow.npy" else old.read(name))
    with pytest.raises(InputError, match="b.npz: damaged"):
        read_flow(tmp_path / "b.npz")


def test_the_convention_is_asked_for_where_it_is_missing_and_refused_where_it_is_known(tmp_path):
    flo, npz = write_flo(tmp_path / "a.flo", field()), write_flow(tmp_path / "a.npz", masked())
    for path, convention in ((flo, None), (npz, "disk"), (tmp_path / "a.png", "disk")):
        with pytest.raises(InputError):
            read_flow(path, convention)
    with pytest.raises(InputError, match="written as .npz"):
        write_flow(tmp_path / "b.flo", masked())


# --- colours ----------------------------------------------------------------------------------------


def test_a_known_part_has_the_same_colours_whatever_is_unknown_around_it():
    flow, holed = 3 * field(), 3 * field()
    holed[0], holed[1, 0, 0], holed[1, 1] = np.nan, np.inf, -5e9
    scale = np.hypot(*np.moveaxis(flow[2:], -1, 0)).max()
    shown = flow_colours(holed, max_radius=scale, unknown=(1, 2, 3))
    assert np.array_equal(shown[2:], flow_colours(flow[2:]))
    assert (shown[0] == (1, 2, 3)).all() and (shown[1, :2] == (1, 2, 3)).all()


@pytest.mark.parametrize("mode", ["corrected", "compat"])
def test_fields_at_rest_and_without_any_known_pixel_are_white(mode):
    for flow in (np.zeros((2, 2, 2)), np.full((2, 2, 2), np.nan), np.zeros((2, 2, 2), int)):
        assert (flow_colours(flow, mode) == 255).all()


def test_the_longest_motion_of_every_direction_is_inside_the_circle():
    angles = np.linspace(-np.pi, np.pi, 721)
    for length in (1e-3, 0.3, 1.0, 7.7):
        flow = (length * np.stack([np.cos(angles), np.sin(angles)], -1))[:, None]
        assert (flow_colours(flow).max(-1) == 255).all()


def test_compat_divides_by_minus_one_as_soon_as_one_number_is_nan():
    flow = field()
    flow[0, 0, 0] = np.nan
    whole = direction_colours(-flow[1:])[..., ::-1]
    assert np.array_equal(flow_colours(flow, "compat")[1:], whole)
    with pytest.raises(InputError, match="no colour for unknown"):
        flow_colours(flow, "compat", unknown=(0, 0, 0))


def test_a_legend_is_a_disc_of_the_asked_size():
    assert legend(11).shape == (11, 11, 3) and (legend(11)[0, 0] == 255).all()
    for side in (2, 10.5):
        with pytest.raises(InputError):
            legend(side)


# --- errors -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_errors_equal_a_loop_over_the_pixels(seed):
    truth, made = 4 * field(seed), 4 * field(seed + 1)
    for r, c in np.ndindex(truth.shape[:2]):
        a, b = (np.append(f[r, c].astype(float), 1.0) for f in (truth, made))
        distance = np.linalg.norm(a - b)
        angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert abs(endpoint_errors(truth, made)[r, c] - distance) < 1e-12
        assert abs(angular_errors(truth, made)[r, c] - angle) < 1e-7


def test_errors_are_the_same_in_every_convention():
    for to in CONVENTIONS:
        turned = [convert(f, "motion", to) for f in (field(0), field(1))]
        ours, first = flow_errors(*turned), flow_errors(field(0), field(1))
        assert np.allclose([ours.epe, ours.aae], [first.epe, first.aae], rtol=1e-12)


def test_a_mask_leaves_nan_out_and_no_mask_lets_it_through():
    truth, made, mask = field(0), field(1), np.ones((5, 7), bool)
    truth[0], made[1], mask[:2] = np.nan, np.inf, False
    with np.errstate(invalid="ignore"):
        found = flow_errors(truth, made, mask)
        assert np.isnan(flow_errors(truth, made).epe)
    assert found == flow_errors(truth[2:], made[2:]) and found.pixels == 21


def test_a_mask_without_pixels_has_no_error_but_a_count():
    nothing = flow_errors(field(0), field(1), np.zeros((5, 7), bool))
    assert (nothing.pixels, nothing.epe_sum) == (0, 0.0)
    assert np.isnan([nothing.epe, nothing.aae, nothing.aae_degrees]).all()


@pytest.mark.parametrize("mask", [np.ones((5, 7)), np.ones((7, 5), bool), np.ones((5, 7, 2), bool)])
def test_masks_of_another_shape_or_kind_are_refused(mask):
    with pytest.raises(InputError, match="mask: "):
        flow_errors(field(), field(), mask)


def test_error_files_without_images_are_headers_and_never_end_in_a_newline(tmp_path):
    paths = write_error_files(tmp_path, [])
    assert [p.read_bytes() for p in paths] == [
        b"Average endpoint errors:",
        b"Average angular errors:",
    ]
    found = flow_errors(field(0), field(1))
    paths = write_error_files(tmp_path, ((stem, found) for stem in ("a", "b")))
    lines = [p.read_bytes().split(b"\n") for p in paths]
    assert [len(x) for x in lines] == [3, 3] and all(x[-1].startswith(b"b ") for x in lines)
    assert float(lines[0][1].split(b"average error: ")[1]) == found.epe


# --- sizes and methods ------------------------------------------------------------------------------


def test_a_uniform_zoom_is_multiplied_by_each_axis_own_factor():
    flow = np.tile(np.float32([3, 5]), (8, 6, 1))
    assert resize_flow(flow, (16, 9)).dtype == np.float32
    assert np.allclose(resize_flow(flow, (16, 9)), [4.5, 10])
    assert np.allclose(resize_flow(flow, (16, 9), "crop"), [6, 7.5])
    with pytest.raises(InputError):
        resize_flow(flow, (0, 9))


def test_the_smaller_of_truth_and_prediction_gives_the_size():
    large, small = field(0, 8, 12), field(1, 4, 6)
    assert [f.shape for f in same_size(large, small)] == [(4, 6, 2)] * 2
    truth, made = same_size(small, large)
    assert np.array_equal(truth, small) and made.shape == small.shape
    assert all(np.array_equal(a, b) for a, b in zip(same_size(large, large), (large, large), strict=True))


def test_a_perfect_method_has_no_error_after_change_of_convention():
    assert method_errors(convert(field(), "motion", "crop"), field()).epe_sum == 0


def texture(shift: int) -> np.ndarray:
    import cv2

    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.uniform(0, 255, (96, 140, 3)).astype(np.float32), (0, 0), 2)
    return image[:, 10 - shift : 130 - shift]


@pytest.mark.parametrize("method", [farneback, dis])
def test_methods_give_dx_first_and_positive_to_the_right(method):
    inner = method(texture(0), texture(3))[20:-20, 20:-20]
    assert np.abs(np.median(inner, axis=(0, 1)) - (3, 0)).max() < 0.2


def test_pictures_that_methods_cannot_use_are_refused():
    for first, second in (
        (np.zeros((8, 8, 3)), np.zeros((8, 9, 3))),
        (np.zeros((8, 8)), np.zeros((8, 8))),
        (np.full((8, 8, 3), np.nan), np.zeros((8, 8, 3))),
        (np.zeros((8, 8, 3)), np.zeros((8, 8, 3))),  # DIS: too small
    ):
        with pytest.raises(InputError):
            dis(first, second)
    assert np.isfinite(farneback(np.zeros((8, 8, 3)), np.ones((8, 8, 3)))).all()


def test_stretching_cuts_and_does_not_round():
    assert stretched(np.array([0.0, 1.0, 254.99, 255.0])).tolist() == [0, 1, 254, 255]
    assert stretched(np.array([10, 20], np.uint8)).tolist() == [0, 255]


def test_numpy_alone_reads_the_keys_and_the_convention(tmp_path):
    path = write_flow(tmp_path / "a.npz", masked())
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == {"flow", "mask", "convention"}
        assert str(arrays["convention"]) == "motion" and arrays["flow"].dtype == np.float32
