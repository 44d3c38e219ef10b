"""The digits: what scikit-learn's file holds, scaled, split the same way every time, and safe to share."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

from fm_plugins.digits import fm_components
from fm_plugins.digits.digits import Digits, to_unit


def test_all_digits_are_scikit_learns_scaled_to_the_unit_interval_about_zero():
    levels, labels = load_digits(return_X_y=True)
    data = Digits()
    assert data.x1.shape == (1797, 1, 8, 8)
    assert data.x1.dtype == torch.float32
    assert torch.equal(data.x1.flatten(1), torch.from_numpy(levels / 8 - 1).float())
    assert torch.equal(data.labels, torch.from_numpy(labels))
    assert (float(data.x1.min()), float(data.x1.max())) == (-1.0, 1.0)


def test_items_are_an_image_and_its_label():
    data = Digits()
    assert isinstance(data, Dataset)
    x1, label = data[7]
    assert x1.shape == (1, 8, 8)
    assert label.dtype == torch.int64
    assert label.shape == ()
    assert torch.equal(x1, data.x1[7])
    assert label == data.labels[7]


def test_labels_can_be_left_out():
    data = Digits(labels=False)
    assert torch.equal(data[7], Digits()[7][0])
    assert data.labels.shape == (1797,)


def test_train_and_test_are_disjoint_and_together_all():
    train, test = Digits("train"), Digits("test")
    assert (len(train), len(test)) == (1500, 297)

    def rows(*parts):
        images = torch.cat([part.x1 for part in parts]).flatten(1)
        return sorted(map(tuple, torch.cat([images, torch.cat([part.labels for part in parts])[:, None]], 1).tolist()))

    assert rows(train, test) == rows(Digits())
    assert set(rows(train)).isdisjoint(rows(test))
    assert set(test.labels.tolist()) == set(range(10))


@pytest.mark.usefixtures("global_rng_untouched")
def test_the_split_depends_on_its_seed_alone():
    with torch.random.fork_rng():
        torch.manual_seed(123)
        first = Digits("test").x1
    assert torch.equal(first, Digits("test").x1)
    assert not torch.equal(first, Digits("test", seed=1).x1)


@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_length_is_known_without_reading_and_agrees_with_the_images(split):
    data = Digits(split, test_size=100)
    assert "_tensors" not in vars(data)
    assert len(data) == len(data.x1) == len(data.labels)


def test_writing_to_one_instance_harms_no_other():
    spoilt = Digits()
    spoilt.x1.zero_()
    spoilt.labels.zero_()
    assert float(Digits().x1.max()) == 1.0
    assert int(Digits().labels.max()) == 9


def test_a_data_loader_takes_them():
    x1, labels = next(iter(DataLoader(Digits("train"), batch_size=32)))
    assert x1.shape == (32, 1, 8, 8)
    assert labels.shape == (32,)


def test_iterating_ends():
    assert sum(1 for _ in Digits("test")) == 297


def test_to_unit_inverts_the_scaling():
    levels, _ = load_digits(return_X_y=True)
    assert torch.allclose(to_unit(Digits().x1).flatten(1).double(), torch.from_numpy(levels / 16))
    assert float(to_unit(torch.tensor(3.0))) == 1.0


def test_unknown_splits_and_sizes_are_refused():
    with pytest.raises(ValueError, match="split"):
        Digits("valid")
    with pytest.raises(ValueError, match="test_size"):
        Digits("test", test_size=1797)


def test_the_plugin_lists_the_digits():
    (component,) = fm_components()
    assert component.key == "dataset/digits"
