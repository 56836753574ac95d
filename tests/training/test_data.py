"""Data: splits that are fixed and disjoint, images that are functions of their number, the test split out of reach."""

import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import nas
from nas.core.errors import InputError
from nas.training.data import data_names, open_data
from nas.training.data.augment import Augment
from nas.training.data.base import TESTING, Data
from nas.training.data.clutter import CHOICES, DEVIATION, LENGTHS, MEAN, Painter
from nas.training.data.digits import Digits
from nas.training.data.glyphs import ANGLES, CHARACTERS, FACES, HEIGHTS, SHAPES, TURNS, Glyphs
from nas.training.data.randomness import derived, kept_generators, permutation, sample_seeds, seed_generators, uniforms
from nas.training.data.testing import open_test


@pytest.fixture(scope="module")
def digits() -> Data:
    return open_data("digits")


@pytest.fixture(scope="module")
def clutter() -> Data:
    return open_data("clutter")


@pytest.fixture(scope="module")
def thousand(clutter) -> tuple[torch.Tensor, torch.Tensor]:
    return clutter.read("train", range(1000))


def everything(data: Data, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    return data.read(split, range(data.length(split)))


def test_digits_are_scikit_learns_in_three_disjoint_splits(digits):
    found = load_digits()
    test = open_test(digits)
    parts = [everything(digits, "train"), everything(digits, "search"), everything(test, "test")]
    assert [len(labels) for _, labels in parts] == [1257, 180, 360]
    for _, labels in parts:  # stratified: no class has less than 8 % or more than 12 %
        shares = torch.bincount(labels, minlength=10) / len(labels)
        assert shares.min() > 0.08 and shares.max() < 0.12
    pairs = [pair for part in parts for pair in zip(*part, strict=True)]
    pictures = {image.numpy().tobytes(): int(label) for image, label in pairs}
    assert len(pictures) == len({image.tobytes() for image in found.images}) == 1797
    assert sorted(pictures.values()) == sorted(found.target)


def test_digits_are_enlarged_and_normalised_by_the_training_split(digits):
    images, labels = everything(digits, "train")
    assert images.shape == (1257, 1, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    assert images.mean().abs() < 1e-4 and abs(images.std() - 1) < 1e-4
    small = open_data("digits", size=16)
    assert small.read("search", [3])[0].shape == (1, 1, 16, 16)
    coloured = open_data("digits", channels=3).read("search", [3, 5])[0]
    assert torch.equal(coloured, digits.read("search", [3, 5])[0].expand(-1, 3, -1, -1))


def test_an_enlarged_digit_is_the_digit(digits):
    """Averaged down again, each image is nearest to one of scikit-learn's with the same label."""
    images, labels = digits.read("search", range(60))
    down = torch.nn.functional.avg_pool2d(images, 4).flatten(1)
    found = load_digits()
    known = torch.from_numpy(found.images).float().flatten(1)
    normalised = (known - known.mean(1, keepdim=True)) / known.std(1, keepdim=True)
    down = (down - down.mean(1, keepdim=True)) / down.std(1, keepdim=True)
    assert found.target[(down @ normalised.T).argmax(1).numpy()].tolist() == labels.tolist()


def test_splits_are_those_of_the_seed(digits):
    again, other = open_data("digits"), open_data("digits", seed=1)
    assert torch.equal(everything(digits, "search")[0], everything(again, "search")[0])
    assert digits.fingerprint == again.fingerprint
    assert len({d.fingerprint for d in (digits, other, open_data("digits", size=16), open_test(digits))}) == 4
    assert not torch.equal(everything(digits, "search")[1], everything(other, "search")[1])


@pytest.mark.parametrize("name", ["digits", "clutter"])
def test_the_test_split_is_out_of_reach(name, request):
    data = request.getfixturevalue(name)
    for refused in (lambda: data.read("test", [0]), lambda: data.length("test")):
        with pytest.raises(InputError, match=r"out of reach.*nas\.training\.data\.testing.*'test'"):
            refused()
    test = open_test(data)
    assert test.splits == TESTING and test.length("test") in (360, 10_000)
    with pytest.raises(InputError, match="no such split"):
        test.read("train", [0])


def test_digits_for_training_do_not_hold_those_of_the_test(digits):
    held = pickle.dumps(digits)
    assert all(image.numpy().tobytes() in held for image in digits.read("search", range(5))[0])
    assert not any(image.numpy().tobytes() in held for image in open_test(digits).read("test", range(30))[0])


@pytest.mark.parametrize("room", ["searching", "accuracy"])
def test_rooms_that_search_do_not_name_the_test_split(room):
    forbidden = ("open_test", "data.testing", "TESTING")
    package = Path(nas.__file__).parent
    assert any(word in (package / "training/data/testing.py").read_text() for word in forbidden)
    named = [path for path in (package / room).rglob("*.py") if any(word in path.read_text() for word in forbidden)]
    assert named == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "digts"}, r"unknown data: 'digts' \(nearest: digits"),
        ({"name": "cluter"}, r"nearest: clutter"),
        ({"name": "tfds/mnist"}, r"unknown data.*hfds/|unknown data.*wds/"),
        ({"name": "digits", "size": 4}, "pixels of a side: 8 to 128 here: 4"),
        ({"name": "clutter", "size": 32}, "pixels of a side: 64 to 512 here: 32"),
        ({"name": "clutter", "channels": 1}, "3 channels: 1"),
        ({"name": "digits", "channels": 2}, "images have 1 or 3 channels: 2"),
    ],
)
def test_bad_requests_name_the_rule(arguments, message):
    with pytest.raises(InputError, match=message):
        open_data(**arguments)


