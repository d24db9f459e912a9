"""FOMM training: golden steps through a whole run, kills, two processes, published files, settings, run notebook."""

import json
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, drive
from golden.fomm_losses_checks import loss_network
from golden.fomm_networks_checks import build, detector
from golden.harness import GoldenSet
from PIL import Image

from facecomp import cli
from facecomp.fomm import runs, training
from facecomp.fomm.checkpoints import (
    ModelSettings,
    Networks,
    build_networks,
    import_model,
    read_model,
)
from facecomp.fomm.config import Config, DatasetParams, reduced_values
from facecomp.fomm.discriminator import MultiScaleDiscriminator
from facecomp.fomm.generator import Generator
from facecomp.fomm.losses import NAMES
from facecomp.fomm.people import make_dataset
from facecomp.fomm.published import checkpoint_name
from facecomp.fomm.steps import Batch, TrainStep
from facecomp.fomm.training import Training, main, write_run_receipt
from facecomp.fomm.transform import RandomTransform
from facecomp.records.batch import NotebookRun, run_notebook
from facecomp.records.code import notebook_parameters
from facecomp.records.files import InputError
from facecomp.records.receipts import output_faults, read_receipt
from facecomp.training.config import make_config, read_config, to_mapping
from facecomp.training.loop import NonFiniteLoss

GOLDEN = ROOT / "tests" / "golden" / "fomm"
SIDE = 32  # px
FRAMES = [SIDE, SIDE, 3]


pytestmark = pytest.mark.usefixtures("quick_training")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Six clips of two synthetic people, 4 frames each."""
    home = tmp_path_factory.mktemp("fomm") / "people"
    return make_dataset(home, people=2, frames=4, size=SIDE, quiet=True)


def values_of(data: Path, out: Path, **more) -> dict:
    """Two epochs of four steps of three pairs, of a very narrow model."""
    model = reduced_values(64, 16)["model_params"]
    model["kp_detector_params"]["num_blocks"] = model["discriminator_params"]["num_blocks"] = 2
    model["generator_params"]["num_bottleneck_blocks"] = 1
    model["generator_params"]["dense_motion_params"]["num_blocks"] = 2
    course = {"num_epochs": 2, "num_repeats": 2, "batch_size": 3, "scales": [1]}
    values = {"dataset_params": {"root_dir": str(data), "frame_shape": FRAMES}}
    values |= {"model_params": model, "visualizer_params": {"kp_size": 1}}
    values |= {"out": str(out), "vgg_weights": "random", "vgg_width": 32, "device": "cpu"}
    values |= {"progress": False, "sheet_epochs": 0}
    given = more.pop("train_params", {})
    return {**values, **more, "train_params": course | given}


def config_of(data: Path, out: Path, **more) -> Config:
    return make_config(Config, values_of(data, out, **more))


def trained(data: Path, out: Path, **more) -> Path:
    return Training(config_of(data, out, **more)).train()


def content(folder: Path, name: str = "model.pt") -> dict:
    return torch.load(folder / name, weights_only=True)


def same(a, b) -> bool:
    """Whether nested mappings and lists hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def table(folder: Path) -> dict[str, np.ndarray]:
    found = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    return {name: np.atleast_1d(found[name]) for name in found.dtype.names}


# ---------------------------------------------------------------- the golden steps


def golden_networks(case) -> Networks:
    given = case.model["args"]
    return Networks(
        detector(case, given["kp_detector"]),
        build(case, Generator, given["generator"]),
        build(case, MultiScaleDiscriminator, given["discriminator"]),
    )


class GoldenPairs:
    """Two pairs whose frames depend on the epoch, in the place of `PairSet`."""

    def __init__(self, *_):
        pass

    def __len__(self):
        return 2

    def __getitem__(self, item):
        return item.epoch - 1, item.index


