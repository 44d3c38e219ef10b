"""The plugin declares its components without importing torch."""

from __future__ import annotations

import importlib
import subprocess
import sys

from fm_core.protocols import Coupling, declared
from fm_plugins import ot_cfm


def test_listing_imports_no_torch() -> None:
    code = "import sys, fm_plugins.ot_cfm as p; p.fm_components(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_coupling_is_what_its_component_says() -> None:
    components = {(c.kind, c.name): c for c in ot_cfm.fm_components()}
    assert set(components) == {("coupling", "minibatch_ot"), ("recipe", "ot_cfm")}
    component = components["coupling", "minibatch_ot"]
    module, _, attribute = component.target.partition(":")
    coupling = getattr(importlib.import_module(module), attribute)(**component.example)
    assert isinstance(coupling, Coupling)
    assert (declared(coupling, "independent"), declared(coupling, "bijective"), declared(coupling, "pool")) == (
        False,
        True,
        None,
    )
