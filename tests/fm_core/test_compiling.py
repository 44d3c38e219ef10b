"""Compiled runs: the samples of eager ones, from few graphs, with every network call counted."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from attrs import frozen
from torch._dynamo.utils import counters

import fm_core as fm
from fm_core import compiling, graphs as graphing
from fm_core.blocks import blocks
from fm_core.executing import execute
from fm_core.randomness import make_generator

UNIPC = {"name": "unipc", "order": 3}


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are compiled, by a backend that runs them as they are; tests of few steps in blocks of two."""
    found = []

    def backend(graph, _inputs):
        found.append(graph)
        return graph.forward

    monkeypatch.setattr(graphing, "BACKEND", backend)
    monkeypatch.setattr(compiling, "MOST_STEPS", 2)
    counters.clear()
    return found


class Tiny(torch.nn.Module):
    """A network of few operations, for tracing costs by the operation."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.7]))

    def forward(self, x, t, cond=None):
        t = t.reshape(-1, *[1] * (x.ndim - 1))
        move = 0.0 if cond is None else torch.where(cond == 3, 0.0, cond + 1.0).reshape(t.shape)
        return (self.weight[0] * x + self.weight[1] * t).sin() + move


def _pipe(solver="adams_pc", *, path="linear", predicts="velocity", dtype=None, guidance=()):
    model = fm.Model(Tiny().to(dtype), predicts=predicts, null=3)
    return fm.compose(path=path, model=model, solver=solver, guidance=guidance)


def _same(compiled, eager):
    tolerance = 1e-5 if eager.x.dtype == torch.float32 else 1e-12
    torch.testing.assert_close(compiled.x, eager.x, rtol=tolerance, atol=tolerance)
    assert compiled.nfe == eager.nfe


@pytest.mark.parametrize(
    ("solver", "parts", "shape", "dtype"),
    [
        ("euler", {}, (1, 2), torch.float32),
        ("heun", {}, (2, 2), torch.float64),
        ("midpoint", {}, (3, 1, 4, 4), torch.float32),
        ("adams_pc", {}, (1, 2), torch.float64),
        (UNIPC, {"path": "vp", "predicts": "noise"}, (3, 2), torch.float64),
        ("sa_solver", {"predicts": "data"}, (65, 2), torch.float64),
        ("ddpm", {"path": "vp", "predicts": "v"}, (3, 2), torch.float32),
    ],
    ids=str,
)
def test_a_compiled_run_gives_what_an_eager_one_gives(graphs, solver, parts, shape, dtype):
    """Samples, every state at its time, and the count of network calls."""
    pipe, steps = _pipe(solver, dtype=dtype, **parts), 9
    eager = pipe.sample(shape, steps=steps, seed=1, trajectory=True)
    seen = []
    compiled = pipe.sample(
        shape, steps=steps, seed=1, trajectory=True, compile=True, on_step=lambda t, x: seen.append(t)
    )
    _same(compiled, eager)
    _same(pipe.sample(shape, steps=steps, seed=1, compile=True), eager)
    torch.testing.assert_close(compiled.trajectory, eager.trajectory)
    assert seen == eager.times.tolist()
    assert graphs
    assert not counters["graph_break"]


@pytest.mark.parametrize(("solver", "most"), [("euler", 1), ("heun", 1), ("adams_pc", 4), (UNIPC, 5)], ids=str)
def test_blocks_of_one_structure_are_compiled_once(graphs, solver, most):
    """Start-up, equal blocks, end: whatever the number of steps, the grid, and the weights."""
    pipe = _pipe(solver)
    pipe.sample((4, 2), steps=20, seed=0, compile=True)
    assert 0 < len(graphs) <= most
    assert not counters["graph_break"]
    graphs.clear()
    pipe.sample((4, 2), steps=20, seed=1, compile=True)
    _same(*(pipe.sample((4, 2), times=torch.linspace(0, 1, 21) ** 2, seed=0, compile=c) for c in (True, False)))
    assert not graphs


def _random_plan(seed):
    """Rows that use whatever exists, with stages that are no grid points, unused states, and noise."""
    draw = random.Random(seed)
    rows = []
    for s in range(draw.randint(1, 30)):
        near = range(max(0, s - 3), s + 1)
        states = [(k, draw.uniform(-1, 1)) for k in near if draw.random() < 0.5] or [(s, 0.5)]
        predictions = [(j, draw.uniform(-0.2, 0.2)) for j in near if draw.random() < 0.5]
        rows.append(fm.Row((s + 1) / 30, states, predictions, draw.choice([0.0, 0.1]), draw.random() < 0.7))
    return fm.Plan("velocity", 0.0, rows)


@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("watched", [False, True])
def test_any_plan_in_blocks_is_the_plan(graphs, monkeypatch, most, watched):
    """Whatever rows use, each block is given it, and nothing is held that no later block reads."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(compiling, "MOST_STEPS", most)
    model = fm.Model(lambda x, t: x.sin() + t[:, None], "velocity")
    for seed in range(60):
        plan, x = _random_plan(seed), torch.randn(3, 2, generator=make_generator(seed), dtype=torch.float64)
        runs = []
        for run in (compiling.Compiler(True, "a network").execute, execute):
            seen, drawn, field = [], [], fm.Field(model, fm.build("path", "linear"))
            watch = (lambda t, y, to=seen: to.append((t, y))) if watched else None
            noisy = (lambda s, y, z, to=drawn: to.append((s, y, z))) if watched else None
            end = run(plan, field, x, generator=make_generator(1), on_step=watch, on_noise=noisy)
            runs.append((end, seen, drawn, field.calls))
        torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=1e-12)
    assert not graphs


