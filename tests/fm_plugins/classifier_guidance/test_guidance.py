"""Classifier guidance against Bayes: with the exact classifier of a mixture the guided field is the conditional one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Prediction
from fm_core.building import OptionError
from fm_core.errors import CompatError, ConditionError, ShapeError
from fm_core.prediction import GAUSSIAN_KINDS
from fm_core.testing import GaussianMixture
from fm_plugins.classifier_guidance.guidance import ClassifierGuidance

KINDS = sorted(GAUSSIAN_KINDS)
MEANS, STDS, WEIGHTS = (
    torch.tensor([[-3.0, 0.0], [2.0, 2.0], [2.0, -2.0]]),
    torch.tensor([0.4, 0.6, 0.5]),
    [0.5, 0.3, 0.2],
)
DATA = GaussianMixture(MEANS, STDS, WEIGHTS)
LABELS = torch.tensor([0, 1, 2, 1])


def parts(data: GaussianMixture) -> list[GaussianMixture]:
    return [GaussianMixture(data.means[k : k + 1], data.stds[k : k + 1]) for k in range(len(data.means))]


def bayes(data: GaussianMixture, path: GaussianPath) -> Any:
    """Logits `log w_k + log N(x_t; α·m_k, c_k·I)`: the posterior of the component, up to a constant."""

    def classify(x_t: Tensor, t: Tensor) -> Tensor:
        logs = torch.stack([part.log_prob(path, x_t, t) for part in parts(data)], 1)
        return logs + data.weights.to(x_t).log() + 3.0

    return classify


def states(path: GaussianPath, times: Tensor, data: GaussianMixture = DATA) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x1 = data(len(times), generator)
    x0 = torch.randn(x1.shape, generator=generator, dtype=torch.float64)
    return path.interpolate(x0, x1, times).x_t


def times_inside(path: GaussianPath, src: str) -> Tensor:
    """Four times of the guided field's span, its ends among them."""
    low, high = Field(Model(lambda x, t: x, src), path, (ClassifierGuidance(lambda x, t: x),)).span(KINDS)
    return low + (high - low) * torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("src", KINDS)
def test_the_guided_field_is_that_of_the_asked_component(path: GaussianPath, src: str) -> None:
    """At s = 1 it is E[· | x_t, y] of every kind, whatever the network predicts: Bayes' rule, exactly."""
    t = times_inside(path, src)
    x = states(path, t)
    field = Field(DATA.model(path, src), path, (ClassifierGuidance(bayes(DATA, path)),))
    guided = dict(zip(KINDS, field.predict(x, t, LABELS, *KINDS), strict=True))
    assert field.calls == 1
    for kind in KINDS:
        rows = [
            parts(DATA)[int(k)].predict(path, Prediction(kind), x[i : i + 1], t[i : i + 1])
            for i, k in enumerate(LABELS)
        ]
        expected = torch.cat(rows)
        tolerance = 1e-9 * expected.abs().max().item()  # conversions near the ends multiply rounding
        torch.testing.assert_close(guided[kind], expected, rtol=1e-9, atol=tolerance)


def test_the_scale_sharpens_the_classifier(paths: dict[str, GaussianPath]) -> None:
    """`u + s·(c − u)` for the scores u of p(x) and c of p(x|y), for a number, a schedule, and one of every sample."""
    path, t = paths["cosine"], torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    x = states(path, t)
    u = DATA.predict(path, Prediction.SCORE, x, t)
    c = Field(DATA.model(path), path, (ClassifierGuidance(bayes(DATA, path)),)).predict(x, t, LABELS, "score")
    each = torch.tensor([0.0, 0.5, 2.0, 8.0], dtype=torch.float64)
    for scale, s in (
        (3.0, torch.full((4,), 3.0, dtype=torch.float64)),
        (each, each),
        (lambda log_snr: log_snr.exp(), path.log_snr(t).exp()),
    ):
        guidance = ClassifierGuidance(bayes(DATA, path), scale)
        guided = Field(DATA.model(path), path, (guidance,)).predict(x, t, LABELS, "score")
        torch.testing.assert_close(guided, u + s[:, None] * (c - u), rtol=1e-9, atol=1e-9)
    off = Field(DATA.model(path), path, (ClassifierGuidance(bayes(DATA, path), 0),)).predict(x, t, LABELS, "score")
    torch.testing.assert_close(off, DATA.model(path, "score")(x, t), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["linear", "vp", "cosine"])
