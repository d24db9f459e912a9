"""Order, items, batches over processes and resume; the published orders and the frames of a clip."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from facecomp.data.sampling import (
    EpochSampler,
    Item,
    crop_offsets,
    dense_indices,
    epoch_order,
    file_order,
    item_generator,
    legacy_generator,
    legacy_order,
    loader_order,
    span_indices,
    torch_generator,
    view_indices,
    window_indices,
)
from facecomp.records.files import InputError

GOLDEN = Path(__file__).parent / "golden" / "dfer" / "frame_sampling_seed0.npz"
SEEDS = st.integers(-(2**70), 2**70)
SMALL = st.integers(0, 60)
ORDER_0 = [8, 9, 1, 2, 0, 5, 6, 3, 10, 11, 7, 4]
WORDS_FLIP = [17607759155132420243, 17834996723040459633]


def indices(sampler) -> list[list[int]]:
    return [[item.index for item in batch] for batch in sampler]


# ---------------------------------------------------------------- keys


def test_the_stream_of_an_item_is_written_down():
    """Fixed numbers: a change of the rule would change every run's order and augmentation."""
    assert epoch_order(12, 0, 0).tolist() == ORDER_0
    assert item_generator(0, 0, 0, "flip").bit_generator.random_raw(2).tolist() == WORDS_FLIP
    assert torch_generator(0, 0, 0, "flip").initial_seed() == WORDS_FLIP[0] >> 1


@given(SEEDS, st.integers(0, 2**40), st.integers(0, 2**40), st.text(max_size=8))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_streams_differ_by_every_part_of_the_question(seed, epoch, index, stream):
    def words(*question):
        return tuple(item_generator(*question).bit_generator.random_raw(2).tolist())

    asked = {
        (seed, epoch, index, stream),
        (seed + 1, epoch, index, stream),
        (seed, epoch + 1, index, stream),
        (seed, epoch, index + 1, stream),
        (seed, epoch, index, stream + "x"),
        (seed, index, epoch, stream),
        (seed + 2**32, epoch, index, stream),
        (seed, epoch, index, f"{stream}1"),
    }
    assert len({words(*question) for question in asked}) == len(asked)
    assert words(seed, epoch, index, stream) == words(seed, epoch, index, stream)


def test_numpy_integers_are_the_same_question():
    plain = item_generator(1, 2, 3).random()
    assert item_generator(np.int64(1), np.int32(2), np.uint8(3)).random() == plain
    with pytest.raises(TypeError):
        item_generator(1.5, 0, 0)


def test_an_item_is_an_index_with_generators_of_its_own():
    item = Item(7, 3, 2)
    assert [10, 11, 12][item] == 12 and np.arange(5)[item] == 2
    assert item.numpy("a").random() == item_generator(7, 3, 2, "a").random()
    ours = torch.rand(3, generator=item.torch("a"))
    assert torch.equal(ours, torch.rand(3, generator=torch_generator(7, 3, 2, "a")))
    assert not torch.equal(ours, torch.rand(3, generator=item.torch("b")))


# ---------------------------------------------------------------- order


@given(st.integers(0, 300), SEEDS, st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_an_order_is_a_permutation(n, seed, epoch):
    order = epoch_order(n, seed, epoch)
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(n))
    assert np.array_equal(order, epoch_order(n, seed, epoch))


def test_orders_are_even():
    """Each item is first, and each follows each, about equally often over epochs (chi-square)."""
    n, epochs = 6, 6000
    orders = np.stack([epoch_order(n, 5, e) for e in range(epochs)])
    for place in range(n):
        counts = np.bincount(orders[:, place], minlength=n)
        assert ((counts - epochs / n) ** 2 / (epochs / n)).sum() < 20.5  # 0.1 % point, 5 d.o.f.
    pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n).reshape(n, n)
    pairs = pairs[~np.eye(n, dtype=bool)]
    assert ((pairs - epochs / 30) ** 2 / (epochs / 30)).sum() < 58.3  # 29 d.o.f.


# ---------------------------------------------------------------- batches


