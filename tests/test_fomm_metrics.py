"""Metrics, motion that arrives, the challenge's protocol and human coders: against independent computations, bad input, and whole runs."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from conftest import ROOT, run_cells
from PIL import Image
from torchvision.models import inception_v3

from facecomp.faces.alignment import FOMM_DEFAULT, fomm_points
from facecomp.faces.detection import Face
from facecomp.faces.images import read_image
from facecomp.faces.synthetic import participant, record, still
from facecomp.faces.video import open_video
from facecomp.faces.writing import write_frames, write_gif
from facecomp.flow.methods import find_method
from facecomp.fomm.checkpoints import ModelSettings, build_networks
from facecomp.fomm.clips import Clip
from facecomp.fomm.evaluation import Helpers, evaluate, find_made, known_signals
from facecomp.fomm.megc import (
    LINE,
    find_protocol,
    make_twin,
    prepare_protocol,
    protocol_grid,
    strip_name,
)
from facecomp.fomm.metrics import (
    FeatureSums,
    InceptionFeatures,
    compare_clips,
    find_inception,
    frechet_distance,
    identity_distances,
    if_available,
    point_distances,
    psnr,
    summarise,
)
from facecomp.fomm.motion_energy import (
    ALL,
    REGIONS,
    WHOLE,
    correlation,
    find_estimator,
    flow_correlation,
    motion_energy,
    motion_transfer,
    point_flows,
    region_map,
    summarise_transfer,
)
from facecomp.fomm.outputs import write_strip
from facecomp.fomm.points import read_points, write_points
from facecomp.fomm.portraits import Framing
from facecomp.fomm.published import write_model
from facecomp.fomm.rating import (
    Movie,
    agreement,
    icc,
    missing_ratings,
    moments_of,
    read_forms,
    read_ratings,
    score_table,
    write_forms,
)
from facecomp.records.files import InputError
from facecomp.records.pickles import read_pickle
from facecomp.records.receipts import output_faults, read_receipt

SMALL = {"block_expansion": 4, "max_features": 16, "num_blocks": 3}


def line_of(call, *given, **named) -> str:
    with pytest.raises(InputError) as error:
        call(*given, **named)
    text = str(error.value)
    assert "\n" not in text
    return text


# --- distances of frames ------------------------------------------------------------------------------


def test_both_forms_of_akd_and_aed_agree_with_loops_and_lie_where_they_must():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.normal(0, 5, (2, 68, 2))
        found = point_distances(a, b)
        by_hand = [abs(a[i, k] - b[i, k]) for i in range(68) for k in range(2)]
        assert found["akd_coordinates"] == pytest.approx(sum(by_hand) / 136)
        lengths = [np.hypot(*(a[i] - b[i])) for i in range(68)]
        assert found["akd_euclidean"] == pytest.approx(sum(lengths) / 68)
        assert 2**0.5 <= found["akd_euclidean"] / found["akd_coordinates"] <= 2
        u, v = rng.normal(size=(2, 128))
        made = identity_distances(u, v)
        assert made["aed_squared"] == pytest.approx(sum((u - v) ** 2))
        assert made["aed_euclidean"] == pytest.approx(np.linalg.norm(u - v))


class ByBrightness:
    """Finds a face in frames that are not black; its points move with the grey level."""

    name = "brightness"

    def __call__(self, image):
        level = float(image.mean())
        return [] if level < 10 else [Face((0, 0, 9, 9), np.full((68, 2), level), 1.0)]


def grey_frames(*levels):
    return [np.full((16, 16, 3), level, np.uint8) for level in levels]


def test_frames_without_a_face_in_either_picture_are_skipped_and_counted():
    def identity(frame, face):
        return np.array([face.points[0, 0] / 10, 0.0])

    true, made = grey_frames(100, 100, 0, 0), grey_frames(104, 0, 100, 0)
    frames = compare_clips("clip", true, made, ByBrightness(), identity)
    assert frames["face_true"].tolist() == [True, True, False, False]
    assert frames["face_made"].tolist() == [True, False, True, False]
    table = summarise(frames).set_index("measure")
    assert table.loc["akd_coordinates", ["frames", "skipped"]].tolist() == [1, 3]
    assert table.loc["akd_coordinates", "value"] == 4
    assert table.loc["akd_euclidean", "value"] == pytest.approx(4 * 2**0.5)
    assert table.loc["aed_squared", "value"] == pytest.approx(0.16)
    assert table.loc["aed_euclidean", "value"] == pytest.approx(0.4)
    assert table.loc["l1", ["frames", "skipped"]].tolist() == [4, 0]
    assert table.loc["l1", "value"] == pytest.approx((4 + 100 + 100) / 4 / 255)
    nothing = summarise(compare_clips("c", true[2:], made[2:3] + made[3:], ByBrightness()))
    assert nothing.set_index("measure").loc["akd_euclidean", "frames"] == 0


def test_means_run_over_frames_and_intervals_over_clips():
    long, short = grey_frames(*[100] * 6), grey_frames(100, 100)
    parts = [
        compare_clips("long", long, grey_frames(*[110] * 6)),
        compare_clips("short", short, grey_frames(150, 150)),
    ]
    row = summarise(pd.concat(parts)).set_index("measure").loc["l1"]
    assert row["value"] * 255 == pytest.approx((6 * 10 + 2 * 50) / 8)  # not (10 + 50) / 2
    assert (row["low"] * 255, row["high"] * 255) == pytest.approx((10, 50))
    assert (row["over"], row["clips"]) == ("clips", 2)
    one = summarise(parts[0]).set_index("measure").loc["psnr"]
    assert one["value"] == pytest.approx(psnr((10 / 255) ** 2)) and one["over"] == "frames"


def test_clips_of_different_length_or_size_are_one_clear_line():
    assert "generated clip ends after 1 frames" in line_of(
        compare_clips, "smile", grey_frames(1, 2), grey_frames(1)
    )
    assert "true clip ends after 1 frames" in line_of(
        compare_clips, "smile", grey_frames(1), grey_frames(1, 2)
    )
    assert "frame 0: 16x16x3 and 8x16x3" in line_of(
        compare_clips, "smile", grey_frames(1), [grey_frames(1)[0][:8]]
    )


# --- distance of sets ---------------------------------------------------------------------------------


def test_the_frechet_distance_agrees_with_scipys_root_and_with_closed_forms():
    rng = np.random.default_rng(1)
    for size in (1, 2, 7, 20):
        a, b = rng.normal(size=(2, 3 * size, size))
        m1, m2 = rng.normal(size=(2, size))
        c1, c2 = a.T @ a / size, b.T @ b / size
        root = scipy.linalg.sqrtm(c1 @ c2)
        assert np.abs(root @ root - c1 @ c2).max() < 1e-9 * np.abs(c1 @ c2).max()
        want = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * np.real(root))
        found = frechet_distance(m1, c1, m2, c2)
        assert found == pytest.approx(want, rel=1e-9)
        assert found == pytest.approx(frechet_distance(m2, c2, m1, c1), rel=1e-9)
    s, t = rng.uniform(0.1, 3, (2, 6))  # independent axes: each like one dimension
    found = frechet_distance(np.zeros(6), np.diag(s**2), np.arange(6.0), np.diag(t**2))
    assert found == pytest.approx((np.arange(6.0) ** 2).sum() + ((s - t) ** 2).sum())
    scaled = frechet_distance(np.zeros(6), c1[:6, :6], np.zeros(6), 4 * c1[:6, :6])
    assert scaled == pytest.approx(np.trace(c1[:6, :6]))  # (2 - 1)^2 tr C


def test_the_frechet_distance_of_fewer_pictures_than_features_is_exact():
    rng = np.random.default_rng(2)
    line = rng.normal(size=30)
    line /= np.linalg.norm(line)
    clouds = [np.outer(rng.normal(0, s, 12), line) for s in (1.0, 3.0)]  # on one line in 30-D
    sums = FeatureSums(), FeatureSums()
    for total, cloud in zip(sums, clouds, strict=True):
        total.add(cloud)
    (m1, s1), (m2, s2) = (((c @ line).mean(), (c @ line).std(ddof=1)) for c in clouds)
    found = frechet_distance(*sums[0].moments(), *sums[1].moments())
    assert found == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, abs=1e-9)


def test_fid_is_made_of_an_inception_network_of_the_right_form_only(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = inception_v3(weights=None, init_weights=False)
    older = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(older, tmp_path / "inception.pth")  # as older files are, without counters
    features = find_inception(tmp_path / "inception.pth")
    frame = np.random.default_rng(0).integers(0, 255, (1, 40, 40, 3), np.uint8)
    found = features(frame)
    assert found.shape == (1, 2048) and np.array_equal(found, InceptionFeatures(network)(frame))
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    assert "inception_v3" in line_of(find_inception, tmp_path / "other.pth")
    found, why = if_available(lambda: find_inception(tmp_path / "none.pth"))
    assert found is None and re.match(r"not available: .*none\.pth: no Inception weights", why)


# --- motion -------------------------------------------------------------------------------------------


def test_motion_energy_of_a_gif_is_the_published_measure(tmp_path):
    recording = record(participant(3), 8, fps=25.0, size=64, seed=1, expression="surprise")
    write_gif(tmp_path / "clip.gif", recording.frames(), 50)
    with Image.open(tmp_path / "clip.gif") as file:  # independently of the package
        greys = []
        for index in range(file.n_frames):
            file.seek(index)
            greys.append(np.asarray(file.convert("RGB"), float) @ [0.299, 0.587, 0.114])
    want = [np.abs(g - greys[0]).mean() for g in greys]
    found = motion_energy(Clip("clip", tmp_path / "clip.gif").frames())[WHOLE]
    assert np.allclose(found, want, atol=1e-9) and found[0] == 0 and found.max() > 1
    grey = [np.repeat(np.rint(g)[..., None], 3, axis=2).astype(np.uint8) for g in greys]
    plain = [np.abs(g[..., 0].astype(float) - grey[0][..., 0]).mean() for g in grey]
    assert np.allclose(motion_energy(grey)[WHOLE], plain, atol=1e-9)  # grey stays what it is


def test_regions_grow_with_the_face_and_follow_it():
    small = region_map(FOMM_DEFAULT / 2, (128, 128))
    large = region_map(FOMM_DEFAULT, (256, 256))
    assert (large[::2, ::2] == small).mean() > 0.99
    moved = region_map(FOMM_DEFAULT + (10, 5), (256, 256))
    assert np.array_equal(moved[5:, 10:], large[:-5, :-10])
    sizes = [np.count_nonzero(large == k) for k in range(len(REGIONS))]
    assert min(sizes) > 500 and set(np.unique(large)) == {-1, *range(len(REGIONS))}
    outside = motion_energy([np.zeros((40, 40, 3), np.uint8)] * 2, FOMM_DEFAULT + 500)
    assert outside[WHOLE].tolist() == [0, 0] and outside["mouth"].isna().all()


def test_flow_correlation_does_not_depend_on_the_strength_the_order_of_people_or_still_points():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 9, 18, 2))
    found = flow_correlation(a, b).set_index("region")
    again = flow_correlation(a * 7 + 3, b * 0.1 - 1).set_index("region")
    assert np.allclose(found["r"], again["r"])
    assert np.allclose(again["gain"], found["gain"] * 0.1 / 7)
    assert np.allclose(flow_correlation(b, a)["r"], found["r"])
    flat = [(x - x.mean(0)).ravel() for x in (a, b)]
    assert found.loc[ALL, "r"] == pytest.approx(np.corrcoef(*flat)[0, 1], abs=0.02)
    assert correlation(a[:, 0, 0], b[:, 0, 0]) == pytest.approx(
        np.corrcoef(a[:, 0, 0], b[:, 0, 0])[0, 1]
    )
    b[:, 3:] = 0.5
    quiet = flow_correlation(a, b).set_index("region")
    assert np.isnan(quiet.loc["mouth", "r"]) and quiet.loc["mouth", "gain"] == 0
    assert np.isfinite(quiet.loc[ALL, "r"])


@pytest.fixture(scope="module")
def smile():
    recording = record(
        participant(1), 9, fps=40.0, size=96, seed=5, expression="happiness", micro=True
    )
    return list(recording.frames()), fomm_points(recording.landmarks[0])


def test_a_clip_that_is_moved_and_enlarged_still_moves_the_same_way(smile):
    frames, points = smile
    large = [x.repeat(2, 0).repeat(2, 1) for x in frames]
    moved = [np.pad(x, ((7, 0), (12, 0), (0, 0)), mode="edge") for x in large]
    row = motion_transfer(frames, points, moved, points * 2 + (12.5, 7.5)).row()
    assert row["r"] > 0.85 and 0.8 < row["gain"] < 1.3 and 0.7 < row["ratio"] < 1.3


def test_an_estimator_of_the_flow_study_can_be_passed_in_and_no_module_here_imports_it(smile):
    frames, points = smile
    method = find_method("farneback")
    by_study = point_flows(frames[:4], points, method.estimate)
    own = point_flows(frames[:4], points, find_estimator("farneback"))
    assert by_study.shape == own.shape == (4, 18, 2)
    assert correlation(by_study, own) > 0.8
    row = motion_transfer(frames, points, frames, points, method.estimate).row()
    assert row["r"] == pytest.approx(1) and row["gain"] == pytest.approx(1)
    for path in (ROOT / "facecomp" / "fomm").glob("*.py"):
        assert not re.search(r"(from|import) (facecomp|\.)?\.flow\b", path.read_text()), path.name
    wrong = line_of(point_flows, frames[:2], points, lambda a, b: np.zeros((4, 4, 2)))
    assert "(4, 4, 2)" in wrong


def test_intervals_of_transfer_are_drawn_over_driving_clips():
    rows = [("a", 0.2), ("a", 0.4), ("b", 0.9), ("b", 1.1), ("c", np.nan)]
    table = pd.DataFrame(rows, columns=["driving", "ratio"])
    found = summarise_transfer(table).iloc[0]
    assert (found["clips"], found["left_out"], found["over"]) == (4, 1, "driving")
    assert found["value"] == pytest.approx(0.65)
    assert (found["low"], found["high"]) == pytest.approx((0.3, 1.0))  # of two groups


# --- folders of strips --------------------------------------------------------------------------------


@pytest.fixture
def strips(tmp_path, smile):
    """A data set of one clip and one face whose names hold "-", and a folder of strips."""
    frames, points = smile
    data = tmp_path / "data"
    for name, shown in {"a-smile": frames, "the-face": frames[:1]}.items():
        write_frames(data / "test" / name, shown)
        write_points(data / "keypoint_folder" / f"{name}.pt", points)
    write_strip(tmp_path / "made" / "a-smile-the-face.png", frames)
    clips = [Clip(n, data / "test" / n, 96) for n in ("a-smile", "the-face")]
    return tmp_path / "made", clips, data / "keypoint_folder"


def test_strips_are_found_by_names_that_hold_dashes_and_measured(strips):
    folder, clips, points = strips
    made = find_made(folder, clips, "copy", 96)
    assert [(m.driving.name, m.source.name) for m in made] == [("a-smile", "the-face")]
    row = evaluate(made, points, Helpers()).motion.iloc[0]
    assert (row["task"], row["ratio"], row["r"]) == ("animation", 1, pytest.approx(1))


def test_strips_and_points_that_do_not_fit_are_one_clear_line(strips, tmp_path):
    folder, clips, points = strips
    frames = list(clips[0].frames())
    write_strip(folder / "a-smile.png", frames[:4])
    short = [m for m in find_made(folder, clips, "x", 96) if m.is_reconstruction]
    assert "a-smile: the generated clip ends after 4 frames" in line_of(
        evaluate, short, points, Helpers()
    )
    write_strip(folder / "a-smile.png", [x[:40, :40] for x in frames])
    assert "96" in line_of(evaluate, find_made(folder, clips, "x", 96)[:1], points, Helpers())
    (points / "a-smile.pt").unlink()
    assert "a-smile" in line_of(evaluate, known_signals(clips[:1]), points, Helpers())
    assert "no strip" in line_of(find_made, tmp_path / "absent", clips, "x")


# --- the challenge ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    return make_twin(tmp_path_factory.mktemp("megc") / "twin", frames=3, size=96, clips=4)


def test_pairs_are_those_of_the_official_list_in_its_order(twin):
    listed = pd.read_csv(twin / "MEGC2021_test.csv")
    wanted = list(zip(listed["source"], listed["driving"], strict=True))
    assert find_protocol(twin).pairs() == wanted and len(wanted) == 8


def test_any_folder_of_clips_and_faces_will_do_and_bad_ones_are_one_line(tmp_path, twin):
    protocol = find_protocol(twin)
    own = tmp_path / "own"
    frames = list(protocol.clips[0].frames())
    (own / "clips").mkdir(parents=True)
    assert "no folder faces" in line_of(
        lambda: (write_gif(own / "clips" / "b.gif", frames, 25), find_protocol(own))
    )
    write_frames(own / "clips" / "a", frames)
    (own / "faces").mkdir()
    assert "holds no target face" in line_of(find_protocol, own)
    Image.fromarray(frames[0]).save(own / "faces" / "me.png")
    found = find_protocol(own, "synthetic")
    assert [c.name for c in found.clips] == ["a", "b"] and found.data == "synthetic"
    assert found.pairs() == [("me", "a"), ("me", "b")]
    table = prepare_protocol(found, tmp_path / "data", Framing(64), limit=2)
    assert table["frames"].tolist() == [1, 2, 2]
    same = [read_points(tmp_path / "data" / "keypoint_folder" / f"{n}.pt") for n in ("a", "b")]
    assert np.abs(same[0] - same[1]).max() < 2  # one clip, once as a GIF
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(own / "faces" / "nobody.png")
    assert "nobody.png: no face found" in line_of(
        prepare_protocol, find_protocol(own), tmp_path / "bad", Framing(64)
    )
    two = np.hstack([still(participant(k), size=128) for k in (1, 2)])
    Image.fromarray(two).save(own / "faces" / "nobody.png")
    assert "2 faces" in line_of(prepare_protocol, find_protocol(own), tmp_path / "bad", Framing(64))


def test_the_table_of_movies_shows_what_is_there_and_says_that_it_is_synthetic(twin, tmp_path):
    protocol = find_protocol(twin)
    prepare_protocol(protocol, tmp_path / "data", Framing(64))
    source, driving = protocol.pairs()[0]
    frames = [np.full((64, 64, 3), 10 * k, np.uint8) for k in range(5)]  # longer than the clip
    write_strip(tmp_path / "png" / strip_name(driving, source), frames)
    grid = protocol_grid(tmp_path / "data", protocol, tmp_path / "png", 64, 48, "title")
    real = protocol_grid(tmp_path / "data", find_protocol(twin), tmp_path / "png", 64, 48, "title")
    assert len(grid) == 5 and sum(cell is not None for cell in grid.cells.values()) == 5
    pictures = list(grid.frames())
    assert {p.shape for p in pictures} == {pictures[0].shape}
    assert np.array_equal(pictures[2][-50:, :48], pictures[4][-50:, :48])  # stands still at its end
    plain = type(real)(real.rows, real.columns, real.cells, real.tile, real.title, "real")
    assert pictures[0].shape[0] - next(plain.frames()).shape[0] == LINE  # that says so


# --- coders -------------------------------------------------------------------------------------------


def movies(count=3, systems=("one", "two"), shift=0):
    frames = np.stack([np.full((24, 24, 3), 20 * t + shift, np.uint8) for t in range(7)])
    names = [f"Positive_clip{k}" for k in range(count)]
    return [Movie(n, "woman", s, frames, frames[::-1]) for n in names for s in systems]


def test_forms_tell_neither_names_nor_systems_and_the_key_is_apart(tmp_path):
    key = write_forms(tmp_path, movies(), ["zoe", "yan"], seed=4, data="synthetic")
    given = [p for p in tmp_path.rglob("*") if p.is_file() and p.parent.name != "key"]
    assert {p.parent.name for p in given} == {"forms", "movies"} and len(given) == 2 * 2 + 6
    for path in given:
        text = path.name + (path.read_text() if path.suffix in (".csv", ".html") else "")
        assert not re.search("clip[0-9]|woman|Positive|system", text), path
    orders = [
        pd.read_csv(tmp_path / "forms" / f"{r}.csv", dtype=str)["item"].tolist()
        for r in ("zoe", "yan")
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(key["item"]) and orders[0] != orders[1]
    shown = next(iter(open_video(tmp_path / "movies" / "item_01.gif"))).image
    assert shown.shape == (3 * LINE + 24, 2 * 24 + 2, 3)  # with the line that says synthetic
    marked, plain = (moments_of(movies()[0], data=d) for d in ("synthetic", "real"))
    assert marked.shape == plain.shape and not np.array_equal(marked, plain)


def test_filled_in_forms_survive_the_same_movies_and_refuse_others(tmp_path):
    write_forms(tmp_path, movies(), ["zoe"], seed=4)
    form = tmp_path / "forms" / "zoe.csv"
    filled = form.read_text().replace(",,", ",2,", 1)
    form.write_text(filled)
    write_forms(tmp_path, movies(), ["zoe"], seed=4)
    assert form.read_text() == filled
    assert "is filled in" in line_of(write_forms, tmp_path, movies(), ["zoe"], seed=5)
    assert "is filled in" in line_of(write_forms, tmp_path, movies(shift=1), ["zoe"], seed=4)
    form.write_text(filled.replace(",2,", ",,"))
    write_forms(tmp_path, movies(shift=1), ["zoe"], seed=4)  # an empty one is made anew


def test_forms_come_back_as_ratings_with_systems_and_missing_ones_by_name(tmp_path):
    key = write_forms(tmp_path, movies(2), ["zoe", "yan"], seed=4).set_index("item")
    for rater, value in {"zoe": {"one": 5, "two": 1}, "yan": {"one": 4, "two": 2}}.items():
        form = pd.read_csv(tmp_path / "forms" / f"{rater}.csv", dtype=str)
        form["score"] = [str(value[key.loc[item, "system"]]) for item in form["item"]]
        if rater == "yan":
            form.loc[0, "score"] = ""
        form.to_csv(tmp_path / "forms" / f"{rater}.csv", index=False)
    ratings = read_forms(sorted((tmp_path / "forms").glob("*.csv")), tmp_path / "key" / "key.csv")
    first = key.loc[form.loc[0, "item"]]
    assert missing_ratings(ratings) == [f"yan: {first['driving']}-woman ({first['system']})"]
    means = ratings.groupby("system")["score"].mean()
    assert 4 <= means["one"] <= 5 and 1 <= means["two"] <= 2
    form["item"] = ["77", *form["item"][1:]]
    form.to_csv(tmp_path / "strange.csv", index=False)
    assert "item 77" in line_of(
        read_forms, [tmp_path / "strange.csv"], tmp_path / "key" / "key.csv"
    )
    assert "no filled-in form" in line_of(read_forms, [], tmp_path / "key" / "key.csv")


def test_icc_is_that_of_its_definition_and_of_the_published_example():
    rng = np.random.default_rng(3)
    for n, k in ((5, 2), (18, 3), (7, 6)):
        x = rng.normal(size=(n, 1)) * 2 + rng.normal(size=(1, k)) + rng.normal(size=(n, k))
        total = ((x - x.mean()) ** 2).sum()
        rows = k * sum((x[i].mean() - x.mean()) ** 2 for i in range(n))
        columns = n * sum((x[:, j].mean() - x.mean()) ** 2 for j in range(k))
        r, c = rows / (n - 1), columns / (k - 1)
        e = (total - rows - columns) / ((n - 1) * (k - 1))
        found = icc(x)
        assert found.single[0] == pytest.approx((r - e) / (r + (k - 1) * e + k * (c - e) / n))
        assert found.mean[0] == pytest.approx((r - e) / (r + (c - e) / n))
        assert found.single[1] < found.single[0] < found.single[2]
        shifted = icc(x + 5)
        assert shifted.single[0] == pytest.approx(found.single[0])
        assert icc(x + 5 * np.arange(k)).single[0] < found.single[0]  # coders of other levels
    noise = [icc(rng.normal(size=(30, 3))).single[0] for _ in range(40)]
    assert abs(np.mean(noise)) < 0.1


def test_kappa_and_scores_leave_out_what_is_missing(tmp_path):
    scores = {"a": [1, 2, 3, 4, 5, 3], "b": [1, 2, 3, 5, 5, None], "c": [2, 2, 4, 4, 5, 1]}
    lines = [
        f"{r},x{k},f,{'' if v is None else v}" for r, g in scores.items() for k, v in enumerate(g)
    ]
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(["rater,driving,source,score", *lines]))
    ratings = read_ratings(path)
    reliability, pairs = agreement(ratings)
    assert (reliability.movies, reliability.raters) == (5, 3)
    assert pairs["movies"].tolist() == [5, 6, 5]
    a, c = np.array(scores["a"]), np.array(scores["c"])
    chance = np.mean([(i - j) ** 2 for i in a for j in c])
    assert pairs.loc[1, "kappa"] == pytest.approx(1 - ((a - c) ** 2).mean() / chance)
    table = score_table(ratings).loc["ours"]
    assert (table["ratings"], table["missing"], table["raters"]) == (17, 1, 3)
    assert np.isnan(table["Composite"])  # no clip of the challenge among them


def test_the_composite_is_the_plain_mean_of_the_sets_however_many_ratings_each_has(tmp_path):
    path = tmp_path / "scores.csv"
    rows = [
        "Positive_022_3_3,4",
        "Negative_018_3_1,2",
        "Surprise_007_7_1,3",
        "Positive_EP01_01f,5",
        "Positive_s3_po_05,1",
    ]
    path.write_text(
        "rater,driving,source,score\n" + "\n".join(f"a,{r.split(',')[0]},f,{r[-1]}" for r in rows)
    )
    found = score_table(read_ratings(path)).loc["ours"]
    assert (found["SAMM"], found["CASME II"], found["SMIC"], found["Composite"]) == (3, 5, 1, 3)


# --- run notebooks ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    painter = {"block_expansion": 4, "num_bottleneck_blocks": 1, "dense_motion_params": SMALL}
    parts = {"kp_detector_params": SMALL, "discriminator_params": SMALL}
    networks = build_networks(ModelSettings(generator_params=painter, **parts))
    torch.nn.init.normal_(networks.kp_detector.jacobian.weight, std=0.1)
    path = tmp_path_factory.mktemp("model") / "model.pt"
    return write_model(path, networks, 0, {"data": "synthetic"})


def test_the_challenge_runs_from_archive_to_scores_and_its_strips_can_be_evaluated(
    tmp_path, twin, model, capsys
):
    given = {"archive": str(twin), "checkpoint": str(model), "size": 64, "tile": 64, "fps": 25}
    given |= {"out": str(tmp_path / "out"), "raters": "zoe,yan", "limit": 2, "device": "cpu"}
    names = run_cells("paper_megc2021", "fomm", **given)
    said = capsys.readouterr().out
    assert "4 driving clips, 2 faces, synthetic data" in said and "not rated yet" in said
    assert said.count("done:") == 8 and len(names["key"]) == 8
    receipt = tmp_path / "out" / "megc2021.receipt.json"
    assert output_faults(receipt) == [] and read_receipt(receipt).data == "synthetic"
    assert read_image(tmp_path / "out" / "grid.png").shape[1] == 3 * 64 + 4
    assert names["table"].loc["FOMM-MEGC2021", "Composite"] == "3.7167"

    for rater in ("zoe", "yan"):
        form = pd.read_csv(tmp_path / "out/rating/forms" / f"{rater}.csv", dtype=str)
        form.assign(score="4").to_csv(tmp_path / "out/rating/forms" / f"{rater}.csv", index=False)
    names = run_cells("paper_megc2021", "fomm", **given, forms=str(tmp_path / "out/rating/forms"))
    said = capsys.readouterr().out
    assert said.count("skipped:") == 8 and "2 coders, 8 movies rated by all" in said
    assert names["table"].loc["ours", "SAMM"] == "4.0000"
    ratings = read_pickle(tmp_path / "out" / "ratings.pickle")
    assert set(ratings) >= {"rater", "system", "dataset", "score"} and len(ratings) == 16

    more = {"data": str(tmp_path / "out/data"), "size": 64, "detector": "none", "known": False}
    more |= {"generated": f"OurMX={tmp_path / 'out/animation'}", "inception": "none"}
    found = run_cells(
        "run_evaluate", "fomm", **more, out=str(tmp_path / "scored"), data_kind="synthetic"
    )
    assert len(found["evaluation"].motion) == 8
    energy = read_pickle(tmp_path / "scored" / "motion_energy.pickle")
    assert set(energy["system"]) == {"Source", "OurMX"} and "022_3_3" in set(energy["clip"])
    assert output_faults(tmp_path / "scored" / "evaluate.receipt.json") == []


def test_the_evaluation_without_anything_given_measures_signals_whose_answer_is_known(tmp_path):
    names = run_cells(
        "run_evaluate",
        "fomm",
        out=str(tmp_path),
        people=1,
        frames=3,
        size=64,
        detector="none",
        limit=1,
    )
    rows = names["rows"]
    assert list(rows.index) == ["still", "half", "copy"] and rows.loc["copy", "L1"] == 0
    assert 0 < rows.loc["half", "L1"] < rows.loc["still", "L1"]
    assert read_receipt(names["receipt"]).data == "synthetic"
    saved = read_pickle(tmp_path / "reconstruction.pickle")
    assert saved.loc["half", "L1"] == rows.loc["half", "L1"]
    assert "SYSTEM" in line_of(
        run_cells,
        "run_evaluate",
        "fomm",
        out=str(tmp_path),
        people=1,
        frames=3,
        size=64,
        detector="none",
        generated="folder",
    )