def test_two_epochs_of_one_step_are_the_golden_steps(data, tmp_path, monkeypatch):
    """A whole run from a start file: the losses of its log, and all its numbers after each step."""
    case, arrays = (
        GoldenSet.read(GOLDEN, None).case("train-steps"),
        np.load(GOLDEN / "train_step.npz"),
    )
    start = {key: net.state_dict() for key, net in golden_networks(case).by_key().items()}
    torch.save(start, tmp_path / "start.pt")

    def batch(items):
        step, rows = items[0][0], sorted(index for _, index in items)
        names = ("source", "driving", "keypoint")
        return Batch(*(torch.from_numpy(arrays[f"{name}_{step}"][rows]) for name in names))

    def warp(settings, seed, place, *_):
        step = place.epoch - 1
        theta, control = (torch.from_numpy(arrays[f"{n}_{step}"]) for n in ("theta", "ctl"))
        return RandomTransform(theta, control.flatten(1))

    monkeypatch.setattr(training, "PairSet", GoldenPairs)
    monkeypatch.setattr(training, "collate", batch)
    monkeypatch.setattr(training, "step_transform", warp)
    monkeypatch.setattr(training, "Vgg19", lambda *_: loss_network(case))
    given = case.model["args"]
    generator = given["generator"]
    model = {"kp_detector_params": given["kp_detector"], "generator_params": generator}
    model["discriminator_params"] = given["discriminator"]
    course = {"batch_size": 2, "checkpoint_freq": 1, "scales": [1, 0.5, 0.25]}
    more = {"model_params": model, "train_params": course, "warm_start": str(tmp_path / "start.pt")}
    more["dataset_params"] = {"root_dir": str(data), "frame_shape": [64, 64, 3]}
    folder = trained(data, tmp_path, **more)
    rows = table(folder)
    assert [name for name in rows if name in NAMES] == list(arrays["loss_names"])
    for step, limit in ((0, 1e-4), (1, 1e-3)):
        found = [rows[name][step] for name in arrays["loss_names"]]
        assert np.allclose(found, arrays[f"losses_{step}_f64"], rtol=limit, atol=0)
        state = content(folder, checkpoint_name(step))
        fixed, share = case.args["sums"][step]
        for key in ("generator", "kp_detector", "discriminator"):
            numbers = {n: t for n, t in state[key].items() if t.is_floating_point()}
            checked = 0
            for k, name in enumerate(numbers):
                if name.endswith(".conv.bias") or "conv1.bias" in name or name == "kp.bias":
                    continue  # their true gradient is 0
                checked += 1
                wanted = arrays[f"sum_{key}_{step}_f64"][k]
                allowed = fixed + share * arrays[f"abssum_{key}_{step}_f64"][k]
                assert abs(float(numbers[name].double().sum()) - wanted) <= allowed, (key, name)
                if "weight" in name and "down.weight" not in name:
                    assert not torch.equal(numbers[name], start[key][name]), (key, name)
            assert checked > 5


# ---------------------------------------------------------------- kills

# Runs a list of trainings in forked children (importing once). A child may signal itself before a given step; of a pair
# of processes each keeps the averaged gradients of its steps in a folder.
DRIVER = """
import json, sys
import torch
from children import dies_before, forked, one_of_two, print_ends, quietly
from facecomp.fomm import training
from facecomp.training import config
quietly()
config.settings(training.Config)  # looked up once

def train(values):
    training.Training(config.make_config(training.Config, values)).train()

def dying(values, number, die):
    dies_before(training.TrainStep, "__call__", number, die)
    train(values)

def together(values, port, kept, rank):
    one_of_two(rank, port)
    count, average = 0, training.average_gradients
    def watched(fabric, parameters):
        nonlocal count
        parameters, count = list(parameters), count + 1
        average(fabric, parameters)
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        torch.save(gradient, f"{kept}/{rank}-{count}.pt")
    training.average_gradients = watched
    train(values)

for values, number, what in json.load(sys.stdin):
    if isinstance(what, str):
        print_ends([forked(together, values, number, what, rank) for rank in (0, 1)])
    else:
        print_ends([forked(dying, values, number, what)])
"""


