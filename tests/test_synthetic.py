"""Synthetic participants: what is called true is true, and they look like faces to a detector."""

import subprocess
import sys
import tracemalloc

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from facecomp.faces.actions import AUS, EMOTIONS, emotion_aus
from facecomp.faces.detection import DlibDetector
from facecomp.faces.head import MIRROR, radial, topology
from facecomp.faces.identity import draw_identity
from facecomp.faces.rendering import Camera, Renderer, exact_flow, surface, triangle_map
from facecomp.faces.rig import Pose, Rig, gaze_direction, rotation
from facecomp.faces.synthetic import landmark_motion, overview_sheets, participant, record, still
from facecomp.faces.texture import DENSITY, head_pixels
from facecomp.records.files import InputError

NONE = np.zeros(12)


def shown(**aus: float) -> np.ndarray:
    """(12,) intensities by name, e.g. au12=3."""
    return np.array([aus.get(f"au{au}", 0.0) for au in AUS])


@pytest.fixture(scope="module")
def rigs() -> list[Rig]:
    return [Rig(draw_identity(seed)) for seed in range(8)]


# --- truth is true


def test_the_flow_carries_every_frame_into_the_next():
    errors, still_errors = [], []
    for seed in (1, 4, 6, 9):
        video = record(participant(seed), 400, size=256, seed=seed)
        speed = np.abs(np.diff(video.landmarks, axis=0)).mean((1, 2))
        for t in [*np.argsort(speed)[[-12, -40, -100]], 5]:  # fast moments and an ordinary one
            now, later = video.frame(t), video.frame(t + 1)
            flow, visible, part = video.flow_parts(t)
            y, x = np.mgrid[0:256, 0:256].astype(np.float32)
            back = cv2.remap(later, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
            face = visible & (part == len(video.parts) - 1)
            errors.append(np.abs(back.astype(float) - now)[face].mean())
            still_errors.append(np.abs(later.astype(float) - now)[face].mean())
            assert face.mean() > 0.2 and visible[part == -1].mean() > 0.9
    assert max(errors) <= 2
    assert np.mean(still_errors) > 2 * np.mean(errors)  # without the flow the frames differ


def test_the_flow_of_a_shift_is_the_shift():
    rig, camera = Rig(draw_identity(2)), Camera(128, 128)
    flow, visible, part = exact_flow(
        rig, rig.vertices(Pose(NONE)), rig.vertices(Pose(NONE, shift=(0.1, -0.05))), camera
    )
    skin = part == len(rig.parts) - 1
    np.testing.assert_allclose(flow[skin], np.tile([0.1, -0.05], (skin.sum(), 1)) * camera.unit, atol=1e-5)
    assert (flow[part == -1] == 0).all() and visible[skin].mean() > 0.9
    covered = (part == -1) & ~visible  # the wall on the side to which the head moves
    assert covered[:, 64:].sum() > 3 * covered[:, :64].sum() > 0


def test_nothing_moves_without_motion(rigs):
    vertices = rigs[0].vertices(Pose(shown(au12=2)))
    flow, visible, _ = exact_flow(rigs[0], vertices, vertices, Camera(96, 96))
    assert np.abs(flow).max() < 1e-4 and visible.mean() > 0.85


def test_flow_agrees_with_the_motion_of_the_landmarks(rigs):
    camera = Camera(256, 256)
    before = rigs[3].vertices(Pose(shown(au12=1)))
    after = rigs[3].vertices(Pose(shown(au12=2, au4=1), turn=(0.01, 0.02, 0)))
    flow, visible, _ = exact_flow(rigs[3], before, after, camera)
    start, end = (camera.project(rigs[3].landmarks(v)) for v in (before, after))
    inner = [*range(17, 36), 50, 51, 52, 57, 58]  # away from edges, where a pixel may show something else
    at = start[inner].round().astype(int)
    seen = visible[at[:, 1], at[:, 0]]
    assert seen.mean() > 0.9
    difference = flow[at[:, 1], at[:, 0]] - (end - start)[inner]
    assert np.linalg.norm(difference, axis=1)[seen].max() < 0.25


def test_landmarks_lie_on_what_is_rendered(rigs):
    """Marks painted into the texture at the 68 places are found again in the picture."""
    marks = head_pixels(topology().uv[:68])
    camera, distances = Camera(256, 256), []
    for rig in rigs[:3]:
        vertices = rig.vertices(Pose(shown(au12=2, au25=2), turn=(0.05, 0.08, 0.03)))
        seen = surface(rig, vertices, camera)
        skin = seen.layer == len(rig.parts) - 1
        texture = seen.blend(rig.pixels)[skin]
        place = np.stack([seen.columns, seen.rows], axis=1)[skin]
        true = camera.project(rig.landmarks(vertices))
        for mark, point in zip(marks, true, strict=True):
            near = np.linalg.norm(texture - mark, axis=1)
            weight = np.exp(-0.5 * (near / (0.8 * DENSITY / camera.unit)) ** 2)
            if weight.sum() > 1:  # a mark of a pixel's size can be seen
                found = (weight[:, None] * place).sum(0) / weight.sum()
                distances.append(np.linalg.norm(found - point))
    assert len(distances) > 0.9 * 3 * 68 and np.mean(distances) <= 1


def test_gaze_is_the_direction_of_the_iris(rigs):
    rng = np.random.default_rng(0)
    for rig in rigs:
        gaze = rng.uniform(-0.35, 0.35, 2)
        vertices = rig.vertices(Pose(NONE, gaze=tuple(gaze), turn=tuple(rng.normal(0, 0.2, 3))))
        for side in ("left", "right"):
            assert np.abs(rig.iris_direction(vertices, side) - gaze_direction(gaze)).max() < 1e-6


def test_the_iris_is_drawn_where_the_gaze_points():
    rig = Rig(draw_identity(4))
    renderer, eye = Renderer(rig, Camera(256, 256)), [p.name for p in rig.parts].index("eye_left")
    place = []
    for yaw in (-0.3, 0.0, 0.3):
        vertices = rig.vertices(Pose(NONE, gaze=(0.0, yaw)))
        picture, seen = renderer.picture(vertices).astype(float).sum(2), surface(rig, vertices, renderer.camera)
        ball = seen.layer == eye
        dark = np.clip(300 - picture[seen.rows[ball], seen.columns[ball]], 0, None)
        place.append((dark * seen.columns[ball]).sum() / dark.sum())
    assert place[0] < place[1] - 1 < place[2] - 2  # from left to right on the image


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
def test_landmark_motion_tells_intensities_within_a_person(seed):
    video = record(participant(seed), 2400, size=64)
    x, y = landmark_motion(video), video.aus
    predicted = Ridge(1e-5).fit(x[:1600], y[:1600]).predict(x[1600:])
    assert r2_score(y[1600:], predicted, multioutput="raw_values").min() >= 0.9


def test_it_tells_clearly_less_about_another_person():
    data = [(landmark_motion(v), v.aus) for v in (record(participant(s), 2400, size=64) for s in (1, 3, 5))]
    within, across = [], []
    for k, (x, y) in enumerate(data):
        model = Ridge(1e-4).fit(x[:1600], y[:1600])
        within.append(r2_score(y[1600:], model.predict(x[1600:])))
        across += [r2_score(b, model.predict(a)) for j, (a, b) in enumerate(data) if j != k]
    assert min(within) > 0.95 and max(across) < 0.8


# --- what each action unit does


@pytest.mark.parametrize(
    "au, points, axis, sign",
    [
        (1, (21, 22), 1, -1),  # inner brows up
        (2, (17, 18, 25, 26), 1, -1),  # outer brows up
        (4, (20, 21, 22, 23), 1, 1),  # brows down
        (5, (37, 38, 43, 44), 1, -1),  # upper lids up
        (6, (40, 41, 46, 47), 1, -1),  # lower lids up
        (9, (31, 35), 1, -1),  # wings of the nose up
        (12, (48, 54), 1, -1),  # lip corners up
        (15, (48, 54), 1, 1),  # lip corners down
        (17, (57, 8), 1, -1),  # lower lip and chin up
        (25, (66, 57), 1, 1),  # lower lip down
        (26, (8, 57, 66), 1, 1),  # jaw down
    ],
)
def test_each_action_unit_moves_what_facs_says(rigs, au, points, axis, sign):
    for rig in rigs:
        rest = rig.landmarks(rig.vertices(Pose(NONE)))
        moved = rig.landmarks(rig.vertices(Pose(shown(**{f"au{au}": 5.0})))) - rest
        assert (sign * moved[list(points), axis] > 0.01).all()
        assert np.linalg.norm(moved, axis=1).max() < 0.75


def test_action_unit_20_stretches_the_mouth(rigs):
    for rig in rigs:
        rest, wide = (rig.landmarks(rig.vertices(Pose(a))) for a in (NONE, shown(au20=5)))
        assert wide[54, 0] - wide[48, 0] > 1.1 * (rest[54, 0] - rest[48, 0])


def test_brows_move_more_by_brow_units_than_the_mouth(rigs):
    rest = rigs[0].landmarks(rigs[0].vertices(Pose(NONE)))
    for au, here, there in ((1, slice(17, 27), slice(48, 68)), (12, slice(48, 68), slice(17, 27))):
        moved = np.linalg.norm(rigs[0].landmarks(rigs[0].vertices(Pose(shown(**{f"au{au}": 5.0})))) - rest, axis=1)
        assert moved[here].max() > 20 * moved[there].max()


def test_intensity_scales_what_is_seen(rigs):
    rest = rigs[1].landmarks(rigs[1].vertices(Pose(NONE)))
    size = [
        np.linalg.norm((rigs[1].landmarks(rigs[1].vertices(Pose(shown(au1=a)))) - rest)[17:27]) for a in (1, 2, 3, 4, 5)
    ]
    np.testing.assert_allclose(np.array(size) / size[-1], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)


def test_people_move_differently(rigs):
    corners = []
    for rig in rigs:
        rest, smile = (rig.landmarks(rig.vertices(Pose(a))) for a in (NONE, shown(au12=5)))
        corners.append((smile - rest)[[48, 54], :2].ravel())
    spread = np.std(corners, axis=0)
    assert (spread > 0.02).all()  # of about 0.2 in all
    left, right = np.abs(np.array(corners)[:, 1]), np.abs(np.array(corners)[:, 3])
    assert np.abs(left / right - 1).max() > 0.1  # crooked smiles exist


def test_contempt_is_one_sided():
    rig = Rig(draw_identity(0))
    rest = rig.landmarks(rig.vertices(Pose(NONE)))
    moved = rig.landmarks(rig.vertices(Pose(emotion_aus("contempt"), lean=0.85))) - rest
    assert moved[54, 1] < 4 * moved[48, 1] < 0.2 and moved[54, 1] < -0.03


# --- no artefacts

HARD = {
    **{name: emotion_aus(name) for name in EMOTIONS},
    **{f"AU {au}": shown(**{f"au{au}": 5.0}) for au in AUS},
    "4+9": shown(au4=5, au9=5),
    "smile with open jaw": shown(au6=5, au12=5, au25=5, au26=5),
    "chin and smile": shown(au12=5, au17=5),
    "stretched down": shown(au15=5, au20=5, au25=5),
}


@pytest.mark.parametrize("name", HARD)
def test_skin_does_not_fold_over(rigs, name):
    mesh = topology()
    inner = radial(mesh.uv)[mesh.triangles].max(1) < 0.9
    for rig in rigs:
        for blink in (0.0, 1.0):
            head = rig.vertices(Pose(HARD[name], blink=blink))[rig.slices["head"], :2]
            a, b, c = head[mesh.triangles].transpose(1, 0, 2)
            area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
            assert np.clip(-area[inner], 0, None).sum() / 2 < 0.01  # 27 of 65536 pixels at 256 px


@pytest.mark.parametrize("name", HARD)
def test_lips_and_lids_never_cross(rigs, name):
    lines = topology().lines
    for rig in rigs:
        for blink in (0.0, 0.5, 1.0):
            head = rig.vertices(Pose(HARD[name], blink=blink, gaze=(-0.3, 0.1)))[rig.slices["head"]]
            lips = head[lines["inner_lower"], 1] - head[lines["inner_upper"], 1]
            assert lips.min() > -0.011
            for side in ("left", "right"):
                upper, lower = head[lines[f"{side}_upper"]], head[lines[f"{side}_lower"]]
                gap = np.interp(upper[:, 0], lower[:, 0], lower[:, 1]) - upper[:, 1]
                assert gap.min() > -0.035


def test_a_closed_mouth_shows_no_teeth_and_an_open_one_does(rigs):
    for rig in rigs:
        names = [p.name for p in rig.parts]
        for aus, teeth in ((NONE, False), (shown(au17=5), False), (shown(au12=4, au25=4), True)):
            seen = surface(rig, rig.vertices(Pose(aus)), Camera(256, 256))
            inside = np.isin(seen.layer, [names.index(n) for n in ("cavity", "upper_teeth", "lower_teeth")])
            assert (inside.sum() > 40) if teeth else (inside.sum() == 0)


def test_a_blink_hides_the_eyes(rigs):
    for rig in rigs:
        eyes = [k for k, p in enumerate(rig.parts) if p.name.startswith(("eye", "gleam"))]
        count = [
            np.isin(surface(rig, rig.vertices(Pose(NONE, blink=b)), Camera(256, 256)).layer, eyes).sum() for b in (0, 1)
        ]
        assert count[0] > 200 and count[1] <= 0.02 * count[0]


def test_motion_is_smooth():
    for seed in (0, 5):
        video = record(participant(seed), 500, fps=30, size=256)
        p = video.performance
        lids = [*range(36, 48)]
        rest = [k for k in range(68) if k not in lids]  # blinks are fast
        step = np.linalg.norm(np.diff(video.landmarks[:, rest], axis=0), axis=2)
        assert step.max() < 7 and np.median(step) < 1  # pixels of 256
        assert np.abs(np.diff(p.turn, axis=0)).max() < 0.05


# --- a detector takes them for faces


def test_dlib_finds_frontal_faces_and_their_landmarks():
    detector, found, errors = DlibDetector(), 0, []
    rng = np.random.default_rng(3)
    for seed in range(24):
        person, aus = participant(100 + seed), rng.uniform(0, 4, 12) * (rng.random(12) < 0.2)
        rig = Rig(person.identity)
        pose = Pose(aus, gaze=tuple(rng.normal(0, 0.1, 2)), turn=tuple(rng.normal(0, 0.05, 3)))
        vertices = rig.vertices(pose)
        faces = detector(Renderer(rig, Camera(256, 256)).picture(vertices, aus))
        true = Camera(256, 256).project(rig.landmarks(vertices))
        if faces:
            found += 1
            apart = np.linalg.norm(true[36:42].mean(0) - true[42:48].mean(0))
            errors.append(np.linalg.norm(faces[0].points - true, axis=1).mean() / apart)
    assert found >= 23  # 95 % of 24
    assert np.mean(errors) <= 0.05


# --- recordings


def test_the_same_arguments_give_the_same_pixels_in_another_process():
    code = (
        "from facecomp.faces.synthetic import participant, record; import hashlib;"
        "v = record(participant(3), 30, size=64, seed=2);"
        "print(hashlib.sha256(b''.join(v.frame(t).tobytes() for t in (0, 7, 29))).hexdigest())"
    )
    answers = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "ab"}
    assert len(answers) == 1 and len(answers.pop().strip()) == 64


