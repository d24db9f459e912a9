"""DFER pre-training: settings files, golden steps through a whole run, kills, two processes, published files, the notebook."""

import json
import multiprocessing
import random
import runpy
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, drive, run_cells
from golden.dfer_networks_checks import normalised, pretraining_network
from golden.harness import GoldenSet
from PIL import Image

from facecomp.dfer import config as dfer_config
from facecomp.dfer import pretraining
from facecomp.dfer.annotations import BadAnnotations
from facecomp.dfer.checkpoints import load_pretraining, read_weights_file
from facecomp.dfer.clips import Batch
from facecomp.dfer.config import build_network, mask_rule, read_config, shipped
from facecomp.dfer.course import Course, StepRates
from facecomp.dfer.pretraining import Pretraining, main, receipt_file, run_config
from facecomp.faces.writing import write_video
from facecomp.records.files import InputError
from facecomp.records.receipts import output_faults, read_receipt
from facecomp.training import loop
from facecomp.training.loop import NonFiniteLoss

GOLDEN = ROOT / "tests" / "golden" / "dfer"
SMALL = {"width": 32, "heads": 2, "encoder_depth": 2, "decoder_depth": 1, "decoder_width": 24}
SMALL |= {"decoder_heads": 2, "input_size": 32, "patch_size": [8, 8], "lg_region_size": [2, 2, 4]}
SMALL |= {"num_frames": 4, "part_win_size": [2, 4], "mask_ratio": 0.5, "sampling_rate": 1}
SMALL |= {"batch_size": 2, "num_workers": 0, "epochs": 2, "warmup_epochs": 1, "lr": 0.1}
SMALL |= {"save_ckpt_freq": 1, "progress": False, "device": "cpu"}
JOINT = {"attn_type": "joint", "mask_type": "tube"}
MAMBA = {"model.name": "pretrain_videomamba_base_dim512_patch16_160", "depth": 2, "heads": None}
MAMBA |= {"mask_type": "tube"}

pytestmark = pytest.mark.usefixtures("quick_training")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Eight folders of six frames of noise that moves."""
    root, rng = tmp_path_factory.mktemp("dfer") / "clips", np.random.default_rng(0)
    for k in range(8):
        (root / f"clip{k}").mkdir(parents=True)
        patch = rng.integers(0, 255, (20, 20, 3))
        for t in range(6):
            frame = np.full((40, 40, 3), 30 * k, np.uint8)
            frame[2 * t : 2 * t + 20, 5 + t : 25 + t] = patch
            Image.fromarray(frame).save(root / f"clip{k}" / f"{t:05d}.png")
    (root / "list.csv").write_text("".join(f"clip{k} 0\n" for k in range(8)))
    return root


def values_of(data: Path, out: Path, **more) -> dict:
    """Two epochs of four steps of two clips, of a very small network."""
    places = {"data_path": str(data / "list.csv"), "data_root": str(data), "output_dir": str(out)}
    return {**SMALL, **places, **more}


def trained(data: Path, out: Path, **more) -> Path:
    return Pretraining(read_config("voxceleb2", values_of(data, out, **more))).train()


def content(folder: Path, name: str = "checkpoint-1.pth") -> dict:
    return torch.load(folder / name, weights_only=True)


def same(a, b) -> bool:
    """Whether nested mappings and lists hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "output_dir")
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def distance(a: dict, b: dict) -> float:
    """Largest difference of the weights of two published files."""
    return max(float((a["model"][k] - v).abs().max()) for k, v in b["model"].items())


def losses(folder: Path, name: str = "loss") -> np.ndarray:
    table = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    return np.atleast_1d(table[name])


# ---------------------------------------------------------------- settings

