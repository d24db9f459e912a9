"""DFER fine-tuning: all tasks, starts, kills, two processes, averages, LoRA, bad lists, the best epoch, the notebook."""

import json
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, drive, run_cells
from PIL import Image

from facecomp.dfer import course, finetuning, runs
from facecomp.dfer.averaging import average_weights
from facecomp.dfer.checkpoints import load_recognition, read_weights_file
from facecomp.dfer.config import build_network, read_config
from facecomp.dfer.finetuning import FineTuning, main
from facecomp.dfer.models import open_model
from facecomp.dfer.tuning_scores import Task, answers, score_rows, validation_loader
from facecomp.records.files import InputError
from facecomp.records.receipts import output_faults, read_receipt
from facecomp.training import loop
from facecomp.training.loop import NonFiniteLoss

SMALL = {"input_size": 32, "patch_size": [8, 8], "lg_region_size": [2, 2, 4], "width": 32}
SMALL |= {"heads": 2, "depth": 2, "short_side_size": 32, "num_frames": 4, "sampling_rate": 1}
SMALL |= {"batch_size": 2, "num_workers": 0, "epochs": 2, "warmup_epochs": 1, "lr": 0.1}
SMALL |= {"finetune": "", "progress": False, "device": "cpu", "save_ckpt_freq": 1}
PRETRAIN = {"encoder_depth": 2, "decoder_depth": 1, "decoder_width": 24, "decoder_heads": 2}
PLAIN = {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0}
MAMBA = {"model.name": "videomamba_base_dim512_patch16_160", "heads": None}
pytestmark = pytest.mark.usefixtures("quick_training")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Lists of every task of eight folders of eight frames; class and gaze go with place and colour of a light."""
    root, rng = tmp_path_factory.mktemp("dfer") / "data", np.random.default_rng(0)
    for k in range(8):
        (root / f"clip{k}").mkdir(parents=True)
        for t in range(8):
            frame = rng.integers(0, 60, (40, 40, 3), np.uint8)
            frame[:, 20 * (k % 2) : 20 * (k % 2) + 20, 2 * (k % 2)] += 190
            Image.fromarray(frame).save(root / f"clip{k}" / f"{t + 1}.jpg")
    write_lists(root)
    return root


def write_lists(root: Path) -> None:
    """`clips`: class; `gaze`: one list; `runs`, `both`: split folders."""
    for part, own in (("train", range(8)), ("val", range(5))):
        lines: dict[str, list[str]] = {"clips": [f"clip{k} {k % 2}\n" for k in own], "gaze": []}
        for k in own:
            frames = [f"clip{k}/{t + 1}.jpg" for t in range(8)]
            yaw = 0.4 * (k % 2) - 0.2
            gaze = [f"{frame} {np.sin(yaw):.6f} 0 {-np.cos(yaw):.6f}\n" for frame in frames]
            both = [f"{frame} {k % 2} 0.1 {yaw}\n" for frame in frames]
            lines["gaze"] += gaze[3:5]
            for name, text in (("runs", gaze), ("both", both)):
                (root / name / part).mkdir(parents=True, exist_ok=True)
                (root / name / part / f"{part}_clip{k}_0.csv").write_text("".join(text))
        for name in ("clips", "gaze"):
            (root / name).mkdir(exist_ok=True)
            (root / name / f"{part}.csv").write_text("".join(lines[name]))


TASKS = {  # configuration, lists, settings
    "expression": ("dfew", "clips", {}),
    "expression of frames": ("dfew", "labels", {"keep_temporal_dim": True, "lg_classify_token_type": "org", "clip_stride": 4}),
    "gaze": ("gaze360", "gaze", {}),
    "gaze bins": ("gaze360_l2cs", "gaze", {"num_bins": 30, "bin_width": 6.0}),
    "gaze of frames": ("gaze360T", "runs", {"clip_stride": 4}),
    "both": ("dfew_combine", "both", {"clip_stride": 4}),
    "both, gaze only": ("dfew_combine", "both", {"clip_stride": 4, "combine_loss_alpha": 0.0}),
    "joint": ("dfew", "clips", {"attn_type": "joint"}),
    "mamba": ("dfew_mamba", "clips", MAMBA),
    "mamba, gaze of frames": ("gaze360T_mamba", "runs", {**MAMBA, "clip_stride": 4}),
}  # fmt: skip
CLASSES = {"num_classes": 2, "num_classes_cls": 2}


def values_of(data: Path, out: Path, lists: str = "clips", **more) -> dict:
    """Two epochs of four steps of two clips, of a very small network."""
    places = {"data_path": str(data / lists), "data_root": str(data), "output_dir": str(out)}
    return {**SMALL, **CLASSES, **places, **more}


def run_of(data: Path, out: Path, task: str = "expression", **more) -> FineTuning:
    base, lists, settings = TASKS[task]
    return FineTuning(read_config(base, values_of(data, out, lists, **{**settings, **more})))


def lists_of(task: str) -> str:
    return TASKS[task][1]


def content(folder: Path, name: str = "checkpoint-1.pth") -> dict:
    return torch.load(folder / name, weights_only=True)


def same(a, b) -> bool:
    """Whether nested mappings and lists hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a if k != "output_dir")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def distance(a: dict, b: dict) -> float:
    """Largest difference of the weights of two published files."""
    return max(float((a["model"][k] - v).abs().max()) for k, v in b["model"].items())


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.txt").read_text().splitlines()]