def test_seeds_and_people_differ():
    a, b, c = record(participant(1), 40, size=64), record(participant(1), 40, size=64, seed=1), record(participant(2), 40, size=64)
    assert (a.aus != b.aus).any() and (a.frame(0) != c.frame(0)).mean() > 0.3
    neutral = [still(participant(s), size=64).astype(float) for s in (1, 1, 2)]
    assert np.abs(neutral[0] - neutral[1]).max() == 0 < np.abs(neutral[0] - neutral[2]).mean()


def test_memory_does_not_grow_with_length():
    def peak(frames: int) -> int:
        video = record(participant(0), frames, size=64)
        video.frame(0)
        tracemalloc.start()
        total = sum(int(picture[0, 0, 0]) for picture in video.frames())
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total > 0
        return size

    assert peak(60) < 1.1 * peak(6)


@pytest.mark.parametrize("size", [64, 100, (96, 128), (512, 384), 512])
def test_any_size(size):
    video = record(participant(1), 2, size=size)
    height, width = (size, size) if isinstance(size, int) else size
    assert video.frame(1).shape == (height, width, 3)
    points = video.landmarks[0]
    assert (points > 0).all() and (points < (width, height)).all()
    flow, visible = video.flow(0)
    assert flow.shape == (height, width, 2) and visible.dtype == bool


