"""The networks of MAE-DFER: right names and sizes, right properties, wrong weight files refused."""

import argparse
import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT
from golden.dfer_networks_checks import CHECKS
from golden.fill import fill
from golden.harness import GoldenSet, run_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from facecomp.dfer import blocks, mamba
from facecomp.dfer.blocks import ClipSize, ContextAttention, DropPath, JointAttention
from facecomp.dfer.checkpoints import (
    encoder_settings,
    import_encoder,
    load_pretraining,
    load_recognition,
    read_weights_file,
)
from facecomp.dfer.lgi import (
    EncoderSettings,
    LgiBlock,
    from_regions,
    to_regions,
    visible_from_regions,
    visible_to_regions,
)
from facecomp.dfer.mamba import MambaPretraining, MambaRecognition, MambaSettings, selective_scan
from facecomp.dfer.masking import MaskRule, visible_first
from facecomp.dfer.pretraining_network import DecoderSettings, PretrainingNetwork
from facecomp.dfer.recognition_network import HEADS, HeadSettings, RecognitionNetwork
from facecomp.dfer.sizes import build, pretraining_costs, recognition_cost
from facecomp.dfer.target import MEAN, STD, TargetRule, pixel_target, reconstruction_loss
from facecomp.records.files import InputError

GOLDEN = ROOT / "tests" / "golden" / "dfer"
LISTED = json.loads((GOLDEN / "state_dict.json").read_text())
SMALL = EncoderSettings(ClipSize(16, 8, 4), width=64, heads=1, depth=2, region=(2, 2, 4))
DECODER = DecoderSettings(64, 1, 1)
MASKS = MaskRule(ratio=0.5, window=(2, 4))


def clips_of(size: ClipSize, count=2, seed=0):
    made = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size.frames, size.image, size.image, generator=made)


def masks_of(size: ClipSize, count=2, seed=0, rule=MASKS):
    drawn = np.random.RandomState(seed)
    return torch.from_numpy(np.stack([rule.draw(size.grid, drawn) for _ in range(count)]))


def filled(network):
    fill(network.state_dict())
    return network.eval()


def refused(action, *words) -> None:
    """`action` raises an error of one line that holds `words`."""
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# --- names and sizes ---------------------------------------------------------------------------------