# ---------------------------------------------------------------- tasks


@pytest.fixture(scope="module")
def labels(data) -> Path:
    """Split folder of `frame label`, made from that of both."""
    for file in (data / "both").rglob("*.csv"):
        copy = data / "labels" / file.parent.name / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        rows = [line.split()[:2] for line in file.read_text().splitlines()]
        copy.write_text("".join(f"{a} {b}\n" for a, b in rows))
    return data / "labels"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_learned_scored_and_opened_again(data, labels, tmp_path, task):
    run = run_of(data, tmp_path, task, epochs=1)
    folder = run.train()
    (line,) = log_of(folder)
    gaze, expression = "gaze" in task or "both" in task, "gaze" not in task or "both" in task
    assert ("val_angular_error" in line, "val_uar" in line) == (gaze, expression)
    assert np.isfinite(line["train_loss"]) and line["train_grad_norm"] > 0
    model = open_model(folder / "model.pt")
    clips = torch.randn(2, 3, 4, 32, 32)
    said = model.say(clips)
    shape = (2, 4) if "frames" in task or "both" in task else (2,)
    assert said.angles is None or said.angles.shape == (*shape, 2)
    assert said.logits is None or said.logits.shape == (*shape, 2)
    assert (said.angles is not None, said.logits is not None) == (gaze, expression)
    assert model.frame_order == "corrected" and model.info.bins == run.task.bins
    rows = answers(model.network, validation_loader(run.val_set, 2))
    found = score_rows(Task.of(run.config), rows)
    assert len(rows.index) == (5 if lists_of(task) == "clips" else 10)
    assert found == pytest.approx({name: line[f"val_{name}"] for name in found}, rel=1e-5)
    assert same(model.network.state_dict(), content(folder, "checkpoint-0.pth")["model"])


def test_gaze_alone_leaves_the_head_of_expression_as_it_was_but_for_weight_decay(data, tmp_path):
    run = run_of(data, tmp_path, "both, gaze only", epochs=1, weight_decay=0.0)
    before = build_network(run.config)
    run.train()
    torch.manual_seed(0)  # as `seed_all(0)` before the networks are made
    before = build_network(run.config).state_dict()
    after = run.network.state_dict()
    assert torch.equal(after["head.cls.weight"], before["head.cls.weight"])
    assert not torch.equal(after["head.reg.weight"], before["head.reg.weight"])


def test_two_classes_that_can_be_told_apart_are_told_apart(data, tmp_path):
    more = {
        "epochs": 12,
        "lr": 0.15,
        "batch_size": 4,
        "init_scale": 1.0,
        "layer_decay": 1.0,
        "no_augmentation": True,
    }
    run = run_of(data, tmp_path, **PLAIN, **more, save_ckpt=False, label_smoothing=0.0)
    log = log_of(run.train())
    assert log[-1]["val_uar"] == 1.0 and log[-1]["train_loss"] < 0.5 * log[0]["train_loss"]
    assert "checkpoint-9.pth" not in {p.name for p in tmp_path.iterdir()}


