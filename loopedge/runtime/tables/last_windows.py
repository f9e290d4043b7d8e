"""The last window of each series of a table, as a model of tables takes it: read as training reads, cut as training cuts.

`loopedge run`, `loopedge.forecast` and `profile --input` feed a model with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopedge.data.tables.columns import Arranged, arrange
from loopedge.data.tables.findings import Finding
from loopedge.data.tables.format import TableFormat
from loopedge.data.tables.header import read_header
from loopedge.data.tables.reading import Selection, Table, read_table
from loopedge.data.tables.timeline.frequency import parse_frequency
from loopedge.data.tables.timeline.gaps import other_step
from loopedge.errors import InputError
from loopedge.files.arrays import Array
from loopedge.options import option
from loopedge.runtime.tables.described_table import DescribedTable
from loopedge.runtime.tables.unseen import unseen_findings

__all__ = ["LastWindows", "read_last_windows"]

LISTED = 3
"""Series or columns that a finding names; of more it says the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastWindows:
    """The last window of each series of a table.

    Args:
        source: Name of the file.
        described: The table that the model was trained on.
        inputs: (series, context, columns) in raw units, the padding on the left: float64 as read, or as a model takes them.
        mask: int64 (series, context), 1 where a table row stands; None: the model takes no mask.
        series: Names; one empty name where the table is one series.
        group: Column of these names; None: there is one series.
        time_column: Column of the times; None: there are none.
        rows: Table rows that each window holds.
        last_times: How the file writes the time of the last table row of each; empty: it has no times.
        times: How it would write the times that follow, ``horizon`` of each series; empty: as before.
        findings: What a person should know.
    """

    source: str
    described: DescribedTable
    inputs: Array
    mask: Array | None
    series: tuple[str, ...]
    rows: tuple[int, ...]
    group: str | None = None
    time_column: str | None = None
    last_times: tuple[str, ...] = ()
    times: tuple[tuple[str, ...], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """A line of each finding."""
        return tuple(finding.line for finding in self.findings)


def read_last_windows(
    path: str | Path,
    described: DescribedTable,
    *,
    form: TableFormat | Mapping[str, Any] | None = None,
    takes_mask: bool,
) -> LastWindows:
    """Read a table and cut the last window of each of its series.

    Args:
        path: A CSV or Parquet file, its oldest table row first. A CSV without a header will do where it holds the
            columns of the model alone, in their order.
        described: The table that the model was trained on.
        form: As `DescribedTable.written`.
        takes_mask: Whether the model takes a mask, so that windows may be padded.

    Returns:
        Windows of ``context`` table rows.

    Raises:
        InputError: The file, a column, a value or the order cannot be used, or no series is long enough.
        MissingExtraError: The file is Parquet and pyarrow is not installed.
    """
    chosen = described.written(form)
    header = read_header(path, described.columns, chosen)
    selection, findings = _select(Path(path).name, header, described)
    try:
        table = read_table(path, selection, chosen)
    except InputError as error:
        unnamed = [found.message for found in findings if found.kind == "series"]
        if not unnamed:
            raise
        hints = [*([] if error.hint is None else [error.hint]), *unnamed]
        raise InputError(error.message, hint="; ".join(hints)) from error
    if not len(table.values):
        raise InputError(f"{path} holds no rows")
    # What a window lacks is judged here, and a gap far behind it is not: training refuses for all of a table.
    frequency = described.frequency if selection.time is not None else None
    try:
        arranged = arrange(
            table,
            frequency=frequency,
            gaps="split" if described.gaps == "refuse" else described.gaps,
            refuse=False,
            step=described.step,
        )
    except InputError as error:
        if frequency is None:
            raise
        words = parse_frequency(frequency).words  # it was an option of training, none of this one
        raise InputError(
            str(error), hint=f"write the times in steps of {words}, as those of training"
        ) from error
    cut = _Cut(table, arranged, described, takes_mask=takes_mask)
    kept = cut.usable()
    return cut.windows(kept, selection, findings)


def _select(
    source: str, header: tuple[str, ...] | None, described: DescribedTable
) -> tuple[Selection, list[Finding]]:
    """Return the columns to read, and what is to be said of those that lack or are not read."""
    numbers = described.columns
    if header is None:
        message = (
            f"{source} has no header: its columns are taken in the order of training, {', '.join(numbers)}; its rows "
            "are taken as one series, their order is not checked"
        )
        finding = Finding(kind="shape", message=message, hint="let the first line name the columns")
        return Selection(numbers=numbers, headerless=True), [finding]
    absent = [name for name in numbers if name not in header]
    if absent:
        raise InputError(
            f"{source}: the header lacks {_listed(absent)}; the model was trained on {', '.join(numbers)}",
            hint="name the columns as in training"
            + (", or leave the header out and keep this order" if described.group is None else ""),
        )
    time, group = (
        name if name in header else None for name in (described.time_column, described.group)
    )
    findings = []
    if described.group is not None and group is None:
        findings.append(
            Finding(
                kind="series",
                message=f"{source} has no column {described.group!r}, which named the series in training: all of its "
                "rows are taken as one series",
            )
        )
    if described.time_column is not None and time is None:
        findings.append(
            Finding(
                kind="time",
                message=f"{source} has no column {described.time_column!r}, by which training checked the order of "
                "the rows: their order is not checked",
            )
        )
    known = {*numbers, time, group, described.label}
    others = [name for name in header if name not in known]
    if others and described.time_column is None:
        findings.append(
            Finding(
                kind="left-out",
                message=f"columns that the model was not trained on are left out: {_listed(others)}",
            )
        )
    return Selection(numbers=numbers, group=group, time=time), findings


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:LISTED]))
    more = len(names) - LISTED
    return f"{shown} and {more} more" if more > 0 else shown


