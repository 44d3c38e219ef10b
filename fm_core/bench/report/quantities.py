"""What figures mean: their names in words, their units, which way is better, and what they cannot fall below."""

from __future__ import annotations

import math
from typing import Literal

from attrs import frozen

from fm_core.bench.statistics import Scale

__all__ = ["Quantity", "known", "number", "quantity", "shown"]

Better = Literal["lower", "higher", ""]


@frozen
class Quantity:
    """A figure or a setting of the records.

    Args:
        name: As in the records; times end in "_s".
        label: In words.
        better: Which way is better; empty where neither is.
        floor: Name of the figure that it cannot fall below but by chance.
        order: Place among the columns of a table.
    """

    name: str
    label: str
    better: Better = ""
    floor: str = ""
    order: int = 99

    @property
    def seconds(self) -> bool:
        """Whether it is a time."""
        return self.name.endswith("_s") and not self.name.endswith("_per_s")

    @property
    def scale(self) -> Scale:
        """Whether chance multiplies it, or adds to it and may bring it near 0 or below; so for what is not known."""
        return "log" if (known(self.name) or self.seconds) and self.name not in _SHIFTED else "plain"


_TABLE: tuple[tuple[str, str, Better, str], ...] = (
    ("nfe", "NFE", "", ""),
    ("error_median", "median error", "lower", "reference_error"),
    ("error_rms", "RMS error", "lower", "reference_error"),
    ("distance", "distance to the truth", "lower", "floor"),
    ("floor", "floor of the distance", "", ""),
    ("reference_error", "error of the reference", "", ""),
    ("declared_order", "declared order", "", ""),
    ("order", "measured order", "", ""),
    ("w2", "W₂", "lower", "w2_floor"),
    ("w2_floor", "floor of W₂", "", ""),
    ("npe", "NPE", "lower", ""),
    ("path_energy", "path energy", "", ""),
    ("squared_w2", "W₂² of source and data", "", ""),
    ("straightness", "straightness", "lower", ""),
    ("energy_distance", "energy distance", "lower", "energy_distance_floor"),
    ("energy_distance_floor", "floor of the energy distance", "", ""),
    ("velocity_error", "velocity error", "lower", ""),
    ("npe_last", "NPE of the last weights", "lower", ""),
    ("train_s", "training time", "lower", ""),
    ("fit_s", "fitting time", "lower", ""),
    ("sample_s", "sampling time", "lower", ""),
    ("samples_per_s", "samples/s", "higher", ""),
    ("steps_per_s", "steps/s", "higher", ""),
    ("training_steps_per_s", "training steps/s", "higher", ""),
    ("pairs_per_s", "OT pairs/s", "higher", ""),
    ("over_bare", "time over the bare loop's", "lower", ""),
    ("startup_s", "startup", "lower", ""),
    ("memory_mb", "memory (MB)", "lower", ""),
)
_SHIFTED = frozenset({"npe", "npe_last", "straightness", "order", "declared_order"})
_KNOWN = {row[0]: Quantity(*row, order) for order, row in enumerate(_TABLE)}


def known(name: str) -> bool:
    """Whether a figure is in the table: all that the suites write are."""
    return name in _KNOWN


def quantity(name: str) -> Quantity:
    """What is known of a figure; of one unknown its name alone, and that times are better short.

    >>> quantity("w2").label, quantity("warm_up_s").label, quantity("warm_up_s").better
    ('W₂', 'warm up', 'lower')
    """
    if found := _KNOWN.get(name):
        return found
    plain = Quantity(name, name.removesuffix("_s").replace("_", " "))
    return Quantity(name, plain.label, "lower") if plain.seconds else Quantity(name, name.replace("_", " "))


def number(value: float, digits: int = 3) -> str:
    """A number as short as it can be told.

    >>> [number(value) for value in (0.0, 12.0, 0.0213, 3.004e-5, 12345.0, 250.0, 2.6e7, -math.inf)]
    ['0', '12', '0.0213', '3e-5', '12345', '250', '2.6e7', '-∞']
    """
    if not math.isfinite(value):
        return f"{value}".replace("inf", "∞")
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(exponent)}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def shown(value: float, of: Quantity, digits: int = 3) -> str:
    """A figure with its unit.

    >>> shown(0.0123, quantity("sample_s")), shown(75.0, quantity("train_s")), shown(0.25, quantity("w2"))
    ('12.3 ms', '75 s', '0.25')
    """
    if not of.seconds:
        return number(value, digits)
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(value) >= scale or unit == "µs":
            return f"{number(value / scale, digits)} {unit}"
    raise AssertionError("microseconds take what is left")
