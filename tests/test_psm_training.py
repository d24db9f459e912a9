"""PSM training: every approach resumes bit-equal after kill -9; published files and outputs; bad input."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drive
from PIL import Image

from facecomp.data.store import open_store
from facecomp.faces.images import read_image
from facecomp.faces.synthetic import participant, record
from facecomp.faces.writing import write_frames
from facecomp.psm import frames as frames_module
from facecomp.psm import people, training
from facecomp.psm.networks import KEYS
from facecomp.psm.pairs import persons
from facecomp.psm.training import Config, Training, frames_identity, load_frames, main
from facecomp.psm.transforms import collate, evaluation_image
from facecomp.records.files import InputError, sha256_file
from facecomp.training.config import from_command_line, settings

SMALL = {"epochs": 2, "batch_size": 2, "width": 16, "vgg": "random", "sheet_epochs": 0, "device": "cpu", "progress": False}

# Runs a list of trainings in forked children (importing once); a child may kill itself before a given step.
DRIVER = """
import json, signal, sys
from children import dies_before, forked, print_ends, quietly
from facecomp.psm import training

def trained(values, die):
    if die is not None:
        dies_before(training, "batch_pictures", signal.SIGKILL, die + 1)
    training.Training(training.Config(**values), "synthetic").train()

quietly()
for job in json.load(sys.stdin):
    print_ends([forked(trained, *job)])
"""


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
    codes = drive(DRIVER, jobs)
    assert codes[0] == codes[6] == codes[12] == 0 and -9 in codes[1:6] and -9 in codes[7:12]
    folders = [Config(**job).folder for job in (whole, jobs[1][0], jobs[7][0])]
    one, *others = [weights(folder, 3) for folder in folders]
    history = [(folder / "history.csv").read_text() for folder in folders]
    losses = [(folder / "losses.txt").read_text() for folder in folders]
    assert all(equal(one, other) for other in others)
    assert len(set(history)) == len(set(losses)) == 1 and len(losses[0].splitlines()) == 3


def cut_and_whole(data: Path, tmp_path: Path, **more) -> tuple[Path, Path]:
    """Folders of a run that was killed in its second epoch and went on, and of one that was not."""
    whole = values(data, tmp_path / "whole", "PSM", checkpoint_steps=1, **more)
    cut = values(data, tmp_path / "cut", "PSM", checkpoint_steps=1, **more)
    assert drive(DRIVER, [(whole, None), (cut, 3), (cut, None)]) == [0, -9, 0]
    folders = Config(**whole).folder, Config(**cut).folder
    assert len({(folder / "history.csv").read_text() for folder in folders}) == 1
    assert equal(*(weights(folder, 2) for folder in folders))
    return folders


def totals(folder: Path) -> np.ndarray:
    return np.atleast_1d(np.genfromtxt(folder / "history.csv", delimiter=",", names=True)["total"])


def test_bf16_trains_and_resumes_bit_equal(data, tmp_path):
    plain = Training(Config(**values(data, tmp_path / "plain", "PSM"))).train()
    folder, _ = cut_and_whole(data, tmp_path, precision="bf16")
    apart = np.abs(totals(folder) / totals(plain) - 1)
    assert (apart > 1e-6).all() and (apart < 0.02).all()  # it was used, and is nearly the same


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler")
def test_compiled_code_trains_and_resumes_bit_equal(data, tmp_path):
    """Compiling takes a minute or more when PyTorch's cache is empty."""
    plain = Training(Config(**values(data, tmp_path / "plain", "PSM"))).train()
    folder, _ = cut_and_whole(data, tmp_path, compile=True)
    assert np.allclose(totals(folder), totals(plain), rtol=1e-4)
    assert not equal(weights(folder, 2), weights(plain, 2))  # other code, other rounding


