"""The oracles' references are the ends of their flows to 1e-9, and their fields are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from fm_core import CompatError, Field, Prediction, build
from fm_core.randomness import make_generator
from fm_core.registry import components

EXACT = ("gaussian", "line", "eight_gaussians", "modes_32d", "image_modes", "labelled_gaussians", "guided_gaussians")
ROWS = 3


def given(problem: Any, n: int = ROWS, seed: int = 0) -> tuple[Tensor, Any]:
    g = make_generator(seed)
    x0 = problem.pipeline.path.sample_source((n, *problem.event_shape), generator=g, dtype=torch.float64)
    return x0, problem.condition(n, g)


def solved(problem: Any, x0: Tensor, cond: Any) -> Tensor:
    """The end of dx/dt = u(x, t) in t, through the pipeline's own field and guidance, by another method."""
    field = Field(problem.pipeline.model, problem.pipeline.path, problem.pipeline.guidance)

    def right(t: float, flat: Any) -> Any:
        x = torch.from_numpy(flat).reshape(x0.shape)
        return field.predict(x, t, cond, Prediction.VELOCITY).reshape(-1).numpy()

    start = (x0 * problem.pipeline.path.sigma(torch.zeros((), dtype=torch.float64))).reshape(-1).numpy()
    done = solve_ivp(right, (0.0, 1.0), start, method="LSODA", rtol=1e-11, atol=1e-12)
    assert done.success
    return torch.from_numpy(done.y[:, -1]).reshape(x0.shape)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("path", ["linear", "cosine"])
def test_the_reference_is_the_end_of_the_flow_to_a_billionth(name: str, path: str) -> None:
    problem = build("problem", name, path=path)
    x0, cond = given(problem)
    ends = problem.reference(x0, cond)
    error = (ends - solved(problem, x0, cond)).flatten(1).square().mean(1).sqrt()
    assert float(error.max()) < 1e-9
    assert problem.reference_error == 1e-9


@pytest.mark.parametrize("path", ["linear", "cosine", "vp", "sub_vp", "ve", "edm"])
def test_the_general_solver_is_the_closed_form_where_there_is_one(path: str) -> None:
    """One Gaussian's flow is known on every path; two equal modes are that Gaussian, and are solved."""
    one = build("problem", "gaussian", path=path)
    from attrs import evolve

    from fm_core.mixture import GaussianMixture

    law = one.classes[0]
    two = evolve(one, classes=(GaussianMixture(law.means.repeat(2, 1), law.stds.repeat(2)),))
    x0, _ = given(one, 8)
    assert len(two.data.means) == 2
    torch.testing.assert_close(two.reference(x0), one.reference(x0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("path", ["vp", "sub_vp", "ve", "edm"])
def test_paths_whose_velocity_ends_in_infinity_have_references_too(path: str) -> None:
    """Against a fine table: the error falls with the steps, down to what the closing step of a run leaves."""
    problem = build("problem", "line", path=path)
    x0, _ = given(problem, 6)
    ends = problem.reference(x0)
    pipe = problem.pipeline.replace(solver={"name": "dpm_solver_pp", "order": 3}, grid="log_snr")
    errors = [float((pipe.sample(x0=x0, steps=n, seed=0).x - ends).abs().median()) for n in (20, 200)]
    assert errors[1] < 2e-5 < errors[0]


def test_samples_of_the_flow_are_the_data() -> None:
    """Density in closed form: log p_1 at the ends is that of the data, on average."""
    problem = build("problem", "eight_gaussians")
    x0, _ = given(problem, 200)
    here, there = problem.reference(x0), problem.truth(2000, make_generator(1))
    low, high = (problem.data.log_prob(problem.path, x, 1.0).mean() for x in (here, there))
    assert abs(float(low - high)) < 0.4


def test_labels_choose_the_modes() -> None:
    problem = build("problem", "labelled_gaussians")
    x0, _ = given(problem, 40)
    cond = torch.arange(40) % 4
    ends = problem.reference(x0, cond)
    for label, law in enumerate(problem.classes):
        own = ends[cond == label]
        assert float(torch.cdist(own, law.means).amin(1).max()) < 5 * 0.316


def test_guidance_is_the_same_field_for_the_solver_and_for_the_reference() -> None:
    """At scale 1 nothing is guided; at 2 the ends are others, and further out than the data."""
    free, guided = build("problem", "labelled_gaussians"), build("problem", "guided_gaussians")
    x0, cond = given(free, 32)
    assert float((free.reference(x0, cond) - guided.reference(x0, cond)).abs().max()) > 0.1
    assert guided.pipeline.guidance[0].scale == 2.0
    assert not free.pipeline.guidance


def test_references_are_float64_of_any_batch_and_dtype() -> None:
    problem = build("problem", "image_modes", shape=[1, 4, 4], count=3)
    x0, _ = given(problem, 1)
    ends = problem.reference(x0)
    assert (ends.shape, ends.dtype) == ((1, 1, 4, 4), torch.float64)
    torch.testing.assert_close(problem.reference(x0.float()), ends, rtol=0, atol=1e-5)


def test_a_path_without_closed_form_is_refused() -> None:
    with pytest.raises(CompatError, match="no closed form"):
        build("problem", "eight_gaussians", path="icfm")


def test_every_problem_is_listed_with_a_summary() -> None:
    found = {item.name: item.component.summary for item in components("problem") if item.plugin == "problems"}
    assert {*EXACT, "modes_512d", "digits", "labelled_digits", "learned_moons", "saved"} <= found.keys()
    assert all(found.values())
