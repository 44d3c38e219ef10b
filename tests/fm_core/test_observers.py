"""Observers hear what happens where they are switched on, and can harm nothing."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fm_core as fm
from fm_core import hookimpl
from fm_core.discovery import Source
from fm_core.errors import PluginError, UnknownNameError
from fm_core.hookspecs import Component
from fm_core.registry import Registry, observers, observing

HOOKS = ("fm_fit_start", "fm_fit_step", "fm_fit_end", "fm_sample_step", "fm_bench_record")


class Hears:
    """Remembers every event by name."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.closed = 0

    @hookimpl
    def fm_fit_start(self, steps: int) -> None:
        self.heard.append(f"start {steps}")

    @hookimpl
    def fm_fit_step(self, step: int) -> None:
        self.heard.append(f"step {step}")

    @hookimpl
    def fm_fit_end(self) -> None:
        self.heard.append("end")

    @hookimpl
    def fm_sample_step(self, t: float) -> None:
        self.heard.append(f"t {t:g}")

    def close(self) -> None:
        self.closed += 1


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.weight * x_t


@pytest.fixture
def pipe() -> fm.Pipeline:
    return fm.recipe("cfm", model=Line())


def fit(pipe: fm.Pipeline) -> Any:
    return pipe.fit(torch.ones(8, 2), steps=3, batch_size=4, seed=0)


def sample(pipe: fm.Pipeline) -> Tensor:
    return pipe.sample((4, 2), steps=2, seed=0).x


FIT = ["start 3", "step 0", "step 1", "step 2", "end"]


def test_a_block_hears_training_and_sampling_and_ends_with_its_block(pipe: fm.Pipeline) -> None:
    hears = Hears()
    with observing(hears):
        fit(pipe)
        sample(pipe)
    assert hears.heard == [*FIT, "t 0", "t 0.5", "t 1"]
    assert hears.closed == 1
    fit(pipe)
    assert len(hears.heard) == len(FIT) + 3
    assert all(observers(hook) is None for hook in HOOKS)  # and costs nothing any more


def test_blocks_nest_and_end_with_an_error(pipe: fm.Pipeline) -> None:
    outer, inner = Hears(), Hears()
    with observing(outer):
        with pytest.raises(fm.BudgetError), observing(inner):
            pipe.sample(sample(pipe).shape, steps=0)
        sample(pipe)
    assert (len(inner.heard), inner.closed) == (3, 1)
    assert (len(outer.heard), outer.closed) == (6, 1)


def test_another_thread_is_another_block(pipe: fm.Pipeline) -> None:
    hears = Hears()
    with observing(hears):
        thread = threading.Thread(target=sample, args=(pipe,))
        thread.start()
        thread.join()
    assert hears.heard == []


def test_observers_are_components_named_as_any_other() -> None:
    class Plugin:
        @hookimpl
        def fm_components(self) -> list[Component]:
            return [Component("observer", "hears", Hears)]

    registry = Registry([Source("mine", Plugin)])
    with registry.observing("hears", {"name": "hears"}, Hears()):
        hearing = registry.observers("fm_fit_end")
        assert hearing is not None
        assert len(hearing.members) == 3
    with pytest.raises(UnknownNameError, match="did you mean 'hears'"):
        registry.observing("heers")


def test_what_observes_nothing_is_refused_before_the_block() -> None:
    class Misspelt:
        @hookimpl
        def fm_fit_stop(self) -> None: ...

    class Unmarked:
        def fm_fit_end(self) -> None: ...

    misspelt = r"the observer Misspelt cannot observe: .*did you mean 'fm_fit_st"
    with pytest.raises(PluginError, match=misspelt), observing(Misspelt()):
        raise AssertionError("entered")
    with pytest.raises(PluginError, match=r"@fm_core\.hookimpl"), observing(Unmarked()):
        raise AssertionError("entered")


class Fails:
    """Fails in every hook."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    @hookimpl
    def fm_fit_start(self) -> None:
        raise self.error

    @hookimpl
    def fm_fit_step(self) -> None:
        raise self.error

    @hookimpl
    def fm_fit_end(self) -> None:
        raise self.error

    @hookimpl
    def fm_sample_step(self) -> None:
        raise self.error

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [OSError("disk full"), SystemExit(2), BaseException("panic")], ids=repr)
def test_an_observer_that_fails_everywhere_is_reported_once_and_changes_nothing(
    pipe: fm.Pipeline, error: BaseException
) -> None:
    alone, x = fit(pipe), sample(pipe)
    before, after = Hears(), Hears()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with observing(before, Fails(error), after):
            watched, y = fit(pipe), sample(pipe)
    assert [str(warning.message).split(":")[0] for warning in caught] == ["the observer Fails failed in fm_fit_start"]
    assert "The run goes on" in str(caught[0].message)
    assert before.heard == after.heard == [*FIT, "t 0", "t 0.5", "t 1"]
    assert watched.steps == 3
    assert torch.equal(watched.losses, alone.losses)
    assert torch.equal(watched.pipeline.model.net.weight, alone.pipeline.model.net.weight)
    assert torch.equal(x, y)


def test_an_observer_that_fails_at_the_end_alone_leaves_the_result(pipe: fm.Pipeline) -> None:
    class FailsAtTheEnd:
        @hookimpl
        def fm_fit_end(self, result: fm.FitResult) -> None:
            raise RuntimeError(f"after {result.steps}")

    reported = "FailsAtTheEnd failed in fm_fit_end: RuntimeError: after 3"
    with pytest.warns(RuntimeWarning, match=reported), observing(FailsAtTheEnd()):
        assert fit(pipe).steps == 3


def test_ctrl_c_in_an_observer_ends_the_training_as_anywhere_else(pipe: fm.Pipeline) -> None:
    class Interrupts:
        @hookimpl
        def fm_fit_step(self, step: int) -> None:
            if step == 1:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted at step 2 of 3"), observing(Interrupts()):
        assert fit(pipe).steps == 2


def test_an_observer_that_changes_the_state_it_is_shown_changes_nothing(pipe: fm.Pipeline) -> None:
    seen: list[Tensor] = []

    class Changes:
        @hookimpl
        def fm_sample_step(self, x: Tensor) -> None:
            x.mul_(0)

    class Keeps:
        @hookimpl
        def fm_sample_step(self, x: Tensor) -> None:
            seen.append(x)

    run = pipe.sample((4, 2), steps=3, seed=0, trajectory=True)
    with observing(Changes(), Keeps(), Changes()):
        watched = pipe.sample((4, 2), steps=3, seed=0, trajectory=True)
    assert torch.equal(run.x, watched.x)
    assert run.trajectory is not None
    assert torch.equal(torch.stack(seen), run.trajectory)  # and what one changes no other sees changed


def test_states_are_shown_without_their_gradients(pipe: fm.Pipeline) -> None:
    seen: list[bool] = []

    class Looks:
        @hookimpl
        def fm_sample_step(self, x: Tensor) -> None:
            seen.append(x.requires_grad)

    with observing(Looks()):
        out = pipe.sample((4, 2), steps=2, seed=0, grad=True)
    assert out.x.requires_grad
    assert seen == [False] * 3


def test_a_new_observer_of_the_same_name_is_reported_again(pipe: fm.Pipeline) -> None:
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="OSError"), observing(Fails(OSError())):
            sample(pipe)
