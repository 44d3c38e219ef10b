"""Saved files are whole or not at all and hold names only; nothing that does not fit is filled in; trainings go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from torch import Tensor, nn

import fm_core as fm
from fm_core.fit.resume import FILE
from fm_core.registry import register


@frozen(eq=False)
class Straight:
    slope: float = 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return t * self.slope

    def sigma(self, t: Tensor) -> Tensor:
        return 1 - t


class Tied(nn.Module):
    """Two layers that share their weight, and a buffer."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.inner, self.one, self.two = nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.out = nn.Linear(width, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        return self.scale * self.out(self.two(self.one(self.inner(x_t))))


@pytest.fixture(autouse=True)
def _registered() -> None:
    register(fm.Component("path", "fit_test_straight", lambda slope=1.0: fm.GaussianPath(Straight(slope))))
    register(fm.Component("objective", "fit_test_velocity", lambda: fm.Matching("velocity")))
    register(fm.Component("model", "fit_test_tied", Tied))
    register(fm.Component("dataset", "fit_test_ones", lambda: lambda n, generator: torch.ones(n, 2)))


def named(**parts: Any) -> fm.Pipeline:
    whole = {
        "path": {"name": "fit_test_straight", "slope": 0.99},
        "objective": "fit_test_velocity",
        "model": {"name": "fit_test_tied", "width": 8},
    }
    return fm.compose(**whole | parts)


def test_a_saved_pipeline_comes_back_with_parts_weights_and_record(tmp_path: Path, x1: Tensor, weights: Any) -> None:
    trained = named().fit(x1, steps=3, batch_size=8, seed=0).pipeline
    trained.model.net.scale.fill_(2.0)
    trained.save(tmp_path / "new" / "place")
    again = fm.load(tmp_path / "new" / "place")
    assert torch.equal(weights(again), weights(trained))
    assert torch.equal(again.model.net.scale, trained.model.net.scale)
    assert again.model.net.one.weight is again.model.net.two.weight
    assert again.model.trained == trained.model.trained
    assert again.model.predicts == trained.model.predicts
    assert again.path.schedule.slope == trained.path.schedule.slope
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice" / "pipeline.json").read_text() == (tmp_path / "new/place/pipeline.json").read_text()


def test_saved_files_hold_names_and_no_code(tmp_path: Path) -> None:
    named().save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "pipeline.json"]
    content = json.loads((tmp_path / "pipeline.json").read_text())
    assert content["path"] == {"name": "fit_test_straight", "slope": 0.99}
    assert content["network"] == {"name": "fit_test_tied", "width": 8}
    assert "fm_core.gaussian" not in json.dumps(content)


def test_a_module_made_by_hand_is_given_again(tmp_path: Path, weights: Any) -> None:
    pipeline = named(model=fm.Model(Tied(5), predicts="velocity", null={"label": torch.tensor(7), "mask": [1, None]}))
    pipeline.save(tmp_path)
    with pytest.raises(fm.SavedFileError, match=r"made by hand.*model="):
        fm.load(tmp_path)
    again = fm.load(tmp_path, model=Tied(5))
    assert torch.equal(weights(again), weights(pipeline))
    assert torch.equal(again.model.null["label"], torch.tensor(7))
    assert again.model.null["mask"] == [1, None]
    called = fm.Model(Tied(5), predicts="velocity", call=lambda net, x, t, cond: net(x, t))
    assert fm.load(tmp_path, model=called).model.call is called.call
    with pytest.raises(fm.SavedFileError, match=r"predicts \['velocity'\]"):
        fm.load(tmp_path, model=fm.Model(Tied(5), predicts="data"))


def test_a_source_is_saved_by_name_or_given_again(tmp_path: Path) -> None:
    named(source="fit_test_ones").save(tmp_path / "named")
    again = fm.load(tmp_path / "named")
    assert torch.equal(again.path.sample_source((3, 2)), torch.ones(3, 2))
    named(source=torch.zeros(5, 2)).save(tmp_path / "given")
    with pytest.raises(fm.SavedFileError, match=r"source=…"):
        fm.load(tmp_path / "given")
    assert torch.equal(
        fm.load(tmp_path / "given", source=torch.zeros(5, 2)).path.sample_source((3, 2)), torch.zeros(3, 2)
    )


def test_a_part_made_by_hand_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    pipeline = named(path=fm.GaussianPath(Straight()))
    with pytest.raises(fm.SavedFileError, match="the path cannot be saved"):
        pipeline.save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Tied(6), r"inner.weight \(5, 2\) in the file, \(6, 2\) in the network"),
        (nn.Linear(2, 2), "missing in the file: bias, weight.*not in the network: inner.bias"),
        (Tied(5).double(), r"torch\.float32, the network has torch\.float64"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_fill_nothing(tmp_path: Path, module: nn.Module, message: str) -> None:
    named(model=fm.Model(Tied(5), predicts="velocity")).save(tmp_path)
    before = [p.detach().clone() for p in module.parameters()]
    with pytest.raises(fm.SavedFileError, match=message):
        fm.load(tmp_path, model=module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


def test_a_network_built_by_name_takes_the_dtype_of_the_file(tmp_path: Path) -> None:
    pipeline = named()
    pipeline.model.net.double()
    pipeline.save(tmp_path)
    assert fm.load(tmp_path).model.net.out.weight.dtype == torch.float64


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99"),
        ({"surprise": 1}, "surprise"),
        ({"predicts": 3}, "predicts"),
        ({"path": {"name": "fit_test_straight", "slop": 1.0}}, "slop"),
        ({"path": {"name": "fit_test_straigt"}}, "did you mean"),
    ],
)
def test_descriptions_that_are_not_understood_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    named().save(tmp_path)
    _edit(tmp_path / "pipeline.json", **changes)
    with pytest.raises(fm.FMError, match=message):
        fm.load(tmp_path)


