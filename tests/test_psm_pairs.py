"""Pairs, schedules, lists and transforms of PSM: properties and refused input."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from facecomp.data.sampling import EpochSampler, Item, legacy_generator
from facecomp.psm import pairs as pr
from facecomp.psm import transforms as tr
from facecomp.records.files import InputError

CHECKED = settings(max_examples=60, deadline=None, derandomize=True)


def refused(action, *words):
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


# --- pairs --------------------------------------------------------------------------------------------


@given(st.integers(0, 300), st.integers(1, 20))
@CHECKED
def test_psm_uses_every_frame_at_most_once(n, epoch):
    for again in (False, True):
        pairs = pr.psm_pairs(n, epoch, again)
        used = [k for pair in pairs for k in (pair.first, pair.second)]
        assert len(pairs) == n // 2 and len(set(used)) == len(used) <= n
    assert pr.psm_pairs(n, epoch) == pr.psm_pairs(n)


def test_psm_leaves_the_global_generator_alone():
    random.seed(3)
    before = random.getstate()
    pr.psm_order(50)
    assert random.getstate() == before


@given(st.integers(2, 5000), st.integers(1, 1000), st.integers(1, 64))
@CHECKED
def test_the_curriculum_is_never_empty_unless_asked(n, epoch, least):
    if n <= least:
        refused(lambda: pr.curriculum_distance(n, epoch, least), f"{n} frames")
        return
    distance = pr.curriculum_distance(n, epoch, least)
    left = len(pr.ctl_pairs(n, distance))
    assert left >= least and distance <= pr.increase(epoch)
    skipped = pr.ctl_pairs(n, pr.curriculum_distance(n, epoch, least, "skip"))
    if n - pr.increase(epoch) >= least:
        assert distance == pr.curriculum_distance(n, epoch, least, "error") == pr.increase(epoch)
        assert len(skipped) == left
    else:
        refused(lambda: pr.curriculum_distance(n, epoch, least, "error"), f"epoch {epoch}")
        assert skipped == [] and left == least


def test_wrong_epochs_and_options_are_refused():
    refused(lambda: pr.increase(0), "epoch 0")
    refused(lambda: pr.learning_rate(0), "epoch 0")
    refused(lambda: pr.curriculum_distance(9, 1, overflow="stop"), "ctl_overflow 'stop'")


@pytest.mark.parametrize("distance", [None, 3])
def test_gm_draws_leave_out_the_last_image_unless_asked(distance):
    generator = legacy_generator(0)
    drawn = [pr.gm_pair(5, generator, distance) for _ in range(400)]
    assert {pair.first for pair in drawn} == {0, 1, 2, 3}
    drawn = [pr.gm_pair(5, generator, distance, include_last=True) for _ in range(400)]
    assert {pair.first for pair in drawn} == {0, 1, 2, 3, 4}
    assert 150 < sum(pair.mirror for pair in drawn) < 250
    if distance:
        assert all(pair.second == min(pair.first + 3, 4) for pair in drawn)
    refused(lambda: pr.gm_pair(1, generator, distance), "a folder of 1 images")


def test_corrected_draws_do_not_depend_on_what_was_drawn_before():
    sampler = EpochSampler(40, seed=5, batch_size=7, epoch=2)
    drawn = {int(item): pr.gm_pair_of(item, 30) for batch in sampler for item in batch}
    assert drawn[17] == pr.gm_pair_of(Item(5, 2, 17), 30) and len(set(drawn.values())) > 30


# --- folders and lists --------------------------------------------------------------------------------


def test_folders_are_listed_in_the_order_of_time(tmp_path):
    numbers = [10, 9, 1, 100, 2]
    for k in numbers:
        (tmp_path / f"frame{k}.jpg").touch()
    expected = [f"frame{k}.jpg" for k in sorted(numbers)]
    assert pr.timed_frames(tmp_path) == pr.list_frames(tmp_path) == expected
    assert sorted(pr.list_frames(tmp_path, "os")) == sorted(expected)
    (tmp_path / "Thumbs.db").touch()
    assert pr.list_frames(tmp_path, images_only=True) == expected
    refused(lambda: pr.timed_frames(tmp_path), "Thumbs.db", "frame<number>.jpg")
    refused(lambda: pr.list_frames(tmp_path, "random"), "listing 'random'")
    refused(lambda: pr.list_frames(tmp_path / "absent"), "cannot be listed")
    (tmp_path / "empty").mkdir()
    refused(lambda: pr.list_frames(tmp_path / "empty"), "holds no file")
    refused(lambda: pr.timed_frames(tmp_path / "empty"), "holds no file")


@pytest.mark.parametrize("name", ["frame.jpg", "frame1a.jpg", "Frame1.jpg", "xframe1.jpg", "1.jpg"])
def test_names_without_a_frame_number_are_refused(name):
    refused(lambda: pr.frame_number(name, "P1"), f"P1/{name}")


def test_list_files(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b" a \r\n\r\nb/c\n\n")
    assert pr.read_list(path) == ["a", "b/c"]
    path.write_bytes(b"\n \n")
    refused(lambda: pr.read_list(path), "names no folder")
    path.write_bytes(b"\xff\xfe\x00")
    refused(lambda: pr.read_list(path), "UTF-8")
    refused(lambda: pr.read_list(tmp_path / "absent.txt"), "cannot be read")
    lines = pr.list_lines([str(k) for k in range(27)])
    assert len(lines) == 12150 and len(set(lines)) == 27 and lines != sorted(lines)


def test_persons(tmp_path):
    for name in ("SN010", "SN2", "SN001"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").touch()
    assert pr.persons(tmp_path, "all") == ["SN001", "SN2", "SN010"]
    assert pr.persons(tmp_path, ["SN2", "SN001"]) == ["SN2", "SN001"]
    refused(lambda: pr.persons(tmp_path, ["SN3"]), "no folder of SN3")
    refused(lambda: pr.persons(tmp_path / "absent", "all"), "cannot be listed")


# --- transforms ---------------------------------------------------------------------------------------

THEIRS = transforms.Compose(
    [
        transforms.Resize(64),
        transforms.RandomResizedCrop(64, (0.95, 1.05), (0.95, 1.05)),
        transforms.CenterCrop(64),
        transforms.RandomApply([transforms.ColorJitter(0.05, 0.05, 0.05, 0.01)], p=0.8),
        transforms.RandomHorizontalFlip(),
    ]
)


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (200, 90), (40, 300)])
def test_training_transform_equals_torchvision_draw_by_draw(size):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    for seed in range(20):
        torch.manual_seed(seed)
        expected, after = np.asarray(THEIRS(image)), torch.get_rng_state()
        torch.manual_seed(seed)
        assert np.array_equal(np.asarray(tr.training_image(image)), expected)
        assert torch.equal(torch.get_rng_state(), after)
        own = torch.Generator().manual_seed(seed)
        assert np.array_equal(np.asarray(tr.training_image(image, own)), expected)


def test_pictures_of_a_batch_are_changed_each_by_itself():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
    changes = [tr.draw_augmentation(generator=torch.Generator().manual_seed(s)) for s in range(6)]
    together = tr.augment_batch(images, changes)
    alone = [tr.augment_batch(images[i : i + 1], changes[i : i + 1]) for i in range(6)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-3)
    assert together.min() >= 0 and together.max() <= 255.001
    still = tr.augment_batch(images, [tr.Augmentation()] * 6)
    assert torch.allclose(still, images.float(), atol=1e-2)
    mirrored = tr.augment_batch(images, [tr.Augmentation(mirror=True)] * 6)
    assert torch.allclose(mirrored, images.float().flip(-1), atol=1e-2)


def test_wrong_batches_are_refused():
    refused(lambda: tr.augment_batch(torch.zeros(1, 3, 32, 32), [tr.Augmentation()]), "(B, 3, 64")
    refused(lambda: tr.augment_batch(torch.zeros(2, 3, 64, 64), [tr.Augmentation()]), "1 changes")
    refused(lambda: tr.collate([np.zeros((2, 2, 3)), np.zeros((3, 2, 3))]), "must all be equal")


def test_normalisation_and_back():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    x = tr.normalise(images)
    before = x.clone()
    assert torch.allclose(tr.denormalise(x) * 255, images.float(), atol=1e-3)
    assert torch.equal(x, before)  # a copy
