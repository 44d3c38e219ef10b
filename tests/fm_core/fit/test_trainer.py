"""Training: equal seeds give equal weights, nothing that is not finite gets through, and nothing reached is lost."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import fm_core as fm

STEPS = 40


def test_training_lowers_the_loss_and_leaves_its_arguments_alone(compose: Any, x1: Tensor, weights: Any) -> None:
    pipeline = compose()
    pipeline.model.net.train()
    before = weights(pipeline).clone()
    result = pipeline.fit(x1, steps=300, batch_size=64, seed=0, lr=1e-2)
    assert torch.equal(weights(pipeline), before)
    assert pipeline.model.net.training
    assert pipeline.model.trained is None
    assert all(p.grad is None for p in pipeline.model.net.parameters())
    assert result.losses.shape == (300,)
    assert result.losses.dtype == torch.float32
    assert result.losses[-50:].mean() < 0.8 * result.losses[:50].mean()
    assert not result.pipeline.model.net.training
    assert not result.raw.model.net.training
    assert (result.steps, result.skipped, result.stopped, result.seed) == (300, 0, None, 0)


def test_equal_seeds_give_equal_weights_whatever_the_global_seed_is(
    compose: Any, x1: Tensor, make_net: Any, weights: Any
) -> None:
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        pipeline = compose(make_net(dropout=0.3))
        state = torch.get_rng_state()
        results.append(pipeline.fit(x1, steps=STEPS, batch_size=32, seed=7))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(weights(results[0].pipeline), weights(results[1].pipeline))
    other = compose(make_net(dropout=0.3)).fit(x1, steps=STEPS, batch_size=32, seed=8)
    assert not torch.equal(weights(other.pipeline), weights(results[0].pipeline))


def test_a_fresh_seed_is_reported_and_repeats_the_training(compose: Any, x1: Tensor, weights: Any) -> None:
    one = compose().fit(x1, steps=5, batch_size=32)
    two = compose().fit(x1, steps=5, batch_size=32, seed=one.seed)
    assert torch.equal(weights(one.raw), weights(two.raw))


def test_a_shuffling_loader_is_seeded_too(compose: Any, x1: Tensor, weights: Any) -> None:
    one, two = (
        compose().fit(DataLoader(TensorDataset(x1), batch_size=32, shuffle=True), steps=10, seed=0) for _ in range(2)
    )
    assert torch.equal(weights(one.raw), weights(two.raw))


@pytest.mark.parametrize("pool", [None, 100])
def test_preparing_ahead_changes_nothing(
    compose: Any, x1: Tensor, reverse: Any, weights: Any, pool: int | None
) -> None:
    one, two = (
        compose(coupling=reverse(pool=pool)).fit(x1, steps=STEPS, batch_size=50, seed=0, prefetch=ahead)
        for ahead in (0, 3)
    )
    assert torch.equal(weights(one.pipeline), weights(two.pipeline))
    assert torch.equal(one.losses, two.losses)


def test_a_coupling_that_fails_ahead_ends_its_thread_and_keeps_the_weights(
    compose: Any, x1: Tensor, reverse: Any
) -> None:
    coupling = reverse()
    calls = iter(range(100))

    def pair(x0: Tensor, x1: Tensor, cond: Any = None, *, generator: Any = None) -> Any:
        if next(calls) == 5:
            raise ZeroDivisionError("no plan")
        return torch.arange(len(x0)), torch.arange(len(x0))

    class Fails:
        independent = False

        def pair(self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: Any = None) -> Any:
            return pair(x0, x1)

    assert coupling.pool is None
    with pytest.raises(fm.FitError, match="no plan") as caught:
        compose(coupling=Fails()).fit(x1, steps=STEPS, batch_size=50, seed=0, prefetch=2)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.result.steps == 5
    assert not any(thread.name == "fm-fit-prefetch" for thread in threading.enumerate())


def test_average_is_the_closed_form_of_the_weights(compose: Any, x1: Tensor, weights: Any) -> None:
    steps, decay = 25, 0.6  # the warm-up ends at n = 13
    options: dict[str, Any] = {"batch_size": 32, "seed": 0, "lr": 0.1}
    after = [weights(compose().fit(x1, steps=n, ema=None, **options).raw) for n in range(1, steps + 1)]
    for total in (5, steps):
        average = after[0]
        for n in range(1, total):
            d = min(decay, (1 + n) / (10 + n))
            average = d * average + (1 - d) * after[n]
        result = compose().fit(x1, steps=total, ema=decay, **options)
        torch.testing.assert_close(weights(result.pipeline), average, rtol=1e-5, atol=1e-6)
        assert torch.equal(weights(result.raw), after[total - 1])


def test_without_average_both_pipelines_are_the_raw_one(compose: Any, x1: Tensor) -> None:
    result = compose().fit(x1, steps=2, batch_size=8, seed=0, ema=None)
    assert result.pipeline is result.raw


def test_buffers_of_the_average_are_those_of_the_network(compose: Any, x1: Tensor) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.BatchNorm1d(2), nn.Linear(2, 2)

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.out(self.norm(x_t))

    result = compose(Normed()).fit(x1, steps=10, batch_size=32, seed=0)
    raw, average = result.raw.model.net, result.pipeline.model.net
    assert raw.norm.num_batches_tracked == average.norm.num_batches_tracked == 10
    assert torch.equal(raw.norm.running_mean, average.norm.running_mean)


class Poisoned(nn.Module):
    """Returns NaN, or a value whose gradient is NaN, in chosen calls of the training mode."""

    def __init__(self, net: nn.Module, calls: set[int], *, gradient_only: bool = False) -> None:
        super().__init__()
        self.net, self.calls, self.gradient_only, self.count = net, calls, gradient_only, 0

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        out = self.net(x_t, t)
        if self.training:
            self.count += 1
        if not self.training or self.count - 1 not in self.calls:
            return out
        if self.gradient_only:
            out.register_hook(lambda gradient: gradient * float("nan"))
            return out
        return out * float("nan")


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_steps_that_are_not_finite_are_skipped_and_counted(
    compose: Any, x1: Tensor, make_net: Any, weights: Any, gradient_only: bool, prefetch: int
) -> None:
    bad = {0, 3, 4, 19}
    net = Poisoned(make_net(), bad, gradient_only=gradient_only)
    result = compose(net).fit(x1, steps=20, batch_size=32, seed=0, prefetch=prefetch, warmup=2)
    assert result.skipped == len(bad)
    assert bool(weights(result.raw).isfinite().all())
    assert bool(weights(result.pipeline).isfinite().all())
    if not gradient_only:
        assert set((~result.losses.isfinite()).nonzero().flatten().tolist()) == bad


@pytest.mark.parametrize("pool", [None, 100])
def test_streamed_samples_that_cannot_be_paired_cost_their_batches_only(
    compose: Any, reverse: Any, pool: int | None
) -> None:
    calls = iter(range(1000))

    def sampler(n: int, generator: torch.Generator) -> Tensor:
        x1 = torch.randn(n, 2, generator=generator)
        if next(calls) == 2:
            x1[3] = float("nan")
        return x1

    class Careful:
        independent = False

        def __init__(self) -> None:
            self.pool = pool

        def pair(self, x0: Tensor, x1: Tensor, cond: Any = None, *, generator: Any = None) -> Any:
            if not x1.isfinite().all():
                raise fm.DivergenceError("cannot be paired")
            return reverse().pair(x0, x1)

    result = compose(coupling=Careful()).fit(sampler, steps=8, batch_size=50, seed=0)
    assert result.skipped == (1 if pool is None else 2)


def test_a_skipped_step_leaves_weights_optimizer_and_average_as_they_were(
    compose: Any, x1: Tensor, make_net: Any, weights: Any
) -> None:
    short = compose(Poisoned(make_net(), set())).fit(x1, steps=6, batch_size=32, seed=0)
    longer = compose(Poisoned(make_net(), {6, 7})).fit(x1, steps=8, batch_size=32, seed=0)
    assert torch.equal(weights(short.raw), weights(longer.raw))
    assert torch.equal(weights(short.pipeline), weights(longer.pipeline))


def test_weights_that_the_optimizer_spoils_never_reach_the_average(compose: Any, x1: Tensor, weights: Any) -> None:
    class Spoils(torch.optim.SGD):
        count = 0

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            self.count += 1
            if self.count == 5:
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(float("nan"))

    with pytest.raises(fm.FitError, match="3 steps in a row") as caught:
        compose().fit(x1, steps=20, batch_size=32, seed=0, max_bad=3, optimizer=lambda p: Spoils(p, lr=1e-2))
    assert bool(weights(caught.value.result.pipeline).isfinite().all())
    with pytest.raises(fm.FitError, match="last optimizer step") as caught:
        compose().fit(x1, steps=5, batch_size=32, seed=0, optimizer=lambda p: Spoils(p, lr=1e-2))
    assert bool(weights(caught.value.result.pipeline).isfinite().all())


def test_too_many_bad_steps_stop_with_step_times_causes_and_result(
    compose: Any, x1: Tensor, make_net: Any, weights: Any
) -> None:
    net = Poisoned(make_net(), set(range(5, 100)))
    with pytest.raises(
        fm.FitError, match=r"4 steps in a row.*step 9 of 50.*nan.*t from 0\.\d+ to 0\.\d+.*clip"
    ) as caught:
        compose(net).fit(x1, steps=50, batch_size=32, seed=0, max_bad=4)
    result = caught.value.result
    assert (result.steps, result.skipped) == (9, 4)
    assert bool(weights(result.pipeline).isfinite().all())


class Stops(nn.Module):
    def __init__(self, net: nn.Module, call: int, error: BaseException) -> None:
        super().__init__()
        self.net, self.call, self.error, self.count = net, call, [error], 0

    def __deepcopy__(self, memo: Any) -> Stops:
        from copy import deepcopy

        return Stops(deepcopy(self.net, memo), self.call, self.error[0])

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.count += 1
        if self.count == self.call:
            raise self.error[0]
        return self.net(x_t, t)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_interrupt_keeps_what_it_had(compose: Any, x1: Tensor, make_net: Any, weights: Any, prefetch: int) -> None:
    pipeline = compose(Stops(make_net(), 8, KeyboardInterrupt()))
    with pytest.warns(UserWarning, match="interrupted at step 7 of 50"):
        result = pipeline.fit(x1, steps=50, batch_size=32, seed=0, prefetch=prefetch)
    assert result.stopped == "interrupted"
    assert result.steps == 7
    whole = compose(Stops(make_net(), 100, KeyboardInterrupt())).fit(x1, steps=7, batch_size=32, seed=0)
    assert torch.equal(weights(result.pipeline), weights(whole.pipeline))
    assert not any(thread.name == "fm-fit-prefetch" for thread in threading.enumerate())


def test_an_error_half_way_keeps_what_it_had(compose: Any, x1: Tensor, make_net: Any) -> None:
    pipeline = compose(Stops(make_net(), 8, ZeroDivisionError("boom")))
    with pytest.raises(fm.FitError, match="step 7 of 50: ZeroDivisionError: boom") as caught:
        pipeline.fit(x1, steps=50, batch_size=32, seed=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert caught.value.result.steps == 7


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), KeyboardInterrupt()])
def test_where_nothing_was_reached_an_error_is_itself(
    compose: Any, x1: Tensor, make_net: Any, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        compose(Stops(make_net(), 1, error)).fit(x1, steps=50, batch_size=32, seed=0)


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_any_shape_dtype_and_batch_trains_with_conditions(
    compose: Any, make_net: Any, shape: tuple[int, ...], dtype: torch.dtype, batch_size: int
) -> None:
    x1 = torch.randn(20, *shape)
    net = make_net(x1[0].numel()).to(dtype)
    cond = {"label": torch.arange(20) % 10, "shift": torch.randn(20, *shape, dtype=torch.float64)}
    result = compose(net).fit((x1, cond), steps=3, batch_size=batch_size, seed=0)
    assert bool(result.losses.isfinite().all())
    assert result.pipeline.model.net.layers[0].weight.dtype == dtype
    assert result.pipeline.model.trained.event_shape == shape


@pytest.mark.parametrize("streamed", [False, True])
def test_validation_is_measured_on_the_same_draws_whatever_the_seed(compose: Any, x1: Tensor, streamed: bool) -> None:
    def sampler(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    data = sampler if streamed else x1[:50]

    def curve(seed: int, **options: Any) -> Any:
        return compose().fit(x1, steps=20, batch_size=32, seed=seed, validation=data, lr=1e-30, **options).validation

    one, two = curve(0), curve(1)
    assert [step for step, _ in one] == list(range(2, 21, 2))
    assert one == two  # nothing is learnt at this rate, so only the draws could differ
    assert len({loss for _, loss in one}) == 1
    assert [step for step, _ in curve(0, validate_every=8)] == [8, 16, 20]


def test_validation_uses_the_averaged_weights(compose: Any, x1: Tensor) -> None:
    options: dict[str, Any] = {"steps": 30, "batch_size": 32, "seed": 0, "lr": 0.05, "validation": x1[:50]}
    slow, raw = compose().fit(x1, ema=0.999, **options), compose().fit(x1, ema=None, **options)
    assert torch.equal(slow.losses, raw.losses)
    assert slow.validation != raw.validation


@pytest.mark.parametrize("ema", [None, 0.9])
def test_validation_does_not_change_the_training(
    compose: Any, x1: Tensor, make_net: Any, weights: Any, ema: float | None
) -> None:
    options: dict[str, Any] = {"steps": 20, "batch_size": 32, "seed": 0, "ema": ema}
    one = compose(make_net(dropout=0.2)).fit(x1, **options)
    two = compose(make_net(dropout=0.2)).fit(x1, validation=x1[:50], validate_every=3, **options)
    assert torch.equal(weights(one.pipeline), weights(two.pipeline))


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [1, 2, 3, 3, 3, 3]), ("cosine", [1, 2, 3, 2.56066, 1.5, 0.43934])]
)
def test_learning_rate_follows_the_schedule(compose: Any, x1: Tensor, schedule: str, expected: list[float]) -> None:
    rates: list[float] = []

    class Records(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    compose().fit(
        x1,
        steps=6,
        batch_size=8,
        seed=0,
        optimizer=lambda p: Records(p, lr=3e-3),
        lr_schedule=schedule,
        warmup=2,
    )
    torch.testing.assert_close(
        torch.tensor(rates) * 1e3, torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5
    )


def test_a_schedule_of_ones_own_is_used(compose: Any, x1: Tensor) -> None:
    seen: list[int] = []

    def halves(optimizer: torch.optim.Optimizer, steps: int) -> Any:
        seen.append(steps)
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    compose().fit(x1, steps=4, batch_size=8, seed=0, lr_schedule=halves)
    assert seen == [4]


def test_clipping_bounds_the_step(compose: Any, x1: Tensor, weights: Any) -> None:
    pipeline = compose()
    result = pipeline.fit(x1, steps=1, batch_size=32, seed=0, clip=1e-3, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    moved = (weights(result.raw) - weights(pipeline)).norm()
    assert 0.9e-3 < moved <= 1.001e-3


def test_autocast_runs_the_network_in_lower_precision(compose: Any, x1: Tensor, make_net: Any) -> None:
    seen = set()

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            out = self.net(x_t, t)
            seen.add(out.dtype)
            return out

    for dtype in (torch.bfloat16, torch.float16):
        result = compose(Looks()).fit(x1, steps=20, batch_size=32, seed=0, autocast=dtype)
        assert bool(result.losses[-1].isfinite())
        assert result.pipeline.model.net.net.layers[0].weight.dtype == torch.float32
    assert seen == {torch.bfloat16, torch.float16}


def test_codec_is_trained_in_its_own_space(compose: Any, x1: Tensor) -> None:
    class Flat:
        def encode(self, x: Tensor) -> Tensor:
            assert not torch.is_grad_enabled()
            return x.flatten(1)

        def decode(self, z: Tensor) -> Tensor:
            return z.reshape(-1, 1, 2)

    result = compose(codec=Flat()).fit(x1[:, None], steps=2, batch_size=8, seed=0, validation=x1[:9, None])
    assert result.pipeline.model.trained.event_shape == (2,)


def test_record_of_the_training_stays_with_the_model(compose: Any, x1: Tensor, reverse: Any) -> None:
    alone = compose().fit(x1, steps=1, batch_size=8, seed=0).pipeline
    assert alone.model.trained.independent
    coupled = compose(coupling=reverse()).fit(x1, steps=1, batch_size=8, seed=0).pipeline
    assert not coupled.model.trained.independent
    reflowed = alone.fit(fm.Pairs(x1, x1, provenance="first teacher"), steps=1, batch_size=8, seed=0).pipeline
    again = reflowed.fit(fm.Pairs(x1, x1, provenance="second teacher"), steps=1, batch_size=8, seed=0).pipeline
    assert not again.model.trained.independent
    assert again.model.trained.provenance == ("first teacher", "second teacher")


def test_pairs_are_trained_on_as_they_are(compose: Any) -> None:
    """With x0 = x1 the velocity is zero everywhere: only true pairs let the loss reach it."""
    x = torch.randn(64, 2)
    pairs = fm.Pairs(x, x)
    result = compose().fit(pairs, steps=400, batch_size=64, seed=0, lr=1e-2, ema=None, validation=pairs)
    assert result.validation[-1][1] < 1e-3


def test_pairs_and_another_coupling_exclude_each_other(compose: Any, x1: Tensor, reverse: Any) -> None:
    with pytest.raises(fm.CompatError, match="paired already"):
        compose(coupling=reverse()).fit(fm.Pairs(x1, x1), steps=1)
    compose(coupling=reverse(independent=True)).fit(fm.Pairs(x1, x1), steps=1, batch_size=8)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, fm.BudgetError, "steps is a whole number of at least 1"),
        ({"steps": 2.5}, fm.BudgetError, "steps"),
        ({"batch_size": 0}, fm.BudgetError, "batch_size"),
        ({"batch_size": 201}, fm.DataError, "larger than the data set of 200 samples; give batch_size=200"),
        ({"seed": -1}, fm.BudgetError, "seed"),
        ({"lr": 0.0}, fm.BudgetError, "lr"),
        ({"clip": -1.0}, fm.BudgetError, "clip"),
        ({"ema": 1.0}, ValueError, "decay"),
        ({"max_bad": 0}, fm.BudgetError, "max_bad"),
        ({"lr_schedule": "cosin"}, ValueError, "'constant', 'cosine'"),
        ({"warmup": 5}, ValueError, "warm-up"),
        ({"validation": torch.zeros(0, 2)}, fm.DataError, "empty"),
        ({"validation": torch.zeros(4, 3)}, fm.ShapeError, "validation data have the event shape"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_step(
    compose: Any, x1: Tensor, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compose().fit(x1, **{"steps": 5, "batch_size": 8} | options)


def test_the_batch_size_of_a_loader_is_its_own(compose: Any, x1: Tensor) -> None:
    loader = DataLoader(TensorDataset(x1), batch_size=30)
    with pytest.raises(fm.DataError, match="batches of 30"):
        compose().fit(loader, steps=2, batch_size=31)
    assert compose().fit(loader, steps=9, seed=0).steps == 9  # 200 = 6·30 + 20: the seventh is completed


def test_what_cannot_be_trained_is_refused(compose: Any, x1: Tensor, make_net: Any) -> None:
    untrained = compose().replace(model=fm.Model(lambda x, t: x, predicts="velocity"))
    with pytest.raises(fm.CompatError, match="no torch module"):
        untrained.fit(x1, steps=1)
    with pytest.raises(fm.CompatError, match="nothing to train"):
        compose(make_net().requires_grad_(False)).fit(x1, steps=1)
    with pytest.raises(fm.CompatError, match="no objective"):
        compose(objective=None).fit(x1, steps=1)


def test_a_network_that_cuts_the_gradient_is_refused(compose: Any, x1: Tensor, make_net: Any) -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.net(x_t, t).detach()

    with pytest.raises(fm.FitError, match="does not depend on the network"):
        compose(Detached()).fit(x1, steps=5, batch_size=8)


def test_an_objective_that_averages_is_refused(compose: Any, x1: Tensor) -> None:
    class Averages(fm.Matching):
        def loss(self, *args: Any) -> Tensor:
            return super().loss(*args).mean()

    with pytest.raises(fm.ShapeError, match=r"\(8,\).*unreduced"):
        compose(objective=Averages("velocity")).fit(x1, steps=5, batch_size=8)


def test_observers_hear_of_start_steps_and_end(compose: Any, x1: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    from fm_core import registry

    heard: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(registry, "observers", lambda name: name)
    monkeypatch.setattr(registry, "notify", lambda hook, **event: heard.append((hook, event)))
    result = compose().fit(x1, steps=3, batch_size=8, seed=0, lr=0.5e-3)
    assert [hook for hook, _ in heard] == ["fm_fit_start", *["fm_fit_step"] * 3, "fm_fit_end"]
    assert heard[0][1]["steps"] == 3
    assert [event["step"] for _, event in heard[1:-1]] == [0, 1, 2]
    assert heard[1][1]["lr"] == 0.5e-3
    assert heard[1][1]["loss"] == pytest.approx(float(result.losses[0]))
    assert heard[-1][1]["result"] is result


def test_the_bar_is_silent_in_tests_and_shown_on_request(
    compose: Any, x1: Tensor, capsys: pytest.CaptureFixture[str]
) -> None:
    compose().fit(x1, steps=3, batch_size=8, seed=0)
    assert capsys.readouterr() == ("", "")
    compose().fit(x1, steps=3, batch_size=8, seed=0, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "loss" in err


def _conditional(null=-1.0):
    class Net(nn.Module):
        """Remembers the conditions that it was trained under."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))
            self.seen = []

        def forward(self, x_t, t, cond=None):
            self.seen.append(cond)
            return self.weight * x_t

    return fm.compose(path="linear", objective="cfm", model=fm.Model(Net(), predicts="velocity", null=null))


