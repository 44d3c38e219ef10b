"""Real data on disk: scikit-learn's 1,797 scanned handwritten digits, 8 × 8 pixels in 17 grey levels, with labels.

They are the test part of UCI's "Optical recognition of handwritten digits": 32 × 32 bitmaps of 13 writers, each pixel
here the number of ink dots, 0 … 16, in a 4 × 4 block. The file comes with scikit-learn, so nothing is downloaded.

References:
    Alpaydin & Kaynak 1998. https://doi.org/10.24432/C50P49
    scikit-learn, load_digits. https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_digits.html
"""

from __future__ import annotations

from fm_core import Component, hookimpl


@hookimpl
def fm_components() -> list[Component]:
    """The data set `digits`."""
    return [
        Component(
            "dataset",
            "digits",
            "fm_plugins.digits.digits:Digits",
            "1,797 scanned handwritten digits, 8 × 8, with labels",
            "https://doi.org/10.24432/C50P49",
        )
    ]