@pytest.mark.parametrize("solver", ["euler", "heun", "adams_pc", UNIPC, "sa_solver"], ids=str)
@pytest.mark.parametrize("steps", [1, 7, 33, 40, 100, 1000])
def test_long_runs_are_few_texts_and_hand_on_no_more_than_their_window(solver, steps):
    """Start-up, equal blocks, end: each at most 32 steps, and what goes from block to block does not grow."""
    pipe = _pipe(solver, predicts="data")
    grid = torch.linspace(0.01, 0.99, steps + 1, dtype=torch.float64)
    plan = pipe.solver.prepare(fm.Field(pipe.model, pipe.path), grid)
    cut = blocks(plan, 32, watched=True)
    assert sum(len(block.clock) // 2 for block in cut) == plan.nfe
    assert max(sum(plan.rows[i - 1].accepted for i in block.seen) for block in cut) <= 32
    assert sum(sum(plan.rows[i - 1].accepted for i in block.seen) for block in cut) == steps
    cut = blocks(plan, 32, watched=False)
    assert max(len(block.kept) for block in cut) <= 9
    assert max(len(block.made) for block in cut) <= 9
    assert len({block.text for block in cut}) <= 3
    assert len(cut) <= steps / 32 + 3


class _Drawn:
    """A classifier for two classes whose gradient differs from place to place."""

    def __call__(self, x, t):
        return torch.stack([x.square().sum(1), x.sin().sum(1) * t], 1)


GUIDANCES = {
    "cfg": {"name": "cfg", "scale": 2.0},
    "momentum": {"name": "apg", "scale": 2.0, "momentum": -0.5, "parallel": 0.2},
}


@pytest.mark.parametrize("name", ["cfg", "momentum"])
def test_guidance_is_compiled_with_the_network(graphs, name):
    """Conditions, two answers from one call, and what a guidance remembers from block to block."""
    pipe = _pipe("adams_pc", guidance=GUIDANCES[name], dtype=torch.float64)
    asked = {"cond": torch.tensor([0, 1, 2, 1]), "steps": 5, "seed": 0}
    eager = pipe.sample((4, 2), **asked)
    _same(pipe.sample((4, 2), compile=True, **asked), eager)
    assert graphs
    assert not counters["graph_break"]


@frozen
class Twice:
    """A guidance that asks twice before the middle of the run, and once behind it, by what it remembers."""

    needs = frozenset()

    def guide(self, field, x_t, t, cond, *, until=None):
        field.memory["asked"] = field.memory.get("asked", 0) + 1
        first = field.predict(x_t, t, cond, "velocity")
        return first if field.memory["asked"] > 5 else (first + field.predict(x_t / 2, t, cond, "velocity")) / 2


def test_network_calls_inside_graphs_are_counted(graphs):
    pipe = _pipe("euler", guidance=[Twice()], dtype=torch.float64)
    eager, compiled = (pipe.sample((2, 2), steps=8, seed=0, compile=compile) for compile in (False, True))
    _same(compiled, eager)
    assert compiled.nfe == 5 * 2 + 3


@pytest.mark.parametrize("name", ["classifier", "dps", "mmps"])
@pytest.mark.parametrize("compile", [True, "network"])
def test_around_guidance_that_differentiates_the_network_alone_is_compiled(graphs, name, compile):
    guidance = {
        "classifier": lambda: fm.build("guidance", "classifier", classifier=_Drawn(), scale=2.0),
        "dps": lambda: fm.build("guidance", "dps", y=torch.ones(1), operator=lambda x: x[:, :1], noise=0.5),
        "mmps": lambda: fm.build("guidance", "mmps", y=torch.ones(1), operator=lambda x: x[:, :1], noise=0.5),
    }[name]()
    pipe = _pipe("heun", predicts="data", guidance=guidance, dtype=torch.float64)
    asked = {"cond": torch.tensor([0, 1, 1]) if name == "classifier" else None, "steps": 6, "seed": 0}
    _same(pipe.sample((3, 2), compile=compile, **asked), pipe.sample((3, 2), **asked))
    assert graphs
    with pytest.raises(fm.CompatError, match="grad=True with guidance that differentiates"):
        pipe.sample((3, 2), compile=compile, grad=True, **asked)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's tracer
def test_gradients_go_through_compiled_blocks(graphs, monkeypatch):
    monkeypatch.setattr(graphing, "BACKEND", "aot_eager")
    pipe = _pipe(UNIPC, dtype=torch.float64)
    found = []
    for compile in (False, True):
        x0 = torch.randn(3, 2, dtype=torch.float64, generator=make_generator(0)).requires_grad_()
        pipe.model.net.zero_grad()
        pipe.sample(x0=x0, steps=5, grad=True, compile=compile).x.square().sum().backward()
        found.append([x0.grad, *(parameter.grad.clone() for parameter in pipe.model.net.parameters())])
        assert not pipe.sample(x0=x0, steps=5, compile=compile).x.requires_grad
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-12)