def test_files_that_are_missing_or_damaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(fm.SavedFileError, match="no saved pipeline"):
        fm.load(tmp_path)
    named().save(tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(fm.SavedFileError, match="damaged"):
        fm.load(tmp_path)
    (tmp_path / "pipeline.json").write_text("{")
    with pytest.raises(fm.SavedFileError, match="not JSON"):
        fm.load(tmp_path)


def test_a_crash_before_the_files_take_their_places_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Any
) -> None:
    old = named()
    old.save(tmp_path)

    def crash(*paths: Any) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="the power went"):
            named().save(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "pipeline.json"]
    assert torch.equal(weights(fm.load(tmp_path)), weights(old))


def test_a_crash_between_the_two_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named().save(tmp_path)
    replace, calls = os.replace, iter(range(2))

    def crash(*paths: Any) -> None:
        if next(calls) == 1:
            raise OSError("the power went")
        replace(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="the power went"):
            named().save(tmp_path)
    with pytest.raises(fm.SavedFileError, match="cut off between"):
        fm.load(tmp_path)


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("pool", [None, 100])
def test_a_training_goes_on_to_the_bit(
    tmp_path: Path, compose: Any, x1: Tensor, make_net: Any, reverse: Any, weights: Any, prefetch: int, pool: int | None
) -> None:
    def train(steps: int, **options: Any) -> Any:
        pipeline = compose(make_net(dropout=0.2), coupling=reverse(pool=pool))
        return pipeline.fit(
            x1, steps=steps, batch_size=50, seed=5, warmup=3, validation=x1[:9], validate_every=10, **options
        )

    straight = train(60)
    half = train(31, checkpoint=tmp_path, prefetch=prefetch)
    assert not torch.equal(weights(half.raw), weights(straight.raw))
    whole = train(60, checkpoint=tmp_path, prefetch=prefetch)
    assert torch.equal(weights(whole.raw), weights(straight.raw))
    assert torch.equal(weights(whole.pipeline), weights(straight.pipeline))
    assert torch.equal(whole.losses, straight.losses)
    assert train(60, checkpoint=tmp_path).steps == 60  # there is nothing left to do


def test_a_crashed_training_goes_on_from_the_last_state(tmp_path: Path, compose: Any, x1: Tensor, weights: Any) -> None:
    def train(data: Any, **options: Any) -> Any:
        return compose().fit(data, steps=40, batch_size=50, lr_schedule="cosine", **options)

    def sampler(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, 2, generator=generator)

    calls = iter(range(1000))

    def crashing(n: int, generator: torch.Generator) -> Tensor:
        if next(calls) == 25:
            raise OSError("the disk is gone")
        return sampler(n, generator)

    straight = train(sampler, seed=3)
    with pytest.raises(fm.FitError, match="the disk is gone"):
        train(crashing, seed=3, checkpoint=tmp_path, checkpoint_every=10)
    resumed = train(sampler, checkpoint=tmp_path)  # the seed is the checkpoint's
    assert resumed.seed == 3
    assert torch.equal(weights(resumed.pipeline), weights(straight.pipeline))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 40}, "batch_size: 50 then, 40 now"),
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"ema": None}, r"ema: 0\.999 then, None now"),
        ({"lr_schedule": "cosine"}, "lr_schedule"),
        ({"steps": 4}, "more than the 4 asked for"),
    ],
)
def test_a_training_with_other_settings_does_not_go_on(
    tmp_path: Path, compose: Any, x1: Tensor, changes: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"steps": 6, "batch_size": 50, "seed": 0, "checkpoint": tmp_path}
    compose().fit(x1, **settings)
    with pytest.raises(fm.SavedFileError, match=message):
        compose().fit(x1, **settings | changes)


def test_a_training_of_another_network_does_not_go_on(tmp_path: Path, compose: Any, x1: Tensor) -> None:
    compose().fit(x1, steps=2, batch_size=50, seed=0, checkpoint=tmp_path)
    with pytest.raises(fm.SavedFileError, match="another network"):
        compose(Tied()).fit(x1, steps=4, batch_size=50, seed=0, checkpoint=tmp_path)


def test_a_state_that_cannot_be_read_says_so(tmp_path: Path, compose: Any, x1: Tensor) -> None:
    (tmp_path / FILE).write_bytes(b"nonsense")
    with pytest.raises(fm.SavedFileError, match="Delete it to begin anew"):
        compose().fit(x1, steps=2, batch_size=50, checkpoint=tmp_path)


def test_spoilt_weights_never_replace_a_healthy_state(tmp_path: Path, compose: Any, x1: Tensor) -> None:
    class Spoils(torch.optim.SGD):
        count = 0

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            self.count += 1
            if self.count == 6:
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(float("nan"))

    with pytest.raises(fm.FitError):
        compose().fit(
            x1,
            steps=20,
            batch_size=50,
            seed=0,
            max_bad=3,
            optimizer=lambda p: Spoils(p, lr=1e-2),
            checkpoint=tmp_path,
            checkpoint_every=2,
        )
    state = torch.load(tmp_path / FILE, weights_only=True)["state"]
    assert len(state["losses"]) == 4
    for part in ("net", "average"):
        tensors = state["step"][part]
        tensors = tensors["net"] if part == "average" else tensors
        assert all(bool(value.isfinite().all()) for value in tensors.values())