def listed(model: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published model; {i} stands for one name per block."""
    entry = LISTED["models"][model]
    given = entry.get("keys") or LISTED["models"][entry["same_as"]]["keys"]
    wanted = {}
    for name, shape in {**given, **entry.get("except_keys", {})}.items():
        if isinstance(shape, dict):
            first, last = shape["i"]
            wanted |= {
                name.replace("{i}", str(i)): tuple(shape["shape"]) for i in range(first, last + 1)
            }
        else:
            wanted[name] = tuple(shape)
    return wanted


def built(model: str):
    """The network of a model's name, by its listed constructor."""
    entry = LISTED["models"][model]
    made = entry["constructor"]
    name = model.split("__")[0]
    if "mamba" in name:
        return build(name)
    changes = {k: made[k] for k in ("depth", "region") if k in made}
    changes["attention"] = made.get("attn_type", "local_global")
    return build(name, changes, HeadSettings(classes=made.get("ncls", 7)))


@pytest.mark.parametrize("model", LISTED["models"])
def test_names_shapes_and_number_of_parameters_are_the_published_ones(model):
    with torch.device("meta"):
        network = built(model)
    wanted = listed(model)
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == wanted
    assert len(wanted) == LISTED["models"][model]["num_keys"]
    count = sum(p.numel() for p in network.parameters())
    assert count == LISTED["models"][model]["num_params"]


@pytest.mark.parametrize("head", [h for h in HEADS if h != "classes"])
def test_heads_have_the_published_names_and_shapes(head):
    listed_head = {"gaze": "regression", "l2cs": "l2cs", "combined": "combine"}[head]
    wanted = {
        name: [SMALL.width if n == "D" else 7 if "num_classes_cls" in str(n) else
               int(str(n).split("=")[-1]) for n in shape]
        for name, shape in LISTED["heads"][listed_head].items()
    }  # fmt: skip
    state = RecognitionNetwork(SMALL, HeadSettings(head)).state_dict()
    assert {k: list(v.shape) for k, v in state.items() if k.startswith("head.")} == wanted


def test_multiply_accumulates_are_the_published_ones():
    wanted = LISTED["counts"]["measured_GMACs_per_clip_16x160x160"]
    joint = EncoderSettings(width=768, heads=12, depth=12, attention="joint")
    assert round(recognition_cost(EncoderSettings()).giga, 3) == wanted["mae_dfer_region2510"]
    assert round(recognition_cost(joint).giga, 3) == wanted["videomae_joint_768_12"]
    made = pretraining_costs(EncoderSettings(), published=True)
    names = {
        "all": "pretrain_forward_mask0.9",
        "encoder": "pretrain_encoder",
        "decoder": "pretrain_decoder",
    }
    assert {k: round(made[k].giga, 3) for k in names} == {k: wanted[v] for k, v in names.items()}
    assert (
        pretraining_costs(EncoderSettings())["all"].giga < wanted["pretrain_forward_mask0.9"] - 0.5
    )


# --- the golden cases can fail, and take other sizes and salts ------------------------------------------


@pytest.mark.parametrize("name", ["finetune-small-region", "pretrain-small-joint", "mixer"])
def test_a_golden_case_fails_for_other_weights(name):
    golden = GoldenSet.read(GOLDEN, "another salt")
    with pytest.raises(AssertionError, match="outside"):
        run_case(golden.case(name), CHECKS)


def test_a_golden_case_fails_for_another_epsilon_of_the_norms(monkeypatch):
    monkeypatch.setattr(blocks, "LAYER_NORM_EPS", 1e-5)
    with pytest.raises(AssertionError, match="outside"):
        run_case(GoldenSet.read(GOLDEN, None).case("finetune-small-region"), CHECKS)


# --- regions -----------------------------------------------------------------------------------------

sizes = st.integers(1, 3)


@given(regions=st.tuples(sizes, sizes, sizes), region=st.tuples(sizes, sizes, sizes))
@settings(max_examples=30, deadline=None)
def test_regrouping_is_undone_and_regions_are_boxes(regions, region):
    grid = tuple(a * b for a, b in zip(regions, region, strict=True))
    numbers = torch.arange(2 * np.prod(grid)).view(2, -1)
    made = to_regions(numbers, grid, region)
    assert torch.equal(from_regions(made.flatten(1, 2), grid, region), numbers)
    place = np.stack(np.unravel_index(made[0].numpy(), grid), -1)
    extent = place.max(1) - place.min(1) + 1
    assert (extent == np.array(region)).all()


@given(seed=st.integers(0, 99), rows=st.sampled_from([2, 4]))
@settings(max_examples=20, deadline=None)
def test_visible_tokens_are_in_the_region_that_they_are_in_without_masks(seed, rows):
    size, region = SMALL.size, (2, rows, 4)
    visible, _ = visible_first(masks_of(size, 1, seed))
    made = visible_to_regions(visible[..., None], size.grid, region)[..., 0]
    whole = to_regions(torch.arange(size.tokens)[None], size.grid, region)
    for mine, everything in zip(made[0], whole[0], strict=True):
        assert set(mine.tolist()) <= set(everything.tolist())
    assert torch.equal(
        visible_from_regions(made.flatten(1, 2)[..., None], size.grid, region)[..., 0], visible
    )


# --- attention and blocks ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [JointAttention, ContextAttention])
def test_fused_attention_is_the_one_written_step_by_step(kind):
    torch.manual_seed(0)
    net, x = filled(kind(32, 4)), torch.randn(3, 9, 32)
    _, _, v = net.parts(x, None)
    steps = net.proj((net.shares(x) @ v).transpose(1, 2).flatten(2))
    assert torch.allclose(net(x), steps, atol=1e-5)
    assert torch.allclose(net.shares(x).sum(-1), torch.ones(3, 4, 9))


def test_keys_have_no_bias_so_equal_tokens_get_equal_shares():
    net = filled(JointAttention(8, 2))
    assert torch.allclose(net.shares(torch.ones(1, 5, 8)), torch.full((1, 2, 5, 5), 0.2))


def test_a_wrapped_linear_layer_is_called():
    class Wrapped(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    torch.manual_seed(0)
    plain, wrapped = ContextAttention(8, 2), ContextAttention(8, 2)
    wrapped.q = Wrapped(8, 8, bias=False)
    wrapped.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 8)
    queries = [net.parts(x, None)[0] for net in (plain, wrapped)]
    assert torch.allclose(queries[0] + 1, queries[1], atol=1e-6)


def test_stochastic_depth_drops_regions_in_the_first_stage_and_clips_in_the_second():
    torch.manual_seed(3)
    block = LgiBlock(SMALL, drop_path=0.5)
    regions = SMALL.regions
    x = torch.randn(6 * regions, 5, 64)
    moved = ((block.local(x) - x).abs().amax((1, 2)) > 0).view(6, regions)
    assert moved.any() and not moved.all()
    assert any(row.any() and not row.all() for row in moved)  # within a clip, region by region
    heads = torch.randn(40, regions, 64)
    moved = (block.among(heads) - heads).abs().amax(2) > 0
    assert (moved.all(1) | ~moved.any(1)).all() and moved.any() and not moved.all()


def test_stochastic_depth_keeps_the_mean_and_does_nothing_in_evaluation():
    torch.manual_seed(0)
    x = torch.ones(20_000, 1)
    assert abs(DropPath(0.3)(x).mean().item() - 1) < 0.02
    assert DropPath(0.3).eval()(x) is x


def test_recomputed_blocks_give_the_same_gradients():
    clips, made = clips_of(SMALL.size), []
    for recompute in (False, True):
        net = filled(RecognitionNetwork(replace(SMALL, recompute=recompute))).train()
        net(clips).square().sum().backward()
        made.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*made, strict=True))