def test_names_are_discovered():
    assert set(data_names()) == {"digits", "clutter", "folder", "folder:", "torch/", "hfds/", "wds/"}


@pytest.mark.parametrize(("indices", "value"), [([0, 180], "180"), ([-1], "-1")])
def test_images_beyond_the_split_are_refused(digits, indices, value):
    with pytest.raises(InputError, match=f"search split has images 0 to 179: {value}"):
        digits.read("search", indices)


def test_no_images_are_no_images(digits):
    images, labels = digits.read("train", [])
    assert images.shape == (0, 1, 32, 32) and labels.shape == (0,)


def test_what_is_read_can_be_written_to(digits, clutter):
    """A change of a batch in place does not reach the data."""
    for data in (digits, clutter):
        before = data.read("search", [1])[0]
        data.read("search", [1])[0].zero_()
        assert torch.equal(data.read("search", [1])[0], before)


def test_configurations_import_nothing_heavy():
    code = "import sys, nas.training.data.augment; print({'torch', 'timm', 'sklearn', 'numpy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_clutter_is_a_function_of_seed_split_and_number(clutter):
    images, labels = clutter.read("train", [7, 0, 123_456_789])
    assert images.shape == (3, 3, 64, 64) and images.dtype == torch.float32 and labels.dtype == torch.int64
    again = open_data("clutter")
    for row, number in enumerate([7, 0, 123_456_789]):
        alone, label = again.read("train", [number])
        assert torch.equal(alone[0], images[row]) and label[0] == labels[row]
    assert not torch.equal(open_data("clutter", seed=1).read("train", [7])[0], images[:1])
    assert again.fingerprint == clutter.fingerprint != open_data("clutter", seed=1).fingerprint


def test_clutters_splits_are_other_images(clutter):
    numbers = range(40)
    parts = [clutter.read("train", numbers)[0], clutter.read("search", numbers)[0]]
    parts.append(open_test(clutter).read("test", numbers)[0])
    assert len({image.numpy().tobytes() for images in parts for image in images}) == 120
    assert [clutter.length("train"), clutter.length("search")] == [LENGTHS["train"], LENGTHS["search"]]


