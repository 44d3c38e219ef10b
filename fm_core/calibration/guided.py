"""Under which guidance a table was calibrated, as its provenance says, and whether a run is under another one.

Guidance is part of the field that is fitted: with another one the table still runs, and may err more than a table that
was fitted to nothing. So that is said, and not refused.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from fm_core.building import name_of, to_config
from fm_core.errors import SavedFileError
from fm_core.protocols import declared

__all__ = ["guidance_of", "other_guidance", "warn_of_other_guidance"]


def guidance_of(guidances: Iterable[Any]) -> list[Any]:
    """The configurations of guidances that change something, the innermost first; of what has none, the name."""
    return [_written(guidance) for guidance in guidances if not declared(guidance, "off")]


def other_guidance(provenance: Mapping[str, Any], guidances: Iterable[Any]) -> str | None:
    """What to say where a table was calibrated under other guidance than this; None where not, or where it is unknown.

    Args:
        provenance: The table's; older ones hold names alone, which then are all that is compared.
        guidances: Of the run.
    """
    there, here = provenance.get("guidance"), guidance_of(guidances)
    if not isinstance(there, list | tuple):
        return None
    if len(there) == len(here) and all(_same(one, other) for one, other in zip(there, here, strict=True)):
        return None
    return (
        f"this table was calibrated under {_said(there)} and runs under {_said(here)}: that is another field than it "
        "was fitted to, where an uncalibrated solver may err less. Calibrate this pipeline: "
        "fm.calibrate(pipe, …, nfe=…), or choose solver='auto'"
    )


def warn_of_other_guidance(provenance: Mapping[str, Any], guidances: Iterable[Any]) -> None:
    """Says so as a `RuntimeWarning`, which Python shows once."""
    if provenance and (said := other_guidance(provenance, guidances)):
        warnings.warn(said, RuntimeWarning, stacklevel=4)


def _written(guidance: Any) -> Any:
    try:
        return _unmarked(json.loads(json.dumps(to_config(guidance))))
    except SavedFileError:  # it holds tensors, functions or networks
        return name_of(guidance)


def _unmarked(value: Any) -> Any:
    """Without the kinds by which a registry knows what to build: a provenance is read, not built."""
    if isinstance(value, dict):
        return {key: _unmarked(item) for key, item in value.items() if key != "kind"}
    return [_unmarked(item) for item in value] if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    """Whether two are equal as far as both are known: by their options, else by their names."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        given, wanted = ({k: v for k, v in part.items() if v is not None} for part in (one, other))
        return given == wanted
    return bool(_name(one) == _name(other))


def _name(part: Any) -> Any:
    return part.get("name") if isinstance(part, Mapping) else part


def _said(parts: Iterable[Any]) -> str:
    said = [_words(part) for part in parts]
    return f"the guidance {' in '.join(said)}" if said else "no guidance"


def _words(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    options = ", ".join(f"{key}={json.dumps(value)}" for key, value in part.items() if key != "name")
    return f"{part.get('name')}({options})"
