"""Inpainting: where data are known, states are exactly those of the known data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor

import fm_core as fm
from fm_core import Field, GaussianPath, Model, Prediction
from fm_core.building import OptionError
from fm_core.errors import ShapeError
from fm_core.plan import Plan, Row
from fm_core.table_solver import TableSolver
from fm_core.testing import GaussianMixture
from fm_plugins.inpainting.inpaint import Inpaint


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGES = GaussianMixture(drawn(3, 2, 4, 4, seed=1), 0.5)
KNOWN = drawn(2, 4, 4, seed=2)
MASK = (torch.arange(16) % 3 == 0).reshape(4, 4).expand(2, 4, 4)


def exponential(path: GaussianPath, times: Tensor, eta: float = 0.0) -> Plan:
    """DDIM's step, x_s = α_s·D + √(σ_s² − n²)·N + n·z, with n² = η²·σ_s²·(1 − (α_t·σ_s/(α_s·σ_t))²); DDPM at η = 1."""
    alpha, sigma = path.alpha(times).tolist(), path.sigma(times).tolist()
    rows = []
    for i in range(len(times) - 1):
        ratio = (alpha[i] * sigma[i + 1] / (alpha[i + 1] * sigma[i])) ** 2
        noise = eta * sigma[i + 1] * (1 - ratio) ** 0.5
        kept = (sigma[i + 1] ** 2 - noise**2) ** 0.5 / sigma[i]
        rows.append(Row(float(times[i + 1]), ((i, kept),), ((i, alpha[i + 1] - kept * alpha[i]),), noise))
    return Plan(Prediction.DATA, float(times[0]), tuple(rows))


DDIM = TableSolver(exponential, space=Prediction.DATA, order=1)
DDPM = TableSolver(lambda path, times: exponential(path, times, 1.0), space=Prediction.DATA, order=1, stochastic=True)


def composed(path: GaussianPath, solver: Any, *guidance: Any, predicts: str = "noise") -> fm.Pipeline:
    return fm.compose(path=path, model=IMAGES.model(path, predicts), solver=solver, guidance=list(guidance))


