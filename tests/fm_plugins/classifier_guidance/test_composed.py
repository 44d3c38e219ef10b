"""Classifier guidance among other parts: inside of it CFG stays on, in an interval it asks as it does outside, and its
classifier is not lost in a saved folder.
"""

from __future__ import annotations

import pytest
import torch

import fm_core as fm

PATH = fm.build("path", "linear")
LABELS = torch.tensor([0, 1, 1])


class Shifted:
    """A velocity that the label moves; label 2 means none."""

    predicts = (fm.Prediction.VELOCITY,)
    null = 2

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, x_t, t, cond=None):
        self.asked.append([] if cond is None else cond.tolist())
        return -x_t + (0 if cond is None else (2 - cond)[:, None].to(x_t))


def judge(x_t, t):
    return torch.cat([x_t, -x_t], 1)


def guided(*guidance, **options):
    net = Shifted()
    pipe = fm.compose(path=PATH, model=net, solver="euler", guidance=guidance)
    return pipe.sample((3, 1), cond=LABELS, steps=2, seed=0, **options).x, net.asked


def test_classifier_free_guidance_inside_is_asked_with_the_condition():
    classifier = fm.build("guidance", "classifier", classifier=judge, scale=1.0)
    both, asked = guided(fm.build("guidance", "cfg", scale=3.0), classifier)
    assert asked[0] == [0, 1, 1, 2, 2, 2]
    alone, asked = guided(classifier)
    assert asked[0] == [2, 2, 2]
    assert not torch.allclose(both, alone)


def test_outside_its_interval_the_network_is_asked_as_inside():
    classifier = fm.build("guidance", "classifier", classifier=judge, scale=1.0)
    never = fm.build("guidance", "interval", guidance=classifier, low=100.0)
    x, asked = guided(never)
    assert asked[0] == [2, 2, 2]
    torch.testing.assert_close(x, guided(fm.build("guidance", "classifier", classifier=judge, scale=0.0))[0])


def test_a_missing_class_is_said_before_anything_is_asked():
    net = Shifted()
    pipe = fm.compose(
        path=PATH, model=net, solver="euler", guidance=fm.build("guidance", "classifier", classifier=judge)
    )
    with pytest.raises(fm.ConditionError, match="classifier guidance needs a condition"):
        pipe.sample((3, 1), steps=2, seed=0)
    assert net.asked == []


@pytest.mark.parametrize("which", ["classifier", "autoguidance", "interval"])
def test_a_guidance_with_a_network_is_not_saved_without_its_weights(which, tmp_path):
    """Loading would otherwise give a network of other weights, and other samples, without a word."""
    net = fm.build("model", "mlp", shape=2, seed=0)
    noisy = fm.build("model", "noisy_classifier", shape=2, classes=2, width=8, seed=0)
    made = {
        "classifier": lambda: fm.build("guidance", "classifier", classifier=noisy),
        "autoguidance": lambda: fm.build("guidance", "autoguidance", weak=net, scale=2.0, predicts="velocity"),
        "interval": lambda: fm.build(
            "guidance", "interval", guidance=fm.build("guidance", "classifier", classifier=noisy), low=0.0
        ),
    }
    pipe = fm.compose(path="linear", model=fm.Model(net, predicts="velocity"), solver="euler", guidance=made[which]())
    with pytest.raises(fm.SavedFileError, match=r"weights.*give the guidance again after loading"):
        pipe.save(tmp_path / "saved")
    pipe.replace(guidance=()).save(tmp_path / "saved")