@pytest.mark.parametrize("predicts", ["velocity", "noise"])
def test_the_ode_carries_every_sample_to_its_place_in_the_asked_component(
    paths: dict[str, GaussianPath], name: str, predicts: str
) -> None:
    """The flow of a single Gaussian is affine, so every end is known: `m + s·(x − α·m)/√c` for the first state x."""
    path, labels = paths[name], torch.arange(96) % 3
    x0 = torch.randn(96, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pipe = fm.compose(
        path=path, model=DATA.model(path, predicts), solver="heun", guidance=[ClassifierGuidance(bayes(DATA, path))]
    )
    low, high = Field(pipe.model, path, pipe.guidance).span({Prediction.VELOCITY})
    grid = path.t_of_log_snr(torch.linspace(-11, 13, 80, dtype=torch.float64)).tolist()
    times = [low, *(t for t in grid if low + 1e-5 < t < high - 1e-5), high]
    x = pipe.sample(x0=x0, cond=labels, times=times, seed=0, dtype=torch.float64).x
    start = torch.tensor(low, dtype=torch.float64)
    alpha, sigma = path.alpha(start), path.sigma(start)
    m, s = MEANS[labels].double(), STDS[labels, None].double()
    end = m + s * (sigma * x0 - alpha * m) / (alpha**2 * s**2 + sigma**2).sqrt()
    torch.testing.assert_close(x, end, rtol=0, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_does_not_depend_on_those_beside_it(paths: dict[str, GaussianPath], dtype: torch.dtype) -> None:
    """Images, B = 1 against B = 4; chunks with scales of their own."""
    path = paths["vp"]
    images = GaussianMixture(torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1)), 0.5)
    guidance = ClassifierGuidance(bayes(images, path), torch.tensor([1.0, 2.0, 0.5, 4.0], dtype=dtype))
    t = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=dtype)
    x = states(path, t.double(), images).to(dtype)
    together = Field(images.model(path, "noise"), path, (guidance,)).predict(x, t, LABELS, "data")
    assert together.dtype == dtype
    for i in range(4):
        rows = slice(i, i + 1)
        alone = Field(images.model(path, "noise"), path, (guidance.select(rows),))
        one = alone.predict(x[rows], t[rows], LABELS[rows], "data")
        torch.testing.assert_close(one, together[rows], rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-4)
    pipe = fm.compose(path=path, model=images.model(path, "noise"), solver="euler", guidance=[guidance])
    whole, chunked = (
        pipe.sample((4, 3, 4, 4), cond=LABELS, steps=3, seed=0, chunk=chunk, dtype=dtype).x for chunk in (None, 3)
    )
    torch.testing.assert_close(chunked, whole, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-3)


class Tiny(nn.Module):
    """A classifier with dropout and batch statistics, which must play no role."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2, 8)
        self.head = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.asked = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked += 1
        assert not self.head.training
        return self.head(torch.tanh(self.net(x)) * t[:, None])


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was(paths: dict[str, GaussianPath]) -> None:
    with torch.random.fork_rng(devices=[]):
        net = Tiny()
    path, x = paths["linear"], torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    field = Field(DATA.model(path), path, (ClassifierGuidance(net),))
    with torch.no_grad():
        guided = field.predict(x, 0.5, LABELS, "velocity")
    assert net.training
    assert net.head.training
    assert net.asked == 1
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not guided.requires_grad
    net.requires_grad_(False)
    with torch.inference_mode():
        same = field.predict(x.clone(), torch.full((4,), 0.5), LABELS.clone(), "velocity")
    torch.testing.assert_close(same, guided)


def test_gradients_flow_through_the_guidance_where_they_are_kept(paths: dict[str, GaussianPath]) -> None:
    """The Jacobian of the guided score is that of the component's, −I/c_k: the classifier is differentiated twice."""
    path, t = paths["linear"], torch.tensor([0.5], dtype=torch.float64)
    field = Field(DATA.model(path), path, (ClassifierGuidance(bayes(DATA, path)),))
    x = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: field.predict(v, t, LABELS[1:2], "score"), x)
    c = 0.25 * 0.6**2 + 0.25
    torch.testing.assert_close(jacobian.reshape(2, 2), -torch.eye(2, dtype=torch.float64) / c, rtol=1e-6, atol=1e-8)


