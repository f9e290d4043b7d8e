"""When a token ends, found again apart from the file that is checked: the source's rule, evaluated in numpy on the states of a token.

What a generate file decides inside its Scan is decided here by the nodes that the source's Loop asks, taken out of it and
evaluated by the reference implementation of ONNX on states that were looked at. No If, no Scan and no kernel is shared.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort

from loopedge.errors import InputError, VerificationError
from loopedge.graph.core.loop_view import LoopView, loops_among
from loopedge.graph.core.scans.scan_view import scans_among
from loopedge.graph.decoding.chunk import IDS_INPUT
from loopedge.graph.metadata import TOLERANCE_INPUT
from loopedge.options import option
from loopedge.runtime.inputs import MASK

__all__ = ["STATES", "ExitRule", "give_states"]

Array = npt.NDArray[Any]

STATES = ("exit/before.", "exit/after.")
"""Prefixes of the outputs of `give_states`; the number of the state follows."""
NEAR = 3e-5
"""Changes of the states, in parts of their root mean square, within which the rule must not change its mind: rounding differs."""
DRAWS = 4


def give_states(model: ir.Model) -> None:
    """Let a generate graph of one Scan also give the states before and after each iteration, (iterations, ...), in place.

    Raises:
        InputError: There is no Scan, or there are several.
    """
    scans = scans_among(model.graph)
    if len(scans) != 1:
        raise InputError("an early exit for each token needs one Scan", hint=option("form", "scan"))
    scan = scans[0]
    named = [
        (f"{prefix}{place}", value)
        for prefix, values in zip(STATES, (scan.before, scan.after), strict=True)
        for place, value in enumerate(values)
    ]
    for name, value in named:
        copy = ir.node("Identity", [value], name=f"{name}.row")
        copy.outputs[0].name = f"{name}.row"
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        scan.body.append(copy)
        scan.body.outputs.append(copy.outputs[0])
    old = scan.node
    wider = ir.Node(
        "",
        "Scan",
        old.inputs,
        old.attributes.values(),
        num_outputs=len(old.outputs) + len(named),
        name=old.name,
    )
    model.graph.insert_before(old, wider)
    for before, after in zip(old.outputs, wider.outputs, strict=False):
        after.name, after.type, after.shape = before.name, before.type, before.shape
        ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
    model.graph.remove(old, safe=True)
    for (name, value), output in zip(named, wider.outputs[len(old.outputs) :], strict=True):
        output.name, output.type = name, value.type
        model.graph.outputs.append(output)


class ExitRule:
    """Says of a token whether it ends after an iteration.

    Args:
        source: The float or quantized model with its early exit, the loop form. It is taken apart.
        tolerance: In force, where the exit has one.

    Raises:
        InputError: No Loop carries what is done.
    """

    def __init__(self, source: ir.Model, *, tolerance: float | None) -> None:
        self._tolerance = tolerance
        loops = [loop for loop in loops_among(source.graph) if not loop.runs_on]
        if len(loops) != 1:
            raise InputError(f"{len(loops)} Loops end early, one is needed")
        model = _rule_of(source, loops[0])
        self._inputs = {value.name or "": value for value in model.graph.inputs}
        self._evaluate = _evaluator(ir.to_proto(model))

    def ends(
        self, states: Mapping[str, Array], iteration: int, feeds: Mapping[str, Array]
    ) -> bool | None:
        """Tell whether a token ends after an iteration; None: it is so near that rounding may decide.

        Args:
            states: What `give_states` lets a graph give, of one token.
            iteration: From 0.
            feeds: The token's own inputs.
        """
        given = {name: rows[iteration] for name, rows in states.items() if name in self._inputs}
        fixed = self._fixed(iteration, feeds)
        answers = {self._ask({**fixed, **given})}
        generator = np.random.default_rng(iteration)
        for _ in range(DRAWS):
            moved = {name: _moved(array, generator) for name, array in given.items()}
            answers.add(self._ask({**fixed, **moved}))
        return None if len(answers) > 1 else answers.pop()

    def check(
        self, states: Mapping[str, Array], count: int, loops: int, feeds: Mapping[str, Array]
    ) -> None:
        """Hold how many iterations a token took.

        Args:
            states: Of this token, of so many iterations at least.
            count: Iterations that it took.
            loops: The most that there are.
            feeds: The token's own inputs.

        Raises:
            VerificationError: The rule ends it elsewhere.
        """
        for iteration in range(count):
            last = iteration + 1 == count
            ends = self.ends(states, iteration, feeds)
            if ends is True and not last:
                raise VerificationError(
                    f"a token runs {count} iterations, by the model's own rule it ends after {iteration + 1}",
                    measured=count,
                    allowed=iteration + 1,
                )
            if ends is False and last and count < loops:
                raise VerificationError(
                    f"a token ends after {count} of {loops} iterations, by the model's own rule it goes on",
                    measured=count,
                    allowed=loops,
                )

    def _fixed(self, iteration: int, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return all inputs that are no states."""
        fixed = {}
        for name, value in self._inputs.items():
            if name.startswith(STATES):
                continue
            dtype = np.float32 if value.dtype is None else value.dtype.numpy()
            if name == TOLERANCE_INPUT:
                fixed[name] = np.array(self._tolerance, dtype)
            elif name == ITERATION:
                fixed[name] = np.array(iteration, dtype)
            elif name == MASK:
                fixed[name] = np.ones((1, 1), dtype)
            elif name in feeds:
                fixed[name] = feeds[name].astype(dtype)
            elif name == IDS_INPUT or value.shape is None:
                raise InputError(f"the exit reads {name}, which no token alone has")
            else:  # what is done, and how many iterations ran: nothing yet
                sizes = [size if isinstance(size, int) else 1 for size in value.shape]
                fixed[name] = np.zeros(sizes, dtype)
        return fixed

    def _ask(self, feeds: dict[str, Array]) -> bool:
        return bool(self._evaluate(feeds).all())