@pytest.mark.parametrize(
    ("name", "solver"),
    [("linear", "euler"), ("linear", "heun"), ("linear", "rk4"), ("vp", DDIM), ("cosine", DDIM), ("stranger", DDIM)],
)
@pytest.mark.parametrize("predicts", ["noise", "velocity"])
def test_known_states_are_the_known_data_under_the_noise_of_the_run(
    paths: dict[str, GaussianPath], name: str, solver: Any, predicts: str
) -> None:
    """`x_t = α_t·k + σ_t·ε` at every grid point with one ε, that of the first state, and k itself at the end."""
    path, x0 = paths[name], drawn(4, 2, 4, 4)
    run = composed(path, solver, Inpaint(KNOWN, MASK), predicts=predicts).sample(
        x0=x0, steps=7, trajectory=True, dtype=torch.float64, seed=0
    )
    assert run.trajectory is not None
    start = run.times[0]
    noise = path.sigma(start) * x0 - path.alpha(start) * KNOWN
    for t, x in zip(run.times, run.trajectory, strict=True):
        expected = path.alpha(t) * KNOWN + path.sigma(t) / path.sigma(start) * noise
        torch.testing.assert_close(x[:, MASK], expected[:, MASK], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(run.x[:, MASK], KNOWN.expand(4, 2, 4, 4)[:, MASK], rtol=0, atol=1e-12)
    assert run.x[:, ~MASK].isfinite().all()


@pytest.mark.parametrize("solver", ["heun", "rk4", DDPM], ids=["heun", "rk4", "ddpm"])
@pytest.mark.parametrize("name", ["linear", "vp", "cosine", "stranger"])
def test_the_end_is_known_whatever_the_solver_did(paths: dict[str, GaussianPath], name: str, solver: Any) -> None:
    run = composed(paths[name], solver, Inpaint(KNOWN, MASK)).sample((3, 2, 4, 4), steps=4, seed=0, dtype=torch.float64)
    torch.testing.assert_close(run.x[:, MASK], KNOWN.expand(3, 2, 4, 4)[:, MASK], rtol=0, atol=1e-11)


def test_a_stochastic_solver_keeps_the_marginal_of_the_known_part(paths: dict[str, GaussianPath]) -> None:
    """N(α_t·k, σ_t²·I) at every grid point, however few there are: an ancestral step of a point mass is exact."""
    path = paths["cosine"]
    run = composed(path, DDPM, Inpaint(KNOWN, MASK)).sample(
        (2048, 2, 4, 4), steps=5, trajectory=True, seed=0, dtype=torch.float64
    )
    assert run.trajectory is not None
    for t, x in zip(run.times[:-1], run.trajectory, strict=False):
        standard = (x - path.alpha(t) * KNOWN)[:, MASK] / path.sigma(t)
        assert standard.mean(0).abs().max() < 5 / 2048**0.5
        torch.testing.assert_close(standard.std(0), torch.ones(int(MASK.sum())).double(), rtol=0, atol=0.08)


def test_what_a_path_leaves_of_noise_stays_on_the_known_part(paths: dict[str, GaussianPath]) -> None:
    path, x0 = paths["linear_sigma_min"], drawn(2, 2, 4, 4)
    pipe = composed(path, "euler", Inpaint(KNOWN, MASK), predicts="velocity")
    x = pipe.sample(x0=x0, steps=5, dtype=torch.float64, seed=0).x
    torch.testing.assert_close(x[:, MASK], (KNOWN + 0.01 * x0)[:, MASK], rtol=1e-10, atol=1e-10)


def test_the_rest_is_the_field_inside_and_a_float_mask_blends(path: GaussianPath) -> None:
    x, plain = drawn(4, 2, 4, 4), Field(IMAGES.model(path, "v"), path)
    data = plain.predict(x, 0.5, None, "data")
    replaced = Field(plain.model, path, (Inpaint(KNOWN, MASK),)).predict(x, 0.5, None, "data")
    assert torch.equal(replaced, torch.where(MASK, KNOWN, data))
    weight = torch.linspace(0, 1, 32, dtype=torch.float64).reshape(2, 4, 4)
    blended = Field(plain.model, path, (Inpaint(KNOWN, weight),)).predict(x, 0.5, None, "data")
    torch.testing.assert_close(blended, weight * KNOWN + (1 - weight) * data)
    by_numbers = Field(plain.model, path, (Inpaint(KNOWN, MASK.float()),)).predict(x, 0.5, None, "data")
    assert torch.equal(by_numbers, replaced)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_what_is_not_known_may_hold_anything(paths: dict[str, GaussianPath], dtype: torch.dtype) -> None:
    known = torch.where(MASK, KNOWN, torch.nan)
    x = composed(paths["linear"], "euler", Inpaint(known, MASK.to(dtype))).sample((2, 2, 4, 4), steps=3, seed=0).x
    assert x.isfinite().all()
    with pytest.raises(OptionError, match="not finite where the mask"):
        Inpaint(known, torch.ones(2, 4, 4))


@pytest.mark.parametrize(
    ("known", "mask"),
    [
        (drawn(4, 2, 4, 4), MASK),
        (KNOWN, torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) > 0.5),
        (drawn(1, 2, 4, 4), MASK[:1]),
        (drawn(4, 2, 4, 4), torch.rand(4, 2, 4, 4, generator=torch.Generator().manual_seed(0))),
        (0.0, 0.5),
    ],
)
def test_a_sample_does_not_depend_on_those_beside_it(paths: dict[str, GaussianPath], known: Any, mask: Any) -> None:
    """Chunks take the rows of their own, and images and masks for all are shared."""
    pipe = composed(paths["cosine"], "heun", Inpaint(known, mask))
    whole, three, one = (
        pipe.sample((4, 2, 4, 4), steps=3, seed=0, chunk=chunk, dtype=torch.float64).x for chunk in (None, 3, 1)
    )
    torch.testing.assert_close(three, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(one, whole, rtol=0, atol=1e-12)
    if isinstance(known, Tensor) and known.shape[0] == 4:
        full = mask == 1 if mask.dtype != torch.bool else mask
        full = full.expand(4, 2, 4, 4)
        torch.testing.assert_close(whole[full], known[full], rtol=0, atol=1e-12)


def test_samples_as_many_as_channels_are_not_mistaken_for_them(paths: dict[str, GaussianPath]) -> None:
    """B = D: a vector is one sample for all, a matrix one of each."""
    data, path = GaussianMixture(drawn(3, 4), 0.5), paths["linear"]
    everywhere = torch.ones(4, dtype=torch.bool)
    for known, expected in ((drawn(4), drawn(4).expand(4, 4)), (drawn(4, 4), drawn(4, 4))):
        pipe = fm.compose(path=path, model=data.model(path), solver="euler", guidance=[Inpaint(known, everywhere)])
        x = pipe.sample((4, 4), steps=2, seed=0, chunk=3, dtype=torch.float64).x
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-12)