def test_what_is_differentiated_is_not_taken_from_the_cache_on_disk(monkeypatch):
    """There torch 2.13 finds backward passes that overwrite what they read: MMPS's second one was wrong by 0.2."""
    asked, compile = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **how: asked.append(how["options"]) or compile(f, backend="eager"))
    guidance = fm.build("guidance", "mmps", y=torch.ones(1), operator=lambda x: x[:, :1], noise=0.5)
    _pipe("euler", predicts="data", guidance=guidance).sample((3, 2), steps=2, seed=0, compile=True)
    _pipe("euler").sample((3, 2), steps=2, seed=0, compile=True, grad=True)
    assert asked == [{"fx_graph_cache": False}] * 2
    asked.clear()
    _pipe("euler").sample((3, 2), steps=2, seed=0, compile=True)
    assert asked == [None]


def test_transitions_of_a_compiled_run_are_recorded(graphs):
    pipe = _pipe("ddpm", predicts="data", dtype=torch.float64)
    eager, compiled = (pipe.sample((3, 2), steps=7, seed=0, log_prob=True, compile=c) for c in (False, True))
    torch.testing.assert_close(compiled.log_prob, eager.log_prob)
    torch.testing.assert_close(compiled.transitions.states, eager.transitions.states)
    torch.testing.assert_close(fm.transition_log_prob(pipe, compiled.transitions), compiled.log_prob)


def test_chunks_of_a_compiled_run_draw_what_the_whole_draws(graphs):
    pipe = _pipe("sa_solver", predicts="data", dtype=torch.float64)
    _same(*(pipe.sample((150, 2), steps=9, seed=3, chunk=c, compile=bool(c)) for c in (70, None)))


def test_weights_and_modes_of_the_network_may_change_between_runs(graphs):
    pipe = _pipe("euler", dtype=torch.float64)
    net = pipe.model.net.train()
    for _ in range(2):
        _same(pipe.sample((3, 2), steps=8, seed=0, compile=True), pipe.sample((3, 2), steps=8, seed=0))
        assert net.training
        with torch.no_grad():
            net.weight.mul_(-1.5)
    assert len(graphs) == 1