def test_kept_clutter_is_what_was_drawn(clutter):
    """In another order, in parts, and again: the same as what the painter draws."""
    fresh = open_data("clutter")
    numbers = [5, 2, 9, 2, 4_999]
    first = fresh.read("search", [9, 2])[0]
    images, labels = fresh.read("search", numbers)
    assert torch.equal(images[1], first[1]) and torch.equal(images[1], images[3])
    pixels, known = Painter(0, 64).paint(derived(0, "clutter", "search"), np.array(numbers))
    assert np.array_equal(((images * DEVIATION + MEAN) * 255).round().to(torch.uint8).numpy(), pixels)
    assert labels.tolist() == known.tolist()


def test_clutter_has_every_class_about_equally(clutter, thousand):
    counts = torch.bincount(thousand[1], minlength=36)
    assert clutter.classes == len(CHARACTERS) == len(counts) == 36
    assert counts.min() >= 10 and counts.max() <= 50  # 28 each, deviation 5


def test_clutter_hides_its_characters(thousand):
    """Pixel values are near to what normalises them, and the nearest neighbours of an image do not tell its class."""
    images, labels = thousand
    assert images.mean().abs() < 0.25 and 0.85 < images.std() < 1.15
    assert images.abs().max() <= 3.32  # values of 0 to 1
    model = KNeighborsClassifier(5).fit(images[:800].flatten(1), labels[:800])
    assert model.score(images[800:].flatten(1), labels[800:]) < 0.2


def test_clutters_character_is_there_and_small():
    """Two images of the same choices but the last ones differ in the character's box alone, which is small."""
    painter, shares = Painter(0, 64), []
    with pytest.MonkeyPatch.context() as patch:
        for number in range(40):
            with_it, label = painter.paint(1, np.array([number]))
            patch.setattr(Painter, "_character", lambda *_: 0)
            without, _ = painter.paint(1, np.array([number]))
            patch.undo()
            rows, columns = np.nonzero((with_it != without).any(axis=(0, 1)))
            assert len(rows) and 0 <= label[0] < 36
            shares.append((np.ptp(rows) + 1) * (np.ptp(columns) + 1) / 64**2)
    assert max(shares) < 0.4 and 0.03 < np.mean(shares) < 0.12


