"""Recipes with one defect each; and observers, of which no more is asked than to be built."""

from __future__ import annotations

from fm_core.testing.mutants.planting import plant, right

__all__: list[str] = []

_GOOD = {"path": "linear", "objective": "cfm", "coupling": "independent", "solver": "euler"}
_NAMES = ["linear", "cfm", "euler"]
_HERE = __name__

right("recipe", "cfm", _GOOD)
right("observer", "steps", lambda: type("Steps", (), {"fm_fit_step": staticmethod(print)})())

plant("recipe", "builds", "a list of names", f"{_HERE}:_NAMES")
plant("recipe", "builds", "a module that does not exist", "no_such_module_anywhere:RECIPE")
plant("recipe", "names_parts_of_a_pipeline", "a part that no pipeline has", {**_GOOD, "sampler": "euler"})
plant("recipe", "names_parts_of_a_pipeline", "no solver", {k: part for k, part in _GOOD.items() if k != "solver"})
plant(
    "recipe",
    "composes_trains_and_samples",
    "a solver that needs the score, with pairs that are not independent",
    {**_GOOD, "coupling": "minibatch_ot", "solver": "euler_maruyama"},
)
plant("recipe", "composes_trains_and_samples", "a name that nobody has", {**_GOOD, "objective": "cfm_but_better"})
plant("observer", "builds", "none of the hooks", lambda: type("Deaf", (), {"on_step": print})())
plant("observer", "builds", "its factory raises", lambda: 1 / 0)