def test_sizes_show_the_same_face():
    small, large = (still(participant(2), size=s) for s in (64, 256))
    reduced = cv2.resize(large, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(reduced - small).mean() < 4


@pytest.mark.parametrize("label", EMOTIONS)
def test_every_expression_can_be_recorded(label):
    video = record(participant(1), 40, size=64, expression=label)
    apex = video.aus[video.apex]
    wanted = emotion_aus(label)
    assert (apex[wanted >= 3] > 1).all() and video.aus[0].max() < 0.05
    assert video.labels[video.apex] == label


def test_micro_expressions_are_short_weak_and_still():
    for seed in range(6):
        video = record(participant(seed), 100, fps=200, size=64, seed=seed, expression="disgust", micro=True)
        assert 0 <= video.onset < video.apex < video.offset < 100
        assert (video.offset - video.onset) / 200 <= 0.5 and 0.3 < video.aus.max() < 3.5
        assert np.ptp(video.pose, axis=0).max() < 0.02


def test_one_frame_is_enough():
    video = record(participant(0), 1, size=64)
    assert video.frame(0).shape == (64, 64, 3) and (video.onset, video.apex, video.offset) == (0, 0, 0)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"frames": 0}, "frames 0"),
        ({"frames": 2.5}, "frames 2.5"),
        ({"frames": 5, "fps": 0}, "fps 0"),
        ({"frames": 5, "size": 16}, "size 16 x 16"),
        ({"frames": 5, "size": (64, 5000)}, "size 64 x 5000"),
        ({"frames": 5, "expression": "joy"}, "'joy'"),
    ],
)
def test_impossible_wishes_are_refused_in_one_line(arguments, words):
    with pytest.raises(InputError) as error:
        record(participant(0), **arguments)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_frames_outside_are_refused():
    video = record(participant(0), 3, size=64)
    for ask in (lambda: video.frame(3), lambda: video.frame(-1), lambda: video.flow(2)):
        with pytest.raises(InputError, match="SYN000"):
            ask()