KILL, TERM = int(signal.SIGKILL), int(signal.SIGTERM)
ONE = {"sheet_epochs": 1}
OTHER = {"driving_keypoints": "per_frame", "mode": "corrected"}
WAYS = {  # deaths by signal before a step (from 1), and settings
    "one-whole": ([], ONE),
    "one-killed": ([(KILL, 2), (KILL, 5)], ONE | {"checkpoint_steps": 1}),
    "one-terminated": ([(TERM, 4), (TERM, 3)], ONE | {"checkpoint_steps": 3}),
    "other-whole": ([], OTHER),
    "other-killed": ([(KILL, 7)], OTHER),  # goes back to the end of epoch 1
}
PAIR = {"num_epochs": 1, "num_repeats": 1}


@pytest.fixture(scope="module")
def driven(data, tmp_path_factory) -> Path:
    """The folder of the runs of `WAYS`, each killed and started again until it ends, and of a run of two processes."""
    home, jobs, codes = tmp_path_factory.mktemp("driven"), [], []
    for way, (deaths, more) in WAYS.items():
        values = values_of(data, home, name=way, train_params={"checkpoint_freq": 1}, **more)
        jobs += [(values, *death) for death in [*deaths, (0, 0)]]
        codes += [{KILL: -9, TERM: 143}[number] for number, _ in deaths] + [0]
    values = values_of(data, home, name="two", sheet_epochs=1, train_params=PAIR)
    jobs.append((values, random.SystemRandom().randint(20000, 60000), str(home)))
    assert drive(DRIVER, jobs) == [*codes, 0, 0]
    return home


def test_a_run_that_was_killed_or_terminated_anywhere_ends_in_the_same_bits(driven):
    """4 steps an epoch; some went on more than once."""
    folders = {way: driven / way for way in WAYS}
    for way, folder in folders.items():
        whole = folders[f"{way.partition('-')[0]}-whole"]
        for name in ("model.pt", checkpoint_name(0), checkpoint_name(1)):  # with all optimisers
            assert same(content(whole, name), content(folder, name)), (way, name)
        for name in ("history.csv", "log.txt"):
            assert (whole / name).read_text() == (folder / name).read_text(), (way, name)
        for picture in whole.glob("train-vis/*.png"):
            assert picture.read_bytes() == (folder / "train-vis" / picture.name).read_bytes()
    assert len(list(folders["one-killed"].glob("train-vis/*.png"))) == 2
    assert content(folders["one-whole"], checkpoint_name(1))["optimizer_kp_detector"]["state"]
    assert not same(
        content(folders["one-whole"])["generator"], content(folders["other-whole"])["generator"]
    )


# ---------------------------------------------------------------- two processes


