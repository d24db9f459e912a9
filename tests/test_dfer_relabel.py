"""Relabelling and gaze tests: four steps to the same bytes after any kill, nothing silently black, each frame its own answer."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import drive, run_cells
from PIL import Image
from sklearn.metrics import recall_score

from facecomp.data.sampling import Item
from facecomp.dfer.annotations import read_lists, write_list
from facecomp.dfer.blocks import ClipSize
from facecomp.dfer.combined_scores import combined_scores, score_combined
from facecomp.dfer.config import read_config, shipped
from facecomp.dfer.frame_runs import gaze360_frame, relabel_input, split_list
from facecomp.dfer.gaze import angles_of, angular_error, vectors_of
from facecomp.dfer.gaze_evaluation import frame_answers, gaze_scores
from facecomp.dfer.labelling import LabelSettings
from facecomp.dfer.lgi import EncoderSettings
from facecomp.dfer.models import ModelInfo, Said, open_model, save_model
from facecomp.dfer.recognition_network import HeadSettings, RecognitionNetwork
from facecomp.dfer.relabel import RelabelJob, Relabelling, relabel
from facecomp.dfer.tuning_data import read_task_lists, task_set
from facecomp.dfer.tuning_scores import Best
from facecomp.records.files import InputError
from facecomp.records.receipts import output_faults

SIZE, PX = ClipSize(image=32, frames=16, patch=8), 32
CLIPS = {"02522": (16, 5), "02536": (16, 6), "02630": (37, 0), "02700": (15, 1)}  # frames, label


def make_network(head: str, frame_level: bool = True, seed: int = 0) -> RecognitionNetwork:
    torch.manual_seed(seed)
    encoder = EncoderSettings(SIZE, width=16, depth=1, heads=2, region=(2, 2, 4))
    tokens = {"tokens": "org", "frame_level": frame_level, "frame_order": "corrected"}
    network = RecognitionNetwork(encoder, HeadSettings(head, **tokens, init_scale=1.0))
    for layer in [m for m in network.head.modules() if isinstance(m, torch.nn.Linear)]:
        torch.nn.init.normal_(layer.weight, std=0.1)  # answers that differ from frame to frame
    return network


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Clips named as DFEW's 16-frame folders, train and val lists, and a model of each head."""
    root, rng = tmp_path_factory.mktemp("relabel"), np.random.default_rng(0)
    for clip, (count, _) in CLIPS.items():
        (root / "clips" / clip).mkdir(parents=True)
        for k in range(count):
            image = rng.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(image).resize((40, 40)).save(root / "clips" / clip / f"{k + 1}.png")
    for part, names in (("train", list(CLIPS)), ("val", ["02536"])):
        write_list(root / f"{part}.csv", ((f"clips/{c}", (CLIPS[c][1],)) for c in names))
    for head in ("gaze", "classes", "combined"):
        save_model(root / f"{head}.pt", make_network(head), ModelInfo(data="synthetic"))
    save_model(root / "clip_classes.pt", make_network("classes", False), ModelInfo())
    return root


def job_of(home: Path, out: Path, **changed) -> RelabelJob:
    lists = {"train": home / "train.csv", "val": home / "val.csv"}
    given = {"lists": lists, "out": out, "checkpoint": home / "gaze.pt", "root": home}
    given |= {"settings": LabelSettings(batch=2), "device": "cpu", "data": "synthetic"}
    return RelabelJob(**given | changed)


def run(job: RelabelJob) -> Path:
    return relabel(job, progress=False, show=lambda text: None)


def lines(path: Path) -> list[list[str]]:
    return [line.split(" ") for line in path.read_text().splitlines()]


def results(folder: Path) -> dict[str, bytes]:
    """Every file but those that hold times."""
    files = (f for f in folder.rglob("*") if f.is_file() and ".relabel" not in f.parts)
    timed = ("relabel.log", "relabel.receipt.json")
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if f.name not in timed}


