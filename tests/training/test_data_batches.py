"""The stream of batches: a function of (seed, step), the same batch for any number of processes and workers."""

import itertools
import random

import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target

from nas.core.errors import InputError
from nas.training.data import open_data
from nas.training.data.augment import Augment
from nas.training.data.base import Data
from nas.training.data.batches import Batch, Batches, paired_rows, plain_rows

MOVED = Augment(shift=0.1, rotate=10.0, zoom=0.1, erase=0.3)
MIXED = Augment(shift=0.1, mixup=0.8, cutmix=1.0)


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits")


@pytest.fixture(scope="module")
def clutter() -> Data:
    return open_data("clutter")


def equal(one: Batch, two: Batch) -> bool:
    return torch.equal(one.images, two.images) and torch.equal(one.targets, two.targets)


@pytest.mark.parametrize("augment", [None, MOVED, MIXED])
@pytest.mark.parametrize("name", ["digits", "clutter"])
def test_a_step_is_the_same_in_any_order(name, augment, request):
    data = request.getfixturevalue(name)
    stream = Batches(data, 16, seed=3, augment=augment)
    forward = [stream.at(step) for step in range(4)]
    other = Batches(data, 16, seed=3, augment=augment)
    np.random.seed(11), random.seed(11), torch.manual_seed(11)  # of no influence
    for step in (2, 0, 3, 1):
        assert equal(other.at(step), forward[step])
    assert all(equal(one, two) for one, two in zip(itertools.islice(other.from_step(1), 3), forward[1:], strict=True))
    assert not equal(Batches(data, 16, seed=4, augment=augment).at(0), forward[0])
    assert not any(equal(one, two) for one, two in itertools.combinations(forward, 2))


@pytest.mark.parametrize("augment", [None, MIXED])
def test_workers_give_the_same_batches(digits, augment):
    state = torch.get_rng_state()
    read = list(itertools.islice(Batches(digits, 32, seed=0, augment=augment, workers=2).from_step(37), 5))
    assert torch.equal(torch.get_rng_state(), state)
    alone = Batches(digits, 32, seed=0, augment=augment)
    assert all(equal(one, alone.at(37 + number)) for number, one in enumerate(read))