def test_every_glyph_of_every_font_is_drawn_and_its_own():
    glyphs = Glyphs(64)
    for face in range(len(FACES)):
        masks = [glyphs.glyph(face, character, len(HEIGHTS) - 1, ANGLES.index(0)) for character in range(36)]
        assert all(mask.max() > 150 for mask in masks)
        assert len({(mask.shape, mask.tobytes()) for mask in masks}) == 36, FACES[face]
        assert abs(masks[CHARACTERS.index("H")].shape[0] - 0.46 * 64) <= 2, FACES[face]
    for kind in range(SHAPES):
        assert all(glyphs.shape(kind, height, TURNS // 3).max() > 150 for height in range(len(HEIGHTS)))


def test_an_image_does_not_run_out_of_choices():
    """The most distractors there are, of whatever kind, and the two choices of difficulty and number."""
    rows = uniforms(sample_seeds(3, np.arange(200)), CHOICES)
    painter = Painter(0, 64)
    left = []
    for row in rows:
        draw = iter(row.tolist())
        canvas, base = painter._background(1.0, draw)
        for _ in range(6):
            painter._distractor(1.0, canvas, base, draw)
        painter._character(1.0, canvas, base, draw)
        left.append(len(list(draw)))
    assert min(left) >= 2


def test_random_numbers_are_the_published_ones():
    """SplitMix64 from seed 1234567: the values of its authors' own program (https://prng.di.unimi.it/splitmix64.c)."""
    from nas.training.data import randomness

    golden = np.uint64(0x9E3779B97F4A7C15)
    states = np.uint64(1234567) + golden * np.arange(3, dtype=np.uint64)
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert randomness._mixed(states).tolist() == known


def test_random_numbers_are_uniform_and_a_permutation_is_one():
    draws = uniforms(sample_seeds(5, np.arange(2000)), 8)
    assert draws.min() >= 0 and draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 0.04 and np.abs(draws.std(axis=0) - 12**-0.5).max() < 0.02
    assert np.abs(np.corrcoef(draws.T) - np.eye(8)).max() < 0.1
    order = permutation(3, 1000)
    assert sorted(order) == list(range(1000)) and (order != permutation(4, 1000)).mean() > 0.9


def test_generators_are_put_back():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    wanted = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with pytest.raises(KeyError), kept_generators():
        seed_generators(9)
        random.random(), np.random.rand(), torch.rand(1)
        raise KeyError
    assert (random.random(), np.random.rand(), torch.rand(1)) == wanted


def test_augmentation_changes_pixels_by_the_seed_of_the_image(digits):
    augment = Digits.usual
    plain, labels = digits.read("train", range(8))
    changed, same = digits.read("train", range(8), augment, range(8))
    assert torch.equal(labels, same)
    assert all((one != two).any() for one, two in zip(plain, changed, strict=True))
    alone, _ = digits.read("train", [5], augment, [5])
    assert torch.equal(alone[0], changed[5])
    assert not torch.equal(digits.read("train", [5], augment, [6])[0], alone)
    with pytest.raises(ValueError, match="one seed for each image"):
        digits.read("train", [5], augment)


def test_augmentation_stays_within_what_was_asked(digits):
    """A shift of at most 0.1 sides moves the centre of the ink by at most 3.2 pixels."""
    images = torch.zeros(64, 1, 32, 32)
    images[:, :, 14:18, 14:18] = 1
    from nas.training.data.transforms import changed

    seeds = sample_seeds(0, np.arange(64))
    moved = changed(images.clone(), Augment(shift=0.1), seeds)
    places = torch.arange(32.0)
    across, down = (moved.sum(axis)[:, 0] * places for axis in (2, 3))
    centres = torch.stack([across.sum(1), down.sum(1)]) / moved.sum((1, 2, 3))
    offsets = centres - 15.5
    assert offsets.abs().max() <= 3.2 + 1e-3 and offsets.abs().max() > 2 and offsets.std() > 1
    assert torch.allclose(changed(images.clone(), Augment(flip=1.0), seeds), images.flip(3), atol=1e-5)
    turned = changed(images.clone(), Augment(rotate=180.0), seeds)
    assert torch.allclose(turned.sum((1, 2, 3)), images.sum((1, 2, 3)), rtol=0.1)


def test_flipped_is_mirrored(digits):
    plain, _ = digits.read("train", range(4))
    flipped, _ = digits.read("train", range(4), Augment(flip=1.0), range(4))
    assert torch.allclose(flipped, plain.flip(3), atol=1e-4)


def test_erased_images_have_noise_in_a_rectangle_and_leave_no_trace(digits):
    state = torch.get_rng_state()
    plain, _ = digits.read("train", range(6))
    erased, _ = digits.read("train", range(6), Augment(erase=1.0), range(6))
    assert torch.equal(torch.get_rng_state(), state)
    for one, two in zip(plain, erased, strict=True):
        rows, columns = torch.nonzero((one != two)[0], as_tuple=True)
        area = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert 0 < len(rows) <= area <= 0.45 * 32 * 32
        assert len(rows) > 0.95 * area


def test_what_data_cannot_do_is_refused(digits):
    with pytest.raises(InputError, match=r"cannot be augmented so: 'rand_augment' \(nearest: cutmix"):
        digits.read("train", [0], Augment(rand_augment="rand-m9"), [0])


@pytest.mark.parametrize(
    "wrong", [{"shift": 0.6}, {"mixup": -1.0}, {"crop": 0.0}, {"rand_augment": "auto"}, {"turn": 3}]
)
def test_bad_augmentation_is_refused(wrong):
    with pytest.raises(ValueError):
        Augment(**wrong)