@pytest.fixture(scope="module")
def whole(home, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert output_faults(run(job_of(home, out))) == []
    return out


# ---------------------------------------------------------------- the four steps


def test_each_step_writes_the_published_form_in_order_of_time(home, whole):
    frames = lines(whole / "frames" / "train.csv")
    assert [f for f in frames if "02536" in f[0]] == [
        [f"clips/02536/{k}.png", "6"] for k in range(1, 17)
    ]
    runs = sorted(f.name for f in (whole / "runs" / "train").iterdir())
    assert runs == ["train_02522_0.csv", "train_02536_1.csv", "train_02630_2.csv"]
    assert lines(whole / "runs" / "train" / runs[1]) == frames[16:32]
    made = sorted(f.name for f in (whole / "train").iterdir())
    assert made == runs and sorted(f.name for f in (whole / "val").iterdir()) == ["val_02536_0.csv"]
    final = [line for name in made for line in lines(whole / "train" / name)]
    assert final == lines(whole / "labelled" / "train.csv")
    assert [line[:2] for line in final] == frames[: 16 + 16 + 37]
    assert all(len(line) == 4 and abs(float(line[2])) < 3 for line in final)


def test_as_in_dfew_clips_of_fewer_than_16_frames_are_left_out_and_named(whole):
    """DFEW, fold 1: 149,664 frames are 16 of each of 9,354 clips of 9,356."""
    report = json.loads((whole / "report.json").read_text())["subsets"]["train"]
    assert (report["clips listed"], report["runs"], report["frames"]) == (4, 3, 16 + 16 + 37)
    missing = pd.read_csv(whole / "missing.csv", dtype=str)
    assert missing.values.tolist() == [
        ["train", "short in runs", "clips/02700", "no run is long enough"]
    ]


def test_labels_are_what_the_network_says_of_groups_of_16_and_the_last_group_is_filled(home, whole):
    network = open_model(home / "gaze.pt").network
    files = [home / "clips" / "02630" / f"{k + 1}.png" for k in range(37)]
    images = [relabel_input(np.asarray(Image.open(f).convert("RGB")), PX) for f in files]
    groups = [range(16), range(16, 32), [*range(32, 37)] + [36] * 11]
    with torch.no_grad():
        said = [network(torch.stack([images[k] for k in g], 1)[None])[0] for g in groups]
    wanted = torch.cat([said[0], said[1], said[2][:5]]).numpy()
    got = [line for line in lines(whole / "labelled" / "train.csv") if "02630" in line[0]]
    np.testing.assert_allclose([[float(x) for x in line[2:]] for line in got], wanted, atol=1e-5)
    assert wanted.std(0).min() > 1e-3  # frames differ


def test_equal_lists_are_labelled_once(home, tmp_path):
    lists = dict.fromkeys(("train", "val", "test"), home / "val.csv")
    out = tmp_path / "out"
    run(job_of(home, out, lists=lists))
    assert len(list((out / ".relabel").glob("answers_*.jsonl"))) == 1
    texts = {(out / "labelled" / f"{part}.csv").read_text() for part in lists}
    assert len(texts) == 1


# ---------------------------------------------------------------- kills

DRIVER = """
import json, signal, sys
from pathlib import Path
from children import dies_before, forked, print_ends, quietly
from facecomp.dfer import labelling, relabel
from facecomp.records import files

def half_a_line(out):
    journal = max(Path(out).glob(".relabel/answers_*.jsonl"))
    with open(journal, "a") as file:
        file.write('{"rows": [[[0.1')

def relabelled(home, out, moment, count):
    home = Path(home)
    if moment == "write":
        dies_before(files, "_flush_to_disk", signal.SIGKILL, count)
    if moment == "answer":
        dies_before(labelling, "_answers", signal.SIGKILL, count, lambda: half_a_line(out))
    lists = {part: home / f"{part}.csv" for part in ("train", "val")}
    settings = relabel.LabelSettings(batch=2)
    job = relabel.RelabelJob(lists, Path(out), home / "gaze.pt", root=home, settings=settings,
                             device="cpu", data="synthetic")
    relabel.relabel(job, False, lambda text: None)

quietly()
for job in json.load(sys.stdin):
    print_ends([forked(relabelled, *job)])
"""
DEATHS = {
    "while a list is written": [("write", 3), ("write", 9)],
    "between lists of a split": [("write", 14), ("write", 7)],
    "between labels": [("answer", 2), ("answer", 1)],
    "in the last split, and at the end": [("write", 31), ("write", 14), ("write", 5)],
}


def test_killed_at_any_moment_and_started_again_it_ends_in_the_same_bytes(home, whole, tmp_path):
    jobs, codes = [], []
    for k, deaths in enumerate(DEATHS.values()):
        out = str(tmp_path / f"out_{k}")
        jobs += [(str(home), out, *death) for death in [*deaths, ("", 0)]]
        codes += [-signal.SIGKILL] * len(deaths) + [0]
    assert drive(DRIVER, jobs) == codes
    for k, name in enumerate(DEATHS):
        assert results(tmp_path / f"out_{k}") == results(whole), name
        assert not list((tmp_path / f"out_{k}" / ".relabel").glob("*.part"))


def test_done_work_is_not_done_again_and_changed_work_is(home, whole, tmp_path, monkeypatch):
    from facecomp.dfer import labelling

    asked = []
    real = labelling._answers
    monkeypatch.setattr(labelling, "_answers", lambda *a: asked.append(1) or real(*a))
    run(job_of(home, whole))
    assert asked == []
    before = results(whole)
    run(job_of(home, whole, settings=LabelSettings(batch=2, legacy_colours=True)))
    assert asked and results(whole)["labelled/train.csv"] != before["labelled/train.csv"]
    asked.clear()
    run(job_of(home, whole))  # back again: what was said is still there
    assert asked == [] and results(whole) == before


# ---------------------------------------------------------------- what is missing


def test_nothing_is_silently_black(home, tmp_path):
    for clip in ("02522", "02536"):
        (tmp_path / "clips" / clip).mkdir(parents=True)
        for file in (home / "clips" / clip).iterdir():
            (tmp_path / "clips" / clip / file.name).write_bytes(file.read_bytes())
    (tmp_path / "clips/02522/4.png").write_bytes(b"")
    (tmp_path / "clips/02536/7.png").write_bytes(b"no image")
    (tmp_path / "train.csv").write_text("clips/02522 5\nclips/02536 6\nclips/00001 2\n")
    given = {"root": tmp_path, "lists": {"train": tmp_path / "train.csv"}}
    with pytest.raises(
        InputError, match=r"1 of 3 clips are missing.*clips/00001 \(no such folder\)"
    ):
        run(job_of(home, tmp_path / "out", **given))
    alone = given | {"lists": {"train": two(tmp_path)}}
    with pytest.raises(InputError, match=r"2 of 32 frames are missing.*empty.*most_missing"):
        run(job_of(home, tmp_path / "o2", **alone))
    out = tmp_path / "out"
    run(job_of(home, out, **given, most_missing=0.4))
    missing = pd.read_csv(out / "missing.csv").set_index("path")
    assert missing.what.to_dict() == {
        "clips/00001": "clip",
        "clips/02522/4.png": "frame",
        "clips/02536/7.png": "frame",
    }
    assert "empty" in missing.reason["clips/02522/4.png"]
    said = {line[0]: line for line in lines(out / "labelled" / "train.csv")}
    assert len(said) == 30 and "clips/02522/4.png" not in said
    final = [line[0] for line in lines(out / "train" / "train_02522_0.csv")]
    assert len(final) == 16 and final[2:5] == [f"clips/02522/{k}.png" for k in (3, 5, 5)]
    report = json.loads((out / "report.json").read_text())
    assert report["subsets"]["train"]["unreadable frames"] == 2
    old = LabelSettings(batch=2, legacy_black=True)
    run(job_of(home, tmp_path / "old", **given, most_missing=0.4, settings=old))
    assert len(lines(tmp_path / "old" / "labelled" / "train.csv")) == 32
    assert set(pd.read_csv(tmp_path / "old" / "missing.csv").path) == set(missing.index)  # named


def two(folder: Path) -> Path:
    return write_list(folder / "two.csv", [("clips/02522", (5,)), ("clips/02536", (6,))])


def test_what_changes_between_the_steps_is_found(home, tmp_path):
    work = Relabelling(job_of(home, tmp_path / "out", lists={"train": home / "train.csv"}), False)
    work.frames()
    file = tmp_path / "out" / "frames" / "train.csv"
    file.write_text(file.read_text().replace("clips/02522/3.png 5\n", "", 1))
    assert work.runs().runs[0] == 3  # a gap of one is filled
    run_file = next((tmp_path / "out" / "runs" / "train").glob("*02536*"))
    run_file.write_text(run_file.read_text().replace("/16.png", "/1.png"))
    assert work.runs().runs[0] == 3 and "/16.png" in run_file.read_text()  # made again
    work.label()
    labelled = tmp_path / "out" / "labelled" / "train.csv"
    labelled.write_text(labelled.read_text().replace("clips/02522/5.png 5", "clips/02522/5.png x"))
    with pytest.raises(InputError, match="label"):
        work.lists()
    work.close()


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"checkpoint": "classes.pt"}, "task gaze needs"),
        ({"checkpoint": "absent.pt"}, "absent.pt"),
        ({"lists": {"train": "absent.csv"}}, "absent.csv"),
        ({"settings": LabelSettings("emotion")}, "lists of clips, not gaze"),
    ],
)
def test_a_job_that_cannot_be_is_refused_before_anything_is_written(home, tmp_path, changed, text):
    paths = {k: home / v if k == "checkpoint" else v for k, v in changed.items()}
    with pytest.raises(InputError, match=text):
        run(job_of(home, tmp_path / "out", **paths))
    assert not list((tmp_path / "out").glob("*.csv"))


