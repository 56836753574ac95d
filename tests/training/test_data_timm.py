"""timm's data sets, made on the spot: folders, MNIST's files, tar files; read through timm and torchvision."""

import importlib.util
import itertools
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nas.core.errors import InputError
from nas.training.data import open_data
from nas.training.data.augment import Augment
from nas.training.data.base import Data
from nas.training.data.batches import Batches
from nas.training.data.testing import open_test
from nas.training.data.timm_data import TimmData
from tests.training.folders import SHADES, add, image_folder, mnist_files, tar_files

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet's
STRONG = Augment(crop=0.3, flip=0.5, rand_augment="rand-m9-mstd0.5-inc1", erase=0.5)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "animals")


@pytest.fixture(scope="module")
def folder(root) -> Data:
    return open_data(f"folder:{root}", size=16)


def colours(images: torch.Tensor) -> torch.Tensor:
    """Mean values 0 to 255 of the right half, (n, 3)."""
    return (images[..., images.shape[-1] // 2 + 1 :].mean((2, 3)) * DEVIATION + MEAN) * 255


def test_a_folder_has_its_classes_and_labels(folder):
    assert (folder.classes, folder.channels, folder.size) == (3, 3, 16)
    assert folder.length("train") + folder.length("search") == 120
    for split in ("train", "search"):
        images, labels = folder.read(split, range(folder.length(split)))
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        shades = torch.tensor(list(SHADES.values()), dtype=torch.float32)  # in the order of their names
        assert torch.equal(torch.cdist(colours(images), shades).argmin(1), labels)


def test_a_folders_splits_are_disjoint_and_fixed(root, folder):
    names = {split: folder._numbers[split].tolist() for split in ("train", "search")}
    assert sorted(names["train"] + names["search"]) == list(range(120))
    assert 2 <= len(names["search"]) <= 24  # one in ten, by a hash
    again, other = open_data("folder", size=16, root=root), open_data(f"folder:{root}", size=16, seed=1)
    assert again._numbers["search"].tolist() == names["search"] != other._numbers["search"].tolist()


def test_the_test_split_is_the_validation_folder(root, folder):
    test = open_test(folder)
    _, labels = test.read("test", range(test.length("test")))
    assert test.length("test") == 18 and torch.bincount(labels).tolist() == [6, 6, 6]
    with pytest.raises(InputError, match="out of reach"):
        folder.read("test", [0])


def test_without_validation_images_there_is_no_test(root, tmp_path):
    shutil.copytree(root / "train", tmp_path / "all")
    data = open_data(f"folder:{tmp_path / 'all'}", size=16)
    assert data.length("train") + data.length("search") == 120
    with pytest.raises(InputError, match="no validation images"):
        open_test(data)


def test_a_validation_folder_beside_classes_is_not_trained_on(root, tmp_path):
    shutil.copytree(root / "train", tmp_path / "mixed")
    shutil.copytree(root / "val", tmp_path / "mixed" / "val")
    with pytest.raises(InputError, match="has its training images in `train`"):
        open_data(f"folder:{tmp_path / 'mixed'}", size=16)


def test_other_classes_to_validate_are_refused(root, tmp_path):
    shutil.copytree(root, tmp_path / "other")
    shutil.copytree(tmp_path / "other/val/ape", tmp_path / "other/val/dog")
    with pytest.raises(InputError, match=r"the same classes: \['dog'\]"):
        open_test(open_data(f"folder:{tmp_path / 'other'}", size=16))


def test_a_folders_fingerprint_sees_its_files(root, tmp_path):
    shutil.copytree(root, tmp_path / "copy")
    copy = f"folder:{tmp_path / 'copy'}"
    before = open_data(copy, size=16).fingerprint
    assert before == open_data(f"folder:{root}", size=16).fingerprint != open_data(copy, size=32).fingerprint
    (tmp_path / "copy/train/ape/000.png").unlink()
    assert open_data(copy, size=16).fingerprint != before


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("folder:/no/such/place", None, "no such folder of data: '/no/such/place'"),
        ("folder", None, "no such folder of data"),
        ("torch/mnist", None, "no such folder of data"),
        ("torch/cifer10", ".", r"cifer10' \(nearest: cifar10"),
        ("torch/cifar10", ".", "torch/cifar10: the train images cannot be opened.*not found"),
        ("wds/mine", ".", "come with an _info.json"),
    ],
)
def test_data_that_is_not_there_is_told(name, root, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        open_data(name, root=root)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(InputError, match="Found 0 images"):
        open_data(f"folder:{tmp_path}")


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="the package is installed")
def test_hugging_faces_data_needs_its_package():
    with pytest.raises(InputError, match="hfds/mnist: this data needs a package that is not installed: datasets"):
        open_data("hfds/mnist")


