"""Checkpoints survive kills, full disks and damage; wrong weights are refused with advice."""

import json
import os
import random
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from facecomp.layers.weights import file_kind
from facecomp.records.files import InputError
from facecomp.training import checkpoint as module
from facecomp.training.checkpoint import (
    CheckpointFolder,
    Parts,
    Position,
    generator_states,
    load_weights,
    pick,
    read_checkpoint,
    restore_generators,
    restore_run,
    run_state,
)


def parts(width: int = 4, **more) -> Parts:
    net = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 1))
    return Parts({"net": net}, {"adam": torch.optim.Adam(net.parameters())}, **more)


def state(step: int = 0, epoch: int = 1, **more) -> dict:
    return run_state(parts(), Position(epoch, step), **more)


def silent(text: str) -> None:
    raise AssertionError(f"said: {text}")


# ---------------------------------------------------------------- kills

KILLS = textwrap.dedent(
    """
    import json, os, random, signal, sys, time
    from pathlib import Path
    import torch
    from facecomp.records.files import InputError
    from facecomp.training.checkpoint import CheckpointFolder, read_checkpoint

    how, folder, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    store = CheckpointFolder(folder, keep_last=2)

    def content(step):
        return {"epoch": 1, "step": step, "w": torch.full((50_000,), float(step))}

    def save(step):
        if how == "ours":
            store.save(content(step))
        else:
            torch.save(content(step), folder / "plain.pt")

    def read():
        said = []
        found = store.newest(said.append) if how == "ours" else (None, read_checkpoint(folder / "plain.pt"))
        state = found[1]
        assert not said and bool((state["w"] == state["step"]).all())
        return state["step"]

    folder.mkdir()
    save(0)
    draw, unreadable, last, moved, left = random.Random(912), 0, 0, 0, 0
    for k in range(kills):
        if k % 20 == 0:  # how long a save takes just now: the machine may be busy
            start = time.perf_counter()
            for _ in range(3):
                save(last)
            usual = (time.perf_counter() - start) / 3
        child = os.fork()
        if child == 0:
            while True:
                last += 1
                save(last)
        time.sleep(draw.uniform(0.2, 8.0) * usual)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left += len(list(folder.glob(".checkpoint-*")))
        store.tidy()
        try:
            now = read()
            assert now >= last
            moved, last = moved + (now > last), now
        except (InputError, AssertionError):
            unreadable += 1
            save(last)
    print(json.dumps({"unreadable": unreadable, "moved": moved, "left": left}))
    """
)


