"""Observers: where the events of training, sampling and benchmarks are written down.

An observer hears of what happens in a block, from wherever in it `fit` and `sample` are called:

    with fm_core.observing({"name": "jsonl", "path": "run.jsonl"}):
        pipe.fit(x1, steps=1_000)

    jsonl          one JSON object a line; FM_LOG_JSONL=path switches it on for a whole process
    tensorboard    scalars for TensorBoard; needs the extra `tensorboard`

While none is switched on nothing is observed, and runs cost what they cost without this plugin.
"""

from __future__ import annotations

import os

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The observers, by name."""
    here = "fm_plugins.observers"
    return [
        Component(
            "observer",
            "jsonl",
            f"{here}.jsonl:JSONLogger",
            "Events as lines of JSON, appended to a file",
            "https://jsonlines.org",
            example={"path": "run.jsonl"},
        ),
        Component(
            "observer",
            "tensorboard",
            f"{here}.tensorboard:TensorBoard",
            "Losses, learning rates and figures as TensorBoard scalars",
            "https://www.tensorflow.org/tensorboard",
            example={"folder": "runs"},
        ),
    ]


if os.environ.get("FM_LOG_JSONL"):
    from fm_plugins.observers.jsonl import JSONLogger

    _log = JSONLogger(os.environ["FM_LOG_JSONL"])
    fm_fit_start, fm_fit_step, fm_fit_end = _log.fm_fit_start, _log.fm_fit_step, _log.fm_fit_end
    fm_sample_step, fm_bench_record = _log.fm_sample_step, _log.fm_bench_record