# ---------------------------------------------------------------- starts


def pretrained(folder: Path, **more) -> Path:
    """A file of a pre-training network with random weights."""
    base = "voxceleb2_pretrain_mamba" if "mamba" in str(more.get("model.name")) else "voxceleb2"
    given = {k: v for k, v in SMALL.items() if k != "depth"} | PRETRAIN | more
    torch.manual_seed(7)
    network = build_network(read_config(base, given))
    path = folder / "pretrained.pth"
    torch.save({"model": network.state_dict(), "epoch": 49}, path)
    return path


STARTS = {
    "expression": {},
    "joint": {"attn_type": "joint", "mask_type": "tube"},
    "mamba": {"model.name": "pretrain_videomamba_base_dim512_patch16_160", "heads": None, "depth": 2},
}  # fmt: skip


@pytest.mark.parametrize("task", STARTS)
def test_the_encoder_comes_from_pretraining_and_nothing_else_does(data, tmp_path, task):
    path = pretrained(tmp_path, **STARTS[task])
    run = run_of(data, tmp_path / "out", task, finetune=str(path))
    network, report = finetuning.make_network(run.config, run.start)
    own, tensors = network.state_dict(), read_weights_file(path).tensors
    encoder = {k.removeprefix("encoder."): v for k, v in tensors.items()}
    stacked = [name for name in own if name.startswith(("blocks.", "layers."))]
    assert stacked and all(torch.equal(own[name], encoder[name]) for name in stacked)
    heads = {"head.weight", "head.bias"}
    norm = set() if task == "mamba" else {"fc_norm.weight", "fc_norm.bias"}
    assert set(report.missing) == heads | norm
    folder = run.train()
    assert open_model(folder / "model.pt").info.start == "pretrained.pth"
    log = (folder / "run" / "log.txt").read_text()
    assert "tensors of pretrained.pth; new: " in log and "head.weight" in log


def test_weights_of_the_wrong_kind_or_size_are_refused(data, tmp_path):
    start = pretrained(tmp_path)
    tuned = tmp_path / "tuned.pth"
    torch.save({"model": build_network(read_config("dfew", SMALL)).state_dict()}, tuned)
    with pytest.raises(InputError, match="is of recognition, pretraining is needed"):
        run_of(data, tmp_path, finetune=str(tuned))
    with pytest.raises(InputError, match="is of pretraining, mamba pretraining is needed"):
        run_of(data, tmp_path, "mamba", finetune=str(start))
    with pytest.raises(InputError, match="is of pretraining, recognition .* is needed"):
        open_model(start)
    with pytest.raises(InputError, match="a name without it"):
        run_of(data, tmp_path, **{"model.name": "pretrain_videomae_base_patch16_160"})
    for more, words in (
        ({"depth": 3}, r"blocks.2\.\S+ is missing; .* and \d+ more"),
        ({"lg_region_size": [2, 4, 4]}, r"lg_region_tokens is \[2, 32\], not \[1, 32\]"),
        ({"attn_type": "joint"}, "attn.q_bias is missing"),
    ):
        with pytest.raises(InputError, match=words):
            run_of(data, tmp_path, finetune=str(start), **more).train()
    assert not (tmp_path / "model.pt").exists()


# ---------------------------------------------------------------- rates, passes, averages, LoRA


@pytest.mark.parametrize("task, stack", [("expression", "blocks"), ("mamba", "layers")])
def test_rates_fall_from_the_head_to_the_patches(data, tmp_path, task, stack):
    run = run_of(data, tmp_path, task, layer_decay=0.5)
    run._launch()
    scales = {p: g["lr_scale"] for g in run.optimiser.param_groups for p in g["params"]}
    found = {name: scales[p] for name, p in run.network.named_parameters()}
    assert {v for k, v in found.items() if k.startswith("patch_embed")} == {0.125}
    assert {v for k, v in found.items() if k.startswith(f"{stack}.0.")} == {0.25}
    assert {v for k, v in found.items() if k.startswith(f"{stack}.1.")} == {0.5}
    assert {v for k, v in found.items() if k.startswith("head.")} == {1.0}