def test_the_network_inside_is_given_the_condition_that_means_none(paths: dict[str, GaussianPath]) -> None:
    seen: list[Any] = []

    def net(x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        seen.append(cond)
        return x

    x, path = torch.zeros(4, 2), paths["linear"]
    classify = lambda x, t: x @ x.new_ones(2, 3)  # noqa: E731
    for null, conditional, expected in ((None, False, None), (9, False, torch.full((4,), 9)), (9, True, LABELS)):
        field = Field(Model(net, "velocity", null=null), path, (ClassifierGuidance(classify, conditional=conditional),))
        field.predict(x, 0.5, LABELS, "velocity")
        assert seen[-1] is expected or torch.equal(seen[-1], expected)
    guidance = ClassifierGuidance(classify, label="digit", conditional=True)
    Field(Model(net, "velocity"), path, (guidance,)).predict(x, 0.5, {"digit": LABELS, "text": x}, "velocity")
    assert seen[-1].keys() == {"digit", "text"}


@pytest.mark.parametrize(
    ("cond", "match"),
    [
        (None, "needs a condition"),
        (torch.tensor([0, 1, 2, 3]), r"classes 0 … 2; got 3"),
        (torch.tensor([0, -1, 2, 1]), r"classes 0 … 2; got -1"),
        (torch.zeros(4), "integers of shape"),
        (torch.zeros(3, dtype=torch.long), "integers of shape"),
        ({"digit": LABELS}, "label="),
    ],
)
def test_classes_that_cannot_be_asked_for_are_refused(paths: dict[str, GaussianPath], cond: Any, match: str) -> None:
    field = Field(DATA.model(paths["linear"]), paths["linear"], (ClassifierGuidance(bayes(DATA, paths["linear"])),))
    with pytest.raises(ConditionError, match=match):
        field.predict(torch.zeros(4, 2), 0.5, cond, "velocity")


def test_other_classes_are_looked_at_again(paths: dict[str, GaussianPath]) -> None:
    field = Field(DATA.model(paths["linear"]), paths["linear"], (ClassifierGuidance(bayes(DATA, paths["linear"])),))
    field.predict(torch.zeros(4, 2), 0.5, LABELS, "velocity")
    with pytest.raises(ConditionError, match="got 7"):
        field.predict(torch.zeros(4, 2), 0.5, LABELS + 7, "velocity")


def test_what_is_no_classifier_is_refused_with_the_fix(paths: dict[str, GaussianPath]) -> None:
    for nothing in (None, 3, Tiny):
        with pytest.raises(OptionError, match="classifier=net"):
            ClassifierGuidance(nothing)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="classifier=net"):
        fm.build("guidance", "classifier")
    field = Field(DATA.model(paths["linear"]), paths["linear"], (ClassifierGuidance(lambda x, t: x[:, 0]),))
    with pytest.raises(ShapeError, match=r"logits \(4, K\)"):
        field.predict(torch.zeros(4, 2), 0.5, LABELS, "velocity")


def test_it_is_refused_where_the_score_is_not_known(paths: dict[str, GaussianPath]) -> None:
    guidance = [ClassifierGuidance(bayes(DATA, paths["linear"]))]
    with pytest.raises(CompatError, match="score"):
        fm.compose(path="linear", model=DATA.model(paths["linear"]), coupling="minibatch_ot", guidance=guidance)


def test_off_is_bit_for_bit_unguided_for_a_conditional_network(paths: dict[str, GaussianPath]) -> None:
    net = Model(lambda x, t, c: x.cos() + c[:, None], "velocity")
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    off = ClassifierGuidance(bayes(DATA, paths["linear"]), 0, conditional=True)
    guided, plain = (Field(net, paths["linear"], g).predict(x, 0.5, LABELS, "velocity") for g in ((off,), ()))
    assert torch.equal(guided, plain)


@pytest.mark.parametrize("solver", ["ddim", "ddpm", "euler_maruyama"])
@pytest.mark.parametrize("name", ["linear", "vp"])
def test_other_solvers_follow_it_too(paths: dict[str, GaussianPath], name: str, solver: str) -> None:
    path, labels = paths[name], torch.arange(300) % 3
    guidance = [ClassifierGuidance(bayes(DATA, path))]
    pipe = fm.compose(path=path, model=DATA.model(path, "noise"), solver=solver, guidance=guidance)
    x = pipe.sample((300, 2), cond=labels, steps=40, seed=0).x
    assert torch.cdist(x, MEANS).argmin(1).eq(labels).float().mean() > 0.99


def test_it_stands_outside_classifier_free_guidance(paths: dict[str, GaussianPath]) -> None:
    """Its term is added to the guided score and not extrapolated; the network inside needs the condition."""
    path, x = paths["linear"], torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = Model(lambda x, t, c: x.cos() + c[:, None], "velocity", null=9)
    cfg, outer = fm.build("guidance", "cfg", scale=3.0), ClassifierGuidance(bayes(DATA, path), 2.0, conditional=True)
    t = torch.tensor(0.5, dtype=torch.float64)
    both = Field(model, path, (cfg, outer)).predict(x, t, LABELS, "score")
    inside = Field(model, path, (cfg,)).predict(x, t, LABELS, "score")
    plain = Field(DATA.model(path), path)
    term = Field(plain.model, path, (outer.__class__(outer.classifier),)).predict(x, t, LABELS, "score")
    torch.testing.assert_close(both, inside + 2 * (term - plain.predict(x, t, None, "score")), rtol=1e-9, atol=1e-9)
    with pytest.raises(CompatError, match="innermost first"):
        fm.compose(path=path, model=model, guidance=[outer, cfg])
    unasked = ClassifierGuidance(bayes(DATA, path), 2.0)  # inside of it `cfg` is given the condition all the same
    torch.testing.assert_close(Field(model, path, (cfg, unasked)).predict(x, t, LABELS, "score"), both)
