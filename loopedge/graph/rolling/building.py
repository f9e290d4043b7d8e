"""Put a Loop in the place of the nodes that were aligned and scheduled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from loopedge.graph.core.loop_node import loop_node
from loopedge.graph.core.loop_view import LoopView
from loopedge.graph.core.names import CORE_NAME
from loopedge.graph.core.pieces import Piece
from loopedge.graph.editing import add_initializer, make_node
from loopedge.graph.naming import mark_made_up, take_name
from loopedge.graph.rolling.carried import Given, State
from loopedge.graph.rolling.node_facts import is_constant
from loopedge.graph.rolling.orbits import Misaligned, Orbit, Slot
from loopedge.graph.rolling.retiming import Schedule
from loopedge.graph.rolling.rolled_loop import RolledLoop
from loopedge.graph.weights import TABLE_PREFIX

__all__ = ["build_loop"]

AXES_OPSET = 13
"""From which on Unsqueeze takes its axes as an input."""


def build_loop(
    main: ir.Graph,
    schedule: Schedule,
    states: dict[tuple[Orbit, Slot], State],
    given: Sequence[Given],
    name: str,
) -> RolledLoop:
    """Replace the members of all orbits by one Loop, in place.

    Requires: `loopedge.graph.rolling.carried.check_order` passes.

    Ensures: what reads the nodes that are gone reads the Loop; outputs of the graph keep their names; the nodes
    stand in an order in which they can run.

    Args:
        main: The main graph, where constants are stored.
        schedule: Of the nodes of the main graph, or of a body in it.
        states: Of each edge across iterations.
        given: What is read outside.
        name: Of the Loop.
    """
    return _Builder(main, schedule, states, given, name).build()


@dataclass(slots=True)
class _Carried:
    """One carried value: of ``state``, from ``age`` iterations ago, in the body ``before``."""

    state: State
    age: int
    before: ir.Value


class _Builder:
    def __init__(
        self,
        main: ir.Graph,
        schedule: Schedule,
        states: dict[tuple[Orbit, Slot], State],
        given: Sequence[Given],
        name: str,
    ) -> None:
        self.main, self.schedule, self.given, self.name = main, schedule, given, name
        self.graph = schedule.alignment.facts.graph
        self.states = states
        self.made: dict[tuple[Orbit, int], ir.Value] = {}
        self.tables: dict[str, ir.Value] = {}
        self.rows: dict[tuple[int, ...], ir.Value] = {}
        self.stacking: list[ir.Node] = []
        self.context: set[ir.Value] = set()
        self.carried = [
            _Carried(state, age, self._before(state, age))
            for state in dict.fromkeys(states.values())
            for age in range(1, state.order + 1)
        ]

    def build(self) -> RolledLoop:
        """Return the Loop, which stands in the graph."""
        nodes = self._body_nodes()
        nexts = [
            self.made[each.state.source, each.state.output]
            if each.age == 1
            else self._carried(each.state, each.age - 1)
            for each in self.carried
        ]
        starts = [each.state.starts[each.age] for each in self.carried]
        finals, stacked = self._given_ways(starts, nexts)
        placeholders = [each.before for each in self.carried]
        placeholders += [_like(value) for value in nexts[len(placeholders) :]]
        rows = list(self.rows.values())
        core = Piece(inputs=[*placeholders, *rows], outputs=list(nexts), nodes=nodes)
        count = add_initializer(
            self.main,
            f"loopedge.loops.{self.schedule.iterations}",
            np.array(self.schedule.iterations, np.int64),
        )
        made = loop_node(
            self.name,
            core,
            state=starts,
            context=[],
            tables=self.tables,
            trip_count=count,
            constant=lambda key, array: add_initializer(self.main, key, array),
        )
        inside = self.schedule.inside()
        first = min(inside, key=lambda node: self.schedule.alignment.facts.place[node])
        self.graph.insert_before(first, [*self.stacking, *made])
        loop = LoopView(made[-1])
        _mark(loop)
        for given, place in finals.items():
            (value,) = given.values.values()
            _replace(value, loop.final[place])
        if stacked:
            loop = self._stack(loop, stacked)
            _mark(loop)
        self.graph.remove(list(inside), safe=True)
        self.graph.sort()
        return RolledLoop(
            name=self.name,
            iterations=self.schedule.iterations,
            nodes=sum(1 for _ in loop.body.all_nodes()),
            states=len(starts),
            tables=len(self.tables),
            context=len(self.context),
            stacked=len(stacked),
        )

    # ---- the body ----

    def _body_nodes(self) -> list[ir.Node]:
        schedule = self.schedule
        new: dict[Orbit, ir.Node] = {}
        for orbit in schedule.alignment.orbits:
            members = [
                node
                for t in range(1, schedule.iterations + 1)
                if (node := schedule.member(orbit, t))
            ]
            widest = max(members, key=lambda node: len(node.outputs))
            new[orbit] = node = ir.Node(
                widest.domain,
                widest.op_type,
                [],
                list(widest.attributes.values()),
                overload=widest.overload,
                num_outputs=len(widest.outputs),
                version=widest.version,
                name=_inside_name(self.name, members[0].name or widest.op_type),
            )
            for output, value in enumerate(node.outputs):
                twins = [each.outputs[output] for each in members if output < len(each.outputs)]
                named = next((twin.name for twin in twins if twin.name), "")
                value.name = _inside_name(self.name, named) if named else ""
                value.type, value.shape = twins[-1].type, _common_shape(twins)
                self.made[orbit, output] = value
        for orbit, node in new.items():
            node.resize_inputs(len(orbit.slots))
            for place, slot in enumerate(orbit.slots):
                node.replace_input_with(place, self._input(orbit, slot))
        return _in_order(new, schedule)

    def _input(self, orbit: Orbit, slot: Slot) -> ir.Value | None:
        if slot.kind == "absent":
            return None
        if slot.source is not None:
            distance = self.schedule.distance(orbit, slot)
            if distance == 0:
                return self.made[slot.source, slot.output]
            return self._carried(self.states[orbit, slot], distance)
        values = self.schedule.values(orbit, slot)
        if all(value is values[0] for value in values):
            if not is_constant(values[0]):
                self.context.add(values[0])
            return values[0]
        values += [values[-1]] * (self.schedule.iterations - len(values))
        key = tuple(map(id, values))
        if key not in self.rows:
            table = self._table(values) if slot.kind == "table" else self._runtime_stack(values)
            row = f"{len(self.rows)}"
            self.tables[row] = table
            self.rows[key] = ir.Value(
                name=f"{self.name}/row.{row}",
                type=values[0].type,
                shape=_common_shape(values),
            )
        return self.rows[key]

    def _table(self, values: Sequence[ir.Value]) -> ir.Value:
        tensors = [value.const_value for value in values]
        arrays = np.stack([tensor.numpy() for tensor in tensors if tensor is not None])
        assert tensors[0] is not None
        name = f"{TABLE_PREFIX}{(values[0].name or '').removeprefix(TABLE_PREFIX)}"
        return add_initializer(
            self.main, name, ir.Tensor(arrays, dtype=tensors[0].dtype, name=name)
        )

    def _runtime_stack(self, values: Sequence[ir.Value]) -> ir.Value:
        name = f"{self.name}.stack.{len(self.rows)}"
        axes = add_initializer(self.main, "loopedge.axes.0", np.array([0], np.int64))
        as_input = self.main.opset_imports.get("", AXES_OPSET) >= AXES_OPSET
        raised: dict[ir.Value, ir.Value] = {}
        for value in dict.fromkeys(values):
            raising = f"{name}.{len(raised)}"
            node = (
                make_node("Unsqueeze", [value, axes], raising)
                if as_input
                else make_node("Unsqueeze", [value], raising, {"axes": [0]})
            )
            node.outputs[0].type = value.type
            self.stacking.append(node)
            raised[value] = node.outputs[0]
        stack = make_node("Concat", [raised[value] for value in values], name, {"axis": 0})
        shape = _common_shape(values)
        stack.outputs[0].type = values[0].type
        stack.outputs[0].shape = None if shape is None else ir.Shape([len(values), *shape])
        self.stacking.append(stack)
        return stack.outputs[0]

    # ---- states ----

    def _before(self, state: State, age: int) -> ir.Value:
        start = state.starts[age]
        values = [start, *self.schedule.made(state.source, state.output)]
        return ir.Value(
            name=f"{self.name}/before",
            type=values[-1].type or start.type,
            shape=_common_shape(values),
        )

    def _carried(self, state: State, age: int) -> ir.Value:
        return next(each.before for each in self.carried if each.state is state and each.age == age)

    # ---- what is read outside ----

    def _given_ways(
        self, starts: list[ir.Value], nexts: list[ir.Value]
    ) -> tuple[dict[Given, int], list[Given]]:
        """Return the place of the state whose last value the graph around reads, and what it reads stacked; may add states."""
        finals: dict[Given, int] = {}
        stacked = [given for given in self.given if not self._is_last(given)]
        for given in self.given:
            if not self._is_last(given):
                continue
            place = self._final_place(given)
            start = self._start_like(given, starts) if place is None else None
            if place is not None:
                finals[given] = place
            elif start is not None:
                finals[given] = len(starts)
                starts.append(start)
                nexts.append(self.made[given.orbit, given.output])
            else:
                stacked.append(given)
        return finals, stacked

    def _is_last(self, given: Given) -> bool:
        return set(given.values) == {self.schedule.iterations}

    def _final_place(self, given: Given) -> int | None:
        for place, each in enumerate(self.carried):
            if (each.state.source, each.state.output, each.age) == (given.orbit, given.output, 1):
                return place
        return None

    def _start_like(self, given: Given, starts: Sequence[ir.Value]) -> ir.Value | None:
        """Return a value to start a state from that no iteration reads: one of the same type and shape."""
        (value,) = given.values.values()
        return next((start for start in starts if _is_like(start, value)), None)

    def _stack(self, loop: LoopView, stacked: Sequence[Given]) -> LoopView:
        """Let the Loop give values of every iteration, and its readers take theirs."""
        body = loop.body
        for k, given in enumerate(stacked):
            value = self.made[given.orbit, given.output]
            copy = make_node("Identity", [value], f"{self.name}/stacked.{k}")
            copy.outputs[0].type, copy.outputs[0].shape = value.type, _copied(value.shape)
            body.append(copy)
            body.outputs.append(copy.outputs[0])
        added = loop.widen(len(stacked))
        node = added[0].producer()
        assert node is not None
        for k, (given, stack) in enumerate(zip(stacked, added, strict=True)):
            value = self.made[given.orbit, given.output]
            stack.name, stack.type = f"{self.name}/stack.{k}", value.type
            mark_made_up(stack)
            if value.shape is not None:
                stack.shape = ir.Shape([self.schedule.iterations, *value.shape])
            picks = []
            for t, old in sorted(given.values.items()):
                index = add_initializer(
                    self.main, f"loopedge.iteration.{t - 1}", np.array(t - 1, np.int64)
                )
                pick = make_node(
                    "Gather", [stack, index], f"{self.name}/stack.{k}.{t - 1}", {"axis": 0}
                )
                pick.outputs[0].type, pick.outputs[0].shape = old.type, _copied(old.shape)
                picks.append(pick)
                _replace(old, pick.outputs[0])
            self.graph.insert_after(node, picks)
        return LoopView(node)


def _in_order(new: dict[Orbit, ir.Node], schedule: Schedule) -> list[ir.Node]:
    """Return the nodes of the body in an order in which they can run."""
    place = schedule.alignment.facts.place
    waiting = sorted(new, key=lambda orbit: -place[orbit.members[orbit.last]])
    done: set[Orbit] = set()
    ordered: list[ir.Node] = []
    open_: set[Orbit] = set()
    while waiting:
        orbit = waiting[-1]
        if orbit in done:
            waiting.pop()
            continue
        before = [
            slot.source
            for slot in orbit.slots
            if slot.source is not None
            and schedule.distance(orbit, slot) == 0
            and slot.source not in done
        ]
        if not before:
            waiting.pop()
            done.add(orbit)
            open_.discard(orbit)
            ordered.append(new[orbit])
            continue
        if orbit in open_:
            raise Misaligned("an iteration needs what it computes later")
        open_.add(orbit)
        waiting += before
    return ordered


def _mark(loop: LoopView) -> None:
    """Note that what a Loop holds has names that were made up."""
    inside = list(loop.body.all_nodes())
    values = [
        *loop.body.inputs,
        *(output for node in (loop.node, *inside) for output in node.outputs),
    ]
    for node in (loop.node, *inside):
        mark_made_up(node)
    for value in values:
        mark_made_up(value)


def _replace(old: ir.Value, new: ir.Value) -> None:
    """Let what reads one value read another, which takes over the name of an output."""
    name = old.name if old.is_graph_output() else None
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    if name is not None:
        old.name = None
        take_name(new, name)
        new.shape = new.shape if old.shape is None else _copied(old.shape)


def _like(value: ir.Value) -> ir.Value:
    return ir.Value(name=f"{value.name}.before", type=value.type, shape=_copied(value.shape))


def _is_like(one: ir.Value, other: ir.Value) -> bool:
    if one.dtype is None or one.dtype != other.dtype or one.shape is None or other.shape is None:
        return False
    known = all(isinstance(dim, int) or dim.value is not None for dim in one.shape)
    return known and list(one.shape) == list(other.shape)


def _common_shape(values: Sequence[ir.Value]) -> ir.Shape | None:
    """Return what is known of the sizes of all values: an axis on which they differ is open."""
    shapes = [value.shape for value in values]
    known = [list(shape) for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1:
        return None
    return ir.Shape(
        [
            dims[0] if all(dim == dims[0] for dim in dims) else None
            for dims in zip(*known, strict=True)
        ]
    )


def _copied(shape: ir.Shape | None) -> ir.Shape | None:
    return None if shape is None else ir.Shape(list(shape))


def _inside_name(loop: str, name: str) -> str:
    return f"{loop}/{name.removeprefix(f'{CORE_NAME}/')}"