def test_weights_are_loaded_strictly_and_published_ones_in_the_corrected_order(home, tmp_path):
    network = make_network("gaze")
    weights = {f"module.{name}": value for name, value in network.state_dict().items()}
    published = {"input_size": PX, "keep_temporal_dim": True, "lg_region_size": [2, 2, 4]}
    torch.save({"model": weights, "args": published | {"num_heads": 2}}, tmp_path / "old.pth")
    less = {name: value for name, value in weights.items() if "blocks.0.mlp" not in name}
    torch.save({"model": less, "args": published}, tmp_path / "less.pth")
    job = job_of(home, tmp_path / "out", checkpoint=tmp_path / "less.pth")
    with pytest.raises(InputError, match="mlp"):
        run(job)
    from facecomp.dfer.relabel import open_labeller

    job = replace(job, checkpoint=tmp_path / "old.pth")
    assert open_labeller(job).frame_order == "corrected"
    assert open_labeller(replace(job, legacy_frame_order=True)).frame_order == "compat"
    assert open_labeller(replace(job, checkpoint=home / "gaze.pt")).frame_order == "corrected"


# ---------------------------------------------------------------- other tasks, published behaviour


def gaze_list(home: Path, root: Path) -> tuple[Path, np.ndarray]:
    """20 frames of one person in Gaze360's folders; the directions (20, 3)."""
    folder = root / "normalized_imgs" / "rec_001" / "head" / "000003"
    folder.mkdir(parents=True)
    vectors = vectors_of(torch.linspace(-1, 1, 40, dtype=torch.float64).reshape(20, 2)).numpy()
    rows = []
    for k in range(20):
        (folder / f"{k:06d}.jpg").write_bytes((home / f"clips/02630/{k + 1}.png").read_bytes())
        rows.append((f"normalized_imgs/rec_001/head/000003/{k:06d}.jpg", vectors[k]))
    return write_list(root / "train.csv", rows[::-1]), vectors  # in any order