# --- the renderer's parts


def test_triangle_map_against_a_plain_loop():
    rng = np.random.default_rng(0)
    xy, triangles = rng.uniform(-5, 25, (40, 2)), rng.integers(0, 40, (30, 3))
    expected = np.full((20, 18), -1)
    for number, (i, j, k) in enumerate(triangles):
        a, b, c = xy[i], xy[j], xy[k]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0:
            continue
        for y in range(20):
            for x in range(18):
                u = ((x - a[0]) * (c[1] - a[1]) - (y - a[1]) * (c[0] - a[0])) / area
                v = ((y - a[1]) * (b[0] - a[0]) - (x - a[0]) * (b[1] - a[1])) / area
                if u >= 0 and v >= 0 and u + v <= 1:
                    expected[y, x] = number
    assert (triangle_map(xy, triangles, 20, 18) == expected).mean() > 0.995


def test_rotations_are_rotations():
    turn = rotation(0.2, -0.4, 0.3)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.isclose(np.linalg.det(turn), 1)


def test_the_mean_face_is_symmetric():
    points = topology().uv[:68]
    np.testing.assert_allclose(points[MIRROR] * [-1, 1], points)


def test_the_picture_in_the_readme_is_what_is_drawn_now():
    committed = np.asarray(Image.open(ROOT / "figures" / "faces" / "synthetic_participants.jpg").convert("RGB"))
    drawn = np.concatenate([np.asarray(sheet) for sheet in overview_sheets()])
    assert committed.shape == drawn.shape
    assert np.abs(committed.astype(float) - drawn).mean() < 3  # JPEG
