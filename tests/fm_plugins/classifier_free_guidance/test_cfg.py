"""Classifier-free guidance on mixtures, where both answers are known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model
from fm_core.building import to_config
from fm_core.errors import ConditionError
from fm_core.mixture import GaussianMixture
from fm_plugins.classifier_free_guidance.cfg import CFG

KINDS = ("data", "noise", "score", "v", "velocity")
CLASSES = 3


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def laws(*shape: int) -> list[GaussianMixture]:
    """Two modes for each class, and last the mixture of all: what the network answers without a label."""
    means = 1.5 * draw(CLASSES, 2, *shape, seed=1)
    return [*(GaussianMixture(m, torch.tensor([0.3, 0.6])) for m in means), GaussianMixture(means.flatten(0, 1), 0.45)]


def answer(path: GaussianPath, kind: str, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """The exact prediction of every row under its label."""
    every = torch.stack([law.predict(path, kind, x, t) for law in laws(*x.shape[1:])])
    return every[labels, torch.arange(len(x))]


def network(path: GaussianPath, predicts: str | tuple[str, ...] = "velocity", seen: list[int] | None = None) -> Model:
    kinds = (predicts,) if isinstance(predicts, str) else predicts

    def net(x: Tensor, t: Tensor, labels: Tensor | None = None) -> Any:
        if seen is not None:
            seen.append(len(x))
        labels = torch.full((len(x),), CLASSES) if labels is None else labels
        outputs = tuple(answer(path, kind, x, t, labels) for kind in kinds)
        return outputs if len(outputs) > 1 else outputs[0]

    return Model(net, predicts=predicts, null=CLASSES)


def batch(*shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    b = shape[0]
    labels = torch.arange(b) % CLASSES
    return 1.5 * draw(*shape), torch.linspace(0.3, 0.8, b, dtype=torch.float64), labels, torch.full((b,), CLASSES)


@pytest.mark.parametrize("native", KINDS)
def test_it_is_the_extrapolation_in_every_native_space_and_commutes_with_conversion(
    path: GaussianPath, native: str
) -> None:
    x, t, cond, null = batch(4, 2)
    field = Field(network(path, native), path, (CFG(3.0),))
    assert field.native == native
    for kind in KINDS:
        c, u = answer(path, kind, x, t, cond), answer(path, kind, x, t, null)
        torch.testing.assert_close(field.predict(x, t, cond, kind), u + 3.0 * (c - u), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1, 1.0])
def test_scale_one_samples_as_without_guidance_to_the_last_bit(path: GaussianPath, scale: float) -> None:
    seen: list[int] = []
    pipe = fm.compose(path=path, model=network(path, seen=seen), solver="heun")
    cond = torch.arange(5) % CLASSES
    plain = pipe.sample((5, 2), steps=4, seed=0, cond=cond)
    guided = pipe.replace(guidance=[CFG(scale)]).sample((5, 2), steps=4, seed=0, cond=cond)
    assert torch.equal(plain.x, guided.x)
    assert plain.nfe == guided.nfe
    assert set(seen) == {5}


def test_a_scheduled_scale_of_one_gives_the_conditional_answer_to_the_last_bit(path: GaussianPath) -> None:
    x, t, cond, null = batch(4, 2)
    field = Field(network(path), path)
    expected = field.predict(torch.cat([x, x]), torch.cat([t, t]), torch.cat([cond, null]), "velocity")[:4]
    for scale in (torch.ones_like, torch.ones(4), torch.ones(())):
        guidance = CFG(scale)
        assert not guidance.off
        assert torch.equal(guidance.guide(field, x, t, cond), expected)


def test_scales_are_numbers_functions_of_the_log_snr_or_one_for_every_sample(path: GaussianPath) -> None:
    x, t, cond, null = batch(4, 1, 4, 4)
    c, u = answer(path, "velocity", x, t, cond), answer(path, "velocity", x, t, null)
    each = torch.tensor([1.0, 2.0, 0.0, -1.5], dtype=torch.float64)
    for scale, values in (
        (each, each),
        (torch.tanh, torch.tanh(path.log_snr(t))),
        (torch.tensor(2.0), torch.tensor(2.0)),
    ):
        got = Field(network(path), path, (CFG(scale),)).predict(x, t, cond, "velocity")
        torch.testing.assert_close(got, u + values.reshape(-1, 1, 1, 1) * (c - u))
    with pytest.raises(fm.ShapeError, match=r"\(4,\); got \(3,\)"):
        CFG(torch.ones(3)).guide(Field(network(path), path), x, t, cond)


def test_it_costs_one_call_of_twice_the_batch(paths: dict[str, GaussianPath]) -> None:
    seen: list[int] = []
    pipe = fm.compose(
        path=paths["linear"], model=network(paths["linear"], seen=seen), solver="euler", guidance=[CFG(2.0)]
    )
    out = pipe.sample((3, 2), steps=5, seed=0, cond=torch.tensor([0, 1, 2]))
    assert seen == [6] * 5
    assert out.nfe == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 2), (4, 4), (3, 3, 4, 4)], ids=str)
def test_samples_are_guided_one_by_one_and_in_all_channels(
    path: GaussianPath, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, t, cond, _ = (value.to(dtype) if value.is_floating_point() else value for value in batch(*shape))
    field = Field(network(path), path, (CFG(2.5),))
    together = field.predict(x, t, cond, "velocity")
    assert together.dtype == dtype
    assert together.shape == shape
    alone = torch.cat([field.predict(x[i : i + 1], t[i : i + 1], cond[i : i + 1], "velocity") for i in range(len(x))])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)
    plain = Field(network(path), path).predict(x, t, cond, "velocity")
    assert ((together - plain).abs().reshape(*shape[:2], -1).amax(-1) > 1e-6).all()


@pytest.mark.parametrize("negative", [2, torch.tensor(2), torch.tensor([2]), torch.tensor([2, 2, 2, 2])], ids=str)
def test_a_negative_condition_takes_the_place_of_none(path: GaussianPath, negative: Any) -> None:
    x, t, cond, _ = batch(4, 2)
    got = Field(network(path), path, (CFG(2.0, negative=negative),)).predict(x, t, cond, "data")
    c, u = answer(path, "data", x, t, cond), answer(path, "data", x, t, torch.full((4,), 2))
    torch.testing.assert_close(got, 2 * c - u)


def test_conditions_are_pytrees(paths: dict[str, GaussianPath]) -> None:
    path = paths["linear"]
    x, t, cond, _ = batch(4, 2)
    bare = network(path)
    nested = Model(lambda x, t, c: bare(x, t, c["label"][0]) + c["shift"], predicts="velocity", null=None)
    tree, shift = {"label": [cond], "shift": draw(4, 2, seed=5)}, torch.tensor([1.0, 2.0])
    negative = {"label": [torch.tensor(CLASSES)], "shift": shift}
    got = Field(nested, path, (CFG(2.0, negative=negative),)).predict(x, t, tree, "velocity")
    u = bare(x, t, torch.full((4,), CLASSES)) + shift
    torch.testing.assert_close(got, 2 * (bare(x, t, cond) + tree["shift"]) - u)


def test_networks_with_several_outputs_are_guided_in_the_first(path: GaussianPath) -> None:
    x, t, cond, null = batch(4, 2)
    field = Field(network(path, ("velocity", "data")), path, (CFG(2.0),))
    for kind in KINDS:
        c, u = answer(path, kind, x, t, cond), answer(path, kind, x, t, null)
        torch.testing.assert_close(field.predict(x, t, cond, kind), 2 * c - u, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("each", [True, False])
def test_chunks_take_their_own_scales_and_negative_conditions(paths: dict[str, GaussianPath], each: bool) -> None:
    path = paths["linear"]
    cond = torch.arange(6) % CLASSES
    negative = (cond + 1) % CLASSES if each else torch.tensor(2)
    guidance = CFG(torch.linspace(0, 3, 6, dtype=torch.float64), negative=negative)
    pipe = fm.compose(path=path, model=network(path), solver="euler", guidance=[guidance])
    whole = pipe.sample((6, 2), steps=3, seed=0, cond=cond, dtype=torch.float64)
    parts = pipe.sample((6, 2), steps=3, seed=0, cond=cond, dtype=torch.float64, chunk=4)
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-12, atol=1e-12)


def test_chunks_take_their_own_rows_of_nested_negative_conditions(paths: dict[str, GaussianPath]) -> None:
    path, bare = paths["linear"], network(paths["linear"])
    model = Model(lambda x, t, c: bare(x, t, c["label"]) + c["rest"][0], predicts="velocity")
    cond = {"label": torch.arange(6) % CLASSES, "rest": (torch.zeros(6, 2, dtype=torch.float64),)}
    negative = {"label": CLASSES, "rest": (draw(6, 2, seed=3),)}
    pipe = fm.compose(path=path, model=model, solver="euler", guidance=[CFG(2.0, negative=negative)])
    whole = pipe.sample((6, 2), steps=3, seed=0, cond=cond, dtype=torch.float64)
    parts = pipe.sample((6, 2), steps=3, seed=0, cond=cond, dtype=torch.float64, chunk=2)
    torch.testing.assert_close(parts.x, whole.x, rtol=1e-12, atol=1e-12)


def test_without_a_condition_or_one_that_means_none_it_says_what_to_give(paths: dict[str, GaussianPath]) -> None:
    path = paths["linear"]
    pipe = fm.compose(path=path, model=network(path), solver="euler", guidance=[CFG(2.0)])
    with pytest.raises(ConditionError, match=r"cfg needs a condition.*cond="):
        pipe.sample((3, 2), steps=2, seed=0)
    nameless = Model(network(path).net, predicts="velocity")
    with pytest.raises(ConditionError, match="null="):
        pipe.replace(model=nameless).sample((3, 2), steps=2, seed=0, cond=torch.arange(3))
    for scale in ("3", None, True):
        with pytest.raises(TypeError, match="scale"):
            CFG(scale)


@pytest.mark.usefixtures("global_rng_untouched")
def test_it_is_registered_and_can_be_saved() -> None:
    guidance = fm.build("guidance", "cfg", scale=2.0, negative=3)
    assert isinstance(guidance, fm.Guidance)
    assert to_config(guidance) == {"name": "cfg", "scale": 2.0, "negative": 3}
    assert (guidance.layer, guidance.evals, guidance.acts_on, guidance.off) == (0, 1, None, False)
    assert guidance.select(slice(0, 1)) is guidance
