"""Events as TensorBoard scalars: `fit/loss`, `fit/lr`, `fit/validation`, and the numbers of benchmark records.

It writes through `torch.utils.tensorboard`, imported when an observer is made, so that everything else works without
the package `tensorboard`.

References:
    torch.utils.tensorboard. https://docs.pytorch.org/docs/stable/tensorboard.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, SupportsFloat, final

from attrs import field, frozen, validators

from fm_core import PluginError, hookimpl

if TYPE_CHECKING:
    from fm_core import FitResult

__all__ = ["TensorBoard"]


@final
@frozen(eq=False)
class TensorBoard:
    """Writes scalars for TensorBoard: `tensorboard --logdir folder` shows them.

    Args:
        folder: Folder of the run; made if it is not there.
        every: Training steps between two that are written.

    Raises:
        PluginError: If the package `tensorboard` is not installed.
    """

    folder: str = field(converter=str)
    every: int = field(default=10, validator=[validators.instance_of(int), validators.ge(1)], kw_only=True)
    _writer: Any = field(init=False, repr=False)
    _records: list[None] = field(factory=list, init=False, repr=False)

    @_writer.default
    def _open(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise PluginError(
                f"the observer 'tensorboard' needs a package that is not installed ({error}); "
                "pip install 'fm-core[tensorboard]'"
            ) from error
        return SummaryWriter(self.folder)

    @hookimpl
    def fm_fit_step(self, step: int, loss: SupportsFloat, lr: float) -> None:
        """Writes loss and learning rate of a step."""
        if step % self.every == 0:
            self._writer.add_scalar("fit/loss", float(loss), step)
            self._writer.add_scalar("fit/lr", lr, step)

    @hookimpl
    def fm_fit_end(self, result: FitResult) -> None:
        """Writes the validation curve, and all that is still to be written."""
        for steps, loss in result.validation:
            self._writer.add_scalar("fit/validation", loss, steps)
        self._writer.flush()

    @hookimpl
    def fm_bench_record(self, record: Mapping[str, Any]) -> None:
        """Writes the numbers of a record under the strings in it: their names, in order, are its place."""
        place = "/".join(str(value) for value in record.values() if isinstance(value, str))
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar("/".join(filter(None, ["bench", place, name])), value, len(self._records))
        self._records.append(None)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is still to be written and closes the files."""
        self._writer.close()
