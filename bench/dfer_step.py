"""One step of MAE-DFER: a straightforward reference against ours, same run, one thread.

    .venv/bin/python bench/dfer_step.py [--steps 5] [--device cpu] [--process-time]

Published size, drawn weights, clips of a synthetic participant. The reference does what a reader of
the paper would write down: a convolution over the whole clip of which nine tokens in ten are thrown
away, softmax attention step by step, targets made of the whole clip and cut afterwards, PyTorch's
AdamW as it comes. Both have the same weights, and the same numbers are demanded before anything is
timed. They take turns; the median of each counts. With a graphics processor: clips a second and
memory of both encoders in float32, bfloat16 and compiled.
"""

import argparse
import copy
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facecomp.dfer.augmentation import normalise, to_tensor
from facecomp.dfer.blocks import Mlp
from facecomp.dfer.lgi import PUBLISHED_ENCODER, LgiBlock
from facecomp.dfer.masking import MaskRule
from facecomp.dfer.pretraining_network import PretrainingNetwork
from facecomp.dfer.recognition_network import FINE_TUNING, RecognitionNetwork
from facecomp.dfer.target import MEAN, STD, pixel_target, reconstruction_loss
from facecomp.faces.synthetic import participant, record
from facecomp.paper.tables import format_table

WANTED = {
    "pre-training step": 1.12,
    "fine-tuning, forward and backward": 1.03,
    "target": 2.0,
    "patch embedding, visible tokens": 4.0,
    "AdamW step": 2.5,
}
CLIP = "patch embedding, whole clip"  # of fine-tuning; no ratio is wanted


# ------------------------------------------------------------------ the straightforward reference