def test_passes_of_a_step_add_up_to_the_whole_batch(data, tmp_path):
    folders = [
        run_of(data, tmp_path / str(freq), **PLAIN, batch_size=4 // freq, update_freq=freq).train()
        for freq in (1, 2, 4)
    ]
    files = [content(folder) for folder in folders]
    assert distance(files[0], files[1]) < 1e-5 and distance(files[0], files[2]) < 1e-5
    start = content(folders[0], "checkpoint-0.pth")
    assert distance(files[0], start) > 1e-3


def test_averaged_weights_follow_with_their_decay_and_are_scored(data, tmp_path, monkeypatch):
    seen, step = [], course.Course.step

    def watched(self, *given):
        if not seen:
            seen.append(
                {k: v.clone() for k, v in self.run.parts.models["model"].state_dict().items()}
            )
        made = step(self, *given)
        seen.append({k: v.clone() for k, v in self.run.parts.models["model"].state_dict().items()})
        return made

    monkeypatch.setattr(course.Course, "step", watched)
    run = run_of(data, tmp_path, epochs=1, model_ema=True, model_ema_decay=0.7)
    folder = run.train()
    assert len(seen) == 1 + 4
    expected = dict(seen[0])
    for now in seen[1:]:
        expected = {k: 0.7 * expected[k] + 0.3 * now[k] for k in expected}
    kept = content(folder, "checkpoint-0.pth")["model_ema"]
    assert kept.keys() == expected.keys() and same(kept, average_weights(run.average))
    assert all(torch.allclose(kept[k], expected[k], atol=1e-6) for k in expected)
    (line,) = log_of(folder)
    assert line["val_ema_loss"] != line["val_loss"]
    averaged = open_model(folder / "checkpoint-0.pth", averaged=True).network
    found = score_rows(run.task, answers(averaged, validation_loader(run.val_set, 2)))
    assert found["loss"] == line["val_ema_loss"]


@pytest.mark.parametrize("freeze", [False, True])
def test_lora_learns_beside_frozen_weights_and_leaves_a_plain_model(data, tmp_path, freeze):
    pytest.importorskip("peft")
    path = pretrained(tmp_path)
    more = {"finetune": str(path), "use_lora": True, "freeze": freeze, "lr": 0.5}
    run = run_of(data, tmp_path / "out", **more)
    folder = run.train()
    model = open_model(folder / "model.pt")
    clips = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model.say(clips).logits, run.network.eval()(clips), atol=1e-5)
    before, after = read_weights_file(path).tensors, model.network.state_dict()
    fixed = [torch.equal(after[f"blocks.{k}.mlp.fc1.weight"], before[f"encoder.blocks.{k}.mlp.fc1.weight"]) for k in (0, 1)]  # fmt: skip
    assert fixed == [freeze, freeze]
    name = "blocks.1.first_attn.q.weight"
    assert not torch.equal(after[name], before[f"encoder.{name}"])
    lora = content(folder)["lora"]
    assert lora["blocks.1.first_attn.lora_q.lora_A"].shape == (8, 32) and len(lora) == 24
    if freeze:  # W + s B A, by hand: scale 16 in the second half
        a, b = (lora[f"blocks.1.first_attn.lora_q.lora_{x}"] for x in "AB")
        assert torch.allclose(after[name], before[f"encoder.{name}"] + 16 * b @ a, atol=1e-6)
    again = run_of(data, tmp_path / "out", **more, auto_resume=True)
    assert again.train() == folder and same(content(folder, "model.pt")["model"], after)


# ---------------------------------------------------------------- the best epoch


