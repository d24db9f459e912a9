"""PSM under torchrun: one folder, averaged gradients, equal to one process with the whole batch, resumed together."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_frames
from facecomp.psm import steps, training
from facecomp.psm.networks import KEYS, Noise
from facecomp.psm.training import Config, Training, main

# The training's own program; it keeps gradients before and after averaging, or leaves out noise, or kills itself.
PROGRAM = """
import json, os, signal, sys
import torch
from facecomp.psm import steps, training
from facecomp.psm.networks import Noise

how = json.loads(sys.argv.pop(1))
rank, count = int(os.environ["RANK"]), 0
average = training.average_gradients

def watched(fabric, optimiser):
    global count
    count += 1
    if how.get("die") == [rank, count]:
        os.kill(os.getpid(), signal.SIGKILL)
    found = [p for g in optimiser.param_groups for p in g["params"] if p.grad is not None]
    own = torch.cat([p.grad.flatten() for p in found])
    average(fabric, optimiser)
    if "gradients" in how:
        mean = torch.cat([p.grad.flatten() for p in found])
        torch.save([own, mean], f"{how['gradients']}/{rank}-{count}.pt")

training.average_gradients = watched
if how.get("quiet"):
    steps.draw_noise = lambda f, g=None: Noise(torch.zeros_like(f.f4), torch.zeros_like(f.f2))
torch.set_num_threads(1)
sys.exit(training.main())
"""


def torchrun(config: Path, how: dict | None = None) -> tuple[int, str]:
    """Exit code and messages of two processes, of the module itself or of `PROGRAM`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(random.SystemRandom().randint(20000, 60000))]
    if how is None:
        command += ["-m", "facecomp.psm.training"]
    else:
        program = config.with_suffix(".py")
        program.write_text(PROGRAM)
        command += [str(program), json.dumps(how)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [*command, "--config", str(config)], capture_output=True, text=True, env=environment, timeout=600
    )
    return answer.returncode, answer.stderr[-4000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "people"
    folder = root / "SN001" / "face_only_aligned"
    write_frames(folder, record(participant(1), 11, size=64).frames(), "frame{}.jpg")
    return root


def written(data: Path, path: Path, **more) -> tuple[Path, Path]:
    """A configuration file, and the run's folder: 9 pairs in epoch 1, 7 in epoch 2."""
    small = {"epochs": 2, "batch_size": 2, "width": 16, "vgg": "random", "sheet_epochs": 2, "device": "cpu"}
    place = {"datapath": str(data), "person": "SN001", "savemodel": str(path.with_suffix(""))}
    values = {**small, **place, "approach": "PSM_wCTL", "progress": False, "checkpoint_steps": 1, **more}
    path.write_text(yaml.safe_dump(values))
    return path, Config(**values).folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    parts = torch.load(folder / "ExpCode_2.tar", weights_only=True)
    return {f"{key}.{name}": t for key in KEYS for name, t in parts[key].items()}


def history(folder: Path) -> np.ndarray:
    lines = (folder / "history.csv").read_text().splitlines()[1:]
    return np.array([[float(v) for v in line.split(",")] for line in lines])


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """Folder of a run of two processes that nothing interrupted, by the documented command."""
    config, folder = written(data, tmp_path_factory.mktemp("whole") / "psm.yaml")
    code, said = torchrun(config)
    assert code == 0, said
    return folder


def test_two_processes_leave_one_folder_like_that_of_one(whole):
    names = {"ExpCode_2.tar", "losses.txt", "history.csv", "config.yaml", "params.json", "log.txt"}
    assert names <= {p.name for p in whole.iterdir()}
    assert len((whole / "losses.txt").read_text().splitlines()) == 2
    assert history(whole)[:, :2].tolist() == [[1, 2], [2, 1]]  # epoch, steps of 4 pairs: 9 // 4, 7 // 4
    assert len(list(whole.rglob("epoch-*.png"))) == 1


def test_a_killed_pair_of_processes_goes_on_bit_equal(data, whole, tmp_path):
    config, folder = written(data, tmp_path / "psm.yaml")
    code, _ = torchrun(config, {"die": [1, 2]})  # the second process, in the second step
    assert code != 0 and not (folder / "ExpCode_2.tar").exists()
    assert (folder / "checkpoint-000001-00000001.pt").exists()
    code, said = torchrun(config)
    assert code == 0, said
    one, other = weights(whole), weights(folder)
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name in ("history.csv", "losses.txt"):
        assert (whole / name).read_text() == (folder / name).read_text()


def test_another_number_of_processes_is_refused_in_one_line(whole, capsys):
    assert main(["--config", str(whole / "config.yaml")]) == 2
    said = capsys.readouterr().err
    assert "is of 2 processes, now 1; start as many" in said and len(said.strip().splitlines()) == 1


def test_gradients_are_means_and_two_processes_equal_one_with_the_whole_batch(data, tmp_path, monkeypatch):
    """Without noise, 2 processes of 2 pairs are one of 4; the processes' own gradients differ (negative control)."""
    config, folder = written(data, tmp_path / "two.yaml")
    kept = tmp_path / "gradients"
    kept.mkdir()
    code, said = torchrun(config, {"quiet": True, "gradients": str(kept)})
    assert code == 0, said
    for step in (1, 2, 3):
        (own0, mean0), (own1, mean1) = (torch.load(kept / f"{rank}-{step}.pt", weights_only=True) for rank in (0, 1))
        assert torch.equal(mean0, mean1)
        assert torch.allclose(mean0, (own0 + own1) / 2, rtol=1e-6, atol=0)
        assert (own0 - own1).norm() > 0.01 * mean0.norm()
    quiet = lambda f, g=None: Noise(torch.zeros_like(f.f4), torch.zeros_like(f.f2))  # noqa: E731
    monkeypatch.setattr(steps, "draw_noise", quiet)
    config, alone = written(data, tmp_path / "one.yaml", batch_size=4)
    assert main(["--config", str(config)]) == 0
    one, two = weights(alone), weights(folder)
    moved = {name: t for name, t in start(data, tmp_path).items() if not torch.equal(t, one[name])}
    apart = sum(float((one[n] - two[n]).square().sum()) for n in moved)
    way = sum(float((one[n] - t).square().sum()) for n, t in moved.items())
    assert len(moved) > 50 and apart < 1e-4 * way  # squares: the weights agree to 1 % of the way they went
    assert np.allclose(history(alone), history(folder), rtol=1e-5)


def start(data: Path, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that every run of these configurations starts from."""
    config, _ = written(data, folder / "start.yaml")
    made = Training(Config(**yaml.safe_load(config.read_text())))
    training.seed_all(made.config.seed)
    made._make()
    return {f"{k}.{n}": t for k, m in made.networks.by_key().items() for n, t in m.state_dict().items()}


def test_too_few_pairs_for_all_processes_are_refused(data, tmp_path):
    config, _ = written(data, tmp_path / "psm.yaml", batch_size=8, approach="PSM_wCTL")
    code, said = torchrun(config)
    assert code != 0 and "11 frames: more than 16 are needed for one batch" in said