def test_two_processes_share_batch_norm_and_gradients_like_one_with_the_whole_batch(
    data, driven, tmp_path, monkeypatch
):
    alone = []

    def watched(fabric, parameters):
        alone.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))

    monkeypatch.setattr(training, "average_gradients", watched)
    trained(data, tmp_path, name="one", train_params=PAIR | {"batch_size": 6})
    assert len(alone) == 1 and len(list(driven.glob("0-*.pt"))) == 1
    first, second = (torch.load(driven / f"{rank}-1.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first, second) and len(first) == len(alone[0]) > 1000
    assert (first - alone[0]).norm() < 1e-3 * alone[0].norm()
    two, one = (table(home) for home in (driven / "two", tmp_path / "one"))
    assert two.keys() == one.keys()
    assert all(np.allclose(one[name], two[name], rtol=1e-4) for name in NAMES)
    norms = {k: v for k, v in content(tmp_path / "one")["generator"].items() if "running" in k}
    shared = content(driven / "two")["generator"]
    assert len(norms) > 10
    for name, value in norms.items():
        assert torch.allclose(shared[name], value, rtol=1e-3, atol=1e-5), name
    assert len(list((driven / "two" / "train-vis").glob("*.png"))) == 1


# ---------------------------------------------------------------- published checkpoints


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    """The folder of a finished run with checkpoints of both epochs."""
    out = tmp_path_factory.mktemp("made")
    course = {"checkpoint_freq": 1}
    return trained(data, out, name="made", train_params=course, sheet_epochs=2)


def written_at(made: Path, epoch: int, folder: Path, **more) -> Path:
    """A checkpoint as the published program writes it after `epoch` (from 0)."""
    state = content(made, checkpoint_name(1)) | {"epoch": epoch}
    del state["options"]
    rate = 2e-4 * 0.1 ** sum(m <= epoch + 1 for m in (60, 90))
    for key in ("optimizer_generator", "optimizer_discriminator", "optimizer_kp_detector"):
        state[key]["param_groups"][0]["lr"] = rate
    path = folder / checkpoint_name(epoch)
    torch.save(state | more, path)
    return path


@pytest.mark.parametrize(
    "epoch, rate", [(58, 2e-4), (59, 2e-5), (60, 2e-5), (89, 2e-6), (90, 2e-6)]
)
def test_going_on_at_a_milestone_decays_once(data, made, tmp_path, epoch, rate):
    path = written_at(made, epoch, tmp_path)
    course = {"num_epochs": epoch + 2, "num_repeats": 1, "epoch_milestones": [60, 90]}
    run = Training(config_of(data, tmp_path, checkpoint=str(path), train_params=course))
    folder = run.train()
    rows = table(folder)
    assert rows["epoch"].tolist() == [epoch + 2] and rows["rate"][0] == pytest.approx(rate)
    assert (folder / "log.txt").read_text().startswith(f"{epoch + 1:08d}) perceptual - ")
    state = content(folder, checkpoint_name(epoch + 1))
    assert state["epoch"] == epoch + 1
    assert state["optimizer_generator"]["state"][0]["step"] == 8 + 2  # went on, not from zero
    group = state["optimizer_generator"]["param_groups"][0]
    following = 2e-4 * 0.1 ** sum(m <= epoch + 2 for m in (60, 90))
    assert group["lr"] == pytest.approx(following) and group["initial_lr"] == 2e-4
    optimiser = run.optimisers.generator  # the published way, for comparison: with the file's rate
    optimiser.load_state_dict(read_model(path).others["optimizer_generator"])
    again = torch.optim.lr_scheduler.MultiStepLR(optimiser, [60, 90], 0.1, last_epoch=epoch - 1)
    optimiser.step()
    again.step()
    twice = epoch in (59, 60, 89, 90)
    assert (optimiser.param_groups[0]["lr"] < 0.5 * rate) == twice


def test_a_run_that_went_on_from_a_file_is_resumed_like_any_other(data, made, tmp_path):
    path = written_at(made, 1, tmp_path)
    course = {"num_epochs": 4, "num_repeats": 1}
    whole = trained(data, tmp_path, name="whole", checkpoint=str(path), train_params=course)
    for epochs in (3, 4):
        part = trained(
            data, tmp_path, name="part", checkpoint=str(path),
            train_params=course | {"num_epochs": epochs},
        )  # fmt: skip
    assert same(content(whole), content(part))
    assert (whole / "log.txt").read_text() == (part / "log.txt").read_text()
    other = written_at(made, 0, tmp_path)
    with pytest.raises(InputError, match="was started with checkpoint"):
        trained(data, tmp_path, name="part", checkpoint=str(other), train_params=course)
    with pytest.raises(InputError, match="2 epochs are finished, num_epochs is 2"):
        trained(data, tmp_path, name="none", checkpoint=str(path))


def test_a_missing_discriminator_is_said_and_a_frozen_detector_is_not_moved(data, made, tmp_path):
    path = written_at(made, 1, tmp_path)
    state = {k: v for k, v in content(tmp_path, path.name).items() if "discriminator" not in k}
    del state["optimizer_kp_detector"]
    torch.save(state, path)
    course = {"num_epochs": 3, "num_repeats": 1, "lr_kp_detector": 0}
    folder = trained(data, tmp_path, checkpoint=str(path), train_params=course)
    log = (folder / "run" / "log.txt").read_text()
    assert "no discriminator, optimizer_discriminator in it: new" in log
    after, numbers = content(folder)["kp_detector"], dict(state["kp_detector"])
    moved = [name for name, x in numbers.items() if not torch.equal(after[name], x)]
    assert moved and all("running" in name or "batches" in name for name in moved)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda s: s.pop("optimizer_generator"), "has no optimizer_generator, only"),
        (lambda s: s.pop("epoch"), "has no epoch, only"),
        (lambda s: s.pop("kp_detector"), "no part named kp_detector"),
        (lambda s: s["generator"].pop("final.weight"), "final.weight"),
        (lambda s: s.update(optimizer_generator=s["optimizer_discriminator"]), "does not fit"),
        (lambda s: s.update(epoch=-1), "epoch -1"),
        (lambda s: s.update(options={"align_corners": True}), "trained with align_corners True"),
        (lambda s: s.update(options={"per_frame": True}), "trained with per_frame True"),
        (lambda s: s.update(options={"gray": "pink"}), "gray 'pink'"),
    ],
)
def test_wrong_or_partial_checkpoints_are_refused_before_anything_is_made(
    data, made, tmp_path, capsys, change, words
):
    path = written_at(made, 1, tmp_path)
    state = content(tmp_path, path.name)
    change(state)
    torch.save(state, path)
    values = values_of(data, tmp_path / "out", checkpoint=str(path))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["--config", str(tmp_path / "config.yaml"), "--train_params.num_epochs=3"]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_warm_start_from_fomm_widens_the_detector_and_learns_with_points_in_every_frame(
    data, made, tmp_path
):
    model = config_of(data, tmp_path).model_params
    parts = {k: v for k, v in to_mapping(model).items() if k != "common_params"}
    torch.manual_seed(5)
    fomm = build_networks(ModelSettings(num_kp=10, prior=False, keypoint_source="network", **parts))
    torch.save({k: net.state_dict() for k, net in fomm.by_key().items()}, tmp_path / "fomm.pth.tar")
    more = {"warm_start": str(tmp_path / "fomm.pth.tar"), "driving_keypoints": "per_frame"}
    folder = trained(data, tmp_path, name="warm", **more)
    log = (folder / "run" / "log.txt").read_text()
    assert (
        "warm start from FOMM plain" in log
        and "1 widened" in log
        and "kp_detector.kp.weight" in log
    )
    first = content(folder)["generator"]["first.conv.weight"]
    assert (
        0 < (first - fomm.generator.first.conv.weight).abs().max() < 0.01
    )  # a few steps from there
    assert content(folder)["options"]["per_frame"] is True
    assert "equivariance_value" not in table(folder)
    with pytest.raises(InputError, match="trained with per_frame False"):
        Training(config_of(data, tmp_path, **more | {"warm_start": str(made / "model.pt")}))


