"""The lines of a run: ``model.metrics.jsonl``, and TensorBoard where it is asked for."""

from pathlib import Path
from typing import Any

from loopedge.errors import InputError, MissingExtraError
from loopedge.files.plain_json import dump_json
from loopedge.files.targets import write_text_atomic
from loopedge.options import option, option_name

__all__ = ["RunLog", "metrics_path"]


def metrics_path(target: Path) -> Path:
    """Return where the metrics of the run that writes ``target`` stand."""
    return target.with_name(f"{target.stem}.metrics.jsonl")


class RunLog:
    """Keeps a line per evaluation, and writes them.

    Args:
        path: The file of lines.
        tensorboard: Folder of event files; None: none are written.

    Raises:
        MissingExtraError: TensorBoard is asked for and not installed.
    """

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        self.path, self._tensorboard = path, tensorboard
        self.records: list[dict[str, Any]] = []
        self._writer: Any = None
        if tensorboard is not None:
            _writer_class()

    def open(self) -> None:
        """Create the folder of event files, where they are asked for.

        Raises:
            InputError: It cannot be written.
        """
        if self._tensorboard is None:
            return
        try:
            # Purging from 0 on hides what another run, or this one before a resumption, drew there.
            self._writer = _writer_class()(str(self._tensorboard), purge_step=0)
        except OSError as error:
            raise InputError(
                f"the folder of {option_name('tensorboard')}, {self._tensorboard}, cannot be written: "
                f"{error.strerror or error}",
                hint=option("tensorboard", "FOLDER"),
            ) from error
        for record in self.records:
            self._draw(record)

    def resume(self, records: list[dict[str, Any]]) -> None:
        """Take over the lines of the run so far."""
        self.records = list(records)

    def write(self, record: dict[str, Any]) -> None:
        """Add a line.

        Raises:
            InputError: The disk is full or the folder cannot be written.
        """
        self.records.append(record)
        lines = "".join(dump_json(line, indent=None) + "\n" for line in self.records)
        write_text_atomic(self.path, lines)
        if self._writer is not None:
            self._draw(record)

    def close(self) -> None:
        """Finish the event files."""
        if self._writer is not None:
            self._writer.close()

    def _draw(self, record: dict[str, Any]) -> None:
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()


def scalars(record: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line by path: ``validation/rmse``, ``stability/residual_norm/3``."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": number for key, number in scalars(value).items()}
        elif isinstance(value, list):
            flat |= {
                f"{name}/{place + 1}": number
                for place, number in enumerate(value)
                if number is not None
            }
        elif name != "step" and isinstance(value, int | float):
            flat[name] = value
    return flat


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise MissingExtraError(option_name("tensorboard"), extra="tensorboard") from error
    return SummaryWriter