def test_the_best_score_survives_a_resume(data, tmp_path, monkeypatch):
    """Published runs forget it, so that the first epoch after a resume is always the best (22.23)."""
    values = iter([0.9, 0.5, 0.7, 0.95])

    def scores(self, run, network):
        return {"acc1": next(values), "uar": 0.0, "loss": 1.0}

    monkeypatch.setattr(FineTuning, "_score", scores)

    class Killed(Exception):
        pass

    def stop_at(count: int):
        done, step = 0, finetuning.Course.step

        def counted(self, *given):
            nonlocal done
            done += 1
            if done > count:
                raise Killed
            return step(self, *given)

        return counted

    with monkeypatch.context() as inner:
        inner.setattr(finetuning.Course, "step", stop_at(4))
        with pytest.raises(Killed):
            run_of(data, tmp_path, epochs=4).train()
    assert content(tmp_path, "best.pt")["epoch"] == 0
    run = run_of(data, tmp_path, epochs=4)
    run.train()
    assert [line["val_best_epoch"] for line in log_of(tmp_path)] == [0, 0, 0, 3]
    assert (run.best.epoch, run.best.value) == (4, 0.95)
    assert content(tmp_path, "best.pt")["epoch"] == 3
    assert content(tmp_path, "checkpoint-best.pth")["epoch"] == "best"
    with pytest.raises(InputError, match="val_metric angular_error: not of this task"):
        values = iter([0.9])
        run_of(data, tmp_path / "other", val_metric="angular_error", epochs=1).train()


# ---------------------------------------------------------------- kills and two processes

# Runs a list of trainings in forked children (importing once). A child may signal itself before a given step.
DRIVER = """
import json, sys
from children import dies_before, forked, one_of_two, print_ends, quietly
from facecomp.dfer import course, finetuning
from facecomp.dfer.config import read_config
quietly()

def train(base, values):
    finetuning.FineTuning(read_config(base, values)).train()

def dying(base, values, number, die):
    dies_before(course.Course, "step", number, die)
    train(base, values)

def together(base, values, port, rank):
    one_of_two(rank, port)
    train(base, values)

for base, values, number, die in json.load(sys.stdin):
    if die is None:
        print_ends([forked(together, base, values, number, rank) for rank in (0, 1)])
    else:
        print_ends([forked(dying, base, values, number, die)])
"""

KILL, TERM = int(signal.SIGKILL), int(signal.SIGTERM)
MIXED = {"model_ema": True, "update_freq": 2, "drop_path": 0.3, "lr": 0.3, "num_sample": 2}
WAYS = {  # task, deaths by signal before a step (from 1), and settings
    "mixed-whole": ("expression", [], MIXED),
    "mixed-killed": ("expression", [(KILL, 2), (KILL, 3)], MIXED | {"checkpoint_steps": 1}),
    "mixed-terminated": ("expression", [(TERM, 1), (TERM, 2)], MIXED),
}
FIVE = {**PLAIN, "warmup_epochs": 0, "epochs": 1}  # of five steps


@pytest.fixture(scope="module")
def driven(data, tmp_path_factory) -> Path:
    """The folder of the runs of `WAYS`, each killed and started again until it ends, and of a pair of processes."""
    home, jobs, codes = tmp_path_factory.mktemp("driven"), [], []
    for way, (task, deaths, more) in WAYS.items():
        base, lists, settings = TASKS[task]
        values = values_of(data, home / way, lists, **settings, **more)
        jobs += [(base, values, *death) for death in [*deaths, (0, 0)]]
        codes += [{KILL: -9, TERM: 143}[number] for number, _ in deaths] + [0]
    port = random.SystemRandom().randint(20000, 60000)
    base, lists, settings = TASKS["both"]
    values = values_of(data, home / "two", lists, **settings, **FIVE, batch_size=1, update_freq=1)
    jobs.append((base, values | {"clip_stride": 2, "epochs": 1}, port, None))
    assert drive(DRIVER, jobs) == [*codes, 0, 0]
    return home