@pytest.mark.parametrize("augment", [None, MOVED, MIXED, Augment(cutmix=1.0), Augment(mixup=0.2, mix_probability=0.5)])
@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_have_the_batch_of_one(digits, augment, world):
    whole = Batches(digits, 32, seed=5, augment=augment)
    parts = [Batches(digits, 32, seed=5, augment=augment, rank=rank, world=world) for rank in range(world)]
    for step in range(6):
        one = whole.at(step)
        batches = [part.at(step) for part in parts]
        images = torch.cat([batch.images for batch in batches])
        targets = torch.cat([batch.targets for batch in batches])
        rows = torch.from_numpy(np.concatenate([part.rows for part in parts]))
        assert sorted(rows.tolist()) == list(range(32))
        assert torch.equal(images, one.images[rows]) and torch.equal(targets, one.targets[rows])
        assert all(len(batch.images) == 32 // world for batch in batches)


def test_pairs_stay_together():
    assert plain_rows(8, 1, 2).tolist() == [4, 5, 6, 7]
    assert paired_rows(8, 0, 2).tolist() == [0, 1, 6, 7] and paired_rows(8, 1, 2).tolist() == [2, 3, 4, 5]
    for world in (1, 2, 3):
        for rank in range(world):
            rows = paired_rows(12, rank, world)
            assert (rows + rows[::-1] == 11).all()


def test_mixed_batches_are_mixtures_of_the_plain_one(digits):
    """Of mixup by the formula: image i is a i + (1 - a) (B-1-i), and so are the targets; over steps a differs."""
    plain, mixed = Batches(digits, 16, seed=2), Batches(digits, 16, seed=2, augment=Augment(mixup=1.0))
    shares = []
    for step in range(4):
        (images, labels), (blended, targets) = plain.at(step), mixed.at(step)
        differs = labels != labels.flip(0)
        share = float(targets[differs][0, labels[differs][0]])
        assert torch.allclose(blended, share * images + (1 - share) * images.flip(0), atol=1e-5)
        assert torch.allclose(targets, mixup_target(labels, 10, share)) and torch.allclose(
            targets.sum(1), torch.ones(16)
        )
        shares.append(share)
    assert len(set(shares)) == 4


def test_cutmix_takes_the_share_of_the_area(digits):
    plain, cut = Batches(digits, 16, seed=2), Batches(digits, 16, seed=2, augment=Augment(cutmix=1.0))
    for step in range(4):
        (images, labels), (pasted, targets) = plain.at(step), cut.at(step)
        differs = labels != labels.flip(0)
        foreign = (images != images.flip(0)) & (pasted == images.flip(0))
        assert ((pasted == images) | (pasted == images.flip(0))).all()
        share = 1 - float(targets[differs][0, labels[differs][0]])
        assert foreign.any(0).sum() <= share * 32 * 32 + 1e-3  # pixels that are equal in both are not seen


def test_an_epoch_has_each_image_once_and_the_next_another_order(digits):
    stream = Batches(digits, 100, seed=0)
    assert stream.steps_per_epoch == 12  # of 1,257 images; 57 are left over
    known = {image.numpy().tobytes() for image in digits.read("train", range(1257))[0]}
    epochs = [[stream.at(12 * epoch + step) for step in range(12)] for epoch in range(2)]
    orders = [[image.numpy().tobytes() for batch in epoch for image in batch.images] for epoch in epochs]
    assert all(len(set(order)) == 1200 and set(order) <= known for order in orders)
    assert orders[0] != orders[1] and set(orders[0]) != set(orders[1])


def test_endless_data_never_comes_again(clutter):
    """The epoch's length is but a word for it; two seeds begin at other places."""
    stream = Batches(clutter, 8, seed=0)
    assert stream.steps_per_epoch == 6250
    images = [image.numpy().tobytes() for step in (0, 1, 6249, 6250) for image in stream.at(step).images]
    images += [image.numpy().tobytes() for image in Batches(clutter, 8, seed=1).at(0).images]
    assert len(set(images)) == 40


def test_augmentation_differs_from_epoch_to_epoch_and_keeps_labels(digits):
    """A batch of the whole split: every image is seen in each step, changed anew."""
    plain, moved = Batches(digits, 1257, seed=0), Batches(digits, 1257, seed=0, augment=Augment(shift=0.1))
    for step in range(2):
        one, two = plain.at(step), moved.at(step)
        assert torch.equal(one.targets, two.targets) and not torch.equal(one.images, two.images)
    first, second = (moved.at(step) for step in range(2))
    assert len({image.numpy().tobytes() for batch in (first, second) for image in batch.images}) > 2500


@pytest.mark.parametrize(
    ("size", "augment", "world", "message"),
    [
        (1258, None, 1, "a batch has 1 to 1257 images with this data: 1258"),
        (0, None, 1, "a batch has 1 to 1257"),
        (30, None, 4, "cut into 4 equal parts"),
        (12, MIXED, 4, "mixup and cutmix take pairs: a multiple of 8 images a batch: 12"),
        (15, MIXED, 1, "a multiple of 2 images"),
        (16, Augment(color_jitter=0.3), 1, "cannot be augmented so: 'color_jitter'"),
    ],
)
def test_batches_that_cannot_be_are_refused(digits, size, augment, world, message):
    with pytest.raises(InputError, match=message):
        Batches(digits, size, 0, augment, world=world)


def test_a_step_before_the_first_is_a_fault(digits):
    with pytest.raises(ValueError, match="begin at 0"):
        Batches(digits, 8, 0).at(-1)