def test_frames_of_known_gaze_get_a_class(home, tmp_path):
    file, vectors = gaze_list(home, tmp_path)
    given = {"lists": {"train": file}, "kind": "gaze", "root": tmp_path}
    how = {"settings": LabelSettings("emotion"), "checkpoint": home / "clip_classes.pt"}
    out = tmp_path / "out"
    run(job_of(home, out, **given, **how))
    rows = lines(out / "train" / "train_rec_001_000003_0.csv")
    wanted = angles_of(torch.as_tensor(vectors)).numpy()
    np.testing.assert_allclose([[float(x) for x in r[2:]] for r in rows], wanted, atol=1e-12)
    labels = [int(r[1]) for r in rows]
    assert len(set(labels[:16])) == 1 and len(set(labels[16:])) == 1  # one answer a group
    constant = {"settings": LabelSettings("emotion"), "checkpoint": None, "constant": 0}
    run(job_of(home, tmp_path / "zero", **given, **constant))
    assert {r[1] for r in lines(tmp_path / "zero" / "labelled" / "train.csv")} == {"0"}


def test_one_combined_network_gives_both(home, tmp_path):
    how = {"settings": LabelSettings("both"), "checkpoint": home / "combined.pt"}
    run(job_of(home, tmp_path / "out", **how, lists={"train": home / "val.csv"}))
    network = open_model(home / "combined.pt").network
    files = [home / "clips" / "02536" / f"{k + 1}.png" for k in range(16)]
    images = [relabel_input(np.asarray(Image.open(f).convert("RGB")), PX) for f in files]
    with torch.no_grad():
        said = network(torch.stack(images, 1)[None])
    rows = lines(tmp_path / "out" / "labelled" / "train.csv")
    assert [int(r[1]) for r in rows] == said["cls"][0].argmax(-1).tolist()
    np.testing.assert_allclose([[float(x) for x in r[2:]] for r in rows], said["reg"][0], atol=1e-5)