def test_a_run_that_was_killed_or_terminated_anywhere_ends_in_the_same_bits(driven):
    for way in WAYS:
        whole, folder = driven / f"{way.partition('-')[0]}-whole", driven / way
        for name in (
            "model.pt",
            "best.pt",
            "checkpoint-0.pth",
            "checkpoint-1.pth",
            "checkpoint-best.pth",
        ):
            a, b = (content(x, name) for x in (whole, folder))
            assert same(a["model"], b["model"]) and same(a.get("optimizer"), b.get("optimizer"))
            assert same(a.get("model_ema"), b.get("model_ema")), (way, name)
        for name in ("history.csv", "log.txt"):
            assert (whole / name).read_text() == (folder / name).read_text(), (way, name)
    log = (driven / "mixed-terminated" / "run" / "log.txt").read_text()
    assert log.count("SIGTERM: saved") == 2
    start, end = (content(driven / "mixed-whole", f"checkpoint-{k}.pth") for k in (0, 1))
    assert not same(start["model"], end["model"])


def test_two_processes_end_like_one_with_the_whole_batch(data, driven, tmp_path):
    """No mixing (its draws belong to a process) and no stochastic depth. Validation has an odd number of rows."""
    more = {**FIVE, "clip_stride": 2, "batch_size": 2}
    run = run_of(data, tmp_path, "both", **more)
    steps = run.train() and len(run.loader.batch_sampler)
    assert steps >= 5
    one, two = (content(folder, "checkpoint-0.pth") for folder in (tmp_path, driven / "two"))
    assert distance(one, two) < 1e-5
    start = build_network(run.config).state_dict()
    assert max(float((one["model"][k] - v).abs().max()) for k, v in start.items()) > 1e-3
    (a,), (b,) = log_of(tmp_path), log_of(driven / "two")
    assert a.keys() == b.keys() and len(run.val_set) == 15
    assert all(np.isclose(a[k], b[k], rtol=1e-4, atol=1e-6) for k in a), (a, b)


# ---------------------------------------------------------------- what stops a run


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_weights(
    data, tmp_path, monkeypatch
):
    count, loss = 0, finetuning.training_loss

    def broken(*given):
        nonlocal count
        count += 1
        made = loss(*given)
        return {k: v * float("nan") for k, v in made.items()} if count == 6 else made

    monkeypatch.setattr(finetuning, "training_loss", broken)
    with pytest.raises(NonFiniteLoss, match=r"epoch 2, step 1.*loss is nan.*clips clip\d"):
        run_of(data, tmp_path).train()
    assert content(tmp_path, "model.pt")["epoch"] == 0
    monkeypatch.undo()
    monkeypatch.setattr(loop, "draw_history", lambda rows, path: None)
    whole = run_of(data, tmp_path / "whole").train()
    assert same(content(run_of(data, tmp_path).train())["model"], content(whole)["model"])