def test_compile_compiles_the_step_once_with_the_draws_of_plain_code(data, tmp_path, monkeypatch):
    """With a back end that only traces, compiled and plain runs are the same bits."""
    compiled, compile_ = [], torch.compile

    def traced(function, fullgraph, dynamic, options):
        def backend(graph, inputs):
            compiled.append(graph)
            return graph.forward

        assert options == {"fallback_random": True}  # what makes the draws of compiled code those of plain code
        return compile_(function, fullgraph=fullgraph, dynamic=dynamic, backend=backend)

    monkeypatch.setattr(training.torch, "compile", traced)
    plain = Training(Config(**values(data, tmp_path / "plain", "PSM"))).train()
    assert not compiled
    made = Training(Config(**values(data, tmp_path / "made", "PSM", compile=True, sheet_epochs=1))).train()
    assert len(compiled) == 1  # the whole step; sheets, of another batch size, add none
    assert equal(weights(made, 2), weights(plain, 2))
    assert (made / "history.csv").read_text() == (plain / "history.csv").read_text()


def test_what_a_device_cannot_do_is_refused_in_one_line(data, tmp_path, monkeypatch, capsys):
    half = values(data, tmp_path, "PSM", precision="16")
    options = [f"--{k}={json.dumps(v) if isinstance(v, bool) else v}" for k, v in half.items()]
    assert main(options) == 2
    assert capsys.readouterr().err.strip() == "facecomp: precision 16: not on the CPU; use bf16 or 32"
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="no C\\+\\+ compiler .no-such-compiler. here"):
        Training(Config(**values(data, tmp_path, "PSM", compile=True))).train()


def test_every_setting_says_what_it_is():
    assert [s.name for s in settings(Config).values() if not s.comment] == []


