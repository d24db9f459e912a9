"""The golden harness takes any set: made here with other weights, shapes and sizes; and it can fail."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from golden.fill import fill, make_input
from golden.harness import CaseError, GoldenSet, run_case
from golden.psm_checks import CHECKS

from facecomp.layers.vgg import VGG19_LAYERS, Vgg19
from facecomp.psm.networks import FaceGenerator, MotionEncoder, Networks, Noise, build_networks
from facecomp.psm.steps import build_optimiser, join_pairs, reference_step
from facecomp.psm.transforms import normalise

SALT, LIMITS = "other", (-1.5, 1.5)
NOISE = {"name": "n{draw}of{step}", "low": LIMITS[0], "high": LIMITS[1]}


def filled(module):
    fill(module.state_dict(), SALT)
    return module.eval()


def made(name, *shape):
    return torch.from_numpy(make_input(name, shape, *LIMITS, SALT))


def source(name, *shape):
    return {"make_input": name, "shape": list(shape), "low": LIMITS[0], "high": LIMITS[1]}


def expect(output, array, **rule):
    return {"output": output, "array": array, **(rule or {"rtol": 1e-4, "atol": 1e-5})}


def steps(width: int, images: list[np.ndarray], rates: list[float]) -> dict[str, np.ndarray]:
    """Losses of steps, written down without the harness."""
    networks: Networks = build_networks(width)
    for network in networks.by_key().values():
        filled(network)
    vgg = Vgg19(width=width)
    names = {
        f"{name}.{int(name == 'conv5_1')}.{kind}": f"features.{i}.{kind}"
        for name, i in VGG19_LAYERS.items()
        for kind in ("weight", "bias")
    }
    fill(vgg.state_dict(), SALT, rename=names)
    x, optimiser = normalise(join_pairs(*map(torch.from_numpy, images))), build_optimiser(networks)
    shapes = [(len(x), 256 // width, 16, 16), (len(x), 128 // width, 32, 32)] * 2
    totals = []
    for k, rate in enumerate(rates):
        z = [made(f"n{d}of{k}", *shape) for d, shape in enumerate(shapes)]
        noise = (Noise(*z[:2]), Noise(*z[2:]))
        loss = reference_step(networks, vgg, x, 0.25, noise).terms.total
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        totals.append(loss.item())
    return {"totals": np.array(totals, np.float32)}


@pytest.fixture(scope="module")
def other_set(tmp_path_factory):
    """A set with other salt, widths, batches, sizes, noise names and files."""
    top = tmp_path_factory.mktemp("golden")
    folder = top / "psm"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, 3, 64, 64), dtype=np.uint8) for _ in range(2)]
    with torch.no_grad():
        code = filled(MotionEncoder(2))(made("faces", 5, 3, 64, 64)).numpy()
        painter = filled(FaceGenerator(4))
        torch.manual_seed(11)
        face = painter(made("face", 1, 3, 32, 32), made("flow", 1, 2, 8, 8)).numpy()
    np.savez(folder / "a.npz", code_sub=code[:, ::3], face_stats=face.mean())
    np.savez(folder / "b.npz", im=images[0], im_=images[1], **steps(16, images, [1e-4, 2e-5]))
    encoder = {
        "id": "wide",
        "check": "psm.encoder",
        "file": "a.npz",
        "model": {"args": {"width": 2}},
        "inputs": {"x": source("faces", 5, 3, 64, 64)},
        "expect": [expect("code", "code_sub", index=[[None], [None, None, 3]], atol=1e-6)],
    }
    painted = {
        "id": "painted",
        "check": "psm.generator",
        "model": {"args": {"width": 4}},
        "inputs": {"x": source("face", 1, 3, 32, 32), "flow": source("flow", 1, 2, 8, 8)},
        "args": {"torch_seed": 11},
        "expect": [expect("image", {"value": face.tolist()})],
    }
    totals = [
        expect(f"step{k}.total", {"value": float(t)}, rtol=1e-4)
        for k, t in enumerate(np.load(folder / "b.npz")["totals"])
    ]
    trained = {
        "id": "two-rates",
        "check": "psm.train_steps",
        "file": "b.npz",
        "model": {"args": {"width": 16}},
        "inputs": {"im0": "im", "im1": "im_"},
        "args": {
            "steps": 2,
            "rate": [1e-4, 2e-5],
            "noise": NOISE,
            "neutral": {"setting": [0, 1], "epoch": 2, "epochs": 5},
        },
        "expect": totals,
    }
    content = {"format": 1, "salt": "wrong", "cases": [encoder, painted, trained]}
    (folder / "cases.json").write_text(json.dumps(content))
    return folder


def test_another_set_passes_with_its_salt_only(other_set):
    for case in GoldenSet.read(other_set, SALT).cases:
        run_case(GoldenSet.read(other_set, SALT).case(case["id"]), CHECKS)
        with pytest.raises(AssertionError):
            run_case(GoldenSet.read(other_set, None).case(case["id"]), CHECKS)


def test_the_options_choose_folder_and_salt(other_set):
    def pytest_run(*options):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/golden"]
        return subprocess.run(
            [*command, "-k", "psm", "--golden-dir", str(other_set.parent), *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    right = pytest_run("--golden-salt", SALT)
    assert right.returncode == 0 and "3 passed" in right.stdout
    assert pytest_run().returncode == 1


def changed(other_set, tmp_path, change):
    """The set with its first case changed."""
    content = json.loads((other_set / "cases.json").read_text())
    change(content, content["cases"][0])
    for file in other_set.glob("*.npz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "cases.json").write_text(json.dumps(content))
    return tmp_path


FAULTS = {
    "unknown check": lambda _, c: c.update(check="psm.nothing"),
    "has no array": lambda _, c: c["expect"][0].update(array="absent"),
    "is missing": lambda _, c: c.update(file="absent.npz"),
    "no output": lambda _, c: c["expect"][0].update(output="absent"),
    "unknown field": lambda _, c: c["expect"][0].update(toleranse=1),
    "unknown tolerance": lambda _, c: c["expect"][0].update(tolerance="absent"),
    "input 'x' is needed": lambda _, c: c["inputs"].clear(),
    "expects nothing": lambda _, c: c["expect"].clear(),
    "format": lambda content, _: content.update(format=2),
    "id of its own": lambda content, c: content["cases"].append(c),
    "is no source": lambda _, c: c["inputs"].update(x={"nothing": 1}),
    "unknown measure": lambda _, c: c["expect"][0].update(measure="absent"),
    "unknown reduce": lambda _, c: c["expect"][0].update(reduce="absent"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_case_that_cannot_be_run_is_an_error(other_set, tmp_path, fault):
    folder = changed(other_set, tmp_path, FAULTS[fault])
    with pytest.raises(CaseError, match=fault):
        run_case(GoldenSet.read(folder, SALT).case("wide"), CHECKS)


DIFFERENCES = {
    "shape": lambda _, c: c["expect"][0].pop("index"),
    "not below": lambda _, c: c["expect"][0].update(below=1e-9),
    "outside": lambda _, c: c["expect"][0].update(
        atol=0, index=[[None, None, -1], [None, None, 3]]
    ),
}


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_other_numbers_fail(other_set, tmp_path, difference):
    folder = changed(other_set, tmp_path, DIFFERENCES[difference])
    with pytest.raises(AssertionError, match=difference):
        run_case(GoldenSet.read(folder, SALT).case("wide"), CHECKS)


def test_every_shipped_array_of_psm_is_compared_or_an_input():
    folder = ROOT / "tests" / "golden" / "psm"
    text = (folder / "cases.json").read_text()
    for file in folder.glob("*.npz"):
        with np.load(file) as arrays:
            assert [name for name in arrays if f'"{name}"' not in text] == [], file.name
