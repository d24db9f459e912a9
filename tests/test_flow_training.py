"""Flow training: golden steps through a whole run, kills, two processes, settings, files, run notebook."""

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, drive
from golden.fill import fill, make_input
from PIL import Image

from facecomp import cli
from facecomp.data.sampling import file_order
from facecomp.flow import networks, runs, training
from facecomp.flow.checkpoints import load_published, read_published
from facecomp.flow.config import Config
from facecomp.flow.losses import NUMBERS
from facecomp.flow.networks import SMALL, FlowNetwork
from facecomp.flow.pair_lists import PairFiles, read_pairs, write_pairs
from facecomp.flow.pair_sets import Batch
from facecomp.flow.people import EXACT, IMAGES, LANDMARKS, exact_pairs, make_sequences
from facecomp.flow.preparing import read_pair
from facecomp.flow.training import Training, main, write_run_receipt
from facecomp.records.batch import NotebookRun, run_notebook
from facecomp.records.code import notebook_parameters
from facecomp.records.files import InputError
from facecomp.records.receipts import output_faults, read_receipt
from facecomp.training.config import from_command_line, read_config, settings

GOLDEN = ROOT / "tests" / "golden" / "flow"
TINY = {
    "size": [64, 64],
    "widths": 32,
    "batch_size": 2,
    "epochs": 2,
    "device": "cpu",
    "progress": False,
}


# ---------------------------------------------------------------- data


def pairs_of(root: Path, frames: int) -> list[PairFiles]:
    """The pairs of all sequences of `make_sequences`, with the true motion as label."""
    pairs = []
    for folder in sorted((root / IMAGES).glob("*/*")):
        place = Path(folder.parent.name, folder.name)
        images = [folder / f"{'_'.join(place.parts)}_{t + 1:08d}.png" for t in range(frames)]
        for first, second in zip(images, images[1:], strict=False):
            label = root / EXACT / place / f"{first.stem}.npz"
            points = root / LANDMARKS / place / f"{first.stem}_landmarks.txt"
            pairs.append(PairFiles(*place.parts, first, second, label, points))
    return pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with train.csv (7 pairs), val.csv (3 pairs) of two synthetic people, and all.csv."""
    root = make_sequences(
        tmp_path_factory.mktemp("flow") / "ck", ("SYN01", "SYN02"), 1, 6, (128, 96)
    )
    pairs = pairs_of(root, 6)
    write_pairs(root / "all.csv", pairs)
    write_pairs(root / "train.csv", pairs[:7])
    write_pairs(root / "val.csv", pairs[7:])
    return root


def values_of(data: Path, out: Path, **more) -> dict:
    lists = {name: str(data / f"{name}.csv") for name in ("train", "val")}
    return {**TINY, **lists, "out": str(out), "sheet_epochs": 0, **more}


def trained(data: Path, out: Path, **more) -> Path:
    return Training(Config(**values_of(data, out, **more))).train()


def weights(folder: Path, name: str = "cp.pt") -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=True)


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def table(folder: Path) -> dict[str, np.ndarray]:
    found = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    return {name: np.atleast_1d(found[name]) for name in found.dtype.names}


# ---------------------------------------------------------------- the golden steps


class GoldenPairs:
    """The two samples of the golden steps, in the place of `PairSet`."""

    order = staticmethod(file_order)

    def __init__(self, *_):
        pass

    def __len__(self):
        return 2

    def __getitem__(self, item):
        return int(item)


def golden_collate(numbers: list[int]) -> Batch:
    def planes(name: str, side: int, channels: int, low: float, high: float) -> torch.Tensor:
        array = make_input(name, (2, side, side, channels), low, high)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1), np.float32))[
            numbers
        ]

    truths = tuple(planes(f"flow.gt.{s}", 64 // s, 2, -2, 2) for s in (2, 4, 8, 16, 32))
    known = tuple(torch.ones(t.shape[0], *t.shape[2:], dtype=torch.bool) for t in truths)
    frames = (planes(f"flow.train.x{k}", 64, 3, 0, 255) for k in (1, 2))
    return Batch(*frames, truths, known)


CASES = {"exp1": "meant", "exp2I": "meant", "exp3I": "as_coded", "exp3II": "as_coded"}


@pytest.mark.parametrize("experiment", CASES)
def test_three_epochs_of_one_step_are_the_golden_steps(data, tmp_path, monkeypatch, experiment):
    """A whole run from a start file: the losses of its history, and its weights at the end."""
    start = FlowNetwork(SMALL).state_dict()
    fill(start)
    torch.save(start, tmp_path / "start.pt")
    monkeypatch.setattr(training, "PairSet", GoldenPairs)
    monkeypatch.setattr(training, "collate", golden_collate)
    monkeypatch.setattr(Config, "channels", SMALL)
    more = {"experiment": experiment, "loss_variant": CASES[experiment], "epochs": 3, "val": ""}
    folder = trained(data, tmp_path, weights=str(tmp_path / "start.pt"), rate=1e-4, **more)
    golden = json.loads((GOLDEN / "training_steps.json").read_text())[experiment]
    totals, wanted = table(folder)["total"], [step[0] for step in golden["steps"]]
    assert totals[0] == pytest.approx(wanted[0], rel=1e-5)
    # exp2I: its gradients agree to 1e-3 only, and Adam's first steps are as large for small ones (1.5e-5 measured)
    assert np.allclose(totals, wanted, rtol=2e-5 if experiment == "exp2I" else 1e-5, atol=0)
    arrays, after = np.load(GOLDEN / "training_steps.npz"), weights(folder)
    there = [name for name in after if f"{experiment}.{name}" in arrays]
    assert len(there) > 10
    for name in there:
        assert np.abs(after[name].numpy() - arrays[f"{experiment}.{name}"]).max() < 4e-4
        assert not torch.equal(after[name], start[name])


# ---------------------------------------------------------------- kills

# Runs a list of trainings in forked children (importing once); a child may signal itself before a given step.
DRIVER = """
import json, sys
from children import dies_before, forked, print_ends, quietly
from facecomp.flow import training

