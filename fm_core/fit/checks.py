"""What cannot be trained is refused before any work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from fm_core.compat import Problem
from fm_core.errors import CompatError, DataError
from fm_core.field import Model, training_of
from fm_core.fit.data import Data, Pairs
from fm_core.fit.settings import Settings
from fm_core.protocols import declared

if TYPE_CHECKING:
    from fm_core.pipeline import Pipeline

__all__ = ["batch_size_of", "fingerprint", "net_of", "provenance_of"]

BATCH = 256
"""Batch size where neither the caller nor the data say one."""


def net_of(pipeline: Pipeline) -> nn.Module:
    """The module to be trained.

    Raises:
        CompatError: If there is none, or no objective.
    """
    found = []
    net = pipeline.model.net if isinstance(pipeline.model, Model) else None
    if not isinstance(net, nn.Module):
        what = (
            f"the model {type(pipeline.model).__name__} cannot be trained"
            if net is None
            else f"{type(net).__name__} is no torch module"
        )
        found.append(
            Problem(
                what,
                "fit trains the parameters of a module",
                "compose with model=fm.Model(net, predicts=…), net an nn.Module",
            )
        )
    elif not any(p.requires_grad for p in net.parameters()):
        found.append(
            Problem(
                f"{type(net).__name__} has nothing to train",
                "no parameter of it requires a gradient",
                "net.requires_grad_(True)",
            )
        )
    if pipeline.objective is None:
        found.append(
            Problem("there is no objective", "fit minimises it", "pipeline.replace(objective='cfm'), or another one")
        )
    if found:
        raise CompatError(found)
    assert isinstance(net, nn.Module)
    return net


def provenance_of(pipeline: Pipeline, data: Any) -> tuple[str, ...] | None:
    """The stages behind given pairs; None where source and data are paired here.

    Raises:
        CompatError: If a coupling would pair them anew.
    """
    if not isinstance(data, Pairs):
        return None
    coupling = pipeline.coupling
    if coupling is not None and not declared(coupling, "independent"):
        raise CompatError(
            [
                Problem(
                    f"given pairs and the coupling {type(coupling).__name__}",
                    "pairs are paired already; another pairing would undo what their maker did",
                    "pipeline.replace(coupling=None), or give x1 alone",
                )
            ]
        )
    trained = getattr(pipeline.model, "trained", None)
    return (*(trained.provenance if trained is not None else ()), data.provenance or "given pairs")


def batch_size_of(asked: int | None, data: Data) -> int:
    """The batch size: what was asked for, else what the data dictate, else 256.

    Raises:
        DataError: If both are given and differ.
    """
    if asked is not None and data.batch is not None and asked != data.batch:
        raise DataError(
            f"the DataLoader makes batches of {data.batch}, and batch_size={asked} was asked for; leave batch_size out"
        )
    return (data.batch or BATCH) if asked is None else asked


def fingerprint(pipeline: Pipeline, data: Data, settings: Settings) -> dict[str, Any]:
    """What must be the same when a training is taken up again, JSON-able."""
    record = training_of(pipeline, ())
    parts = {
        "path": record.path,
        "objective": record.objective,
        "coupling": record.coupling,
        "schedule": list(record.schedule),
    }
    return {
        **settings.fingerprint(),
        **parts,
        "samples": data.size,
        "predicts": [str(kind) for kind in pipeline.model.predicts],
    }
