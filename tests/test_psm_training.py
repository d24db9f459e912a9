"""PSM training: every approach resumes bit-equal after kill -9; published files and outputs; bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_frames
from facecomp.psm import people, training
from facecomp.psm.networks import KEYS
from facecomp.psm.training import Config, Training, main
from facecomp.records.files import InputError, sha256_file
from facecomp.training.config import from_command_line

SMALL = {"epochs": 2, "batch_size": 2, "width": 16, "vgg": "random", "sheet_epochs": 0, "device": "cpu", "progress": False}

# Runs a list of trainings in forked children (importing once); a child may kill itself before a given step.
DRIVER = """
import json, os, signal, sys
import torch
from facecomp.psm import training
torch.set_num_threads(1)

def child(values, die):
    count, step = 0, training.TrainStep.__call__
    def counted(self, *a, **k):
        nonlocal count
        count += 1
        if die is not None and count > die:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *a, **k)
    training.TrainStep.__call__ = counted
    training.Training(training.Config(**values), "synthetic").train()

for values, die in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(values, die)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status), flush=True)
"""


def drive(jobs: list) -> list[int]:
    """Exit codes of trainings run one after the other (negative: killed by that signal)."""
    answer = subprocess.run(
        [sys.executable, "-c", DRIVER], input=json.dumps(jobs), capture_output=True, text=True, timeout=600
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return [int(line) for line in answer.stdout.split()]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two synthetic persons of 11 frames, and a list for the general model."""
    root = tmp_path_factory.mktemp("people")
    for seed in (1, 2):
        folder = root / f"SN{seed:03d}" / "face_only_aligned"
        write_frames(folder, record(participant(seed), 11, size=64).frames(), "frame{}.jpg")
    (root / "list.txt").write_text("SN001/face_only_aligned\n\nSN002/face_only_aligned\n" * 2)
    return root


def values(data: Path, out: Path, approach: str, **more) -> dict:
    gm = approach.startswith("GM")
    place = {"datapath": str(data / "list.txt" if gm else data), "person": "" if gm else "SN001"}
    return {**SMALL, **place, "approach": approach, "savemodel": str(out), **more}