def trained(values, number, die):
    dies_before(training, "batch_terms", number, die)
    training.Training(training.Config(**values)).train()

quietly()
for job in json.load(sys.stdin):
    print_ends([forked(trained, *job)])
"""


def test_a_run_that_was_killed_or_terminated_anywhere_ends_in_the_same_bits(data, tmp_path):
    """4 steps an epoch; killed before its step k (from 1), then once more, then left alone."""
    kill, term, jobs, codes, folders = int(signal.SIGKILL), int(signal.SIGTERM), [], [], {}
    every = {"checkpoint_steps": 1}
    one, other = {"experiment": "exp2II"}, {"experiment": "exp1", "mode": "compat"}
    ways = {
        "one-whole": ([], one),
        "one-killed": ([(kill, 2), (kill, 4)], one | every),
        "one-back": ([(kill, 6)], one),  # goes back to the end of epoch 1
        "one-terminated": ([(term, 2), (term, 4)], one | {"checkpoint_steps": 3}),
        "other-whole": ([], other),
        "other-killed": ([(kill, 7)], other | every),
    }
    for way, (deaths, more) in ways.items():
        values = values_of(data, tmp_path / way, **more)
        folders[way] = Config(**values).folder
        jobs += [(values, *death) for death in [*deaths, (0, 0)]]
        codes += [{kill: -9, term: 143}[number] for number, _ in deaths] + [0]
    assert drive(DRIVER, jobs) == codes
    for way, folder in folders.items():
        whole = folders[f"{way.partition('-')[0]}-whole"]
        assert equal(weights(whole), weights(folder))
        assert equal(weights(whole, "cp_1.pt"), weights(folder, "cp_1.pt"))
        assert (whole / "history.csv").read_text() == (folder / "history.csv").read_text()
    assert not equal(weights(folders["one-whole"]), weights(folders["other-whole"]))


# ---------------------------------------------------------------- two processes

# The training's own program; it keeps what the optimiser gets in each step.
PROGRAM = """
import os, sys
import torch
from facecomp.flow import training
kept, count = sys.argv.pop(1), 0
step = training.KerasAdam.step

def watched(self, closure=None):
    global count
    count += 1
    gradient = torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]])
    torch.save(gradient, f"{kept}/{os.environ['RANK']}-{count}.pt")
    return step(self, closure)

