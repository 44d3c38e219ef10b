"""What composing refuses, and that it says everything at once."""

from __future__ import annotations

import attrs
import pytest
import torch
from attrs import frozen

import fm_core as fm


def _zero(x, t, cond=None):
    return torch.zeros_like(x)


def _model(predicts="velocity", **options):
    return fm.Model(_zero, predicts=predicts, **options)


def _solver(space="velocity", **options):
    return fm.TableSolver(lambda path, times: None, space=space, order=1, **options)


@frozen
class Guide:
    needs: frozenset = frozenset({"score"})
    acts_on: str = "score"

    def guide(self, field, x_t, t, cond, *, until=None):
        return field.predict(x_t, t, cond, "score")


def _problems(**parts):
    with pytest.raises(fm.CompatError) as caught:
        fm.compose(**({"path": "linear", "model": _model()} | parts))
    return caught.value.problems


def test_what_composes_raises_nothing():
    pipe = fm.compose(path="linear", model=_model(), objective="cfm", coupling="minibatch_ot", solver="heun")
    assert pipe.solver.order == 2


@pytest.mark.parametrize("broken", ["coupling", "source"])
def test_the_score_is_refused_where_it_is_not_known(broken):
    """A score-needing solver, a stochastic one and score guidance: three problems, one error."""
    unknown = {"coupling": "minibatch_ot"} if broken == "coupling" else {"source": "moons"}
    for solver in (_solver("score"), _solver("noise", stochastic=True)):
        found = _problems(solver=solver, guidance=[Guide()], **unknown)
        assert len(found) == 2
        assert all("score" in str(problem) and problem.why and problem.fix for problem in found)
    assert fm.compose(path="linear", model=_model(), solver=_solver("score"), guidance=[Guide()])


def test_a_deterministic_solver_in_noise_composes_with_any_coupling():
    """Data, noise, v and velocity convert under any coupling: only the score does not."""
    for space in ("data", "noise", "v", "velocity"):
        assert fm.compose(path="linear", model=_model(), coupling="minibatch_ot", solver=_solver(space))


@pytest.mark.parametrize("change", [{"independent": False, "coupling": "minibatch_ot"}, {"gaussian_source": False}])
def test_what_a_network_was_trained_under_stays_with_it(change):
    """Composing it later under independent pairs unlocks nothing."""
    trained = fm.Training(**change)
    (problem,) = _problems(model=_model(trained=trained), solver=_solver("score"), coupling="independent")
    assert "composing it otherwise" in problem.why
    fm.compose(path="linear", model=_model(trained=fm.Training()), solver=_solver("score"))


def test_fit_records_what_breaks_the_score():
    pipe = fm.recipe("ot_cfm", model=fm.build("model", "mlp", shape=2, width=4, depth=1))
    trained = pipe.fit(torch.randn(32, 2), steps=2, batch_size=8, seed=0).pipeline
    with pytest.raises(fm.CompatError, match="trained on pairs \\(minibatch_ot\\)"):
        trained.replace(coupling=None, solver=_solver("score"))


def test_a_network_trained_on_another_path_is_refused():
    """At one t the two paths hold other noise levels, so the prediction would be of another state."""
    pipe = fm.recipe("cfm", model=fm.build("model", "mlp", shape=2, width=4, depth=1))
    trained = pipe.fit(torch.randn(32, 2), steps=2, batch_size=8, seed=0).pipeline
    with pytest.raises(fm.CompatError, match="trained on another path"):
        trained.replace(path={"name": "linear", "sigma_min": 0.2})
    assert trained.replace(path="linear")


def test_a_path_with_the_velocity_alone_refuses_the_rest():
    found = _problems(path="icfm", solver=_solver("data"), model=_model("noise"))
    assert {"noise", "data"} == {kind for kind in ("noise", "data") for p in found if repr(kind) in p.what}


def test_geometries_must_match():
    path = fm.build("path", "linear")
    (problem,) = _problems(path=path, solver=_solver(geometries={"sphere"}))
    assert "euclidean" in problem.what


def test_every_problem_is_listed_in_one_error():
    found = _problems(
        path="icfm", model=_model("noise"), solver=_solver("data", geometries={"torus"}), guidance=[Guide()]
    )
    assert len(found) == 4