# ---------------------------------------------------------------- what a run leaves


def test_outputs_of_a_run(data, made):
    names = {p.name for p in made.iterdir()}
    files = {checkpoint_name(0), checkpoint_name(1), "model.pt", "config.yaml", "history.csv"}
    assert names >= files | {"log.txt", "train-vis", "run"}
    lines = (made / "log.txt").read_text().splitlines()
    rows = table(made)
    for epoch, line in enumerate(lines):
        terms = [f"{name} - {rows[name][epoch]:.5f}" for name in NAMES]
        assert line == f"{epoch:08d}) " + "; ".join(terms)
    config = read_config(Config, made / "config.yaml")
    assert config.folder == made and config.dataset_params.root_dir == str(data)
    networks, checkpoint = import_model(made / "model.pt")
    last, _ = import_model(made / checkpoint_name(1))
    for key, network in networks.by_key().items():
        assert same(dict(network.state_dict()), dict(last.by_key()[key].state_dict()))
    options = checkpoint.others["options"]
    assert (options["data"], options["per_frame"], options["align_corners"]) == (
        "synthetic",
        False,
        False,
    )
    assert (options["prior_sigma"], options["gray"]) == (0.75, "none")
    [picture] = made.glob("train-vis/*.png")
    pixels = np.asarray(Image.open(picture))
    assert picture.name == "00000001-rec.png"
    assert pixels.shape == (3 * SIDE + 14, 45 * SIDE, 3)
    foot = pixels[-14:, :600].reshape(-1, 3).astype(int)
    assert ((foot[:, 0] > 200) & (foot[:, 1] < 80)).sum() > 50  # the red words below