training.KerasAdam.step = watched
torch.set_num_threads(1)
sys.exit(training.main())
"""


def two_processes(folder: Path, values: dict) -> None:
    (folder / "flow.yaml").write_text(yaml.safe_dump(values))
    (folder / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(random.SystemRandom().randint(20000, 60000))]
    command += [str(folder / "program.py"), str(folder), "--config", str(folder / "flow.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert answer.returncode == 0, answer.stderr[-4000:]


def test_two_processes_average_their_gradients_to_those_of_one_with_the_whole_batch(
    data, tmp_path, monkeypatch
):
    """7 pairs: a step of 2 and 2, and one of 2 and 1, so that the shares of the last one count."""
    more = {"experiment": "exp3II", "epochs": 1, "sheet_epochs": 1}
    two_processes(tmp_path, values_of(data, tmp_path / "two", **more))
    alone, step = [], training.KerasAdam.step

    def watched(self, closure=None):
        alone.append(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]))
        return step(self, closure)

    monkeypatch.setattr(training.KerasAdam, "step", watched)
    trained(data, tmp_path / "one", **more, batch_size=4)
    assert len(alone) == 2
    for number, gradient in enumerate(alone, 1):
        first, second = (
            torch.load(tmp_path / f"{rank}-{number}.pt", weights_only=True) for rank in (0, 1)
        )
        assert torch.equal(first, second) and len(gradient) > 1000
        assert (first - gradient).norm() < 1e-3 * gradient.norm()
    two, one = (table(tmp_path / name / "exp3II") for name in ("two", "one"))
    assert two.keys() == one.keys() and {"val_epe", "val_aae_known"} <= one.keys()
    assert all(np.allclose(one[name], two[name], rtol=1e-3) for name in one)
    assert len(list((tmp_path / "two").rglob("epoch-*.png"))) == 1


# ---------------------------------------------------------------- order, validation, losses


class Watch:
    """What a run does: indices asked of each pair set, and the batches that it learns from."""

    def __init__(self, monkeypatch):
        self.asked, self.batches, terms = [], [], training.batch_terms
        watch = self

        class Noted(training.PairSet):
            def __getitem__(self, item):
                watch.asked.append((len(self.pairs), int(item)))
                return super().__getitem__(item)

        def noted(network, batch, *more):
            watch.batches.append(batch)
            return terms(network, batch, *more)

        monkeypatch.setattr(training, "PairSet", Noted)
        monkeypatch.setattr(training, "batch_terms", noted)


def test_validation_sees_each_pair_once_after_each_epoch(data, tmp_path, monkeypatch):
    watch = Watch(monkeypatch)
    for mode in ("corrected", "compat"):
        watch.asked.clear()
        folder = trained(data, tmp_path / mode, mode=mode)
        seen = [index for count, index in watch.asked if count == 3]
        assert seen == [0, 1, 2, 0, 1, 2]
        last = [count for count, _ in watch.asked]
        assert last[-3:] == [3, 3, 3] and 3 not in last[:7]
    rows = table(folder)
    assert all(np.isfinite(rows[name]).all() for name in training.ERRORS)
    assert not np.allclose(rows["val_epe"], rows["val_epe_known"])
    assert "val_epe" not in table(trained(data, tmp_path / "none", val="", epochs=1))


def test_compat_goes_by_name_and_fills_the_last_batch_with_zeros(data, tmp_path, monkeypatch):
    pairs = read_pairs(data / "train.csv")
    write_pairs(tmp_path / "mixed.csv", pairs[::-1])
    watch = Watch(monkeypatch)
    more = {"train": str(tmp_path / "mixed.csv"), "mode": "compat", "batch_size": 3}
    trained(data, tmp_path, **more)
    assert [index for count, index in watch.asked if count == 7] == 2 * list(range(9))
    firsts = torch.cat([batch.first for batch in watch.batches])
    assert torch.equal(firsts[:9], firsts[9:])  # the same order in both epochs
    for k, pair in enumerate([*pairs, pairs[-1]]):
        assert torch.equal(
            firsts[k], torch.from_numpy(read_pair(pair, (64, 64), "compat").first).permute(2, 0, 1)
        )
    assert not firsts[8].any() and not watch.batches[2].truths[0][2].any()


def test_corrected_shuffles_and_fills_nothing(data, tmp_path, monkeypatch):
    watch = Watch(monkeypatch)
    trained(data, tmp_path)
    asked = [index for count, index in watch.asked if count == 7]
    assert asked[:7] != asked[7:] and sorted(asked[:7]) == sorted(asked[7:]) == list(range(7))
    assert [len(batch.first) for batch in watch.batches] == [2, 2, 2, 1] * 2


def test_only_experiments_with_an_image_term_make_the_warped_image(data, tmp_path, monkeypatch):
    made, warp = [], networks.warped_image
    monkeypatch.setattr(networks, "warped_image", lambda *a: made.append(1) or warp(*a))
    assert "image" not in table(trained(data, tmp_path, experiment="exp1", epochs=1)) and not made
    for name in ("exp2II", "exp3I"):
        made.clear()
        assert (
            "image" in table(trained(data, tmp_path, experiment=name, epochs=1)) and len(made) == 4
        )


def test_known_only_leaves_out_what_is_unknown(data, tmp_path):
    whole, known = (table(trained(data, tmp_path / str(k), known_only=k)) for k in (False, True))
    assert whole["epe"][0] != known["epe"][0] and whole["smooth"][0] == pytest.approx(
        known["smooth"][0], rel=0.5
    )
    kept = known["epe"] * 5 / 6 + sum(
        known[f"epe_{k}"] * (1 / 6) * (0.5 - (k - 2) / 6) for k in (2, 3, 4)
    )
    assert np.allclose(known["total"], kept, rtol=1e-5)


def test_workers_and_the_exact_cache_change_no_bit(data, tmp_path):
    plain = weights(trained(data, tmp_path / "plain"))
    assert equal(plain, weights(trained(data, tmp_path / "workers", num_workers=2)))
    cached = {"cache": "exact", "cache_folder": str(tmp_path / "pairs")}
    assert equal(plain, weights(trained(data, tmp_path / "cached", **cached)))
    assert len(list((tmp_path / "pairs").glob("*.npz"))) == 10


def test_training_learns(data, tmp_path):
    """On seven pairs the loss falls clearly within six epochs."""
    rows = table(trained(data, tmp_path, epochs=6, widths=16, rate=1e-3))
    assert rows["total"][-1] < 0.7 * rows["total"][0]


def test_bf16_is_used_and_nearly_the_same(data, tmp_path):
    plain, half = (
        table(trained(data, tmp_path / p, precision=p, epochs=1))["total"] for p in ("32", "bf16")
    )
    assert 1e-6 < abs(half[0] / plain[0] - 1) < 0.05


# ---------------------------------------------------------------- files


def test_outputs_of_a_run(data, tmp_path):
    training_run = Training(
        Config(**values_of(data, tmp_path, sheet_epochs=2, save_every=2, experiment="exp2I"))
    )
    folder = training_run.train()
    assert (
        folder == tmp_path / "exp2I"
        and read_config(Config, folder / "config.yaml") == training_run.config
    )
    assert [p.name for p in folder.glob("cp*.pt")] in (["cp.pt", "cp_2.pt"], ["cp_2.pt", "cp.pt"])
    assert equal(weights(folder), weights(folder, "cp_2.pt"))
    network = FlowNetwork(training_run.config.channels)
    load_published(network, folder / "cp.pt")
    assert equal(dict(network.state_dict()), weights(folder))
    names = [
        "epoch",
        "steps",
        "total",
        "epe",
        "aae",
        "epe_2",
        "epe_3",
        "epe_4",
        "epe_5",
        "smooth",
        "image",
        "rate",
    ]
    assert (folder / "history.csv").read_text().splitlines()[0].split(",") == [
        *names,
        *training.ERRORS,
    ]
    assert training_run.data == "synthetic"  # by the marker above the lists
    [sheet] = folder.rglob("epoch-*.png")
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (3 * 131 + 28, 5 * 131, 3)
    foot = pixels[-14:].reshape(-1, 3).astype(int)
    assert ((foot[:, 0] > 200) & (foot[:, 1] < 80)).sum() > 50  # the red words below
    receipt = write_run_receipt(training_run, "run_train", 1.0)
    made = read_receipt(receipt)
    assert not output_faults(receipt) and set(made.outputs) == {
        "history.csv",
        "config.yaml",
        "cp.pt",
        "cp_2.pt",
    }
    assert (made.study, made.data, made.mode, made.seed) == ("flow", "synthetic", "corrected", 0)
    assert set(made.inputs) == {"train", "val", "pairs"} and str(data) not in receipt.read_text()
    before = (folder / "cp.pt").stat().st_mtime_ns  # a run that is done is left alone
    assert (
        Training(training_run.config).train() == folder
        and (folder / "cp.pt").stat().st_mtime_ns == before
    )


def test_a_longer_run_goes_on_and_another_one_is_refused(data, tmp_path):
    whole = trained(data, tmp_path / "whole")
    trained(data, tmp_path / "part", epochs=1)
    assert equal(weights(whole), weights(trained(data, tmp_path / "part")))
    for more, word in (
        ({"batch_size": 3}, "batch_size"),
        ({"train": str(data / "all.csv"), "val": ""}, "train"),
    ):
        with pytest.raises(InputError, match=f"was started with {word}"):
            trained(data, tmp_path / "part", **more)


def test_published_weights_are_a_start_at_the_published_rate(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Config, "channels", SMALL)
    start = str(GOLDEN / "ckpt" / "tf_object" / "cp.ckpt")
    folder = trained(data, tmp_path, weights=start, epochs=1, mode="compat", batch_size=8)
    before, after = read_published(start), weights(folder)
    apart = max(float((before[name] - after[name]).abs().max()) for name in after)
    assert 0 < apart < 4e-7 and table(folder)["rate"][0] == 2.5e-7


def test_wrong_weights_are_refused_with_what_differs(data, tmp_path):
    folder = trained(data, tmp_path, epochs=1)
    state = weights(folder)
    state["fuse5.kernel"] = state.pop("fuse5.weight")
    torch.save(state, tmp_path / "wrong.pt")
    for name, more, words in (
        ("wrong.pt", {}, "fuse5.kernel should be fuse5.weight"),
        (str(folder / "cp.pt"), {"widths": 16}, "of another shape"),
        ("none.pt", {}, "cannot be read"),
    ):
        with pytest.raises(InputError, match=words) as error:
            trained(data, tmp_path / "other", weights=str(tmp_path / name), **more)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "other").exists()  # nothing was begun


# ---------------------------------------------------------------- settings


def test_every_setting_says_what_it_is_and_comes_back_from_yaml(tmp_path):
    assert [s.name for s in settings(Config).values() if not s.comment] == []
    config = Config(
        "a.csv",
        "b.csv",
        experiment="exp3I",
        size=(64, 128),
        rate=1e-5,
        mode="compat",
        known_only=True,
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(training.to_mapping(config)))
    assert read_config(Config, tmp_path / "config.yaml") == config
    assert from_command_line(Config, ["--config", str(tmp_path / "config.yaml")]) == config


@pytest.mark.parametrize(
    "options, words",
    [
        (["--experiments=exp1"], "nearest known one is experiment"),
        (["--experiment=exp2"], "give one of exp2I, exp2II"),
        (["--size=[64, 100]"], "multiples of 64"),
        (["--mode=published"], "mode"),
        (["--val={train}"], "train.csv, too"),
        (["--train={folder}/none.csv"], "none.csv: cannot be read"),
        (["--train={folder}/empty.csv", "--val="], "holds no pairs"),
        (["--train={folder}/gone.csv", "--val="], "gone.png is not there"),
        (["--cache=legacy"], "needs mode compat"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(data, tmp_path, capsys, options, words):
    pair = read_pairs(data / "train.csv")[0]
    write_pairs(tmp_path / "empty.csv", [])
    write_pairs(
        tmp_path / "gone.csv", [PairFiles("S", "1", tmp_path / "gone.png", pair.second, pair.label)]
    )
    given = {k: v for k, v in values_of(data, tmp_path).items() if k != "size"}
    usual = [f"--{k}={json.dumps(v) if isinstance(v, bool) else v}" for k, v in given.items()]
    options = [o.format(train=data / "train.csv", folder=tmp_path) for o in options]
    assert main([*usual, *options]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.strip().splitlines()) == 1 and said.startswith("facecomp: ")


# ---------------------------------------------------------------- synthetic people


def test_a_sequence_that_lost_a_file_is_made_again_with_the_same_bytes(tmp_path):
    make = lambda: make_sequences(tmp_path / "ck", ("SYN07",), 1, 3, (64, 48))  # noqa: E731
    files = [p for p in make().rglob("*") if p.is_file() and p.parent.name == "001"]
    assert len(files) == 3 + 3 + 2
    before = {p: p.read_bytes() for p in files}
    for path in files[::3]:
        path.unlink()
    make()
    images = [p for p in files if p.suffix != ".npz"]  # archives hold the time of writing
    assert all(p.read_bytes() == before[p] for p in images) and all(p.is_file() for p in files)


def test_exact_pairs_have_the_true_motion_as_label(data, tmp_path):
    pairs = [replace(pair, label=tmp_path / "label.npz") for pair in read_pairs(data / "all.csv")]
    write_pairs(tmp_path / "all.csv", pairs)
    assert [p.label for p in exact_pairs(data, tmp_path)] == [
        p.label for p in read_pairs(data / "all.csv")
    ]
    assert len(pairs) == 10


# ---------------------------------------------------------------- runs and notebook

NOTEBOOK = ROOT / "nbs" / "flow" / "run_train.ipynb"


def test_a_batch_of_all_experiments_would_run_those_that_are_not_proven(data, tmp_path, capsys):
    values = values_of(data, tmp_path / "models", epochs=1)
    made = Training(Config(**values))
    made.train()
    receipt = write_run_receipt(made, "run_train")
    asked = {
        "data": str(data),
        "out": str(tmp_path / "models"),
        "size": "64x64",
        "widths": 32,
        "epochs": 1,
        "batch_size": 2,
    }
    command = ["batch", str(NOTEBOOK), "--over", "experiment=all", "--dry-run"]
    for name, value in asked.items():
        command += ["-p", f"{name}={value}"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == ["done", "would", "would", "would", "would"]
    assert [f"experiment={name}" in line for name, line in zip(NUMBERS, lines, strict=True)] == [
        True
    ] * 5
    chosen = {**notebook_parameters(NOTEBOOK), **asked, "experiment": "exp1"}
    assert (
        runs.RECEIPTS["run_train"](chosen) == receipt and runs.why_not_done(receipt, chosen) == ""
    )
    for more, words in (
        ({"mode": "compat"}, "mode is 'compat', was 'corrected'"),
        ({"widths": 8}, "widths is 8, was 32"),
        ({"weights": str(receipt.parent / "cp.pt")}, "it was started from none"),
        ({"data": str(receipt.parent)}, "train.csv is not the list"),
        ({"device": "cuda", "cache": "exact"}, ""),
    ):
        why = runs.why_not_done(receipt, chosen | more)
        assert words in why if words else why == ""
    (receipt.parent / "cp.pt").write_bytes(b"other")
    assert runs.why_not_done(receipt, chosen) == "cp.pt was changed after it was made"
    assert cli.main([*command[:2], "--over", "experiment=exp2", "--dry-run"]) == 2
    assert "give one of exp2I, exp2II" in capsys.readouterr().err


def test_the_run_notebook_by_papermill(data, tmp_path):
    receipt = tmp_path / "models" / "exp2II" / "train.receipt.json"
    chosen = {
        "experiment": "exp2II",
        "data": str(data),
        "out": str(tmp_path / "models"),
        "epochs": 1,
        "size": "64x64",
    }
    small = {"widths": 32, "batch_size": 4, "device": "cpu"}
    outcome = run_notebook(
        NotebookRun(NOTEBOOK, tmp_path / "out.ipynb", (receipt,), chosen | small)
    )
    assert outcome.ok, outcome.error
    made = read_receipt(receipt)
    assert (made.data, made.notebook, made.parameters["experiment"]) == (
        "synthetic",
        "run_train",
        "exp2II",
    )
    assert runs.why_not_done(receipt, notebook_parameters(NOTEBOOK) | chosen | small) == ""