def weights(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    parts = torch.load(folder / f"ExpCode_{epoch}.tar", weights_only=True)
    return {f"{key}.{name}": t for key in KEYS for name, t in parts[key].items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("approach", ["PSM", "PSM_wCTL", "GM", "GM_wCTL"])
def test_kills_at_random_steps_change_nothing(data, tmp_path, approach):
    rng = np.random.default_rng(["PSM", "PSM_wCTL", "GM", "GM_wCTL"].index(approach))
    whole = values(data, tmp_path / "whole", approach, epochs=3)
    jobs = [(whole, None)]
    for workers in (0, 2):
        cut = values(data, tmp_path / f"cut{workers}", approach, epochs=3, num_workers=workers, checkpoint_steps=1)
        jobs += [(cut, int(die)) for die in rng.integers(0, 3, 5)] + [(cut, None)]
    codes = drive(jobs)
    assert codes[0] == codes[6] == codes[12] == 0 and -9 in codes[1:6] and -9 in codes[7:12]
    folders = [Config(**job).folder for job in (whole, jobs[1][0], jobs[7][0])]
    one, *others = [weights(folder, 3) for folder in folders]
    history = [(folder / "history.csv").read_text() for folder in folders]
    losses = [(folder / "losses.txt").read_text() for folder in folders]
    assert all(equal(one, other) for other in others)
    assert len(set(history)) == len(set(losses)) == 1 and len(losses[0].splitlines()) == 3


def test_another_seed_or_a_forgotten_optimiser_is_seen(data, tmp_path):
    """Negative controls: the comparison of the test above can fail."""
    made = values(data, tmp_path / "a", "PSM")
    seed = values(data, tmp_path / "b", "PSM", seed=3)
    half = values(data, tmp_path / "c", "PSM", epochs=1)
    assert drive([(made, None), (seed, None), (half, None)]) == [0, 0, 0]
    folder = Config(**half).folder
    path = max(folder.glob("*.pt"), key=lambda p: p.stat().st_mtime) if list(folder.glob("*.pt")) else None
    newest = path or max((p for p in folder.rglob("*") if p.suffix in (".ckpt", ".pth")), key=lambda p: p.stat().st_mtime)
    state = torch.load(newest, weights_only=True)
    for entry in state["optimizers"]["adam"]["state"].values():
        entry["exp_avg"].zero_()
    torch.save(state, newest)
    assert drive([({**half, "epochs": 2}, None)]) == [0]
    first = weights(Config(**made).folder, 2)
    assert not equal(first, weights(Config(**seed).folder, 2))
    assert not equal(first, weights(folder, 2))


def test_transfer_learning_starts_from_the_given_networks(data, tmp_path):
    source = Training(Config(**values(data, tmp_path / "source", "PSM"))).train() / "ExpCode_2.tar"
    moved = Training(Config(**values(data, tmp_path / "target", "PSM", person="SN002", loadmodel=str(source))))
    moved._make()
    start = {f"{k}.{n}": t for k, m in moved.networks.by_key().items() for n, t in m.state_dict().items()}
    assert equal(start, weights(source.parent, 2))
    assert (moved.train() / "ExpCode_2.tar").is_file()


def test_training_learns(data, tmp_path):
    """On 11 frames the loss falls clearly within 12 epochs."""
    folder = Training(Config(**values(data, tmp_path, "PSM", epochs=12, width=8, initial_lrate=1e-3))).train()
    rows = np.genfromtxt(folder / "history.csv", delimiter=",", names=True)
    assert rows["total"][-1] < 0.8 * rows["total"][0]


def test_outputs_of_a_run(data, tmp_path):
    config = Config(**values(data, tmp_path, "PSM", epochs=3, save_every=2, save_epochs=[1], sheet_epochs=3))
    folder = Training(config, "synthetic").train()
    assert sorted(p.name for p in folder.glob("ExpCode_*.tar")) == ["ExpCode_1.tar", "ExpCode_2.tar", "ExpCode_3.tar"]
    assert json.loads((folder / "params.json").read_text())["approach"] == "PSM"
    assert "approach: PSM" in (folder / "config.yaml").read_text()
    sheets = list(folder.rglob("epoch-*.png"))
    assert len(sheets) == 1
    names = (folder / "history.csv").read_text().splitlines()[0].split(",")
    assert {"epoch", "total", "perceptual", "pixel", "ssim", "symmetry", "rate"} <= set(names)
    before = sha256_file(folder / "ExpCode_3.tar")
    assert Training(config, "synthetic").train() == folder and sha256_file(folder / "ExpCode_3.tar") == before


@pytest.mark.parametrize("approach", ["PSM", "PSM_wCTL"])
def test_compat_runs_too(data, tmp_path, approach):
    folder = Training(Config(**values(data, tmp_path, approach, mode="compat", save_every=1))).train()
    assert (folder / "ExpCode_2.tar").is_file()


PUBLISHED = """
datapath: ./dataloader/DISFA_ALL_ALL_FRAMES.txt
savemodel: ./save_tests/
custom_data_loader: {loader}
persons_to_train: ['']
loadmodel: {load}
epochs: 17
batch_size: 16
neu_face_loss_weight: {weight}
initial_lrate: 8.0e-5
min_lr_to_tolerate: 5.0e-6
num_workers: 12
"""


@pytest.mark.parametrize("loader", ["PSM", "PSM_wCTL", "GM", "GM_wCTL"])
@pytest.mark.parametrize("load, weight, wanted", [("None", "None", (None, None)), ("a.tar", "[0.1, 1.0]", ("a.tar", [0.1, 1.0]))])
def test_published_yaml_files_are_accepted(tmp_path, capsys, loader, load, weight, wanted):
    path = tmp_path / "published.yaml"
    path.write_text(PUBLISHED.format(loader=loader, load=load, weight=weight))
    config = from_command_line(Config, ["--published-config", str(path), "--person", "SN001"], training.PUBLISHED_KEYS)
    assert (config.approach, config.loadmodel, config.neu_face_loss_weight) == (loader, *wanted)
    assert (config.epochs, config.batch_size, config.initial_lrate, config.num_workers) == (17, 16, 8e-5, 12)
    assert "persons_to_train" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, words",
    [
        ({"person": "SN009"}, "SN009"),
        ({"datapath": "/no/such/folder"}, "/no/such/folder"),
        ({"batch_size": 16}, "fewer than batch_size 16"),
        ({"person": ""}, "person"),
        ({"neu_face_loss_weight": [1.0, 2.0, 3.0]}, "neu_face_loss_weight"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(data, tmp_path, more, words):
    with pytest.raises(InputError) as error:
        Training(Config(**{**values(data, tmp_path, "PSM"), **more}))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_the_command_line(data, tmp_path, capsys):
    options = [f"--{k}={json.dumps(v) if isinstance(v, bool) else v}" for k, v in values(data, tmp_path, "PSM", epochs=1).items()]
    assert main(options) == 0
    assert (tmp_path / "PSM" / "SN001" / "ExpCode_1.tar").is_file()
    assert main([*options, "--epoch=3"]) == 2
    assert "epochs" in capsys.readouterr().err  # the nearest known one


def test_a_folder_of_another_run_is_refused(data, tmp_path):
    Training(Config(**values(data, tmp_path, "PSM", epochs=1))).train()
    with pytest.raises(InputError, match="batch_size"):
        Training(Config(**values(data, tmp_path, "PSM", epochs=1, batch_size=3))).train()


def test_published_checkpoints_of_another_width_are_refused(data, tmp_path):
    source = Training(Config(**values(data, tmp_path / "s", "PSM", epochs=1))).train() / "ExpCode_1.tar"
    with pytest.raises(InputError, match="ExpCode_1.tar"):
        Training(Config(**values(data, tmp_path / "t", "PSM", width=8, loadmodel=str(source)))).train()


def test_the_run_notebook_by_papermill(data, tmp_path):
    from conftest import ROOT

    from facecomp.records.batch import NotebookRun, run_notebook
    from facecomp.records.receipts import output_faults, read_receipt

    folder = tmp_path / "models" / "PSM_wCTL" / "SN001"
    receipt = folder / "train.receipt.json"
    chosen = {"participant": "SN001", "approach": "PSM_wCTL", "data": str(data), "out": str(tmp_path / "models")}
    small = {"epochs": 1, "batch_size": 2, "width": 16, "device": "cpu"}
    run = NotebookRun(ROOT / "nbs" / "psm" / "run_train.ipynb", tmp_path / "out.ipynb", (receipt,), chosen | small)
    outcome = run_notebook(run)
    assert outcome.ok, outcome.error
    made = read_receipt(receipt)
    assert (made.data, made.mode, made.seed, made.parameters["approach"]) == ("real", "corrected", 2, "PSM_wCTL")
    assert str(data) not in receipt.read_text() and not output_faults(receipt)
    (folder / "losses.txt").write_text("something else")
    assert output_faults(receipt)


def test_synthetic_people_for_a_trial(tmp_path):
    home = people.make_synthetic(tmp_path, "SN007", "PSM", frames=4)
    assert len(list((home / "SN007" / "face_only_aligned").glob("frame*.jpg"))) == 4
    made = people.make_synthetic(tmp_path, "crowd", "GM_wCTL", frames=4)
    frames, lines = training.load_frames(Config(str(made), approach="GM_wCTL", batch_size=2))
    assert len(frames) == 12 and len(lines) == 24 and frames.counts == (4, 4, 4)