def test_every_weight_learns_but_those_that_representatives_cannot_see():
    net = filled(RecognitionNetwork(SMALL)).train()
    net(clips_of(SMALL.size)).square().sum().backward()
    idle = {n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle and all(name.startswith(f"blocks.{SMALL.depth - 1}.third_attn") for name in idle)
    pre = filled(PretrainingNetwork(SMALL, DECODER)).train()
    pre(clips_of(SMALL.size), masks_of(SMALL.size)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in pre.parameters())


def test_learned_positions_train_unless_they_are_cut_off():
    for cut in (False, True):
        net = filled(
            RecognitionNetwork(replace(SMALL, learned_positions=True, detach_positions=cut))
        )
        net.train()(clips_of(SMALL.size)).square().sum().backward()
        assert (net.pos_embed.grad is None) == cut


def test_half_precision_is_near():
    net, clips = filled(RecognitionNetwork(SMALL)), clips_of(SMALL.size)
    pre, masks = filled(PretrainingNetwork(SMALL, DECODER)), masks_of(SMALL.size)
    with torch.no_grad():
        whole = net(clips), pre(clips, masks)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(clips), pre(clips, masks)
    for a, b in zip(whole, half, strict=True):
        assert (a - b.float()).abs().mean() < 0.05 * a.std()


# --- pre-training ------------------------------------------------------------------------------------


def test_hidden_tubelets_do_not_reach_the_prediction():
    size, net = SMALL.size, filled(PretrainingNetwork(SMALL, DECODER))
    clips, masks = clips_of(size), masks_of(size)
    pixels = masks.view(2, *size.grid).repeat_interleave(2, 1).repeat_interleave(4, 2)
    others = torch.where(pixels.repeat_interleave(4, 3)[:, None], torch.randn(1), clips)
    assert not torch.equal(clips, others)
    with torch.no_grad():
        assert torch.equal(net(clips, masks), net(others, masks))


def test_clips_of_a_batch_do_not_influence_each_other():
    net, clips = filled(PretrainingNetwork(SMALL, DECODER)), clips_of(SMALL.size, 3)
    masks = masks_of(SMALL.size, 3)
    with torch.no_grad():
        alone = torch.cat([net(clips[k : k + 1], masks[k : k + 1]) for k in range(3)])
        assert torch.allclose(net(clips, masks), alone, atol=1e-5)


def test_masks_that_do_not_fit_regions_are_refused():
    net, clips = PretrainingNetwork(SMALL, DECODER), clips_of(SMALL.size)
    uneven = masks_of(SMALL.size, rule=MaskRule("random", 0.5))
    refused(lambda: net(clips, uneven), "regions", "part_window")
    refused(lambda: net(clips, masks_of(SMALL.size)[:, :-1]), "masks", "64")
    refused(lambda: net(clips[:, :, :4], masks_of(SMALL.size)), "clips", "8, 16, 16")
    joint = PretrainingNetwork(replace(SMALL, attention="joint"), DECODER)
    one = masks_of(SMALL.size, 1, rule=MaskRule("random", 0.5)).expand(2, -1)
    assert joint(clips, one).shape == (2, 32, SMALL.size.numbers)


@given(
    seed=st.integers(0, 999),
    ratio=st.sampled_from([0.55, 0.75, 0.9]),
    symmetry=st.sampled_from([None, "global", "local"]),
)
@settings(max_examples=40, deadline=None)
def test_masks_are_tubes_and_hide_equally_many_in_each_window(seed, ratio, symmetry):
    rule = MaskRule(ratio=ratio, symmetry=symmetry)
    mask = rule.draw((8, 10, 10), np.random.default_rng(seed)).reshape(8, 2, 5, 10)
    assert (mask == mask[0]).all()
    assert (mask.sum((2, 3)) == int(ratio * 50)).all()
    if symmetry:
        sides = [(~mask[0, w, :, :5]).any() + 2 * (~mask[0, w, :, 5:]).any() for w in range(2)]
        assert set(sides) <= {1, 2} and (symmetry == "local" or len(set(sides)) == 1)


def slow_target(clips, size, group):
    """Step by step as published, in float64."""
    pixels = clips.double() * torch.tensor(STD)[:, None, None, None].double()
    pixels = pixels + torch.tensor(MEAN)[:, None, None, None].double()
    out, (times, rows, columns), p = pixels.clone(), size.grid, size.patch
    for t in range(times):
        for r in range(rows):
            for c in range(columns):
                box = (
                    slice(None),
                    slice(None),
                    slice(2 * t, 2 * t + 2),
                    slice(p * r, p * r + p),
                    slice(p * c, p * c + p),
                )
                part = pixels[box]
                mean = part.mean((2, 3, 4), keepdim=True)
                spread = part.flatten(2).std(-1)[:, :, None, None, None]
                out[box] = (part - mean) / (spread + 1e-6)
    first = out[:, :, ::group].repeat_interleave(group, 2)
    changed = torch.arange(size.frames) % group != 0
    out[:, :, changed] -= first[:, :, changed]
    tokens = [
        out[:, :, 2 * t : 2 * t + 2, p * r : p * r + p, p * c : p * c + p].permute(0, 2, 3, 4, 1).flatten(1)
        for t in range(times) for r in range(rows) for c in range(columns)
    ]  # fmt: skip
    return torch.stack(tokens, 1).float()


@pytest.mark.parametrize("group", [2, 4])
def test_targets_are_those_made_step_by_step(group):
    size = SMALL.size
    clips, (_, hidden) = clips_of(size), visible_first(masks_of(size))
    kept = clips.clone()
    wanted = slow_target(clips, size, group)
    rule = TargetRule(group=group)
    assert torch.allclose(pixel_target(clips, size, rule=rule), wanted, atol=2e-5)
    chosen = torch.stack([w[h] for w, h in zip(wanted, hidden, strict=True)])
    assert torch.allclose(pixel_target(clips, size, hidden, rule), chosen, atol=2e-5)
    assert torch.equal(clips, kept)


def test_loss_parts_add_up():
    a, b = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    parts = reconstruction_loss(a, b)
    assert torch.allclose(parts.total, F.mse_loss(a, b))
    weighted = reconstruction_loss(a, b, 0.3).total
    assert torch.allclose(weighted, 0.7 * parts.appearance + 0.3 * parts.motion)
    refused(lambda: reconstruction_loss(a, b, 1.5), "1.5", "0 ... 1")


# --- recognition -------------------------------------------------------------------------------------


def test_frames_are_in_time_order_only_when_corrected():
    """A change of the last moment reaches the last frames alone if blocks do not mix tokens."""
    still = replace(SMALL, depth=0)
    clips = clips_of(still.size, 1)
    later = clips.clone()
    later[:, :, -2:] += 1
    changed = {}
    for order in ("compat", "corrected"):
        head = HeadSettings("gaze", tokens="org", frame_level=True, frame_order=order)
        net = filled(RecognitionNetwork(still, head))
        with torch.no_grad():
            changed[order] = ((net(clips) - net(later)).abs().amax((0, 2)) > 0).tolist()
    assert (
        changed["corrected"] == [False] * 5 + [True] * 3
    )  # interpolation reaches one frame further
    assert changed["compat"] != changed["corrected"]


def test_activations_and_token_types_differ_only_where_they_should():
    clips = clips_of(SMALL.size)
    plain, bent = (
        filled(RecognitionNetwork(SMALL, HeadSettings(activation=a))) for a in ("none", "tanh")
    )
    with torch.no_grad():
        assert torch.equal(plain(clips).tanh(), bent(clips))
        tokens = {
            t: filled(RecognitionNetwork(SMALL, HeadSettings(tokens=t))).tokens(clips)
            for t in ("region", "org", "all")
        }
    joined = torch.cat((tokens["region"], tokens["org"]), 1)
    assert torch.allclose(joined, tokens["all"], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"first": "cross"},
        {"second": False},
        {"third": "self"},
        {"third": "none"},
        {"share_first_third": True},
        {"share_all": True},
    ],
)
def test_a_last_block_that_leaves_out_what_nobody_reads_gives_the_same_and_all_gradients(change):
    network, clips = filled(RecognitionNetwork(replace(SMALL, **change))), clips_of(SMALL.size)
    found = {}
    for lean in (False, True):
        network.lean = lean
        network.zero_grad()
        answer = network(clips)
        answer.square().sum().backward()
        found[lean] = answer.detach(), {n: p.grad for n, p in network.named_parameters()}
    assert torch.allclose(found[True][0], found[False][0], rtol=0, atol=2e-5)
    for name, gradient in found[False][1].items():
        lean = found[True][1][name]
        assert (lean is None) == (gradient is None), name  # zeros are not none: weights decay
        if lean is not None:
            assert (lean - gradient).norm() <= 1e-4 * gradient.norm().clamp(min=1e-3), name