@frozen
class Blend:
    """u + s·(c − u), as classifier-free guidance."""

    scale: float
    needs = frozenset[Prediction]()
    evals = 2

    def guide(self, field: Field, x_t: Tensor, t: Tensor, cond: Any, *, until: Tensor | None = None) -> Tensor:
        u, c = (field.predict(x_t, t, k, field.native, until=until) for k in (torch.zeros_like(cond), cond))
        return u + self.scale * (c - u)


def test_other_guidances_inside_touch_only_the_rest(paths: dict[str, GaussianPath]) -> None:
    path, cond = paths["linear"], torch.tensor([0.5, -0.5, 1.0], dtype=torch.float64)
    exact = IMAGES.model(path, "velocity")
    model = Model(lambda x, t, c: exact(x, t) + c[:, None, None, None], "velocity")
    pipe = fm.compose(path=path, model=model, solver="heun", guidance=[Blend(3.0), Inpaint(KNOWN, MASK)])
    plain = pipe.replace(guidance=[Inpaint(KNOWN, MASK)])
    x, y = (p.sample((3, 2, 4, 4), cond=cond, steps=5, seed=0, dtype=torch.float64).x for p in (pipe, plain))
    torch.testing.assert_close(x[:, MASK], KNOWN.expand(3, 2, 4, 4)[:, MASK], rtol=0, atol=1e-12)
    assert (x[:, ~MASK] - y[:, ~MASK]).abs().min() > 1e-3


def test_dtypes_follow_the_state(paths: dict[str, GaussianPath]) -> None:
    x = drawn(2, 2, 4, 4).float()
    field = Field(Model(lambda x, t: x, "data"), paths["linear"], (Inpaint(KNOWN, MASK.double()),))
    assert field.predict(x, 0.5, None, "data").dtype == torch.float32


@pytest.mark.parametrize(
    ("known", "mask", "match"),
    [
        (drawn(3, 4, 4), True, r"known has the shape \(3, 4, 4\), and the states \(5, 2, 4, 4\)"),
        (drawn(4, 2, 4, 4), True, r"known has the shape \(4, 2, 4, 4\)"),
        (drawn(1, 4, 4), True, "known has the shape"),
        (drawn(4, 4), True, r"or as \(2, 4, 4\) for all samples"),
        (0.0, MASK[0], r"mask has the shape \(4, 4\).*repeated"),
        (0.0, MASK[:, :3], "mask has the shape"),
    ],
)
def test_shapes_that_do_not_fit_the_states_are_refused(
    paths: dict[str, GaussianPath], known: Any, mask: Any, match: str
) -> None:
    field = Field(IMAGES.model(paths["linear"]), paths["linear"], (Inpaint(known, mask),))
    with pytest.raises(ShapeError, match=match):
        field.predict(drawn(5, 2, 4, 4), 0.5, None, "data")


def test_masks_that_are_none_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"mask has the shape \(3, 4\), and the known data \(2, 4, 4\)"):
        Inpaint(KNOWN, torch.ones(3, 4))
    for mask in (torch.full((2, 4, 4), 2.0), -MASK.float(), torch.full((4, 4), torch.nan)):
        with pytest.raises(OptionError, match="mask"):
            Inpaint(KNOWN, mask)
    with pytest.raises(OptionError, match="tensors or nested lists"):
        Inpaint("known", MASK)


def test_the_registry_builds_it_and_saves_its_lists(paths: dict[str, GaussianPath]) -> None:
    guidance = fm.build("guidance", "inpaint", known=[0.0, 1.0], mask=[True, False])
    assert guidance.acts_on == "data"
    field = Field(Model(lambda x, t: x, "data"), paths["linear"], (guidance,))
    assert field.predict(torch.full((1, 2), 5.0), 0.5, None, "data").tolist() == [[0.0, 5.0]]