def test_a_part_without_its_protocol_is_named_with_what_it_lacks():
    found = _problems(solver=object(), grid=3)
    assert [("solve" in p.what, "times" in p.what) for p in found] == [(True, False), (False, True)]


def test_unknown_names_get_a_hint_and_the_place_of_the_search():
    with pytest.raises(fm.UnknownNameError, match=r"'huen'.*did you mean 'heun'.*plugins"):
        fm.compose(path="linear", model=_model(), solver="huen")


def test_a_bare_network_predicts_what_its_objective_regresses_on():
    assert fm.compose(path="linear", model=_zero, objective="cfm").model.predicts == ("velocity",)
    with pytest.raises(fm.CompatError, match=r"fm\.Model\(net, predicts='velocity'\)"):
        fm.compose(path="linear", model=_zero)


def test_x0_is_refused_as_a_prediction():
    with pytest.raises(fm.PredictionError, match="data in DDPM papers and the noise"):
        _model("x0")


def test_a_recipe_without_a_model_says_so():
    with pytest.raises(fm.CompatError, match="give model=net"):
        fm.recipe("cfm")


def test_a_pipeline_does_not_change():
    pipe = fm.compose(path="linear", model=_model())
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        pipe.solver = "heun"
    with pytest.raises(fm.UnknownNameError, match="did you mean 'solver'"):
        pipe.replace(solvr="heun")
    assert pipe.replace(solver="heun").solver is not None
    assert pipe.solver is None


def test_a_network_keeps_the_source_it_was_trained_from():
    """Another path takes the source along; leaving it on purpose is refused."""
    pipe = fm.recipe("cfm", model=fm.build("model", "mlp", shape=2, width=4, depth=1), source="moons")
    trained = pipe.fit(torch.randn(32, 2), steps=2, batch_size=8, seed=0).pipeline
    assert trained.replace(path={"name": "linear"}).path.source is not None
    with pytest.raises(fm.CompatError, match="trained from another source"):
        trained.replace(source=None)


def test_a_network_trained_with_a_third_noise_unlocks_nothing_elsewhere():
    pipe = fm.recipe(
        "cfm", model=fm.build("model", "mlp", shape=2, width=4, depth=1), path={"name": "icfm", "sigma": 0.5}
    )
    trained = pipe.fit(torch.randn(32, 2), steps=2, batch_size=8, seed=0).pipeline
    with pytest.raises(fm.CompatError, match="trained on another path"):
        trained.replace(path="linear", solver=_solver("score"))


def test_classes_and_bare_schedules_get_the_way_out():
    class Schedule:
        def alpha(self, t):
            return t

        sigma = alpha

    assert "make one: TableSolver(…)" in _problems(solver=fm.TableSolver)[0].fix
    assert "fm.GaussianPath(Schedule(…))" in _problems(path=Schedule())[0].fix
    assert "is no path" in _problems(path=None)[0].what


def test_adaptive_solvers_are_refused_where_guidance_needs_the_end_of_a_step():
    per_step = [{"name": "cfg_pp", "weight": 0.5}, {"name": "clip", "keep_noise": True}]
    for guidance in (*per_step, {"name": "interval", "guidance": {"kind": "guidance", **per_step[0]}, "low": 0.0}):
        (problem,) = _problems(solver="dopri5", guidance=guidance)
        assert "fixed grid" in problem.fix
        fm.compose(path="linear", model=_model(), solver="ddim", guidance=guidance)
    fm.compose(path="linear", model=_model(), solver="dopri5", guidance="clip")


def test_a_preconditioned_network_belongs_to_its_path():
    net = fm.build("model", "edm_precond", net=fm.build("model", "mlp", shape=2, seed=0), path="edm")
    model = fm.Model(net, predicts="data")
    fm.compose(path="edm", model=model)
    (problem,) = _problems(path="vp", model=model)
    assert "built for another path" in problem.what


@pytest.mark.parametrize("recipe", ["cfm", "fm", "ot_cfm", "rectified_flow", "ddpm", "ddim", "dsm", "score_sde", "edm"])
def test_every_recipe_of_the_readme_composes(recipe):
    kind = {"edm": "data"}.get(recipe, "noise" if recipe in {"ddpm", "ddim", "dsm", "score_sde"} else "velocity")
    pipe = fm.recipe(recipe, model=_model(kind))
    assert pipe.sample((2, 2), steps=4, seed=0).x.isfinite().all()