@given(SMALL, st.integers(1, 7), st.integers(1, 4), st.booleans(), st.integers(0, 5))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_processes_share_an_epoch_without_duplicates(n, batch, world, drop_last, epoch):
    ranks = [
        EpochSampler(n, 11, batch, r, world, drop_last=drop_last, epoch=epoch) for r in range(world)
    ]
    batches = [indices(sampler) for sampler in ranks]
    given_out = [i for rank in batches for b in rank for i in b]
    left = ranks[0].left_out().tolist()
    assert sorted(given_out + left) == list(range(n))  # a partition: nothing twice, nothing lost
    assert [len(b) for b in batches] == [len(s) for s in ranks] == [s.steps for s in ranks]
    steps = [len(b) for b in batches]
    assert max(steps) - min(steps) <= (0 if drop_last else 1)
    assert len(left) == (n % (batch * world) if drop_last else 0)
    if drop_last:
        assert all(len(b) == batch for rank in batches for b in rank)
    else:
        assert all(1 <= len(b) <= batch for rank in batches for b in rank)
        last = [len(b[-1]) if len(b) == max(steps) > 0 else 0 for b in batches]
        assert max(last) - min(last) <= 1


@given(SMALL, st.integers(0, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_same_items_meet_in_a_step_whatever_the_number_of_processes(n, epoch):
    def steps(world):
        ranks = [EpochSampler(n, 4, 6 // world, r, world, epoch=epoch) for r in range(world)]
        parts = [indices(sampler) for sampler in ranks]
        longest = max(len(p) for p in parts)
        return [sum((p[s] for p in parts if s < len(p)), []) for s in range(longest)]

    assert steps(1) == steps(2) == steps(3) == steps(6)
    assert sum(steps(1), []) == epoch_order(n, 4, epoch).tolist()


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_resume_at_every_step_equals_the_uninterrupted_run(world, drop_last):
    epochs = 3
    for rank in range(world):

        def run(epoch, step, rank=rank):
            sampler = EpochSampler(31, 9, 4, rank, world, drop_last, epoch, start_step=step)
            seen = []
            for e in range(epoch, epochs):
                sampler.set_epoch(e, step if e == epoch else 0)
                assert len(sampler) == sampler.steps - sampler.start_step
                seen += list(sampler)
            return seen

        whole = run(0, 0)
        each = len(whole) // epochs
        for done in range(len(whole)):
            assert run(*divmod(done, each)) == whole[done:]
        assert whole[:each] != whole[each : 2 * each]


def test_an_iteration_does_not_change_the_sampler():
    sampler = EpochSampler(10, 0, 3, start_step=1)
    assert indices(sampler) == indices(sampler) and len(indices(sampler)) == len(sampler) == 3
    half = iter(sampler)
    next(half)
    sampler.set_epoch(1)
    assert [b[0].epoch for b in half] == [0, 0]  # a loader that has begun ends its epoch


def test_a_curriculum_changes_the_number_of_items():
    sampler = EpochSampler(lambda e: max(20 - 5 * e, 0), seed=1, batch_size=4)
    for epoch, n in enumerate([20, 15, 10, 5, 0, 0]):
        sampler.set_epoch(epoch)
        assert sorted(sum(indices(sampler), [])) == list(range(n))
    with pytest.raises(InputError, match="epoch 5: -5 items"):
        EpochSampler(lambda e: 20 - 5 * e, seed=1, batch_size=4, epoch=5)


def test_evaluation_order():
    sampler = EpochSampler(7, 0, 3, order=file_order, epoch=4)
    assert indices(sampler) == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size 0: at least 1"),
        ({"rank": 2, "world_size": 2}, "rank 2 of world_size 2"),
        ({"rank": -1}, "rank -1 of world_size 1"),
        ({"world_size": 0}, "rank 0 of world_size 0"),
        ({"start_step": 5}, "start_step 5, of 0 ... 4"),
        ({"start_step": -1}, "start_step -1, of 0 ... 4"),
        ({"n": -1}, "-1 items, at least 0"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message):
    with pytest.raises(InputError) as caught:
        EpochSampler(**{"n": 8, "seed": 0, "batch_size": 2, **arguments})
    assert message in str(caught.value) and "\n" not in str(caught.value)


# ---------------------------------------------------------------- workers


class Noisy(Dataset):
    """Items with augmentation from both kinds of generators, and the process's own global ones spoilt."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, item: Item) -> torch.Tensor:
        np.random.random(), torch.rand(1)  # noqa: NPY002  what careless code would do
        numbers = [item.index, item.epoch, item.numpy("shift").random()]
        return torch.cat([torch.tensor(numbers), torch.rand(2, generator=item.torch("noise"))])


def epochs_of(workers: int, persistent: bool = False, start: tuple[int, int] = (0, 0)):
    sampler = EpochSampler(len(Noisy()), seed=8, batch_size=4, epoch=start[0])
    loader = DataLoader(
        Noisy(), batch_sampler=sampler, num_workers=workers, persistent_workers=persistent
    )
    batches = []
    for epoch in range(start[0], 2):
        sampler.set_epoch(epoch, start[1] if epoch == start[0] else 0)
        assert len(loader) == len(sampler)
        batches += list(loader)
    return batches


def test_any_number_of_workers_gives_the_same_sequence():
    alone = epochs_of(0)
    assert {int(b[0, 1]) for b in alone} == {0, 1}
    for other in (epochs_of(1), epochs_of(2), epochs_of(2, persistent=True)):
        assert len(alone) == len(other)
        assert all(torch.equal(a, b) for a, b in zip(alone, other, strict=True))
    resumed = epochs_of(2, persistent=True, start=(0, 4))
    assert all(torch.equal(a, b) for a, b in zip(alone[4:], resumed, strict=True))


def test_another_process_draws_the_same():
    code = """
        from facecomp.data.sampling import EpochSampler, Item
        print([[i.index for i in b] for b in EpochSampler(9, 3, 4, epoch=2)], Item(3, 2, 1).numpy().random())
    """
    run = [sys.executable, "-c", textwrap.dedent(code)]
    answer = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    here = f"{indices(EpochSampler(9, 3, 4, epoch=2))} {Item(3, 2, 1).numpy().random()}\n"
    assert answer == here


# ---------------------------------------------------------------- published orders


@pytest.mark.parametrize(("workers", "batch"), [(0, 10), (0, 4), (1, 5)])
def test_legacy_order_is_what_the_loader_does(workers, batch):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        loader = DataLoader(list(range(10)), batch_size=batch, shuffle=True, num_workers=workers)
        published = [torch.cat(list(loader)).tolist() for _ in range(4)]
        torch.manual_seed(2)
        drawn = [loader_order(10).tolist() for _ in range(4)]
    assert published == drawn == [legacy_order(10, 2, e).tolist() for e in range(4)]
    assert published[0] != published[1]
    sampler = EpochSampler(10, 2, 4, epoch=3, start_step=1, order=legacy_order)
    assert sum(indices(sampler), []) == published[3][4:]


def test_loader_order_goes_on_from_a_generator_that_has_drawn():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        torch.nn.Linear(3, 4)  # initial weights
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
        loader = DataLoader(list(range(10)), batch_size=10, shuffle=True)
        published = [next(iter(loader)).tolist() for _ in range(2)]
    assert published == [loader_order(10, generator).tolist() for _ in range(2)]


# ---------------------------------------------------------------- frames of a clip


def reference_cases():
    with np.load(GOLDEN) as arrays:
        return [(name, arrays[name]) for name in arrays.files]


@pytest.mark.parametrize(("name", "expected"), reference_cases(), ids=lambda x: str(x)[:30])
def test_frame_sampling_equals_the_published_one(name, expected):
    kind, n = name.split("_")[0], int(name.split("_")[1][3:])
    old = legacy_generator(0)
    if kind == "finetune":
        ours = dense_indices(n, old, rate=int(name.split("rate")[1]))[0]
    elif kind == "test":
        ours = view_indices(n, rate=4, views=2)
    elif name.endswith("4clips"):
        ours = span_indices(400, old, spans=4).ravel()
    else:
        ours = span_indices(n, old)[0]
    assert ours.dtype == np.int64
    np.testing.assert_array_equal(ours, expected)


def test_all_reference_arrays_are_there():
    kinds = [name.split("_")[0] for name, _ in reference_cases()]
    assert {k: kinds.count(k) for k in set(kinds)} == {"finetune": 16, "pretrain": 9, "test": 8}


def test_the_legacy_generator_is_the_global_one():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.randint(0, 50, 4)  # noqa: NPY002
    assert np.array_equal(legacy_generator(3).randint(0, 50, 4), expected)


def slow_span(n, start, rate, length):
    """The published rule step by step, with its 1-based start."""
    frames, start = [], start + 1
    for _ in range(length):
        frames.append(start - 1)
        if start + rate < n:
            start += rate
    return frames


CLIPS = {"n": st.integers(1, 400), "rate": st.integers(1, 6), "length": st.integers(1, 20)}


@given(**CLIPS, spans=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_spans_follow_the_rule_step_by_step(n, rate, length, spans, seed):
    room = (n - rate * length + 1) // spans
    starts = [0] * spans
    if room > 0:
        starts = legacy_generator(seed).randint(0, room, spans) + np.arange(spans) * room
    expected = [slow_span(n, int(s), rate, length) for s in starts]
    assert span_indices(n, legacy_generator(seed), rate, length, spans).tolist() == expected
    ours = span_indices(n, item_generator(seed, 0, 0), rate, length, spans)
    assert ours.tolist() == [slow_span(n, int(s), rate, length) for s in ours[:, 0]]


@given(**CLIPS, segments=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_dense_indices_stay_in_their_segment(n, rate, length, segments, seed):
    if n < segments:
        with pytest.raises(InputError, match="at least one for each"):
            dense_indices(n, legacy_generator(0), rate, length, segments)
        return
    for generator in (legacy_generator(seed), item_generator(seed, 0, 0)):
        ours = dense_indices(n, generator, rate, length, segments)
        part = n // segments
        assert ours.shape == (segments, length) and (np.diff(ours, axis=1) >= 0).all()
        first = np.arange(segments)[:, None] * part
        assert ((first <= ours) & (ours < first + part)).all()
        if part > rate * length:
            assert (ours[:, -1] - ours[:, 0] == rate * length - 1).all() or length == 1


def test_fine_tuning_windows_end_before_the_last_frame_and_reach_all_ends():
    ends = {int(dense_indices(70, item_generator(0, e, 0), 4)[0, -1]) for e in range(200)}
    assert ends == set(range(63, 69))  # e from 64 ... 69, last index e - 1


@given(**CLIPS, views=st.integers(1, 5))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_views_start_at_the_first_and_end_at_the_last_entry(n, rate, length, views):
    entries = list(range(0, n, rate))
    entries += [entries[-1]] * (length - len(entries))
    ours = view_indices(n, rate, length, views)
    assert ours.shape == (views, length)
    assert ours[0].tolist() == entries[:length]
    if views > 1:
        assert ours[-1].tolist() == entries[-length:]


@given(st.integers(0, 300), st.integers(1, 80), st.integers(1, 5), st.integers(1, 18))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_windows_are_all_windows(n, stride, rate, length):
    expected = [
        [s + k * rate for k in range(length)] for s in range(0, n - rate * length + 1, stride)
    ]
    ours = window_indices(n, stride, rate, length)
    assert ours.shape == (len(expected), length) and ours.tolist() == expected


def test_crop_offsets():
    assert crop_offsets(200, 160, 3).tolist() == [0, 20, 40]
    assert crop_offsets(200, 160, 1).tolist() == [0]
    for wrong in ((100, 160, 2), (160, 0, 2), (160, 160, 0)):
        with pytest.raises(InputError, match="crop: "):
            crop_offsets(*wrong)


@pytest.mark.parametrize(
    "call",
    [
        lambda: span_indices(0, legacy_generator(0)),
        lambda: span_indices(9, legacy_generator(0), rate=0),
        lambda: dense_indices(9, legacy_generator(0), length=0),
        lambda: dense_indices(9, legacy_generator(0), segments=0),
        lambda: view_indices(9, views=0),
        lambda: window_indices(9, stride=0),
    ],
)
def test_numbers_below_one_are_refused(call):
    with pytest.raises(InputError, match="at least 1"):
        call()