def test_the_published_behaviour_is_there_on_demand(home, whole, tmp_path):
    old = LabelSettings(batch=2, legacy_groups=True, legacy_colours=True)
    out = tmp_path / "out"
    run(job_of(home, out, settings=old))
    rows = [line for line in lines(out / "labelled" / "train.csv") if "02630" in line[0]]
    assert len(rows) == 32  # the rest of 5 frames has no label
    network = open_model(home / "gaze.pt").network
    files = [home / "clips" / "02630" / f"{k + 1}.png" for k in range(16)]
    swapped = [np.asarray(Image.open(f).convert("RGB"))[..., ::-1] for f in files]
    with torch.no_grad():
        said = network(torch.stack([relabel_input(image, PX) for image in swapped], 1)[None])[0]
    got = [[float(x) for x in line[2:]] for line in rows[:16]]
    np.testing.assert_allclose(got, said, atol=1e-5)
    report = json.loads((out / "report.json").read_text())
    assert report["missing"]["train frame"] == 5  # and they are named


# ---------------------------------------------------------------- gaze


class Oracle:
    """Reads the gaze that is painted into each frame, and says it; the label in blue."""

    def __init__(self, frame_level: bool, head: str = "gaze"):
        self.head = SimpleNamespace(head=head, frame_level=frame_level)
        self.settings, self.size = SimpleNamespace(size=SIZE), PX
        self.path, self.data, self.classes = Path("oracle"), "synthetic", ("a", "b", "c")
        self.network = self

    def say(self, clips: torch.Tensor) -> Said:
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
        colours = (clips * std + mean).mean((-1, -2)).transpose(1, 2)  # (B, T, 3)
        angles = (colours[..., :2] - 0.5) * 2 * np.pi
        logits = -40 * (colours[..., 2:] - torch.tensor([0.0, 0.5, 1.0])).abs()
        if not self.head.frame_level:
            angles, logits = angles[:, -1], logits[:, -1]
        return Said(logits if self.head.head == "combined" else None, angles)


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    """Gaze360's folders of two people, 40 and 21 frames whose colours are their gaze; list and runs."""
    root, rng, rows = tmp_path_factory.mktemp("painted"), np.random.default_rng(3), []
    for rec, person, count in (("rec_001", "000000", 40), ("rec_002", "000000", 21)):
        folder = root / rec / "head" / person
        folder.mkdir(parents=True)
        for k in range(count):
            angles = np.round(rng.uniform((-1.0, -3.0), (1.0, 3.0)) / 2 / np.pi * 255 + 127.5)
            Image.new("RGB", (PX, PX), (*angles.astype(int).tolist(), 0)).save(
                folder / f"{k:06d}.png"
            )
            truth = torch.as_tensor((angles / 255 - 0.5) * 2 * np.pi)
            rows.append((f"{rec}/head/{person}/{k:06d}.png", vectors_of(truth).numpy()))
    write_list(root / "test.csv", rows)
    listing = read_lists([root / "test.csv"], "gaze", root)[0]
    kept = [k for k in range(len(listing)) if k not in (5, 6)]  # a gap, which copies fill
    split_list(listing.take(kept), root / "runs", "test", gaze360_frame)
    return root