ITERATION = "exit/iteration"


def _rule_of(model: ir.Model, loop: LoopView) -> ir.Model:
    """Return the nodes that say what is done after an iteration as a model of their own; the source is used up."""
    places = [place for place, value in enumerate(loop.before) if value.dtype == ir.DataType.BOOL]
    done = loop.after[places[-1]]
    inputs: dict[ir.Value, ir.Value] = {loop.iteration: _like(loop.iteration, ITERATION)}
    for prefix, values in zip(STATES, (loop.before, loop.after), strict=True):
        for place, value in enumerate(values):
            if value is not done and not (prefix == STATES[0] and _says(loop, place)):
                inputs[value] = _like(value, f"{prefix}{place}")
    for place, value in enumerate(loop.before):
        if _says(loop, place):
            inputs[value] = _like(value, f"exit/{value.name}")
    nodes, read = _needed(done, inputs)
    for value in read:
        if value.const_value is None and value not in inputs:
            inputs[value] = _like(value, value.name or "")
    used = {value: new for value, new in inputs.items() if value in read}
    constants = [value for value in read if value.const_value is not None]
    loop.body.outputs.clear()
    for node in nodes:
        assert node.graph is not None
        node.graph.remove(node)
    for value in constants:
        if value.graph is not None and value.name is not None:
            value.graph.initializers.pop(value.name, None)
    graph = ir.Graph(
        list(used.values()),
        [done],
        nodes=nodes,
        initializers=constants,
        opset_imports=model.opset_imports,
        name="exit",
    )
    for node in nodes:
        for place, each in enumerate(node.inputs):
            if each is not None and each in used:
                node.replace_input_with(place, used[each])
    rule = ir.Model(graph, ir_version=model.ir_version)
    rule.functions.update(model.functions)
    return rule


def _says(loop: LoopView, place: int) -> bool:
    """Tell whether a state of the Loop says what is done or how many iterations ran."""
    dtype = loop.before[place].dtype
    count = len(loop.before)
    return place >= count - 2 and dtype in {ir.DataType.BOOL, ir.DataType.INT64}


def _like(value: ir.Value, name: str) -> ir.Value:
    return ir.Value(name=name, type=value.type, shape=value.shape)


def _needed(
    target: ir.Value, given: Collection[ir.Value]
) -> tuple[list[ir.Node], dict[ir.Value, None]]:
    """Return the nodes that make a value, in order, and what they read that none of them makes."""
    nodes: dict[ir.Node, None] = {}
    read: dict[ir.Value, None] = {}
    waiting: list[tuple[ir.Value, bool]] = [(target, False)]
    while waiting:
        value, ready = waiting.pop()
        node = None if value in given else value.producer()
        if node is None:
            read[value] = None
        elif ready:
            nodes.setdefault(node)
        elif node not in nodes:
            waiting.append((value, True))
            waiting += [(each, False) for each in _reads(node)]
    return list(nodes), read


def _reads(node: ir.Node) -> list[ir.Value]:
    """Return what a node reads, in its bodies too."""
    inner = [
        each
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
        for each in attribute.as_graph().all_nodes()
    ]
    made = {output for each in inner for output in each.outputs}
    found = [value for each in (node, *inner) for value in each.inputs if value is not None]
    return [value for value in dict.fromkeys(found) if value not in made]


def _evaluator(proto: onnx.ModelProto) -> Callable[[dict[str, Array]], Array]:
    """Return what evaluates a model of one output: in numpy, or where it has operators that numpy lacks, ONNX Runtime."""
    from onnx.reference import ReferenceEvaluator  # takes a while to import

    try:
        model: Any = ReferenceEvaluator(proto)
    except (NotImplementedError, RuntimeError, ValueError, TypeError):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        content = proto.SerializeToString()
        model = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda feeds: np.asarray(model.run(None, feeds)[0])


def _moved(array: Array, generator: np.random.Generator) -> Array:
    """Return floats that are a little beside others; whole numbers as they are."""
    if array.dtype.kind != "f" or not array.size:
        return array
    size = NEAR * float(np.sqrt(np.mean(np.square(array, dtype=np.float64))))
    return (array + size * generator.standard_normal(array.shape)).astype(array.dtype)