@pytest.mark.parametrize("damage", ["cut", "text"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(root, tmp_path, damage, workers):
    """timm itself would take the next image in its place, with a line in the log."""
    shutil.copytree(root, tmp_path / "damaged")
    data = open_data(f"folder:{tmp_path / 'damaged'}", size=16)
    number = int(data._numbers["train"][0])
    path = Path(data._source.place(number))
    path.write_bytes(path.read_bytes()[:60] if damage == "cut" else b"no image")
    everything = Batches(data, data.length("train"), 0, workers=workers)
    with pytest.raises(InputError) as caught:
        next(everything.from_step(0))
    assert str(path) in str(caught.value) and "cannot be read" in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("augment", [STRONG, Augment(color_jitter=0.4, crop=0.5)])
def test_timms_transforms_draw_from_the_images_seed_alone(folder, augment):
    wanted, labels = folder.read("train", range(6), augment, range(6))
    plain, same = folder.read("train", range(6))
    assert torch.equal(labels, same) and not torch.equal(wanted, plain)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    for number in (3, 0, 5):
        assert torch.equal(folder.read("train", [number], augment, [number])[0][0], wanted[number])
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert not torch.equal(folder.read("train", [3], augment, [4])[0][0], wanted[3])


def test_no_change_asked_is_timms_evaluation(folder):
    """The middle square, whole: the left half of each image is half as bright as the right."""
    from PIL import Image
    from timm.data import create_transform

    images, _ = folder.read("train", range(3))
    transform = create_transform(16, interpolation="bicubic", crop_pct=1.0)
    for row in range(3):
        with Image.open(folder._source.place(int(folder._numbers["train"][row]))) as image:
            assert torch.equal(transform(image.convert("RGB")), images[row])


@pytest.mark.parametrize("world", [2, 4])
def test_a_folders_batches_are_the_same_for_any_number_of_processes(folder, world):
    augment = TimmData.usual
    whole = Batches(folder, 16, 1, augment).at(3)
    parts = [Batches(folder, 16, 1, augment, rank=rank, world=world) for rank in range(world)]
    rows = torch.from_numpy(np.concatenate([part.rows for part in parts]))
    assert torch.equal(torch.cat([part.at(3).images for part in parts]), whole.images[rows])
    assert torch.equal(torch.cat([part.at(3).targets for part in parts]), whole.targets[rows])


def test_worker_processes_read_a_folder(folder):
    read = list(itertools.islice(Batches(folder, 16, 0, STRONG, workers=2).from_step(4), 3))
    alone = Batches(folder, 16, 0, STRONG)
    for number, batch in enumerate(read):
        assert torch.equal(batch.images, alone.at(4 + number).images)
        assert torch.equal(batch.targets, alone.at(4 + number).targets)


def test_grey_images_have_one_channel(root):
    grey = open_data(f"folder:{root}", size=16, channels=1)
    assert grey.read("train", [0, 1])[0].shape == (2, 1, 16, 16)
    assert grey.read("train", [0], Augment(crop=0.5, color_jitter=0.3), [1])[0].shape == (1, 1, 16, 16)
    with pytest.raises(InputError, match="RandAugment is for images in colour"):
        grey.read("train", [0], STRONG, [1])
    assert grey.read("train", [0], grey.usual, [1])[0].shape == (1, 1, 16, 16)
    assert not grey.usual.rand_augment
    assert open_data(f"folder:{root}", size=16).usual.rand_augment


def test_a_randaugment_that_timm_does_not_know_is_refused(folder):
    with pytest.raises(InputError, match=r"not a RandAugment of timm's .*'rand-q9'"):
        folder.read("train", [0], Augment(rand_augment="rand-q9"), [0])


def test_torchvisions_mnist_through_timm(tmp_path):
    data = open_data("torch/mnist", size=28, channels=1, root=mnist_files(tmp_path))
    assert (data.classes, data.channels) == (10, 1)
    assert data.length("train") + data.length("search") == 50
    images, labels = data.read("train", range(data.length("train")))
    brightness = ((images.mean((1, 2, 3)) * DEVIATION.mean() + MEAN.mean()) * 255).round().long()
    assert torch.equal(brightness % 10, labels)
    test = open_test(data)
    assert test.length("test") == 10 and test.read("test", range(10))[1].tolist() == list(range(10))
    assert data.fingerprint != test.fingerprint == open_test(data).fingerprint


def test_tar_files_are_read_by_number(tmp_path):
    data = open_data("wds/animals", size=16, root=tar_files(tmp_path / "tars"))
    assert data.classes == 3 and data.length("train") + data.length("search") == 30
    images, labels = data.read("train", range(data.length("train")))
    shades = torch.tensor(list(SHADES.values()), dtype=torch.float32)
    assert torch.equal(torch.cdist(colours(images), shades).argmin(1), labels)
    alone, label = data.read("train", [9])
    assert torch.equal(alone[0], images[9]) and label[0] == labels[9]
    test = open_test(data)
    assert test.length("test") == 6 and sorted(test.read("test", range(6))[1].tolist()) == [0, 0, 1, 1, 2, 2]


def test_damaged_tar_files_are_told(tmp_path):
    import tarfile

    root = tar_files(tmp_path / "tars")
    with tarfile.open(root / "train-1.tar", "a") as archive:
        add(archive, "0099.png", b"no image")
        add(archive, "0099.cls", b"two")
    with pytest.raises(InputError, match=r"train-1\.tar: a class is a whole number: '0099'"):
        open_data("wds/animals", root=root)
    (root / "train-1.tar").write_bytes(b"no tar file")
    with pytest.raises(InputError, match=r"train-1\.tar: the tar file cannot be read"):
        open_data("wds/animals", root=root)
    (root / "_info.json").write_text("{}")
    with pytest.raises(InputError, match=r"_info\.json"):
        open_data("wds/animals", root=root)