@pytest.mark.parametrize("frame_level", [True, False])
@pytest.mark.parametrize("lists", ["test.csv", "runs/test"])
def test_each_frame_is_compared_with_its_own_answer_and_counts_once(painted, frame_level, lists):
    listings = read_lists([painted / lists], "gaze", painted)
    made = frame_answers(Oracle(frame_level), listings, progress=False)
    assert len(made.table) == made.table.path.nunique() == (61 if lists == "test.csv" else 59)
    assert made.table.error.max() < 0.01 and made.missing == ()
    assert made.table.groupby("person").size().tolist()[1] == 21
    scores = gaze_scores(made.table).set_index("range")
    back = np.abs(made.table.yaw) > np.pi / 2
    assert scores.frames["back"] == back.sum() and scores.frames["front 180"] == (~back).sum()
    assert scores.constant["all 360"] > 30  # one answer for all is far off


def test_the_mean_error_is_that_of_all_frames_not_of_batches(painted):
    listings = read_lists([painted / "test.csv"], "gaze", painted)
    model = open_model(save_model(painted / "g.pt", make_network("gaze"), ModelInfo()))
    means = {b: frame_answers(model, listings, batch=b, progress=False) for b in (1, 3)}
    truth = angles_of(torch.as_tensor(listings[0].values))
    said = torch.tensor(np.array(means[1].table[["said_pitch", "said_yaw"]]))
    wanted = float(angular_error(said.double(), truth).mean())
    for made in means.values():
        assert abs(made.table.error.mean() - wanted) < 1e-3


def test_bins_are_read_as_angles(painted):
    network = make_network("l2cs")
    model = open_model(save_model(painted / "l2cs.pt", network, ModelInfo()))
    listings = read_lists([painted / "test.csv"], "gaze", painted)
    made = frame_answers(model, listings, progress=False)
    assert len(made.table) == 61 and made.table.said_yaw.abs().max() <= np.pi / 2


def test_clips_of_the_combined_task_are_scored_by_their_mean_probability(home, whole):
    model = open_model(home / "combined.pt")
    scores = score_combined(model, whole / "train", home, progress=False)
    lists = read_lists([whole / "train"], "combined", home)
    table = frame_answers(model, lists, progress=False).table
    shares = table.groupby("clip")[[f"p{k}" for k in range(7)]].mean()
    truth = [CLIPS[Path(clip).name][1] for clip in shares.index]
    said = shares.to_numpy().argmax(1)
    assert scores.clips.labels.tolist() == truth and scores.clips.said.tolist() == said.tolist()
    wanted = recall_score(truth, said, average="macro", labels=sorted(set(truth)), zero_division=0)
    assert scores.clips.scores.uar == pytest.approx(wanted)
    assert scores.degrees == pytest.approx(table.error.mean())
    made = frame_answers(Oracle(True, "combined"), lists, progress=False)
    assert len(combined_scores(replace_labels(made)).frames.labels) == 69


def replace_labels(made):
    return replace(made, table=made.table.assign(label=0))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["gaze", "combined"])