# (base rate, least rate, batch of a process, epochs, warm-up, frame rate): section 12
COURSES = {
    "voxceleb2_pretrain": (3e-4, 1e-5, 40, 100, 5, 4),
    "voxceleb2_pretrain_mamba": (3e-4, 1e-5, 64, 100, 5, 4),
    **dict.fromkeys(("dfew_finetune", "mafw_finetune"), (1e-3, 1e-6, 32, 100, 5, 4)),
    "ferv39k_finetune": (1e-3, 1e-6, 40, 100, 5, 1),
    **{f"{name}_finetune": (1e-3, 1e-6, 32, 100, 5, 4) for name in ("ravdess", "cremad")},
    "enterface_finetune": (1e-3, 1e-6, 32, 100, 5, 4),
    **dict.fromkeys(("gaze360_finetune", "gaze360_l2cs"), (1e-3, 1e-6, 32, 50, 5, 1)),
    **dict.fromkeys(("gaze360T", "gaze360T_mamba"), (1e-3, 1e-6, 24, 50, 5, 1)),
    "gaze360T_combine": (1e-3, 1e-6, 8, 50, 5, 1),
    "dfew_combine": (1e-3, 1e-6, 16, 50, 5, 1),
    "mafw_combine": (1e-3, 1e-6, 32, 100, 5, 1),
    "dfew_mamba": (1e-3, 1e-6, 12, 50, 5, 4),
}


def test_shipped_files_hold_the_published_values_and_say_them():
    assert set(shipped()) == set(COURSES)
    for name, (lr, least, batch, epochs, warmup, rate) in COURSES.items():
        c, written = read_config(name), yaml.safe_load(shipped()[name].read_text())
        o, views = c.optimization, (c.data.test_num_segment, c.data.test_num_crop)
        assert (float(o.lr), float(o.min_lr), o.warmup_epochs) == (lr, least, warmup), name
        assert (c.data.batch_size, c.training.epochs, c.data.sampling_rate) == (batch, epochs, rate)
        assert (o.weight_decay, o.opt_eps, o.clip_grad) == (0.05, 1e-8, None)
        before = "pretrain" in name
        assert o.opt_betas == ((0.9, 0.95) if before else (0.9, 0.999)), name
        assert dfer_config.encoder_settings(c).drop_path == (0 if before else 0.1), name
        assert (c.data.short_side_size, *views) == (160, 2, 2)
        said = ("short_side_size", "test_num_segment", "test_num_crop", "sampling_rate")
        assert set(said) <= set(written["data"]) and "drop_path" in written["model"], name
        if "mamba" not in name:
            made = dfer_config.encoder_settings(c)
            assert (made.width, made.depth, made.region) == (512, 16, (2, 5, 10)), name
    assert read_config("mafw_combine").training.combine_loss_alpha == 0
    assert read_config("dfew_combine").training.combine_loss_alpha == 1
    assert read_config("mafw_combine").data.clip_stride == 8
    assert mask_rule(read_config("voxceleb2")).window == (5, 10)


def test_published_networks_of_shipped_files_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        counts = {
            name: sum(p.numel() for p in build_network(read_config(name)).parameters())
            for name in ("voxceleb2", "dfew")
        }
    assert counts == {"voxceleb2": 92_760_192, "dfew": 84_878_343}


PUBLISHED = """
MODEL:
  name: pretrain_videomae_base_dim512_no_depth_patch16_160
  model_key: model|module
  window_size: [8, 14, 14]
  lg_region_size: [2, 5, 10]
  part_apply_symmetry: true
  mask_ratio: 0.9
pretraining:
  use_frame_diff_as_target: true
optimization:
  lr: 3e-4
  warmup_lr: 1.0e-06
  clip_grad: null
system:
  device: cuda
  dist_backend: nccl
wandb:
  use_wandb: true
  tags: [a, b]
"""


def test_a_file_of_the_published_program_is_read_as_it_is(tmp_path):
    """Any case, `1e-3` as a text, defaults that 22.13 corrects, ignored keys named with the reason."""
    file, said = tmp_path / "old.yaml", []
    file.write_text(PUBLISHED)
    c = read_config(file, say=said.append)
    assert c.optimization.lr == 3e-4 and c.model.part_apply_symmetry is None
    assert mask_rule(c).kind == "part_window" and dfer_config.encoder_settings(c).drop_path == 0
    assert len(said) == 1 and "wandb" in said[0] and "model.window_size (computed)" in said[0]
    assert "optimization.warmup_lr (warm-up starts at 0)" in said[0]
    assert c.system.device == "auto"