def _conditions(pipe, rate, **options):
    data = (torch.randn(512, 2), torch.arange(512.0)[:, None].expand(512, 3).contiguous())
    result = pipe.fit(data, steps=4, batch_size=512, seed=0, ema=None, cond_dropout=rate, **options)
    return result.raw.model.net.seen[:4]


def test_conditions_are_dropped_whole_and_at_the_rate():
    seen = _conditions(_conditional(), 0.25)
    dropped = torch.stack(seen) == -1
    assert torch.equal(dropped.any(2), dropped.all(2))  # a sample's condition whole, or not at all
    assert abs(dropped[..., 0].float().mean() - 0.25) < 0.04
    assert not torch.equal(dropped[0], dropped[1])
    for again, first in zip(_conditions(_conditional(), 0.25, prefetch=2), seen, strict=True):
        assert torch.equal(again, first)
    assert not any((cond == -1).any() for cond in _conditions(_conditional(), 0.0))
    assert all((cond == -1).all() for cond in _conditions(_conditional(), 1.0))


def test_what_cannot_be_dropped_is_refused_before_the_first_step():
    with pytest.raises(fm.CompatError, match="name it"):
        _conditions(_conditional(null=None), 0.1)
    with pytest.raises(fm.ConditionError, match="train on"):
        _conditional().fit(torch.randn(8, 2), steps=1, batch_size=8, cond_dropout=0.1)
    with pytest.raises(fm.BudgetError, match="probability"):
        _conditional().fit(torch.randn(8, 2), steps=1, batch_size=8, cond_dropout=1.5)