def test_kinds_of_runs_do_not_use_up_the_compiler(graphs):
    """Each has graphs of its own; torch gives a function up after eight recompilations."""
    pipe = _pipe("euler")
    for batch in range(1, 10):
        _same(pipe.sample((batch, 2), steps=1, seed=0, compile=True), pipe.sample((batch, 2), steps=1, seed=0))
    assert len(graphs) == 9
    with torch.inference_mode():
        _same(pipe.sample((1, 2), steps=2, seed=0, compile=True), pipe.sample((1, 2), steps=2, seed=0))


def test_threads_share_compiled_blocks(graphs):
    pipe = _pipe("sa_solver", predicts="data")
    alone = [pipe.sample((5, 2), steps=8, seed=seed).x for seed in range(3)]
    together: dict[int, list[torch.Tensor]] = {seed: [] for seed in range(3)}

    def work(seed):
        for _ in range(4):
            together[seed].append(pipe.sample((5, 2), steps=8, seed=seed, compile=True).x)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, found in together.items():
        assert len(found) == 4
        for x in found:
            torch.testing.assert_close(x, alone[seed], rtol=1e-5, atol=1e-5)
    assert len(graphs) <= 4


def test_what_looks_at_values_is_refused_and_the_way_out_works(graphs):
    """Never a silent fall back: a network, or a guidance, that decides by the value of a tensor."""
    looks = fm.Model(lambda x, t: x * (2 if x.sum() > 0 else 3), "velocity")
    pipe = fm.compose(path="linear", model=looks, solver="euler")
    for compile in (True, "network"):
        with pytest.raises(fm.CompatError, match=r"compile with function(.|\n)*one graph(.|\n)*compile=False") as error:
            pipe.sample((2, 2), steps=3, seed=0, compile=compile)
        assert isinstance(error.value.__cause__, torch._dynamo.exc.TorchDynamoException)
    interval = {"name": "interval", "guidance": GUIDANCES["cfg"], "low": 0.0}
    pipe = _pipe("euler", guidance=interval)
    asked = {"cond": torch.tensor([0, 2]), "steps": 5, "seed": 0}
    with pytest.raises(fm.CompatError, match="compile='network'"):
        pipe.sample((2, 2), compile=True, **asked)
    _same(pipe.sample((2, 2), compile="network", **asked), pipe.sample((2, 2), **asked))


def test_blocks_need_a_table(graphs):
    pipe = _pipe("dopri5", dtype=torch.float64)
    with pytest.raises(fm.CompatError, match=r"'dopri5'(.|\n)*no table(.|\n)*compile='network'"):
        pipe.sample((2, 2), seed=0, compile=True)
    _same(pipe.sample((2, 2), seed=0, compile="network"), pipe.sample((2, 2), seed=0))
    assert graphs
    with pytest.raises(fm.ArgumentError, match=r"'compile' is 'max'.* expected bool or 'network'"):
        pipe.sample((2, 2), seed=0, compile="max")


def test_errors_of_the_user_keep_their_names(graphs):
    pipe = _pipe("euler", guidance=GUIDANCES["cfg"])
    with pytest.raises(fm.ConditionError, match="needs a condition"):
        pipe.sample((2, 2), steps=3, compile=True)
    wrong = fm.compose(path="linear", model=fm.Model(lambda x, t: x[:, :1], "velocity"), solver="euler")
    with pytest.raises(fm.ShapeError, match=r"got \(5, 1\)"):
        wrong.sample((5, 2), steps=2, compile=True)


def test_divergence_in_a_block_is_located(graphs):
    model = fm.Model(lambda x, t: torch.where((t > 0.45)[:, None], x / 0, x), "velocity")
    pipe = fm.compose(path="linear", model=model, solver="euler")
    with pytest.raises(fm.DivergenceError, match=r"step 6: the network's output \(call 6\) at t = 0\.5 .* 7 of 7"):
        pipe.sample((7, 2), steps=10, seed=0, compile=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_inductor_compiles_a_block_and_a_second_run_compiles_nothing(monkeypatch):
    """The compiler that users get, on the smallest table with a start-up and equal blocks."""
    monkeypatch.setattr(compiling, "MOST_STEPS", 2)
    counters.clear()
    pipe = _pipe("euler")
    eager = pipe.sample((2, 2), steps=6, seed=0)
    _same(pipe.sample((2, 2), steps=6, seed=0, compile=True), eager)
    assert counters["stats"]["unique_graphs"] == 1
    _same(pipe.sample((2, 2), steps=6, seed=0, compile=True), eager)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