class _Cut:
    """Finds the last window of each series, and what keeps a series from having one.

    Args:
        table: As read.
        arranged: Its series.
        described: The table that the model was trained on.
        takes_mask: Whether windows may be padded.
    """

    def __init__(
        self, table: Table, arranged: Arranged, described: DescribedTable, *, takes_mask: bool
    ) -> None:
        self._table, self.source, self._arranged = table, table.source, arranged
        self.columns, self.described = arranged.columns, described
        self.takes_mask = takes_mask
        self.findings: list[Finding] = []
        self.names = self.columns.series or ("",)
        self.stops, first = self.columns.bounds[1:], self.columns.bounds[:-1]
        starts = self.columns.piece_starts(self.stops - 1)
        self.sizes = np.minimum(self.stops - starts, described.context)
        self.cut_short = (self.sizes < described.context) & (starts > first)
        """Of each series whether a gap in its times ends its window."""

    def usable(self) -> Array:
        """Return the numbers of the series that have a window; say of the others why they have none.

        Raises:
            InputError: None has one.
        """
        reasons = {number: self._reason(number) for number in range(len(self.names))}
        kept = [number for number, reason in reasons.items() if reason is None]
        lacking = [(number, reason) for number, reason in reasons.items() if reason is not None]
        if not kept:
            number, (text, hint) = lacking[0]
            of = f"{self.names[number]!r}: " if self.columns.series else ""
            others = f"; none of the {len(lacking)} series has a window" if len(lacking) > 1 else ""
            raise InputError(f"{self.source}: {of}{text}{others}", hint=hint)
        if lacking:
            listed = "; ".join(
                f"{self.names[number]!r}: {text}" for number, (text, _) in lacking[:LISTED]
            )
            more = f"; and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
            self.findings.append(
                Finding(
                    kind="left-out",
                    message=f"{len(lacking)} of {len(reasons)} series {'is' if len(lacking) == 1 else 'are'} left out: {listed}{more}",
                    hint=lacking[0][1][1],
                )
            )
        return np.array(kept, np.int64)

    def _reason(self, number: int) -> tuple[str, str] | None:
        """Return why a series has no window, and what helps; None where it has one."""
        return self._too_short(number) or self._after_a_gap(number) or self._lacks_values(number)

    def _too_short(self, number: int) -> tuple[str, str] | None:
        described, size = self.described, int(self.sizes[number])
        least = described.min_context if self.takes_mask else described.context
        if size >= least:
            return None
        trained = f"on {least} at least" if self.takes_mask else f"on windows of {least}"
        rows = "table row" if size == 1 else "table rows"
        if self.cut_short[number]:
            return (
                f"{size} {rows} after the gap before {self._time(number)} {'is' if size == 1 else 'are'} too few, the "
                f"model was trained {trained} and does not see across gaps",
                f"write the missing rows, or train the model with {_cross()}",
            )
        train = option("min_context", max(size, 1), command="train series ...")
        return (
            f"{size} {rows} {'is' if size == 1 else 'are'} too few, the model was trained {trained}",
            f"name a longer table, or train the model with {train}",
        )

    def _after_a_gap(self, number: int) -> tuple[str, str] | None:
        if self.described.gaps != "refuse" or not self.cut_short[number]:
            return None
        return (
            f"there is a gap in the times of its window, before {self._time(number)}, and training refused gaps",
            f"write the missing rows, or train the model with {_cross()}",
        )

    def _time(self, number: int) -> str:
        """Return the time of the first table row of a window."""
        times = self.columns.times
        assert times is not None  # without times there is no gap
        return repr(times.text(int(self.stops[number] - self.sizes[number])))

    def _lacks_values(self, number: int) -> tuple[str, str] | None:
        """Look for missing values that the model cannot be fed; fill those that training filled."""
        missing, stop = self.described.missing, int(self.stops[number])
        gone = ~self.columns.observed[stop - int(self.sizes[number]) : stop]
        if not gone.any():
            return None
        if missing == "indicator":
            return self._lacks_level(number, gone)
        write = "write the value there"
        if missing == "refuse":
            row, place = (int(at) for at in np.argwhere(gone)[0])
            indicator = option("missing", "indicator", command="train series ...")
            return self._lacks(place, stop - len(gone) + row), f"{write}, or train with {indicator}"
        if gone[-1].any():
            lacks = self._lacks(int(gone[-1].argmax()), stop - 1)
            return (
                f"{lacks} in the last table row, and a line needs a later one",
                f"{write}, or leave out the rows from there on",
            )
        for place in np.flatnonzero(gone.any(axis=0)).tolist():
            self._arranged.fill(number, place)
        return None

    def _lacks_level(self, number: int, gone: Array) -> tuple[str, str] | None:
        """Look for targets without any value: a window that is scaled by itself has no level then, another that of training."""
        empty: Array = np.all(gone, axis=0)
        names = [name for name, none in zip(self.described.targets, empty, strict=False) if none]
        if not names:
            return None
        what = f"its last {len(gone)} table rows hold no value of {_listed(names)}"
        if self.described.by_window:
            return f"{what}, by which the model scales", "write a value there, or a later table row"
        of = f"{self.names[number]!r}: " if self.columns.series else ""
        self.findings.append(
            Finding(
                kind="left-out",
                message=f"{self.source}: {of}{what}: the model takes the mean of training in their place",
            )
        )
        return None

    def _lacks(self, place: int, row: int) -> str:
        """Say where a value is missing."""
        times, order = self.columns.times, self._arranged.order
        if times is not None and self.described.frequency is not None:  # rows were inserted
            where = f"at {times.text(row)!r}"
        else:
            where = self._table.places.row(row if order is None else int(order[row]))
        return f"{where}, column {self.columns.names[place]!r}: the value is missing"

    def windows(
        self, numbers: Array, selection: Selection, findings: Sequence[Finding]
    ) -> LastWindows:
        """Return the windows of some series."""
        stops, sizes = self.stops[numbers], self.sizes[numbers]
        inputs, kept = self.columns.windows(stops, self.described.context, self.described.mean)
        times = self.columns.times
        last: tuple[str, ...] = ()
        ahead: tuple[tuple[str, ...], ...] = ()
        if times is not None:
            last = tuple(times.text(int(stop) - 1) for stop in stops)
            ahead = tuple(
                tuple(times.ahead(int(stop) - 1, self.described.horizon)) for stop in stops
            )
        return LastWindows(
            source=self.source,
            described=self.described,
            inputs=inputs,
            mask=kept.astype(np.int64) if self.takes_mask else None,
            series=tuple(self.names[number] for number in numbers),
            rows=tuple(sizes.tolist()),
            group=selection.group,
            time_column=None if times is None else selection.time,
            last_times=last,
            times=ahead if all(ahead) else (),
            findings=(
                *findings,
                *self._of_table(),
                *self.findings,
                *self._padding(numbers),
                *self._ended(numbers),
                *unseen_findings(inputs, kept, self.described, [self.names[at] for at in numbers]),
            ),
        )

    def _ended(self, numbers: Array) -> list[Finding]:
        """Name series that end so early that what follows them lies before the last table row of another."""
        times = self.columns.times
        if times is None or len(numbers) < 2:
            return []
        stops = self.stops[numbers]
        last = times.moments[stops - 1]
        steps = last - times.moments[stops - np.minimum(self.sizes[numbers], 2)]
        latest = int(last.argmax())
        early = np.flatnonzero(last + max(self.described.horizon, 1) * steps < last[latest])
        early = early[steps[early] > 0]
        if not len(early):
            return []
        first = int(early[last[early].argmin()])
        number = (
            "1 series ends" if len(early) == 1 else f"{len(early)} of {len(numbers)} series end"
        )
        message = (
            f"{number} long before {self.names[numbers[latest]]!r} at {times.text(int(stops[latest]) - 1)!r}: "
            f"{self.names[numbers[first]]!r} at {times.text(int(stops[first]) - 1)!r}, and what is said of it "
            "follows from there"
        )
        return [Finding(kind="time", message=message)]

    def _of_table(self) -> list[Finding]:
        """Return what is to be said of the table itself; gaps that no window crosses do not matter."""
        split = self.columns.pieces is not None
        found = [one for one in self.columns.findings if not (split and one.kind == "gap")]
        other = other_step(self.source, self.columns.times, self.described.step)
        return found if other is None else [*found, other]

    def _padding(self, numbers: Array) -> list[Finding]:
        """Say how many windows are padded, and which of them end at a gap."""
        context, findings = self.described.context, []
        gaps = [number for number in numbers.tolist() if self.cut_short[number]]
        if gaps:
            number = gaps[0]
            of = f" of {self.names[number]!r}" if self.columns.series else ""
            more = f", and those of {len(gaps) - 1} more series" if len(gaps) > 1 else ""
            message = (
                f"the window{of} begins after a gap in its times, at {self._time(number)}{more}: windows do not cross "
                "gaps"
            )
            findings.append(Finding(kind="gap", message=message))
        sizes = self.sizes[numbers]
        padded = int((sizes < context).sum())
        if padded:
            shortest = int(sizes.min())
            what = f"{shortest} table rows are padded on the left to the context of {context}"
            if self.columns.series:
                what = (
                    f"the windows of {padded} series are padded on the left to the context of {context} table rows; "
                    f"the shortest has {shortest}"
                )
            findings.append(Finding(kind="shape", message=f"{what}, as in training"))
        return findings


def _cross() -> str:
    return option("gaps", "cross", command="train series ...")
