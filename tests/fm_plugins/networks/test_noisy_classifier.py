"""The classifier of noisy states, and its training: shapes, rows, gradients, the closed-form posterior, the digits."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from fm_core.errors import ConditionError, DivergenceError, ShapeError
from fm_core.gaussian import GaussianPath
from fm_core.randomness import make_generator
from fm_plugins.digits.digits import Digits
from fm_plugins.networks.classifier_training import train_classifier
from fm_plugins.networks.noisy_classifier import NoisyClassifier

VARIANTS: list[dict[str, Any]] = [
    {"shape": (1, 8, 6), "width": 8},
    {"shape": (2, 7, 5), "width": 8, "multipliers": (1, 2, 2), "attention": (0,), "blocks": 2},
    {"shape": (3,), "width": 8},
    {"shape": 4, "width": 8, "multipliers": (1,)},
]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=str)


def build(**options: Any) -> NoisyClassifier:
    return NoisyClassifier(**{"classes": 5, "heads": 2, "seed": 0, **options})


def states(net: NoisyClassifier, batch: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = make_generator(batch)
    return torch.randn(batch, *net.shape, generator=g, dtype=dtype), torch.rand(batch, generator=g, dtype=dtype)


@every_variant
@pytest.mark.parametrize("batch", [1, 5])
def test_logits_are_linear_in_the_features(options: dict[str, Any], batch: int) -> None:
    net = build(**options)
    x, t = states(net, batch)
    features = net.features(x, t)
    assert features.shape == (batch, net.leave.in_features)
    assert net(x, t).shape == (batch, 5)
    torch.testing.assert_close(net(x, t), net.leave(features), rtol=0, atol=0)


@every_variant
def test_a_row_depends_on_no_other_row(options: dict[str, Any]) -> None:
    net = build(**options).double()
    x, t = states(net, 5, torch.float64)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(net(x[order], t[order]), net(x, t)[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(net(x[:1], t[:1]), net(x, t)[:1], rtol=0, atol=1e-12)


@every_variant
def test_gradient_by_the_state_exists_and_depends_on_the_time(options: dict[str, Any]) -> None:
    """What classifier guidance takes from it; the branches that see the time start at zero in images."""
    net = build(**options)
    g = make_generator(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    x, t = states(net, 3)
    x.requires_grad_()
    early, late = (torch.autograd.grad(net(x, s).log_softmax(1)[:, 0].sum(), x)[0] for s in (t, (t + 0.5) % 1))
    assert early.isfinite().all()
    assert (early - late).flatten(1).abs().amax(1).min() > 0


@pytest.mark.usefixtures("global_rng_untouched")
@every_variant
def test_equal_seeds_give_equal_weights_and_leave_global_generators_alone(options: dict[str, Any]) -> None:
    first, second, other = build(**options), build(**options), build(**{**options, "seed": None})
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_network_runs_in_its_own_dtype(dtype: torch.dtype, options: dict[str, Any]) -> None:
    net = build(**options)
    x, t = states(net, 4)
    y = copy.deepcopy(net).to(dtype)(x.to(dtype), t.to(torch.promote_types(dtype, torch.float32)))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), net(x, t), rtol=0, atol=1e-4 if dtype == torch.float64 else 0.1)


@every_variant
def test_network_runs_under_autocast_in_channels_last_and_recomputed(options: dict[str, Any]) -> None:
    net = build(**options)
    x, t = states(net, 4)
    expected = net(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(net(x, t).float(), expected, rtol=0, atol=0.1)
    recomputed = build(**options, checkpoint=True)
    torch.testing.assert_close(recomputed(x, t), expected, rtol=0, atol=0)
    torch.testing.assert_close(net.to(memory_format=torch.channels_last)(x, t), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS[:3:2], ids=str)
def test_network_compiles_without_graph_break(options: dict[str, Any]) -> None:
    net = build(**options)
    torch._dynamo.reset()
    x, t = states(net, 3)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x, t), net(x, t))


def test_training_finds_the_posterior_of_noisy_states(paths: dict[str, GaussianPath]) -> None:
    """Two Gaussians N(±m, s²): log-odds 2·α·m·x/(α²s² + σ²), linear in x and falling to 0 in the noise."""
    g = make_generator(0)
    m, s, path = 1.0, 0.5, paths["linear"]
    labels = torch.randint(0, 2, (4000,), generator=g)
    x1 = (2.0 * labels[:, None] - 1) * m + s * torch.randn(4000, 1, generator=g)
    net = NoisyClassifier(1, classes=2, width=16, seed=0)
    train_classifier(net, path, x1, labels, steps=400, batch_size=512, lr=5e-3, seed=0)
    t = torch.tensor([0.05, 0.3, 0.5, 0.7]).repeat_interleave(9)
    alpha, sigma = path.alpha(t), path.sigma(t)
    spread = (alpha**2 * (m**2 + s**2) + sigma**2).sqrt()
    x = torch.linspace(-1, 1, 9).repeat(4) * 1.5 * spread
    expected = 2 * alpha * m * x / (alpha**2 * s**2 + sigma**2)
    with torch.no_grad():
        logits = net(x[:, None], t)
    posterior = logits.softmax(1)[:, 1]
    torch.testing.assert_close(posterior, expected.sigmoid(), rtol=0, atol=0.08)


def test_clean_digits_are_recognised() -> None:
    """As far as 80 small steps go; 150 of the default size reach 97 %."""
    train, test = Digits("train"), Digits("test")
    net = NoisyClassifier((1, 8, 8), classes=10, width=16, seed=0)
    losses = train_classifier(net, None, train.x1, train.labels, steps=80, batch_size=64, lr=4e-3, seed=0)
    assert losses.shape == (80,)
    assert losses[-10:].mean() < 0.3 * losses[0]
    assert not net.training
    with torch.no_grad():
        right = net(test.x1, torch.ones(297)).argmax(1) == test.labels
    assert right.float().mean() > 0.9


@pytest.mark.usefixtures("global_rng_untouched")
def test_training_repeats_itself_and_leaves_global_generators_alone(path: GaussianPath) -> None:
    """Dropout too, which can only draw from the global generator."""
    g = make_generator(0)
    x1, labels = torch.randn(40, 3, generator=g), torch.randint(0, 3, (40,), generator=g)

    def trained(seed: int) -> tuple[Tensor, NoisyClassifier]:
        net = NoisyClassifier(3, classes=3, width=8, dropout=0.3, seed=0)
        return train_classifier(net, path, x1, labels, steps=5, batch_size=16, seed=seed), net

    (first, one), (second, two), (other, _) = trained(1), trained(1), trained(2)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(first, other)
    assert first.isfinite().all()


def test_times_cover_the_path_and_states_are_on_it_or_clean_at_its_end(paths: dict[str, GaussianPath]) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Spy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            seen.append((x, t))
            return x[:, :1] * self.weight

    steps: list[int] = []
    x1 = torch.full((2000, 1), 3.0)
    train_classifier(
        Spy(),
        paths["linear"],
        x1,
        torch.zeros(2000, dtype=torch.int64),
        steps=2,
        batch_size=2000,
        seed=0,
        on_step=lambda step, loss: steps.append(step),
    )
    x, t = seen[0]
    assert steps == [0, 1]
    assert t.min() < 0.01
    assert t.max() > 0.99
    assert abs(t.mean() - 0.5) < 0.03
    noise = (x[:, 0] - 3 * t) / (1 - t)
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1) < 0.1
    seen.clear()
    train_classifier(Spy(), None, x1, torch.zeros(2000, dtype=torch.int64), steps=1, batch_size=2000, seed=0)
    assert torch.equal(seen[0][0], x1)
    assert torch.equal(seen[0][1], torch.ones(2000))


@pytest.mark.parametrize(
    ("x1", "labels", "error", "message"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(5, dtype=torch.int64),
            ShapeError,
            r"got \(4, 3\) and torch.int64 of shape \(5,\)",
        ),
        (torch.zeros(4, 3), torch.zeros(4), ShapeError, "int64 labels"),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), ShapeError, "N at least 1"),
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 3]), ConditionError, "from 0 to 3 .*classes=4"),
        (torch.zeros(4, 3), torch.tensor([0, 1, -1, 2]), ConditionError, "from -1 to 2"),
        (torch.full((4, 3), float("nan")), torch.tensor([0, 1, 0, 2]), DivergenceError, "loss of step 0 is nan"),
    ],
)
def test_data_that_cannot_be_learned_are_refused(
    x1: Tensor, labels: Tensor, error: type[Exception], message: str, paths: dict[str, GaussianPath]
) -> None:
    net = NoisyClassifier(3, classes=3, width=8, seed=0)
    with pytest.raises(error, match=message):
        train_classifier(net, paths["linear"], x1, labels, steps=2, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, "takes images"),
        ({"shape": (1, 8, 8), "classes": 1}, "classes is at least 2"),
        ({"shape": (1, 8, 8), "width": 5}, "even"),
        ({"shape": (1, 2, 8), "multipliers": (1, 1, 1)}, "halve"),
    ],
    ids=str,
)
def test_bad_options_are_refused_when_built(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_wrong_states_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"takes states \(B, 1, 8, 6\)"):
        build(**VARIANTS[0])(torch.zeros(2, 1, 6, 8), torch.zeros(2))