def test_a_finished_run_is_left_alone_a_longer_one_goes_on_and_another_one_is_refused(
    data, tmp_path
):
    whole = trained(data, tmp_path, name="whole")
    trained(data, tmp_path, name="part", train_params={"num_epochs": 1})
    part = trained(data, tmp_path, name="part")
    assert same(content(whole), content(part))
    before = (part / "model.pt").stat().st_mtime_ns
    assert trained(data, tmp_path, name="part") == part
    assert (part / "model.pt").stat().st_mtime_ns == before
    for more, words in (
        ({"train_params": {"batch_size": 2}}, "train_params.batch_size 3, now 2"),
        ({"mode": "corrected"}, "mode compat, now corrected"),
        ({"align_corners": True}, "align_corners False, now True"),
    ):
        with pytest.raises(InputError, match=words):
            trained(data, tmp_path, name="part", **more)


def test_a_loss_that_is_no_number_stops_the_run_and_saves_nothing_of_it(
    data, tmp_path, monkeypatch
):
    collate, seen = training.collate, []

    def spoilt(pairs):
        batch, _ = collate(pairs), seen.append(1)
        return replace(batch, source=batch.source * float("nan")) if len(seen) == 6 else batch

    monkeypatch.setattr(training, "collate", spoilt)
    with pytest.raises(NonFiniteLoss, match="epoch 2, step 1, items .*last good checkpoint"):
        trained(data, tmp_path)
    monkeypatch.setattr(training, "collate", collate)
    assert same(content(trained(data, tmp_path)), content(trained(data, tmp_path / "whole")))


def test_workers_change_no_bit_and_bf16_is_used(data, tmp_path):
    one_epoch = {"num_epochs": 1}
    plain = trained(data, tmp_path, name="plain", train_params=one_epoch)
    workers = trained(data, tmp_path, name="workers", train_params=one_epoch, num_workers=2)
    assert same(content(plain), content(workers))
    more = {"precision": "bf16", "sheet_epochs": 1, "train_params": one_epoch}
    half = trained(data, tmp_path, name="half", **more)
    for name in NAMES:
        a, b = table(plain)[name][0], table(half)[name][0]
        assert abs(b / a - 1) < 0.05, name
    assert table(plain)["perceptual"][0] != table(half)["perceptual"][0]
    assert len(list(half.glob("train-vis/*.png"))) == 1


def test_compile_compiles_each_network_once(data, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(type(self)))
    monkeypatch.setattr(training, "check_compiler", lambda device: None)
    trained(data, tmp_path, compile=True, train_params={"num_epochs": 1, "num_repeats": 1})
    assert [kind.__name__ for kind in compiled] == [
        "KeyPointDetector",
        "Generator",
        "MultiScaleDiscriminator",
    ]


def test_training_learns(data, tmp_path):
    course = {"num_epochs": 6, "lr_generator": 2e-3}
    rows = table(trained(data, tmp_path, train_params=course))
    assert rows["perceptual"][-1] < 0.7 * rows["perceptual"][0]


# ---------------------------------------------------------------- the step's points