def test_yaw_is_mirrored_with_the_image_but_not_in_the_published_way(tmp_path, legacy, kind):
    """The left half of every frame is bright, and everybody looks to the right."""
    image = np.zeros((PX, PX, 3), np.uint8)
    image[:, : PX // 2] = 250
    values = (0.6, 0.0, -0.8) if kind == "gaze" else (2, 0.1, 0.7)
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        rows = []
        for k in range(20):
            Image.fromarray(image).save(tmp_path / part / f"{k}.png")
            rows.append((f"{part}/{k}.png", values))
        write_list(tmp_path / part / f"{part}_x_0.csv", rows)
    opts = {"data_path": str(tmp_path), "data_root": str(tmp_path), "short_side_size": PX}
    opts |= {
        "input_size": PX,
        "patch_size": [8, 8],
        "lg_region_size": [2, 2, 4],
        "auto_augment": "",
    }
    opts |= {"random_erase_prob": 0.0, "legacy.gaze_augmentation": legacy, "clip_stride": 1}
    name = "gaze360T" if kind == "gaze" else "dfew_combine"
    config = read_config(name, opts, say=lambda text: None)
    clips = task_set(config, read_task_lists(config).train, training=True)
    seen = set()
    for epoch in range(4):
        for k in range(len(clips)):
            made = clips[Item(0, epoch, k)]
            mirrored = bool(
                made.videos[..., : PX // 4].mean() < made.videos[..., -PX // 4 :].mean()
            )
            column = made.targets[0, :, 0 if kind == "gaze" else 2]
            looks = set(torch.sign(column).int().tolist())
            assert looks == ({1} if legacy or not mirrored else {-1})
            seen.add(mirrored)
    assert seen == {True, False}


def test_the_best_gaze_model_is_that_of_the_lowest_angular_error():
    gaze = [name for name in shipped() if name.startswith("gaze360") and "combine" not in name]
    assert len(gaze) >= 3
    for name in gaze:
        metric = read_config(name, say=lambda text: None).training.val_metric
        best = Best(metric)
        errors = [30.0, 12.0, 15.0, 11.0, 40.0]
        taken = [best.take({"angular_error": e, "loss": -e}, k) for k, e in enumerate(errors)]
        assert taken == [True, True, False, True, False] and best.value == 11.0, name


# ---------------------------------------------------------------- notebooks


def test_the_notebook_of_the_four_steps_ends_with_a_receipt(home, tmp_path):
    given = {"lists": str(home), "data_root": str(home), "checkpoint": str(home / "gaze.pt")}
    given |= {"out": str(tmp_path), "name": "x", "device": "cpu", "batch": 2}
    names = run_cells("run_relabel", "dfer", **given)
    assert names["receipt"] == tmp_path / "x" / "relabel.receipt.json"
    assert output_faults(names["receipt"]) == []
    made = json.loads(names["receipt"].read_text())
    assert made["notebook"] == "run_relabel" and made["parameters"]["task"] == "gaze"
    assert (tmp_path / "x" / "train" / "train_02522_0.csv").is_file()


def test_the_gaze_notebook_tests_a_model_that_is_there(painted, tmp_path):
    write_list(painted / "train.csv", lines_of(painted / "test.csv"))
    write_list(painted / "val.csv", lines_of(painted / "test.csv"))
    model = save_model(tmp_path / "g.pt", make_network("gaze"), ModelInfo())
    given = {"config": "gaze360T", "data_path": str(painted), "data_root": str(painted)}
    names = run_cells("run_gaze", "dfer", **given, model=str(model), out=str(tmp_path), name="x")
    assert len(names["answers"].table) == 61 and names["kind"] == "real"
    assert output_faults(names["path"]) == []
    table = pd.read_csv(tmp_path / "x" / "gaze_scores.csv")
    assert table.degrees[0] == pytest.approx(names["answers"].table.error.mean())


def lines_of(path: Path):
    return [(line[0], [float(x) for x in line[1:]]) for line in lines(path)]