# ---------------------------------------------------------------- the store of frames


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two persons with frames of several sizes, in jpg and png, and a list of both."""
    root = tmp_path / "set" / "people"
    rng = np.random.default_rng(5)
    for name in ("A", "B"):
        folder = root / name / "face_only_aligned"
        folder.mkdir(parents=True)
        for k in (10, 2, 0, 7, 30):
            picture = rng.integers(0, 256, (90 + k, 70, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / f"frame{k}.{'png' if k == 7 else 'jpg'}", quality=90)
    (root / "list.txt").write_text("B/face_only_aligned\nA/face_only_aligned\nB/face_only_aligned\n")
    return root


def of(tree: Path, approach: str = "PSM", **more) -> Config:
    gm = approach.startswith("GM")
    place = {"datapath": str(tree / "list.txt" if gm else tree), "person": "" if gm else "A"}
    return Config(**{**place, "approach": approach, "savemodel": str(tree.parent / "models"), **more})


def plainly(config: Config) -> torch.Tensor:
    """Frames decoded one by one, as they always were."""
    folders, _ = frames_module.frame_folders(config)
    names = [(f, n) for f in folders for n in frames_module._folder_names(f, config)]
    return collate([evaluation_image(Image.fromarray(read_image(f / n))) for f, n in names])


def stores(place: Path) -> list[Path]:
    return sorted(p.parent for p in place.glob("*/store.json"))


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names, decode = [], frames_module._decoded

    def noted(file):
        names.append(file.name)
        return decode(file)

    monkeypatch.setattr(frames_module, "_decoded", noted)
    return names


@pytest.mark.parametrize("mode", ["corrected", "compat"])
@pytest.mark.parametrize("approach", ["PSM", "PSM_wCTL", "GM"])
def test_frames_are_the_same_bits_in_the_same_order_with_and_without_a_store(tree, decoded, monkeypatch, approach, mode):
    listing = list(Path.iterdir(tree / "A" / "face_only_aligned"))
    given = {k: [listing[i] for i in order] for k, order in enumerate(([3, 1, 4, 0, 2], [0, 2, 1, 4, 3]))}
    config, iterdir = of(tree, approach, mode=mode), Path.iterdir
    for order in given.values():  # another listing by the system changes the order, never a frame
        monkeypatch.setattr(
            Path, "iterdir", lambda p, o=order: iter(o) if p.parent.name == "A" and p.name != "A" else iterdir(p)
        )
        found, lines = load_frames(config)
        wanted, _ = load_frames(of(tree, approach, mode=mode, store="none"))
        assert torch.equal(found.pixels, plainly(config)) and found.pixels.is_contiguous()
        assert frames_identity(found) == frames_identity(wanted) and lines == ([0] if approach != "GM" else [0, 1, 0])
        if approach == "PSM" and mode == "compat":
            assert [name.rpartition("/")[2] for name in found.names] == [p.name for p in order]
    assert len(stores(tree.parent / ".facecomp" / "frames")) == (2 if approach == "GM" else 1)


def test_all_runs_of_a_folder_share_one_store(tree, decoded):
    load_frames(of(tree))
    assert len(decoded) == 5
    for config in (of(tree, "PSM_wCTL"), of(tree, mode="compat"), of(tree)):
        load_frames(config)
    assert len(decoded) == 5
    load_frames(of(tree, "GM"))
    assert len(decoded) == 10  # B only
    [a, b] = stores(tree.parent / ".facecomp" / "frames")
    index = open_store(a).index
    assert index["frame"].tolist() == [0, 2, 7, 10, 30] and index["source"][2] == "frame7.png"
    assert set(index["participant"]) == {"A"} and set(index["video"]) == {"face_only_aligned"}
    shutil.copytree(tree.parent, tree.parent.parent / "moved")
    assert stores(tree.parent.parent / "moved" / ".facecomp" / "frames")[0].name == a.name


def dated_back(path: Path, data: bytes) -> None:
    """Other bytes of the same number under the same date."""
    before = path.stat()
    assert len(data) == before.st_size
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_store_is_never_stale(tree, decoded):
    folder = tree / "A" / "face_only_aligned"
    for k, size in ((2, 3), (10, 3)):
        Image.fromarray(np.full((64, 64, 3), 40 * size + k, np.uint8)).save(folder / f"frame{k}.jpg")
    load_frames(of(tree))
    same = (folder / "frame10.jpg").read_bytes()
    changes = [
        lambda: dated_back(folder / "frame2.jpg", same),
        lambda: (folder / "frame0.jpg").write_bytes(same),
        lambda: (folder / "frame30.jpg").rename(folder / "frame31.jpg"),
        lambda: (folder / "frame32.jpg").write_bytes(same),
        lambda: (folder / "frame31.jpg").unlink(),
    ]
    for change in changes:
        change()
        decoded.clear()
        found, _ = load_frames(of(tree))
        assert torch.equal(found.pixels, plainly(of(tree))) and len(decoded) == len(found)
    decoded.clear()
    load_frames(of(tree))
    assert decoded == []


def test_a_damaged_store_is_made_anew(tree, decoded):
    wanted = load_frames(of(tree))[0].pixels
    [store] = stores(tree.parent / ".facecomp" / "frames")

    def flip(name: str) -> None:
        content = bytearray((store / name).read_bytes())
        content[len(content) // 2] ^= 1
        (store / name).write_bytes(content)

    damages = [lambda: flip("frames.u8"), lambda: flip("index.parquet"), lambda: (store / "store.json").write_text("{}")]
    damages += [lambda: (store / "store.json").unlink(), lambda: (store / "frames.u8").write_bytes(b"")]
    for damage in damages:
        damage()
        decoded.clear()
        assert torch.equal(load_frames(of(tree))[0].pixels, wanted) and len(decoded) == 5


def test_the_place_of_the_store(tree, tmp_path, decoded):
    load_frames(of(tree, store=str(tmp_path / "cache")))
    assert len(stores(tmp_path / "cache")) == 1 and not (tree.parent / ".facecomp").exists()
    (tree.parent / ".facecomp").write_text("a file: no folder can be made here")
    load_frames(of(tree))
    assert len(stores(tree.parent / "models" / ".frames")) == 1
    decoded.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_frames(of(tree))
        assert decoded == []
        load_frames(of(tree, store="none"))
    with pytest.warns(UserWarning, match="no store of frames, decoded at each start: .*(directory|File exists)"):
        found, _ = load_frames(of(tree, store=str(tree.parent / ".facecomp" / "inside")))
    assert torch.equal(found.pixels, plainly(of(tree)))


def test_a_store_that_may_only_be_read_is_used(tree, decoded, monkeypatch):
    load_frames(of(tree))
    decoded.clear()

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(frames_module, "run_lock", refused)
    load_frames(of(tree))
    assert decoded == [] and not (tree.parent / "models").exists()


@pytest.mark.parametrize("store", ["", "none"])
def test_a_file_that_is_no_frame_is_named(tree, store):
    (tree / "A" / "face_only_aligned" / "frame3.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match="frame3.jpg: cannot be read as an image"):
        load_frames(of(tree, store=store))
    (tree / "A" / "face_only_aligned" / "frame3.jpg").unlink()
    assert len(load_frames(of(tree, store=store))[0]) == 5  # what was half-built is finished


LAUNCHERS = """
import json, sys, time
from pathlib import Path
from facecomp.psm import frames
from facecomp.psm.config import Config