def test_all_faults_of_all_lists_are_told_before_training_by_the_command(data, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    lists = tmp_path / "lists"
    lists.mkdir()
    folder = data.as_posix()
    train = [
        f"{folder}/clip0 0", f"{folder}/clip1,1", f"{folder}/none 1", f"{tmp_path}/empty 0",
        f"{folder}/clip2 2", f"{folder}/my clip 1", f"{folder}/clip4\t0", f"{folder}/clip5 x",
    ]  # fmt: skip
    (lists / "train.csv").write_bytes(b"\xef\xbb\xbf" + "\n".join(train).encode() + b"\n")
    (lists / "val.csv").write_text(f"{folder}/clip0 0\n\n{folder}/clip1 7\n")
    values = values_of(data, tmp_path / "out") | {"data_path": str(lists)}
    opts = [f"{k}={json.dumps(v) if isinstance(v, list) else v}" for k, v in values.items()]
    argv = ["--config", "configs/dfew.yaml", "--output_dir", str(tmp_path / "out"), "--opts", *opts]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("facecomp: ") and "Traceback" not in said and said.count("\n") == 1
    assert "9 faults in 2 lists" in said
    for words in (
        "train.csv:1: begins with a byte order mark", "train.csv:2: separated by a comma",
        "train.csv:3:", "no such folder", "train.csv:4:", "no frame (.jpg) in this folder",
        "train.csv:5: label 2; rule: whole number, 0 to 1", "train.csv:6: path holds a blank",
        "train.csv:7: separated by a tabulator", "train.csv:8: label x", "val.csv:3: label 7",
    ):  # fmt: skip
        assert words in said, words
    assert not (tmp_path / "out").exists()


def test_the_command_trains_and_names_what_does_not_fit(data, tmp_path, capsys):
    values = values_of(data, tmp_path / "out", epochs=1, model_ema=True)
    opts = [f"{k}={json.dumps(v) if isinstance(v, list) else v}" for k, v in values.items()]
    argv = ["--config", "dfew", "--output_dir", str(tmp_path / "out"), "--opts", *opts]
    assert main(argv) == 0 and (tmp_path / "out" / "model.pt").is_file()
    for more, words in (
        (["batch_size=3"], "batch_size 3: must be even for mixup and cutmix"),
        (["batch_size=64"], "8 clips: fewer than a step's 64"),
        (["warmup_epochs=9"], "lower warmup_epochs"),
        (["data_path=nowhere"], "no train list"),
        (["use_lora=true", "model.name=videomamba_base_dim512_patch16_160", "heads=None"], "no attention"),
        (["model_emma=true"], "nearest"),
    ):  # fmt: skip
        assert main([*argv[:3], str(tmp_path / "x"), *argv[4:], *more]) == 2
        assert words in capsys.readouterr().err, words


# ---------------------------------------------------------------- the notebook


def test_the_notebook_makes_what_its_receipt_says(data, tmp_path, monkeypatch):
    start = pretrained(tmp_path)
    opts = {k: v for k, v in (SMALL | CLASSES).items() if k not in ("finetune", "device")}
    given = {
        "dataset": "dfew",
        "checkpoint": str(start),
        "out": str(tmp_path / "runs"),
        "opts": opts,
    }
    given |= {"data_path": str(data / "clips"), "data_root": str(data), "fold": 1, "device": "cpu"}
    monkeypatch.setattr("IPython.display.display", lambda *shown: None)
    names = run_cells("run_finetune", "dfer", **given)
    folder = tmp_path / "runs" / "dfew_fold_1"
    assert names["folder"] == folder and (folder / "scores.png").is_file()
    path = runs.RECEIPTS["run_finetune"](given)
    receipt = read_receipt(path)
    assert path == folder / "finetune.receipt.json" and not output_faults(path)
    assert receipt.data == "real" and receipt.parameters["optimization.lr"] == 0.1
    assert {"model.pt", "best.pt", "checkpoint-1.pth", "scores.png"} <= set(receipt.outputs)
    assert runs.why_not_done(path, given) == ""
    assert "optimization.lr is" in runs.why_not_done(path, given | {"opts": opts | {"lr": 0.2}})
    torch.save(torch.load(start, weights_only=True) | {"epoch": 48}, start)
    assert "from the finetune as it is now" in runs.why_not_done(path, given)


def test_published_files_of_a_run_are_read_and_gone_on_from(data, tmp_path):
    whole = run_of(data, tmp_path / "whole", model_ema=True).train()
    file = content(whole, "checkpoint-0.pth")
    torch.save(file, tmp_path / "checkpoint-0.pth")
    network = load_recognition(read_weights_file(tmp_path / "checkpoint-0.pth"))
    model = open_model(tmp_path / "checkpoint-0.pth")
    assert same(network.state_dict(), model.network.state_dict()) and model.epoch == 0
    assert (network.settings.region, model.settings.heads) == (model.settings.region, 2)
    part = tmp_path / "part"
    part.mkdir()
    torch.save(file, part / "checkpoint-0.pth")  # a published folder: no checkpoint of ours
    run_of(data, part, model_ema=True).train()
    assert [line["epoch"] for line in log_of(part)] == [1]
    assert replace(model.info, scores={}) == replace(open_model(part / "model.pt").info, scores={})
    assert "going on after 1 epochs of checkpoint-0.pth" in (part / "run" / "log.txt").read_text()


def test_nothing_of_this_study_opens_files_that_run_code():
    for name in (
        "models",
        "finetuning",
        "tuning_data",
        "tuning_scores",
        "lora",
        "averaging",
        "runs",
    ):
        text = (ROOT / "facecomp" / "dfer" / f"{name}.py").read_text()
        assert "torch.load(" not in text and "pickle" not in text