def test_settings_that_cannot_be_are_refused():
    refused(lambda: EncoderSettings(region=(3, 5, 10)), "region", "divide")
    refused(lambda: EncoderSettings(attention="divided"), "attention", "joint")
    refused(lambda: EncoderSettings(third="none", share_all=True), "third")
    refused(lambda: HeadSettings(tokens="all", frame_level=True), "frame level")
    refused(lambda: MaskRule("tube").check((8, 10, 10), (2, 5, 10)), "tube", "part_window")
    refused(lambda: build("vit_huge"), "vit_huge")
    refused(lambda: build("vit_base_patch16_160", {"widht": 3}), "widht")


# --- weight files ------------------------------------------------------------------------------------


@pytest.fixture
def pretrained(tmp_path):
    """A file as the published program writes it."""
    net = filled(PretrainingNetwork(SMALL, DECODER))
    arguments = argparse.Namespace(
        lr=3e-4, lg_region_size=[2, 2, 4], input_size=16, num_frames=8, device="cuda"
    )
    path = tmp_path / "checkpoint-49.pth"
    content = {
        "model": net.state_dict(),
        "optimizer": {"state": {}},
        "epoch": 49,
        "args": arguments,
    }
    torch.save(content, path)
    return net, path


def test_a_published_file_gives_its_network_back(pretrained):
    net, path = pretrained
    file = read_weights_file(path)
    assert (file.kind, file.epoch, file.arguments["device"]) == ("pretraining", 49, "cuda")
    assert encoder_settings(file) == SMALL
    again, clips, masks = load_pretraining(file), clips_of(SMALL.size), masks_of(SMALL.size)
    with torch.no_grad():
        assert torch.equal(again(clips, masks), net(clips, masks))