def test_wrong_settings_name_file_key_and_rule(tmp_path):
    file = tmp_path / "wrong.yaml"
    for text, words in (
        ("model:\n  mask_ration: 0.9\n", ("model.mask_ration", "model.mask_ratio")),
        ("optimisation:\n  lr: 1\n", ("optimisation.lr", "optimization.lr")),
        ("data:\n  batch_size: 0\n", ("data.batch_size 0", "at least 1")),
        ("data:\n  task: guess\n", ("guess",)),
        ("model:\n  cos_attn: true\n", ("cos_attn", "only False")),
        ("system:\n  enable_deepspeed: true\n", ("deepspeed",)),
    ):
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            read_config(file)
        assert str(file) in str(caught.value) and all(w in str(caught.value) for w in words), text
    with pytest.raises(InputError, match="no such file; shipped are .*dfew_finetune"):
        read_config("dfev")
    with pytest.raises(InputError, match="unknown key epoch; the nearest"):
        read_config("dfew", {"epoch": 3})


# ---------------------------------------------------------------- the golden steps


class GoldenClips:
    """The two golden clips in the place of `PretrainClips`."""

    def __len__(self):
        return 2

    def __getitem__(self, item):
        return item.index


@pytest.mark.parametrize("freq", [1, 2])
def test_a_whole_run_has_the_golden_losses(data, tmp_path, monkeypatch, freq):
    """Four epochs of one step: losses before steps 1, 2, 3 and after the third, in one pass or in two."""
    case = GoldenSet.read(GOLDEN, None).case("pretrain-small")
    clips, masks = normalised(case), case.tensor("mask").bool()
    names, views = ("a", "b"), ((0, 0, 1),) * 2

    def batch(items):
        order = sorted(items)
        return Batch(clips[order], masks[order], names, views)

    monkeypatch.setattr(
        pretraining, "build_network", lambda c: case.filled(pretraining_network(case))
    )
    monkeypatch.setattr(Pretraining, "clips", lambda self: GoldenClips())
    monkeypatch.setattr(pretraining, "collate", batch)
    rate = 1e-3 * 256 / 2
    more = {"input_size": 40, "patch_size": [4, 4], "num_frames": 16, "mask_ratio": 0.9}
    more |= {"lg_region_size": [2, 5, 10], "part_win_size": [5, 10], "epochs": 4, "lr": rate}
    more |= {"min_lr": rate, "warmup_epochs": 0, "update_freq": freq, "batch_size": 2 // freq}
    short = tmp_path / "two.csv"
    short.write_text("clip0 0\nclip1 0\n")
    folder = trained(data, tmp_path / "out", **more, data_path=str(short))
    wanted = np.load(GOLDEN / "pretrain_small.npz")["train_losses"]
    assert np.allclose(losses(folder), wanted, rtol=1e-4, atol=0)
    parts = (losses(folder, "appearance") + losses(folder, "motion")) / 2
    assert np.allclose(losses(folder), parts, rtol=1e-5)
    assert len(np.unique(wanted)) == 4


def test_rates_of_the_published_run_are_those_of_its_log():
    """Epochs, counted from 0, of `pretrain_log.csv`; 1,091,726 videos, 160 a step."""
    rates = StepRates.of(read_config("voxceleb2"), 1_091_726 // 160, 4)
    wanted = {0: 1.8747801489124698e-05, 4: 0.0001687521985108753, 6: 0.00018738441505616434}
    for epoch, rate in wanted.items():
        assert rates.means(epoch + 1)[0] == pytest.approx(rate, rel=1e-9)
        assert rates.means(epoch + 1)[1] == pytest.approx(0.05)
    assert rates.at(0) == (0.0, 0.05) and rates.peak == pytest.approx(3e-4 * 160 / 256)


# ---------------------------------------------------------------- kills and processes

# Runs a list of trainings in forked children (importing once). A child may signal itself before a given step.
DRIVER = """
import json, sys
from children import dies_before, forked, one_of_two, print_ends, quietly
from facecomp.dfer import course, pretraining
from facecomp.dfer.config import read_config
quietly()

def train(values):
    pretraining.Pretraining(read_config("voxceleb2", values)).train()

def dying(values, number, die):
    dies_before(course.Course, "step", number, die)
    train(values)

def together(values, port, rank):
    one_of_two(rank, port)
    train(values)

for values, number, die in json.load(sys.stdin):
    if die is None:
        print_ends([forked(together, values, number, rank) for rank in (0, 1)])
    else:
        print_ends([forked(dying, values, number, die)])
"""

KILL, TERM = int(signal.SIGKILL), int(signal.SIGTERM)
DROP = {"drop_path": 0.3, "update_freq": 2, "batch_size": 1, "sheet_epochs": 1, "clip_grad": 0.5}
WAYS = {  # deaths by signal before a step (from 1), and settings
    "lgi-whole": ([], DROP),
    "lgi-killed": ([(KILL, 2), (KILL, 5)], DROP | {"checkpoint_steps": 1}),
    "lgi-terminated": ([(TERM, 4), (TERM, 3)], DROP),
    "mamba-whole": ([], MAMBA),
    "mamba-killed": ([(KILL, 7)], MAMBA),  # goes back to the end of epoch 1
    "joint-whole": ([], JOINT | {"drop_path": 0.2}),
    "joint-terminated": ([(TERM, 6)], JOINT | {"drop_path": 0.2, "checkpoint_steps": 3}),
}
FIVE = {"epochs": 1, "warmup_epochs": 0, "num_segments": 1}  # of five steps
PAIRS = {"lgi": {}, "freq": {**JOINT, "update_freq": 2}}


@pytest.fixture(scope="module")
def driven(data, tmp_path_factory) -> Path:
    """The folder of the runs of `WAYS`, each killed and started again until it ends, and of pairs of processes."""
    home, jobs, codes = tmp_path_factory.mktemp("driven"), [], []
    for way, (deaths, more) in WAYS.items():
        values = values_of(data, home / way, **more)
        jobs += [(values, *death) for death in [*deaths, (0, 0)]]
        codes += [{KILL: -9, TERM: 143}[number] for number, _ in deaths] + [0]
    for name, more in PAIRS.items():
        batch = {"batch_size": 1} if name != "freq" else {"batch_size": 1, "epochs": 3}
        values = values_of(data, home / f"two-{name}", **FIVE | more | batch)
        values["data_path"] = str(five(data, home, 4 if name == "freq" else 2))
        jobs.append((values, random.SystemRandom().randint(20000, 60000), None))
        codes += [0, 0]
    assert drive(DRIVER, jobs) == codes
    return home


def five(data: Path, home: Path, clips: int) -> Path:
    """A list of five times so many clips, so that an epoch has five steps."""
    file = home / f"five{clips}.csv"
    file.write_text("".join(f"clip{k % 8} 0\n" for k in range(5 * clips)))
    return file


def test_a_run_that_was_killed_or_terminated_anywhere_ends_in_the_same_bits(driven):
    """4 steps an epoch, of two passes; some went on more than once."""
    for way in WAYS:
        whole, folder = driven / f"{way.partition('-')[0]}-whole", driven / way
        for name in ("checkpoint-0.pth", "checkpoint-1.pth"):
            a, b = (content(f, name) for f in (whole, folder))
            assert a.keys() == b.keys(), way
            assert all(same(a[k], b[k]) for k in ("model", "optimizer", "epoch")), (way, name)
        for name in ("history.csv", "log.txt"):
            assert (whole / name).read_text() == (folder / name).read_text(), (way, name)
        for sheet in whole.glob("run/sheets/*.png"):
            assert sheet.read_bytes() == (folder / "run/sheets" / sheet.name).read_bytes()
    assert len(list((driven / "lgi-killed").glob("run/sheets/*.png"))) == 2
    first, last = (content(driven / "lgi-whole", f"checkpoint-{k}.pth") for k in (0, 1))
    assert last["epoch"] == 1 and distance(first, last) > 1e-4
    assert content(driven / "mamba-whole")["model"].keys() != last["model"].keys()


@pytest.mark.parametrize("name", PAIRS)
def test_two_processes_end_like_one_with_the_whole_batch(data, driven, tmp_path, name):
    """Five steps; with accumulation fifteen."""
    more, freq = PAIRS[name], name == "freq"
    batch = {"batch_size": 4, "update_freq": 1, "epochs": 3} if freq else {"batch_size": 2}
    values = values_of(data, tmp_path, **FIVE | more | batch)
    values["data_path"] = str(five(data, tmp_path, 4 if freq else 2))
    last = "checkpoint-2.pth" if freq else "checkpoint-0.pth"
    folder = Pretraining(read_config("voxceleb2", values)).train()
    one, two = content(folder, last), content(driven / f"two-{name}", last)
    assert one["optimizer"]["state"][0]["step"] == (15 if freq else 5)
    assert distance(one, two) < 1e-5
    start = Pretraining(read_config("voxceleb2", values))
    start._launch()
    assert distance({"model": dict(start.network.state_dict())}, one) > 1e-3
    assert np.allclose(losses(folder), losses(driven / f"two-{name}"), rtol=1e-5)


# ---------------------------------------------------------------- accumulation, NaN, files


def test_passes_add_up_to_the_gradient_of_the_whole_batch(data, tmp_path):
    """One, two and four passes of four clips: equal weights after two epochs."""
    ends = [
        content(trained(data, tmp_path / f"{freq}", update_freq=freq, batch_size=4 // freq))
        for freq in (1, 2, 4)
    ]
    assert all(distance(ends[0], other) < 1e-6 for other in ends[1:])
    assert all(end["optimizer"]["state"][0]["step"] == 4 for end in ends)


def test_a_loss_that_is_not_finite_stops_the_run_names_its_clips_and_leaves_the_weights(
    data, tmp_path, monkeypatch
):
    wrong, step = [], Course.step

    def poisoned(self, batch, losses):
        if self.number == 5:
            wrong.extend(batch.names)
            batch = replace(batch, videos=batch.videos * float("nan"))
        return step(self, batch, losses)

    monkeypatch.setattr(Course, "step", poisoned)
    with pytest.raises(NonFiniteLoss, match="epoch 2, step 1, .*loss is nan") as caught:
        trained(data, tmp_path)
    assert len(wrong) == 2 and all(name in str(caught.value) for name in wrong)
    assert "last good checkpoint is checkpoint-000002-00000000.pt" in str(caught.value)
    monkeypatch.setattr(Course, "step", step)
    again, other = trained(data, tmp_path), trained(data, tmp_path / "other")
    assert same(content(again)["model"], content(other)["model"])


def test_published_files_can_be_read_and_gone_on_from(data, tmp_path):
    """A run that goes on from `checkpoint-0.pth` alone ends where the whole run ends."""
    whole = trained(data, tmp_path / "whole")
    file = read_weights_file(whole / "checkpoint-1.pth")
    assert (file.kind, file.epoch) == ("pretraining", 1) and file.arguments["input_size"] == 32
    assert load_pretraining(file).size.image == 32
    for name in ("given", "found"):
        folder = tmp_path / name
        folder.mkdir()
        start = folder / "checkpoint-0.pth" if name == "found" else tmp_path / "start.pth"
        start.write_bytes((whole / "checkpoint-0.pth").read_bytes())
        more = {"resume": str(start)} if name == "given" else {}
        end = content(trained(data, folder, **more))
        assert same(end["model"], content(whole)["model"]), name
        assert same(end["optimizer"]["state"], content(whole)["optimizer"]["state"]), name
    log = [json.loads(line) for line in (whole / "log.txt").read_text().splitlines()]
    published = ["train_loss", "train_lr", "train_min_lr", "train_weight_decay", "train_grad_norm"]
    published += ["train_loss_scale", "epoch", "n_parameters"]
    assert [
        name for name in log[0] if name not in ("train_appearance", "train_motion")
    ] == published
    with pytest.raises(InputError, match="auto_resume"):
        trained(data, whole, auto_resume=False)
    with pytest.raises(InputError, match="optimization.lr"):
        trained(data, whole, lr=0.2)
    with pytest.raises(InputError, match="must be a number from 0"):
        trained(data, tmp_path / "late", resume=str(whole / "checkpoint-1.pth"))


def test_what_does_not_fit_is_told_before_training(data, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("\ufeffclip0 0\nclip1,0\nno such clip 0\nclip9 0\nclip2 x\n")
    with pytest.raises(BadAnnotations) as caught:
        trained(data, tmp_path / "out", data_path=str(bad))
    assert {fault.line for fault in caught.value.faults} == {1, 2, 3, 4, 5}
    for more, message in (
        ({"model.name": "vit_base_patch16_160"}, "a name with `pretrain`"),
        ({"mask_type": "tube"}, "unequal numbers of tokens"),
        ({"lg_region_size": [2, 3, 4]}, "must divide"),
        ({"batch_size": 9}, "8 clips: fewer than a step's 9"),
        ({"warmup_epochs": 3}, "lower warmup_epochs"),
        ({"data_path": ""}, "data_path is not given"),
        ({"eval_only": True}, "nothing to evaluate"),
    ):
        with pytest.raises(InputError, match=message):
            trained(data, tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_the_module_can_be_started_with_a_file_of_the_published_form(data, tmp_path, monkeypatch):
    """What `torchrun -m` runs."""
    file = tmp_path / "small.yaml"
    places = {"data_path": str(data / "list.csv"), "data_root": str(data)}
    flat = dfer_config._options({**SMALL, **places, "epochs": 1}, "test")
    nested: dict = {"model": {"name": "pretrain_videomae_base_dim512_no_depth_patch16_160"}}
    for name, value in flat.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key.upper()] = value
    file.write_text(yaml.safe_dump(nested))
    arguments = ["x", "--config", str(file), "--output_dir", str(tmp_path / "out"), "--seed", "3"]
    arguments += ["--opts", "optimization.lr=0.05", "warmup_epochs=0"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.delitem(sys.modules, "facecomp.dfer.pretraining")
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("facecomp.dfer.pretraining", run_name="__main__")
    assert stopped.value.code == 0
    made = content(tmp_path / "out", "checkpoint-0.pth")["args"]
    assert (made["seed"], made["lr"], made["epochs"]) == (3, 0.05, 1)
    assert main(["--config", str(file), "--output_dir", "x", "--opts", "lrr=1"]) == 2


def test_videos_of_voxceleb2_are_cut_by_its_window(tmp_path, monkeypatch):
    """A list of names without an ending, in a folder whose name tells the data set."""
    root, seen, step = tmp_path / "VoxCeleb2", [], Course.step
    root.mkdir()
    for k in range(2):
        frames = np.zeros((6, 224, 224, 3), np.uint8)
        frames[:, :32, 96:128] = 255  # the window of a network for 32 px
        write_video(root / f"v{k}.mp4", frames, 25, lossless=True)
    (root / "list.csv").write_text("v0 0\nv1 0\n")

    def watched(self, batch, losses):
        seen.append(batch.videos)
        return step(self, batch, losses)

    monkeypatch.setattr(Course, "step", watched)
    trained(root, tmp_path / "out", epochs=1, warmup_epochs=0)
    assert seen[0].shape == (2, 3, 4, 32, 32) and float(seen[0].min()) > 2.2  # white, normalised


def test_a_store_of_frames_and_mixed_precision(data, tmp_path):
    """Decoded once: the same bits; 16-bit numbers in the products: nearly the same losses."""
    plain, stored = (
        trained(data, tmp_path / name, **more)
        for name, more in (
            ("plain", {}),
            ("stored", {"store": str(tmp_path / "frames"), "num_workers": 1}),
        )
    )
    assert same(content(plain)["model"], content(stored)["model"])
    assert multiprocessing.active_children() == []  # or the program would never end
    rough = losses(trained(data, tmp_path / "bf16", precision="bf16"))
    assert np.allclose(rough, losses(plain), rtol=0.02) and not np.allclose(
        rough, losses(plain), 1e-7
    )


def test_the_notebook_makes_what_its_receipt_says(tmp_path, monkeypatch):
    """On a few synthetic people, with the parameters of the small network."""
    monkeypatch.setattr("IPython.display.display", lambda *_: None)
    monkeypatch.setattr("IPython.display.Image", lambda filename: Path(filename))
    monkeypatch.setattr(loop, "draw_history", lambda rows, path: path.write_bytes(b"x"))
    monkeypatch.setattr(pretraining, "project_root", lambda: tmp_path)
    from facecomp.records import files

    monkeypatch.setattr(files, "project_root", lambda: tmp_path)
    opts = {"progress": False, "warmup_epochs": 1, "width": 32, "heads": 2, "encoder_depth": 1}
    given = {"people": 2, "clips": 1, "frames": 32, "epochs": 2, "batch_size": 2, "sheet_epochs": 2}
    names = run_cells("run_pretrain", "dfer", out=str(tmp_path / "out"), opts=opts, **given)
    folder = tmp_path / "out" / "synthetic"
    receipt = read_receipt(folder / "pretrain.receipt.json")
    assert (receipt.study, receipt.notebook, receipt.data) == ("dfer", "run_pretrain", "synthetic")
    assert receipt_file(names["settings"]) == folder / "pretrain.receipt.json"
    assert output_faults(folder / "pretrain.receipt.json") == []
    assert len(losses(folder)) == 2 and (folder / "run/sheets/epoch-000002.png").is_file()
    vox = run_config({"config": "voxceleb2"})
    assert vox.data.batch_size == 40 and vox.folder.name == "voxceleb2"