def kill(how: str, folder, kills: int) -> dict:
    command = [sys.executable, "-c", KILLS, how, str(folder), str(kills)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def test_200_kills_during_saving_never_leave_an_unreadable_checkpoint(tmp_path):
    result = kill("ours", tmp_path / "run", 200)
    assert result["unreadable"] == 0
    assert result["moved"] > 50  # the children did save
    assert result["left"] > 20  # and were killed in the middle of writing: temporary files remained


def test_a_plain_save_as_control_is_hit_by_such_kills(tmp_path):
    assert kill("plain", tmp_path / "run", 60)["unreadable"] > 3


# ---------------------------------------------------------------- full disk

FILL = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import torch
    from facecomp.records.files import InputError
    from facecomp.training.checkpoint import CheckpointFolder

    folder, limit = Path(sys.argv[1]), int(sys.argv[2])
    if limit:
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    store = CheckpointFolder(folder, keep_last=2)
    store.save({"epoch": 1, "step": 1, "w": torch.ones(100)})
    store.save({"epoch": 1, "step": 2, "w": torch.ones(100)})
    try:
        store.save({"epoch": 1, "step": 3, "w": torch.ones(1_000_000)})
    except InputError as error:
        print(error)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"checkpoint-000001-0000000{s}.pt" for s in (1, 2)], names
    assert store.newest()[1]["step"] == 2
    """
)


def fill(folder, limit: int) -> str:
    command = [sys.executable, "-c", FILL, str(folder), str(limit)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_a_file_that_may_not_grow_is_an_error_and_the_old_one_stays(tmp_path):
    said = fill(tmp_path / "run", 1 << 20)
    assert "File too large" in said and "the one before is kept" in said


def test_a_full_disk_is_an_error_and_the_old_one_stays(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    try:
        said = fill(disk, 0)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "No space left on device" in said and "make room" in said
    assert said.count("\n") == 1


def test_a_failing_writer_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    store = CheckpointFolder(tmp_path)
    store.save(state(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(InputError, match="make room"):
        store.save(state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000001-00000001.pt"]


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("how", ["cut", "flip", "zero", "empty", "html"])
def test_a_damaged_newest_checkpoint_falls_back_in_one_line(tmp_path, how):
    store = CheckpointFolder(tmp_path)
    for step in (1, 2):
        store.save(state(step, mode="corrected"))
    path = store.paths()[-1]
    data = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["models"]["net"]["0.weight"].numpy().tobytes()
    at = data.index(weight)
    data[at] ^= how == "flip"
    data[at : at + 8 * (how == "zero")] = bytes(8 * (how == "zero"))
    changed = {"cut": data[:-30], "empty": b"", "html": b"<html>not found</html>"}.get(how, data)
    path.write_bytes(changed)
    said: list[str] = []
    found, content = store.newest(said.append)
    assert (found.name, content["step"]) == ("checkpoint-000001-00000001.pt", 1)
    assert len(said) == 1 and "\n" not in said[0]
    assert path.name in said[0] and "going on from checkpoint-000001-00000001.pt" in said[0]


def test_random_damage_is_refused_or_harmless(tmp_path):
    path = tmp_path / "a.pt"
    torch.manual_seed(3)
    wanted = {"w": torch.rand(500), "step": 7}
    torch.save(wanted, path)
    whole, draw, refused = path.read_bytes(), random.Random(5), 0
    for _ in range(150):
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        try:
            content = read_checkpoint(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
        else:
            assert torch.equal(content["w"], wanted["w"]) and content["step"] == 7
    assert refused > 75


def test_a_record_marked_as_folder_is_refused(tmp_path):
    """One bit that PyTorch takes for a folder: it would hand out memory that nothing was read into."""
    path = tmp_path / "a.pt"
    torch.save({"w": torch.rand(50)}, path)
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"a/data/0")  # the name in the central directory, 46 bytes into its entry
    data[entry - 8] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(InputError, match="a/data/0 is damaged"):
        read_checkpoint(path)


def test_all_damaged_is_an_error_and_nothing_is_trained_anew(tmp_path):
    store = CheckpointFolder(tmp_path)
    store.save(state(1)).write_bytes(b"x")
    with pytest.raises(InputError, match="no older one is left"):
        store.newest()


def test_keep_last_kept_epochs_and_order_by_number(tmp_path):
    store = CheckpointFolder(tmp_path, keep_last=2)
    assert store.newest() is None
    for epoch, step in ((1, 9), (1, 10), (2, 0), (10, 0)):
        store.save(state(step, epoch))
    store.save_epoch(state(0, 10), 9)
    assert [p.name for p in store.paths()] == [
        "checkpoint-000002-00000000.pt",
        "checkpoint-000010-00000000.pt",
    ]
    assert store.newest(silent)[1]["epoch"] == 10
    kept = read_checkpoint(tmp_path / "epoch-000009.pt")
    assert kept["epoch"] == 9 and "optimizers" not in kept
    load_weights(parts().models["net"], kept["models"]["net"], "kept")
    (tmp_path / ".checkpoint-000011.abc.pt").write_bytes(b"half")
    store.tidy()
    assert not list(tmp_path.glob(".*"))


# ---------------------------------------------------------------- state of a run


def test_a_run_is_restored_with_every_generator(tmp_path):
    def mine():
        return {
            "noise": np.random.default_rng(1),
            "philox": np.random.Generator(np.random.Philox(1)),
            "legacy": np.random.RandomState(1),
            "python": random.Random(1),
            "torch": torch.Generator().manual_seed(1),
        }

    def draws(named):
        return (
            named["noise"].normal(size=2).tolist(),
            named["philox"].integers(0, 9, 5).tolist(),
            named["legacy"].normal(),  # the second of a pair is cached in the state
            named["python"].gauss(0, 1),
            torch.rand(2, generator=named["torch"]).tolist(),
            random.random(),
            np.random.rand(),  # noqa: NPY002  # the global generator is what is tested
            torch.randn(3).tolist(),
        )

    one = mine()
    draws(one)
    path = tmp_path / "a.pt"
    torch.save({"g": generator_states(one)}, path)
    first = draws(one)
    other = mine()
    restore_generators(read_checkpoint(path)["g"], other)
    assert draws(other) == first
    with pytest.raises(InputError, match="no state of generator new"):
        restore_generators(read_checkpoint(path)["g"], {"new": random.Random()})


def test_other_parts_are_refused_before_anything_is_changed():
    saved = state(3)
    wide = parts(width=5)
    before = {k: v.clone() for k, v in wide.models["net"].state_dict().items()}
    with pytest.raises(InputError, match="another model or width"):
        restore_run(saved, wide, "run.pt")
    assert all(torch.equal(v, before[k]) for k, v in wide.models["net"].state_dict().items())
    with pytest.raises(InputError, match="schedulers \\[\\], the run has \\['s'\\]"):
        restore_run(saved, parts(schedulers={"s": object()}), "run.pt")
    with pytest.raises(InputError, match="is of 1 processes"):
        restore_run(saved, parts(), "run.pt", rank=1)
    with pytest.raises(InputError, match="not a checkpoint of a run"):
        restore_run({"model": {}}, parts(), "run.pt")


def test_an_optimiser_that_does_not_fit_is_refused():
    net = parts().models["net"]
    adam = torch.optim.Adam([{"params": [p]} for p in net.parameters()])
    with pytest.raises(InputError, match="optimizers adam does not fit"):
        restore_run(state(3), Parts({"net": net}, {"adam": adam}), "run.pt")


# ---------------------------------------------------------------- wrong weights


def own() -> dict:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)).state_dict()


def change(state: dict, name: str, value=None, new: str | None = None) -> dict:
    return {
        (new or k if k == name else k): (value if k == name and value is not None else v)
        for k, v in state.items()
    }


WRONG = {
    "missing": (lambda s: {k: v for k, v in s.items() if k != "0.bias"}, "0.bias missing; give"),
    "extra": (lambda s: {**s, "2.bias": s["0.bias"]}, "2.bias not in this model"),
    "renamed": (lambda s: change(s, "0.weight", new="0.kernel"), "rename={'0.kernel': '0.weight'}"),
    "transposed": (lambda s: change(s, "0.weight", s["0.weight"].T), "transpose it"),
    "wrapped": (lambda s: {f"module.{k}": v for k, v in s.items()}, "load with prefix='module.'"),
    "infinite": (lambda s: change(s, "0.bias", torch.full((3,), torch.inf)), "NaN or infinite"),
    "text": (lambda s: change(s, "0.bias", "zero"), "not a tensor; save the model's state dict"),
    "empty": (lambda s: {}, "missing; give the file of this model"),
}


@pytest.mark.parametrize("how", WRONG)
def test_wrong_weights_are_refused_with_advice_and_change_nothing(how, tmp_path):
    make, advice = WRONG[how]
    path = tmp_path / "w.pth"
    torch.save(make(own()), path)
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(model, read_checkpoint(path), path)
    assert advice in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_advice_works():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    wrapped = {f"module.{k}": v for k, v in own().items()}
    load_weights(model, wrapped, "w", prefix="module.")
    load_weights(model, change(own(), "0.weight", new="k"), "w", rename={"k": "0.weight"})
    with pytest.raises(InputError, match="two tensors get one name"):
        load_weights(model, own(), "w", rename={"0.bias": "1.bias"})
    with pytest.raises(InputError, match="holds a list"):
        load_weights(model, [1], "w")


FILES = {
    "html": (b"<!doctype html><p>Quota exceeded", "HTML page", "download it again"),
    "lfs": (
        b"version https://git-lfs.example/spec/v1\noid sha256:0",
        "Git LFS pointer",
        "git lfs pull",
    ),
    "empty": (b"", "empty file", "fetch it again"),
    "gzip": (b"\x1f\x8b\x08\x00rest", "gzip", "unpack"),
    "hdf": (b"\x89HDF\r\n\x1a\n", "HDF5", "torch.save"),
    "safetensors": ((2).to_bytes(8, "little") + b"{}", "safetensors", "convert"),
    "text": (b"hello", "unknown", "torch.save"),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_named_pth_are_recognised_by_content(name, tmp_path):
    data, kind, advice = FILES[name]
    path = tmp_path / "weights.pth.tar"
    path.write_bytes(data)
    assert file_kind(path) == kind
    with pytest.raises(InputError, match=kind) as error:
        read_checkpoint(path)
    assert advice in str(error.value)


def test_archives_are_told_from_weights(tmp_path):
    import tarfile
    import zipfile

    inside = tmp_path / "w.pth"
    torch.save(own(), inside)
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.write(inside, "w.pth")
    with tarfile.open(tmp_path / "t.pth", "w") as archive:
        archive.add(inside, "w.pth")
    assert file_kind(tmp_path / "z.pth") == "zip archive"
    assert file_kind(tmp_path / "t.pth") == "tar archive"
    with pytest.raises(InputError, match="unpack it first"):
        read_checkpoint(tmp_path / "t.pth")


def test_a_file_that_runs_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"w": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="object of .*mkdir"):
        read_checkpoint(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_list_and_a_wrong_part_are_refused(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="holds a list, not a mapping"):
        read_checkpoint(tmp_path / "list.pth")
    assert pick({"module": {"a": 1}}, ("model", "module"), "w") == {"a": 1}
    with pytest.raises(InputError, match="no part named model, only epoch"):
        pick({"epoch": 1}, ("model",), "w")