CHANGES = [
    {},
    {"first": "cross"},
    {"third": "self"},
    {"third": "none"},
    {"second": False},
    {"share_first_third": True},
    {"share_all": True, "share_first_third": True},
    {"attention": "joint"},
    {"attention": "joint", "init_values": 0.1, "learned_positions": True},
    {"depth": 1, "region": (1, 4, 2), "mlp_ratio": 2.0},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_settings_of_recognition_are_seen_from_the_file(change, tmp_path):
    wanted = replace(SMALL, **change)
    net = filled(RecognitionNetwork(wanted))
    torch.save(
        {"module": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.pth"
    )
    file = read_weights_file(tmp_path / "w.pth")
    found = encoder_settings(file, 16, 8, wanted.region)
    ignored = {"region": wanted.region} if wanted.attention == "joint" else {}
    assert replace(found, **ignored) == wanted
    again, clips = (
        load_recognition(file, image=16, frames=8, region=wanted.region),
        clips_of(wanted.size),
    )
    with torch.no_grad():
        assert torch.equal(again(clips), net(clips))


@pytest.mark.parametrize("head", HEADS)
def test_heads_are_seen_from_the_file(head, tmp_path):
    net = filled(RecognitionNetwork(SMALL, HeadSettings(head, classes=5, bins=30)))
    arguments = argparse.Namespace(lg_region_size=(2, 2, 4), input_size=16, num_frames=8)
    torch.save({"model": net.state_dict(), "args": arguments}, tmp_path / "w.pth")
    found = load_recognition(read_weights_file(tmp_path / "w.pth")).reading
    assert found.head == head
    assert found.bins == (30 if head == "l2cs" else 90)
    assert found.classes == (5 if head in ("classes", "combined") else 7)


def test_a_file_of_the_wrong_kind_is_refused(pretrained, tmp_path):
    _, path = pretrained
    refused(
        lambda: load_recognition(read_weights_file(path)), "pretraining", "recognition", "fine-tune"
    )
    tuned = tmp_path / "tuned.pth"
    torch.save({"model": RecognitionNetwork(SMALL).state_dict()}, tuned)
    refused(lambda: load_pretraining(read_weights_file(tuned)), "recognition", "pretraining")
    torch.save({"model": nn.Linear(2, 2).state_dict()}, tuned)
    refused(lambda: read_weights_file(tuned), "tuned.pth", "MAE-DFER")
    torch.save({"model": {}, "epoch": 3}, tuned)
    refused(lambda: read_weights_file(tuned), "no weights")
    torch.save([1, 2], tuned)
    refused(lambda: read_weights_file(tuned), "list")


class Trap:
    def __reduce__(self):
        return print, ("ran",)


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    torch.save(
        {"model": PretrainingNetwork(SMALL, DECODER).state_dict(), "args": Trap()},
        tmp_path / "w.pth",
    )
    refused(lambda: read_weights_file(tmp_path / "w.pth"), "w.pth", "print")
    assert capsys.readouterr().out == ""


def test_an_encoder_is_carried_over_whole_or_not_at_all(pretrained):
    net, path = pretrained
    file = read_weights_file(path)
    fresh = RecognitionNetwork(SMALL)
    report = import_encoder(fresh, file)
    assert set(report.missing) == {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    carried = fresh.state_dict()
    assert all(torch.equal(carried[n], net.state_dict()[f"encoder.{n}"]) for n in report.used)
    for change, word in (
        ({"depth": 1}, "has no place"),
        ({"depth": 3}, "is missing"),
        ({"region": (1, 2, 4)}, "lg_region_tokens"),
        ({"width": 32}, "patch_embed"),
        ({"attention": "joint"}, "blocks.0"),
    ):
        other = RecognitionNetwork(replace(SMALL, **change))
        before = {k: v.clone() for k, v in other.state_dict().items()}
        refused(lambda: import_encoder(other, file), "does not fit", word)  # noqa: B023
        assert all(torch.equal(before[k], v) for k, v in other.state_dict().items())
        assert import_encoder(other, file, tolerant=True).lost()


def test_own_checkpoints_and_moving_averages_are_read(tmp_path):
    net, path = filled(RecognitionNetwork(SMALL)), tmp_path / "w.pt"
    state = net.state_dict()
    torch.save({"format": "facecomp checkpoint 1", "models": {"network": state}, "epoch": 3}, path)
    assert read_weights_file(path).kind == "recognition"
    torch.save({"model": state, "model_ema": {k: v + 1 for k, v in state.items()}}, path)
    plain, averaged = read_weights_file(path), read_weights_file(path, averaged=True)
    assert torch.equal(averaged.tensors["head.bias"], plain.tensors["head.bias"] + 1)
    torch.save(state, path)
    assert read_weights_file(path).tensors.keys() == state.keys()


# --- VideoMamba --------------------------------------------------------------------------------------

TINY = MambaSettings(ClipSize(8, 4, 4), width=16, depth=2)


@given(length=st.integers(1, 20), chunk=st.integers(1, 21), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_pieces_of_the_scan_give_what_one_token_after_the_other_gives(length, chunk, seed):
    made = torch.Generator().manual_seed(seed)
    x, delta, b, c = (
        torch.rand(2, length, n, generator=made, dtype=torch.float64) for n in (3, 3, 4, 4)
    )
    a = -4 * torch.rand(2, 3, 4, generator=made, dtype=torch.float64)
    state, rows = torch.zeros(2, 3, 4, dtype=torch.float64), []
    for k in range(length):
        state = (
            state * torch.exp(delta[:, k, :, None] * a) + (delta * x)[:, k, :, None] * b[:, k, None]
        )
        rows.append((state * c[:, k, None]).sum(-1))
    for pieces in (0, chunk):
        assert torch.allclose(
            selective_scan(x, delta, a, b, c, pieces), torch.stack(rows, 1), atol=1e-12
        )


def test_the_scan_survives_long_sequences_and_fast_forgetting():
    x, one = torch.ones(1, 400, 2), torch.ones(1, 400, 3)
    a = torch.tensor([[-1e-3, -50.0, -1e4]]).repeat(2, 1)[None]
    made = [selective_scan(x, 5 * x, a, one, one, chunk) for chunk in (0, 20)]
    assert all(m.isfinite().all() for m in made) and torch.allclose(*made, rtol=1e-5)


def test_the_kernel_gets_what_it_is_documented_to_want(monkeypatch):
    """A stand-in with the documented interface: (B, channels, L), A (channels, S), B and C (B, S, L)."""

    def scan(u, delta, a, b, c):
        assert u.is_contiguous() and a.shape == (u.shape[1], b.shape[1])
        parts = (v.transpose(1, 2) for v in (u, delta, b, c))
        wide, step, read_in, read_out = parts
        return selective_scan(wide, step, a[None], read_in, read_out).transpose(1, 2)

    module = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = scan
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.manual_seed(0)
    mixers = [filled(mamba.Mixer(8, scan=scan)) for scan in ("torch", "kernel")]
    x = torch.randn(2, 7, 8)
    assert torch.allclose(mixers[0](x), mixers[1](x), atol=1e-6)


def test_the_kernel_gives_what_plain_torch_gives():
    pytest.importorskip("mamba_ssm")
    if not torch.cuda.is_available():
        pytest.skip("the kernel needs a graphics processor")
    mixers = [filled(mamba.Mixer(64, scan=scan)).to("cuda") for scan in ("torch", "kernel")]
    x = torch.randn(2, 101, 64, device="cuda", requires_grad=True)
    made = [m(x) for m in mixers]
    assert torch.allclose(*made, rtol=1e-3, atol=1e-4)
    grads = [torch.autograd.grad(y.square().mean(), x)[0] for y in made]
    assert torch.allclose(*grads, rtol=1e-3, atol=1e-5)


def test_mamba_files_are_read_and_carried_over_with_norm_and_positions(tmp_path):
    net = filled(MambaPretraining(TINY, 16, 1))
    arguments = argparse.Namespace(input_size=8, num_frames=4)
    torch.save({"model": net.state_dict(), "args": arguments}, tmp_path / "m.pth")
    file = read_weights_file(tmp_path / "m.pth")
    assert file.kind == "mamba pretraining"
    clips, masks = (
        clips_of(TINY.size),
        torch.tensor([[0, 1, 1, 0, 1, 1, 0, 1]]).bool().expand(2, -1),
    )
    with torch.no_grad():
        assert torch.equal(load_pretraining(file)(clips, masks), net(clips, masks))
    tuned = MambaRecognition(replace(TINY, learned_positions=True))
    report = import_encoder(tuned, file)
    assert torch.equal(tuned.pos_embed, net.pos_embed)
    assert torch.equal(tuned.fc_norm.weight, net.norm.weight)
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert "pos_embed" in import_encoder(MambaRecognition(TINY), file).unexpected
    torch.save({"model": tuned.state_dict(), "args": arguments}, tmp_path / "m.pth")
    again = load_recognition(read_weights_file(tmp_path / "m.pth"))
    with torch.no_grad():
        assert torch.equal(again(clips), tuned.eval()(clips))


def test_the_last_mixer_learns_unless_the_residual_is_given():
    for output in ("normed", "residual"):
        net = MambaRecognition(replace(TINY, output=output))
        net(clips_of(TINY.size)).square().sum().backward()
        learned = net.layers[-1].mixer.out_proj.weight.grad
        assert (learned is not None and learned.any().item()) == (output == "normed")