def attention(m: nn.Module, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Softmax attention of (B, N, D), one operation after the other."""
    context = x if context is None else context
    zero = torch.zeros_like(m.v_bias)
    if hasattr(m, "qkv"):
        bias = torch.cat((m.q_bias, zero, m.v_bias))
        parts = F.linear(x, m.qkv.weight, bias).reshape(*x.shape[:2], 3, m.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
    else:
        q = F.linear(x, m.q.weight, m.q_bias).reshape(*x.shape[:2], m.heads, -1).transpose(1, 2)
        both = F.linear(context, m.kv.weight, torch.cat((zero, m.v_bias)))
        k, v = both.reshape(*context.shape[:2], 2, m.heads, -1).permute(2, 0, 3, 1, 4)
    shares = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)
    return m.proj((shares @ v).transpose(1, 2).reshape(*x.shape[:2], -1))


def mlp(m: Mlp, x: Tensor) -> Tensor:
    """Two linear layers with GELU between."""
    return m.fc2(F.gelu(m.fc1(x)))


def lgi_block(b: LgiBlock, x: Tensor) -> Tensor:
    """The three stages and the MLP; x (B R, 1 + S, D)."""
    x = x + attention(b.first_attn, b.first_attn_norm0(x))
    heads = x[:, 0].reshape(-1, b.regions, x.shape[-1])
    heads = heads + attention(b.second_attn, b.second_attn_norm0(heads))
    tokens = x[:, 1:].reshape(len(heads), -1, x.shape[-1])
    news = attention(b.third_attn, b.third_attn_norm0(tokens), b.third_attn_norm1(heads))
    tokens = (tokens + news).reshape(len(x), -1, x.shape[-1])
    x = torch.cat((heads.reshape(len(x), 1, -1), tokens), 1)
    return x + mlp(b.mlp, b.norm2(x))


def embed(trunk: nn.Module, clips: Tensor) -> Tensor:
    """All tokens of the clips, without positions."""
    return trunk.patch_embed.proj(clips).flatten(2).transpose(1, 2)


def pretraining(network: PretrainingNetwork, clips: Tensor, masks: Tensor) -> Tensor:
    """Numbers of the hidden tubelets."""
    encoder, decoder, count = network.encoder, network.decoder, len(clips)
    tokens = embed(encoder, clips) + encoder.positions
    x = tokens[~masks].reshape(count, -1, tokens.shape[-1])
    times, rows, _ = encoder.settings.region
    nt, nh = network.size.grid[0] // times, network.size.grid[1] // rows
    x = x.reshape(count, nt, times, nh, -1, x.shape[-1]).permute(0, 1, 3, 2, 4, 5)
    x = x.reshape(count * nt * nh, -1, x.shape[-1])
    heads = encoder.lg_region_tokens.repeat(count, 1)[:, None]
    x = torch.cat((heads, x), 1)
    for block in encoder.blocks:
        x = lgi_block(block, x)
    x = encoder.norm(x[:, 1:].reshape(count, -1, x.shape[-1]))
    x = network.encoder_to_decoder(x)
    places = network.positions.expand(count, -1, -1)
    seen = x + places[~masks].reshape(x.shape)
    unseen = network.mask_token + places[masks].reshape(count, -1, x.shape[-1])
    x = torch.cat((seen, unseen), 1)
    for block in decoder.blocks:
        x = x + attention(block.attn, block.norm1(x))
        x = x + mlp(block.mlp, block.norm2(x))
    return decoder.head(decoder.norm(x[:, -unseen.shape[1] :]))


def recognition(network: RecognitionNetwork, clips: Tensor) -> Tensor:
    """Logits of the classes."""
    (nt, rt), (nh, rh), (nw, rw) = (
        (n // r, r)
        for n, r in zip(network.settings.size.grid, network.settings.region, strict=True)
    )
    x = embed(network, clips) + network.positions
    x = x.reshape(len(clips), nt, rt, nh, rh, nw, rw, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
    x = x.reshape(len(clips) * nt * nh * nw, rt * rh * rw, -1)
    x = torch.cat((network.lg_region_tokens.repeat(len(clips), 1)[:, None], x), 1)
    for block in network.blocks:
        x = lgi_block(block, x)
    return network.head(network.fc_norm(x[:, 0].reshape(len(clips), -1, x.shape[-1]).mean(1)))


@torch.no_grad()
def target(clips: Tensor, masks: Tensor, frames: int = 2, patch: int = 16) -> Tensor:
    """Targets of the hidden tubelets: normalised, back to a video, differences, cut again."""
    count, _, length, height, width = clips.shape
    mean, std = (torch.tensor(v).to(clips)[None, :, None, None, None] for v in (MEAN, STD))
    cut = (length // frames, frames, height // patch, patch, width // patch, patch)
    x = (clips * std + mean).reshape(count, 3, *cut).permute(0, 2, 4, 6, 3, 5, 7, 1)
    x = x.reshape(count, -1, frames * patch * patch, 3)
    x = (x - x.mean(-2, keepdim=True)) / (x.var(-2, keepdim=True).sqrt() + 1e-6)
    video = x.reshape(count, cut[0], cut[2], cut[4], frames, patch, patch, 3)
    video = video.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(clips.shape)
    for first in range(0, length, 2):
        video[:, :, first + 1] = video[:, :, first + 1] - video[:, :, first]
    x = video.reshape(count, 3, *cut).permute(0, 2, 4, 6, 3, 5, 7, 1)
    x = x.reshape(count, -1, frames * patch * patch * 3)
    return x[masks].reshape(count, -1, x.shape[-1])


# ------------------------------------------------------------------ what is compared


@dataclass
class Way:
    """The same work done in one of the two ways."""

    ours: bool
    pre: PretrainingNetwork
    fine: RecognitionNetwork
    clips: Tensor  # (B, 3, 16, 160, 160)
    masks: Tensor  # (B, 800), true is hidden

    def __post_init__(self):
        self.adam = torch.optim.AdamW(self.pre.parameters(), 1e-4, fused=self.ours or None)
        self.visible, self.hidden = self.pre.order(self.masks)

    def target(self) -> Tensor:
        """Targets of pre-training."""
        if self.ours:
            return pixel_target(self.clips, self.pre.size, self.hidden)
        return target(self.clips, self.masks)

    def loss(self) -> Tensor:
        """Loss of pre-training, with gradients."""
        self.adam.zero_grad()
        wanted = self.target()
        if self.ours:
            loss = reconstruction_loss(self.pre(self.clips, self.masks), wanted).total
        else:
            loss = F.mse_loss(pretraining(self.pre, self.clips, self.masks), wanted)
        loss.backward()
        return loss.detach()

    def step(self) -> None:
        """A whole step of pre-training."""
        self.loss()
        self.adam.step()

    def update(self) -> None:
        """The update alone, from the gradients that are there."""
        self.adam.step()

    def recognise(self) -> Tensor:
        """Forward and backward of fine-tuning; the logits."""
        self.fine.zero_grad()
        logits = self.fine(self.clips) if self.ours else recognition(self.fine, self.clips)
        F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)).backward()
        return logits.detach()

    @torch.no_grad()
    def visible_tokens(self) -> Tensor:
        """Embedded visible tokens."""
        if self.ours:
            return self.pre.encoder.patch_embed(self.clips, self.visible)
        tokens = embed(self.pre.encoder, self.clips)
        return tokens[~self.masks].reshape(len(tokens), -1, tokens.shape[-1])

    @torch.no_grad()
    def tokens(self) -> Tensor:
        """Embedded tokens of the whole clips."""
        if self.ours:
            return self.fine.patch_embed(self.clips)
        return embed(self.fine, self.clips)


def make_ways(batch: int, seed: int = 0) -> tuple[Way, Way]:
    """Reference and ours with the same weights and clips."""
    torch.manual_seed(seed)
    pre = PretrainingNetwork()
    fine = RecognitionNetwork(replace(FINE_TUNING, drop_path=0.0))
    nn.init.normal_(fine.head.weight, std=0.02)
    rule, generator = MaskRule(), np.random.RandomState(seed)
    masks = np.stack([rule.draw(pre.size.grid, generator) for _ in range(batch)])
    frames = [
        np.stack(list(record(participant(k), 16, size=160, seed=k).frames())) for k in range(batch)
    ]
    clips = torch.stack([normalise(to_tensor(clip)) for clip in frames])
    given = (pre, fine, clips.contiguous(), torch.from_numpy(masks))
    return Way(False, *copy.deepcopy(given)), Way(True, *given)


def apart(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest number."""
    return float((a - b).abs().max() / a.abs().max())


def check_equal(reference: Way, ours: Way) -> dict[str, float]:
    """Largest relative difference of each kind of work; fails if one is not equal."""
    found = {"target": apart(reference.target(), ours.target())}
    found["patch embedding, visible tokens"] = apart(
        reference.visible_tokens(), ours.visible_tokens()
    )
    found[CLIP] = apart(reference.tokens(), ours.tokens())
    found["loss"] = apart(reference.loss(), ours.loss())
    found["gradients of pre-training"] = _gradients(reference.pre, ours.pre)
    reference.adam.step(), ours.adam.step()
    weights = zip(reference.pre.parameters(), ours.pre.parameters(), strict=True)
    found["weights after AdamW, absolute"] = max(
        float((a.detach() - b.detach()).abs().max()) for a, b in weights
    )
    found["logits"] = apart(reference.recognise(), ours.recognise())
    found["gradients of fine-tuning"] = _gradients(reference.fine, ours.fine)
    limits = {"weights after AdamW, absolute": 2.1e-4}  # two steps: a sign of a tiny gradient
    for name, value in found.items():
        limit = limits.get(name, 1e-3 if "gradients" in name else 2e-5)
        assert value < limit, f"{name}: {value:.1e} apart"
    return found


def _gradients(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    norms = [(a.grad.norm(), (a.grad - b.grad).norm()) for a, b in pairs if a.grad is not None]
    largest = max(norm for norm, _ in norms)
    return max(float(gap / norm) for norm, gap in norms if norm > 1e-3 * largest)


def take_turns(
    ways: dict[str, Callable[[], object]], turns: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, work in ways.items():
            start = clock()
            work()
            if turn:
                times[name].append(clock() - start)
    return {name: statistics.median(taken) for name, taken in times.items()}


# ------------------------------------------------------------------ on a graphics processor


def on_gpu(device: torch.device, batch: int, steps: int) -> pd.DataFrame:
    """Clips a second and memory of a pre-training step of both encoders."""
    rows, clips = [], torch.randn(batch, 3, 16, 160, 160, device=device)
    joint = replace(PUBLISHED_ENCODER, width=768, heads=12, depth=12, attention="joint")
    for name, settings in (("LGI", PUBLISHED_ENCODER), ("joint", joint)):
        rule = MaskRule("part_window" if settings.regions else "tube")
        masks = np.stack([rule.draw((8, 10, 10), np.random.RandomState(k)) for k in range(batch)])
        for form in ("float32", "bfloat16", "bfloat16, compiled"):
            network = PretrainingNetwork(settings).to(device)
            adam = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
            visible, hidden = (t.to(device) for t in network.order(torch.from_numpy(masks)))
            run = torch.compile(network) if "compiled" in form else network
            held = torch.from_numpy(masks).to(device)

            def step(run=run, adam=adam, hidden=hidden, held=held, form=form, network=network):
                adam.zero_grad()
                with torch.autocast("cuda", torch.bfloat16, enabled="bfloat16" in form):
                    made = run(clips, held)
                wanted = pixel_target(clips, network.size, hidden)
                reconstruction_loss(made.float(), wanted).total.backward()
                adam.step()
                torch.cuda.synchronize(device)

            step()
            torch.cuda.reset_peak_memory_stats(device)
            taken = take_turns({"step": step}, steps, time.perf_counter)["step"]
            memory = torch.cuda.max_memory_allocated(device) / 2**30
            rows.append((name, form, f"{batch / taken:.1f}", f"{memory:.1f}"))
    return pd.DataFrame(rows, columns=["encoder", "form", "clips/s", "GiB"])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--process-time", action="store_true", help="for a busy machine")
    args = parser.parse_args()
    if args.device != "cpu":
        print(
            f"{datetime.date.today()} · {torch.cuda.get_device_name()} · torch {torch.__version__}"
        )
        table = on_gpu(torch.device(args.device), max(args.batch, 8), args.steps)
        print(format_table(table, "github", index=False))
        return
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    clock = time.process_time if args.process_time else time.perf_counter
    reference, ours = make_ways(args.batch)
    equal = check_equal(reference, ours)
    work = {
        "pre-training step": Way.step,
        "fine-tuning, forward and backward": Way.recognise,
        "target": Way.target,
        "patch embedding, visible tokens": Way.visible_tokens,
        CLIP: Way.tokens,
        "AdamW step": Way.update,
    }
    kind = "process time, machine busy" if args.process_time else "wall time"
    print(
        f"{datetime.date.today()} · {platform.machine()}, one thread · torch {torch.__version__} · "
        f"float32 · batch of {args.batch} · {kind}"
    )
    rows, ratios = [], {}
    for name, do in work.items():
        turns = args.steps if "ing" in name and "embedding" not in name else 4 * args.steps
        both = {"reference": lambda do=do: do(reference), "ours": lambda do=do: do(ours)}
        times = take_turns(both, turns, clock)
        ratios[name] = times["reference"] / times["ours"]
        wanted = f"{WANTED[name]:.2f}" if name in WANTED else "-"
        each = [f"{1000 * times[way]:.1f}" for way in both]
        rows.append((name, *each, f"{ratios[name]:.2f}", wanted))
    columns = ["what", "reference, ms", "ours, ms", "ratio", "wanted"]
    print(format_table(pd.DataFrame(rows, columns=columns), "github", index=False))
    print("\nLargest differences, relative to the largest number:")
    print("; ".join(f"{name} {value:.1e}" for name, value in equal.items()) + ".")
    short = [name for name, wanted in WANTED.items() if ratios[name] < wanted]
    assert not short, f"below what is wanted: {', '.join(short)}"


if __name__ == "__main__":
    main()