config, count = Config(**json.loads(sys.argv[1])), 0
decode = frames._decoded
def slow(file):
    global count
    count += 1
    time.sleep(0.1)
    return decode(file)
frames._decoded = slow
print("ready", flush=True)
sys.stdin.readline()
print(frames.frames_identity(frames.load_frames(config)[0]), count)
"""


def test_of_two_launchers_one_decodes_and_the_other_waits(tree):
    given = {"datapath": str(tree), "person": "A", "savemodel": str(tree.parent / "models")}
    command = [sys.executable, "-c", LAUNCHERS, json.dumps(given)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    assert [p.stdout.readline() for p in both] == ["ready\n"] * 2
    for p in both:
        p.stdin.write("go\n")
        p.stdin.flush()
    said = [p.communicate(timeout=120)[0].split() for p in both]
    assert {identity for identity, _ in said} == {frames_identity(load_frames(of(tree, store="none"))[0])}
    assert sorted(int(count) for _, count in said) == [0, 5]


def test_another_seed_or_a_forgotten_optimiser_is_seen(data, tmp_path):
    """Negative controls: the comparison of the test above can fail."""
    made = values(data, tmp_path / "a", "PSM")
    seed = values(data, tmp_path / "b", "PSM", seed=3)
    half = values(data, tmp_path / "c", "PSM", epochs=1)
    assert drive(DRIVER, [(made, None), (seed, None), (half, None)]) == [0, 0, 0]
    folder = Config(**half).folder
    path = max(folder.glob("*.pt"), key=lambda p: p.stat().st_mtime) if list(folder.glob("*.pt")) else None
    newest = path or max((p for p in folder.rglob("*") if p.suffix in (".ckpt", ".pth")), key=lambda p: p.stat().st_mtime)
    state = torch.load(newest, weights_only=True)
    for entry in state["optimizers"]["adam"]["state"].values():
        entry["exp_avg"].zero_()
    torch.save(state, newest)
    assert drive(DRIVER, [({**half, "epochs": 2}, None)]) == [0]
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


def test_a_prepared_person_with_one_video_is_found(tmp_path):
    one = people.make_person(tmp_path / "made", "SYN01", 4)
    prepared = tmp_path / "psm" / "P01"
    prepared.mkdir(parents=True)
    one.rename(prepared / "monday")  # <participant>/<video>/face_only_aligned, as `facecomp data prepare` writes
    (tmp_path / "psm" / ".facecomp").mkdir()
    config = Config(str(tmp_path / "psm"), "P01", batch_size=2)
    frames, _ = training.load_frames(config)
    assert len(frames) == 4 and persons(tmp_path / "psm", "all") == ["P01"]
    people.make_person(prepared, "tuesday", 4)
    with pytest.raises(InputError, match=r"2 videos \(monday, tuesday\).*as person"):
        training.load_frames(config)
