"""Graphs with Loops as other tools write them: chained, with stacks, tables, own weights and Loops inside."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

__all__ = [
    "COUNT",
    "Array",
    "D",
    "LoopSpec",
    "as_ir",
    "evaluate",
    "feeds_of",
    "loop_model",
    "run",
    "tensor",
]

Array = NDArray[Any]

D = 4
COUNT = "n"
SHAPE: list[str | int] = ["batch", "sequence", D]
Condition = Literal["passed", "absent", "true", "cast"]
Place = Literal["outside", "initializer", "constant"]


@dataclass(frozen=True, kw_only=True)
class LoopSpec:
    """A Loop: ``stay`` states are handed on as they are, ``swap`` exchanges the first two, ``inner`` is a count."""

    iterations: int = 3
    states: int = 1
    stay: int = 0
    swap: bool = False
    tables: int = 0
    context: bool = False
    stacked: int = 0
    number: bool = False
    weights: Place = "outside"
    condition: Condition = "passed"
    inner: int = 0
    counted: bool = False
    reads: int | None = None


def tensor(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    """Describe a tensor."""
    return helper.make_tensor_value_info(name, kind, shape)


class _Builder:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.stored: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def drawn(self, *shape: int) -> Array:
        return (self.random.normal(size=shape) / 2).astype(np.float32)

    def store(self, name: str, array: Array) -> str:
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def loop(self, place: int, spec: LoopSpec, pool: list[str], weight: str) -> list[str]:
        """Add a Loop and what reads its stacks; return its last states."""
        name = f"loop{place}"
        states = [f"s{i}" for i in range(spec.states)]
        body, inside = self._body(name, spec, states, pool, weight)
        initial = [pool[i % len(pool)] for i in range(spec.states)]
        count = COUNT if spec.counted else self.store(f"{name}.count", np.array(spec.iterations))
        go = "" if spec.condition == "absent" else self.store(f"{name}.go", np.array(True))
        finals = [f"{name}.final{i}" for i in range(spec.states)]
        stacks = [f"{name}.stack{i}" for i in range(spec.stacked + spec.number)]
        graph = helper.make_graph(
            body,
            name,
            [
                tensor("i", TensorProto.INT64, []),
                tensor("go", TensorProto.BOOL, []),
                *(tensor(state, TensorProto.FLOAT, SHAPE) for state in states),
            ],
            [
                tensor("go.next", TensorProto.BOOL, []),
                *(tensor(f"{state}.next", TensorProto.FLOAT, SHAPE) for state in states),
                *(tensor(f"row{i}", TensorProto.FLOAT, SHAPE) for i in range(spec.stacked)),
                *([tensor("number", TensorProto.INT64, [])] if spec.number else []),
            ],
            inside,
        )
        self.nodes.append(
            helper.make_node("Loop", [count, go, *initial], [*finals, *stacks], name, body=graph)
        )
        for i in range(spec.stacked):
            self.outputs.append(tensor(stacks[i], TensorProto.FLOAT, [None, *SHAPE]))
        if spec.number:
            self.outputs.append(tensor(stacks[-1], TensorProto.INT64, [None]))
        if spec.reads is not None and spec.stacked:
            at = spec.reads % spec.iterations
            index = self.store(
                f"{name}.at", np.array(at if spec.reads % 2 else at - spec.iterations)
            )
            self.nodes.append(
                helper.make_node("Gather", [stacks[0], index], [f"{name}.read"], f"{name}.gather")
            )
            finals.append(f"{name}.read")
        return finals

    def _body(
        self, name: str, spec: LoopSpec, states: list[str], pool: list[str], weight: str
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """Return the nodes of a body, and what it stores itself."""
        nodes, inside = [], []
        if spec.condition == "true":
            true = numpy_helper.from_array(np.array(True))
            nodes.append(helper.make_node("Constant", [], ["go.next"], value=true))
        else:
            cast: dict[str, Any] = {"to": TensorProto.BOOL} if spec.condition == "cast" else {}
            operator = "Cast" if cast else "Identity"
            nodes.append(helper.make_node(operator, ["go"], ["go.next"], f"{name}.go", **cast))
        if spec.weights != "outside":
            weight = "own.weight"
            array = numpy_helper.from_array(self.drawn(D, D), weight)
            if spec.weights == "initializer":
                inside.append(array)
            else:
                nodes.append(helper.make_node("Constant", [], [weight], value=array))
        value = states[0]
        if spec.inner:
            nodes.append(self._inner(name, spec.inner, value, weight))
            value = "deep"
        nodes.append(helper.make_node("MatMul", [value, weight], ["product"], "product"))
        value = "product"
        for i in range(spec.tables):
            table = self.store(
                f"{name}.table{i}", self.drawn(spec.iterations + spec.counted * 4, D)
            )
            nodes.append(helper.make_node("Gather", [table, "i"], [f"entry{i}"], f"gather{i}"))
            nodes.append(helper.make_node("Add", [value, f"entry{i}"], [f"sum{i}"], f"add{i}"))
            value = f"sum{i}"
        if spec.context:
            nodes.append(helper.make_node("Add", [value, pool[-1]], ["with.context"], "context"))
            value = "with.context"
        moving = states[: max(1, len(states) - spec.stay)]
        for place, state in enumerate(states):
            if state not in moving:
                nodes.append(helper.make_node("Identity", [state], [f"{state}.next"]))
                continue
            nodes.append(helper.make_node("Add", [value, state], [f"mixed{place}"], f"mix{place}"))
            target = moving[1 - place] if spec.swap and len(moving) > 1 and place < 2 else state
            nodes.append(
                helper.make_node("Tanh", [f"mixed{place}"], [f"{target}.next"], f"tanh{place}")
            )
        nodes += [
            helper.make_node("Neg", [f"{states[0]}.next"], [f"row{i}"], f"neg{i}")
            for i in range(spec.stacked)
        ]
        if spec.number:
            nodes.append(helper.make_node("Identity", ["i"], ["number"]))
        return nodes, inside

    def _inner(self, name: str, count: int, value: str, weight: str) -> onnx.NodeProto:
        """Return a Loop inside a body, which reads the number of the iteration around."""
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["on"], ["on.next"]),
                helper.make_node("MatMul", ["u", weight], ["u.product"], "deep.product"),
                helper.make_node("Add", ["j", "i"], ["both"], "deep.add"),
                helper.make_node(
                    "Cast", ["both"], ["both.float"], "deep.cast", to=TensorProto.FLOAT
                ),
                helper.make_node("Add", ["u.product", "both.float"], ["u.sum"], "deep.sum"),
                helper.make_node("Tanh", ["u.sum"], ["u.next"], "deep.tanh"),
            ],
            f"{name}.inner",
            [
                tensor("j", TensorProto.INT64, []),
                tensor("on", TensorProto.BOOL, []),
                tensor("u", TensorProto.FLOAT, SHAPE),
            ],
            [tensor("on.next", TensorProto.BOOL, []), tensor("u.next", TensorProto.FLOAT, SHAPE)],
        )
        times = self.store(f"{name}.times", np.array(count))
        return helper.make_node("Loop", [times, "", value], ["deep"], "inside", body=body)


def loop_model(*specs: LoopSpec, seed: int = 0, opset: int = 21) -> onnx.ModelProto:
    """Return a graph of Loops, each started from what the ones before gave; all they give are its outputs."""
    builder = _Builder(seed)
    weight = builder.store("weight", builder.drawn(D, D))
    pool = ["x"]
    for place, spec in enumerate(specs):
        pool = [*builder.loop(place, spec, pool, weight), *pool]
    finals = [value for value in pool if value != "x"]
    inputs = [tensor("x", TensorProto.FLOAT, SHAPE)]
    if any(spec.counted for spec in specs):
        inputs.append(tensor(COUNT, TensorProto.INT64, []))
    graph = helper.make_graph(
        builder.nodes,
        "other",
        inputs,
        [*(tensor(value, TensorProto.FLOAT, SHAPE) for value in finals), *builder.outputs],
        builder.stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def as_ir(model: onnx.ModelProto) -> ir.Model:
    """Return a graph that shares nothing with the model: onnx_ir renames the tensors of what it was made from."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return ir.from_proto(copy)


def feeds_of(model: onnx.ModelProto, count: int = 3) -> dict[str, Array]:
    """Return inputs of a graph."""
    x = np.random.default_rng(1).normal(size=(2, 3, D)).astype(np.float32)
    found: dict[str, Array] = {"x": x, COUNT: np.array(count)}
    return {value.name: found[value.name] for value in model.graph.input}


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Run a graph in ONNX Runtime, as it stands."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    inputs = [*session.get_inputs(), *session.get_overridable_initializers()]
    taken = {value.name for value in inputs}
    given = {name: array for name, array in feeds.items() if name in taken}
    return dict(zip(names, session.run(names, given), strict=True))


def evaluate(model: ir.Model, feeds: dict[str, Array]) -> dict[str, Array]:
    """Compute a graph by `onnx.reference`, which stacks outputs of Loops along another axis: one without such."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    names = [value.name or "" for value in model.graph.outputs]
    taken = {value.name for value in model.graph.inputs}
    given = {name: array for name, array in feeds.items() if name in taken}
    return dict(zip(names, ReferenceEvaluator(proto).run(names, given), strict=True))