def test_points_of_every_frame_reach_the_step_and_move_the_heat_map_filters(data, tmp_path):
    batches, step = [], TrainStep.__call__
    folders = {}
    for way in ("first_frame", "per_frame"):
        run = Training(config_of(data, tmp_path, name=way, driving_keypoints=way))
        kept = training.collate([run.pairs[k] for k in range(3)])
        batches.append(kept)
        folders[way] = run.train()
    assert batches[0].driving_keypoints is None
    assert not torch.equal(batches[1].keypoints, batches[1].driving_keypoints)
    torch.manual_seed(0)
    name = "dense_motion_network.hourglass.encoder.down_blocks.0.conv.weight"
    seed = config_of(data, tmp_path)
    training.seed_all(seed.seed)
    start = build_networks(training.model_settings(seed)).generator.state_dict()[name]
    weights = {way: content(folder)["generator"][name] for way, folder in folders.items()}
    assert torch.equal(weights["first_frame"][:, ::4], start[:, ::4])
    assert not torch.equal(weights["per_frame"][:, 4::4], start[:, 4::4])
    assert step is TrainStep.__call__


def test_gray_makes_the_frames_grey_and_is_kept(data, tmp_path):
    run = Training(config_of(data, tmp_path, gray="luma"))
    batch = training.collate([run.pairs[k] for k in range(2)])
    spread = (batch.source - batch.source.mean(1, keepdim=True)).abs().max()
    plain = Training(config_of(data, tmp_path))
    coloured = training.collate([plain.pairs[k] for k in range(2)]).source
    assert spread < 0.02 < (coloured - coloured.mean(1, keepdim=True)).abs().max()
    one = {"num_epochs": 1, "num_repeats": 1}
    folder = trained(data, tmp_path, gray="luma", train_params=one)
    assert content(folder)["options"]["gray"] == "luma"


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "options, words",
    [
        (["--dataset_params.root_dirs=x"], "nearest known one is dataset_params.root_dir"),
        (["--dataset_params.root_dir={folder}/none"], "no such folder"),
        (["--keypoint_folder={folder}"], "no key points of the clip"),
        (["--vgg_weights={folder}/none.pth"], "VGG19 weights are not there"),
        (["--dataset_params.frame_shape=[64, 64, 3]"], "frames of 32x32 px"),
        (["--train_params.batch_size=13"], "12 pairs in an epoch, fewer than batch_size 13"),
        (["--match_points=substring", "--mode=corrected"], "needs mode compat"),
        (["--driving_keypoints=all"], "driving_keypoints"),
        (["--warm_start={folder}/none.pt"], "none.pt"),
        (["--train_params.scales=[0.5]"], "the discriminator needs 1"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(data, tmp_path, capsys, options, words):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values_of(data, tmp_path / "out")))
    options = [option.format(folder=tmp_path) for option in options]
    assert main(["--config", str(tmp_path / "config.yaml"), *options]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1 and said.startswith("facecomp: ")


def test_a_published_file_trains_unchanged_and_names_the_run(data, tmp_path):
    """Blocks of our own file that the published program knows are a published file."""
    config = to_mapping(config_of(data, tmp_path))
    blocks = {k: config[k] for k in ("dataset_params", "model_params", "train_params")}
    blocks["dataset_params"]["pairs_list"] = "None"
    (tmp_path / "casme2.yaml").write_text(yaml.safe_dump(blocks))
    given = ["--published-config", str(tmp_path / "casme2.yaml"), f"--out={tmp_path}"]
    given += ["--vgg_weights=random", "--vgg_width=32", "--device=cpu", "--progress=false"]
    given += ["--sheet_epochs=0", "--visualizer_params.kp_size=1"]
    assert main(given) == 0
    ours = trained(data, tmp_path, name="ours")
    assert same(content(tmp_path / "casme2"), content(ours))
    read = read_config(Config, tmp_path / "casme2" / "config.yaml")
    assert replace(read, name="ours") == read_config(Config, ours / "config.yaml")


# ---------------------------------------------------------------- runs and notebook

NOTEBOOK = ROOT / "nbs" / "fomm" / "run_train.ipynb"


def test_a_batch_of_all_data_sets_would_run_those_that_are_not_proven(data, tmp_path, capsys):
    others = make_dataset(tmp_path / "o", people=1, frames=2, size=SIDE, seed=1, quiet=True)
    blocks = {k: v for k, v in values_of(data, tmp_path).items() if k.endswith("_params")}
    shared = {"data": str(data), "out": str(tmp_path), "vgg_weights": "random", "vgg_width": 32}
    shared |= {"device": "cpu", "model_params": blocks["model_params"]}
    shared |= {
        "dataset_params": {"frame_shape": FRAMES},
        "train_params": blocks["train_params"],
    }
    chosen = {**notebook_parameters(NOTEBOOK), **shared, "config": "casme2", "sheet_epochs": 0}
    run = Training(replace(runs.run_config(chosen), progress=False))
    assert (run.config.name, run.config.folder) == ("casme2", tmp_path / "casme2")
    run.train()
    receipt = write_run_receipt(run, "run_train")
    made = read_receipt(receipt)
    assert not output_faults(receipt) and str(data) not in receipt.read_text()
    assert set(made.outputs) == {
        "history.csv",
        "log.txt",
        "config.yaml",
        "model.pt",
        checkpoint_name(1),
    }
    assert (made.study, made.data, made.mode) == ("fomm", "synthetic", "compat")
    assert set(made.inputs) == {"clips", "points", "vgg", "frames"}
    command = ["batch", str(NOTEBOOK), "--over", "config=all", "--dry-run"]
    for name, value in shared.items():
        command += ["-p", f"{name}={json.dumps(value) if isinstance(value, dict) else value}"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["done", "would", "would", "would"]
    assert (
        runs.RECEIPTS["run_train"](chosen) == receipt and runs.why_not_done(receipt, chosen) == ""
    )
    for more, words in (
        ({"mode": "corrected"}, "mode is 'corrected', was 'compat'"),
        ({"num_epochs": 3}, "train_params.num_epochs is 3, was 2"),
        ({"warm_start": str(receipt.parent / "model.pt")}, "not started from the warm_start"),
        ({"data": str(others)}, "clips or their points are not those"),
        ({"num_workers": 3, "device": "cuda", "sheet_epochs": 1}, ""),
    ):
        why = runs.why_not_done(receipt, chosen | more)
        assert words in why if words else why == "", (more, why)
    (receipt.parent / "model.pt").write_bytes(b"other")
    assert runs.why_not_done(receipt, chosen) == "model.pt was changed after it was made"


def test_the_run_notebook_by_papermill(data, tmp_path):
    receipt = tmp_path / "models" / "people" / "train.receipt.json"
    values = values_of(data, tmp_path)
    chosen = {"data": str(data), "out": str(tmp_path / "models"), "device": "cpu", "prior": False}
    chosen |= {"num_epochs": 1, "num_repeats": 1, "vgg_weights": "random", "vgg_width": 32}
    chosen |= {k: values[k] for k in ("model_params", "train_params", "visualizer_params")}
    chosen["dataset_params"] = {"frame_shape": FRAMES}
    outcome = run_notebook(NotebookRun(NOTEBOOK, tmp_path / "out.ipynb", (receipt,), chosen))
    assert outcome.ok, outcome.error
    made = read_receipt(receipt)
    assert (made.data, made.notebook, made.parameters["prior"]) == ("synthetic", "run_train", False)
    assert runs.why_not_done(receipt, notebook_parameters(NOTEBOOK) | chosen) == ""
    networks, _ = import_model(receipt.parent / "model.pt")  # without prior, points from files
    assert networks.kp_detector.priors is None and networks.kp_detector.keypoint_source == "file"


def test_shipped_values_need_no_file():
    config = runs.run_config(notebook_parameters(NOTEBOOK) | {"config": "smic"})
    assert replace(config, out=Config.out, name="fomm") == Config(DatasetParams("data/smic"))
