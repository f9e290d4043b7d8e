"""Early exit through the Loop condition: at any iteration, at none, row by row."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import loopedge
import loopedge_calibration
from loopedge.artifact.artifact import Artifact
from loopedge.deployment.decoding.exit_rule import ExitRule
from loopedge.errors import InputError, VerificationError
from loopedge.inference.run import run_file
from loopedge.model.contract import Tensors
from loopedge_calibration.losses import RelativeError
from tests.parity.models import SEVEN_BITS, Sizes, make_inputs, make_model, relative_error

pytestmark = pytest.mark.slow

WIDTH, LOOPS = 8, 6


class Counter(loopedge.LoopedModule):
    """Each row counts up by one from where its first value says, and stops at 6."""

    loops = LOOPS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.arange(2 * 7 * WIDTH).reshape(2, 7, WIDTH) / 10,)

    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return (x, x[:, 0, 0].round()), ()

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        x, count = state
        moved: Tensor = torch.tanh(self.linear(x))
        return moved, count + 1

    def halt(self, state: Tensors, previous: Tensors) -> Tensor:
        done: Tensor = state[1] >= 6
        return done

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        return state[0]


def rows_starting_at(counts: list[int]) -> NDArray[np.float32]:
    x = np.random.default_rng(3).standard_normal((len(counts), 5, WIDTH)).astype(np.float32)
    x[:, 0, 0] = counts
    return x


def test_rows_stop_at_every_iteration_and_keep_their_state(tmp_path: Path) -> None:
    model = Counter().eval()
    result = loopedge.export(model, tmp_path / "model.onnx")
    assert result.exit == "halt"
    session = loopedge.Session(result.path)
    counts = [5, 4, 3, 2, 1, 0, -1, -9]  # the last two are never done
    x = rows_starting_at(counts)
    given = session.run({"inputs": x})
    assert given["iterations"].tolist() == [1, 2, 3, 4, 5, 6, 6, 6]
    for row, ran in enumerate(given["iterations"]):
        with torch.no_grad():
            alone = model(torch.from_numpy(x[row : row + 1]), loops=int(ran)).numpy()
        assert relative_error(given["outputs"][row : row + 1], alone) < 1e-5
    with torch.no_grad():
        assert relative_error(given["outputs"], model(torch.from_numpy(x)).numpy()) < 1e-5


def test_the_loop_ends_when_the_last_row_is_done(tmp_path: Path) -> None:
    """Judged by an evaluator of its own, in older operators."""
    result = loopedge.export(Counter(), tmp_path / "model.onnx", opset=20)
    reference = ReferenceEvaluator(onnx.load(result.path))
    for stop_at in range(1, LOOPS + 1):
        x = rows_starting_at([6 - stop_at, 5])
        _, iterations = reference.run(None, {"inputs": x})
        assert np.asarray(iterations).tolist() == [stop_at, 1]


def test_a_halt_can_be_left_out(tmp_path: Path) -> None:
    result = loopedge.export(Counter(), tmp_path / "model.onnx", exit="none")
    assert result.exit is None
    assert loopedge.Session(result.path).output_names == ["outputs"]
    with pytest.raises(InputError, match="stops early has no unrolled form"):
        loopedge.export(Counter(), tmp_path / "unrolled.onnx", form="unrolled")
    loopedge.export(Counter(), tmp_path / "unrolled.onnx", form="unrolled", exit="none")


@pytest.fixture(scope="module")
def tolerant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tolerant") / "model.onnx"
    loopedge.export(make_model("padded", loops=LOOPS), path, exit="tolerance=0.3")
    return path


def test_the_rule_of_a_file_is_replayed_on_states_alone(tolerant: Path) -> None:
    """What checks when a token of a generate file ends, against the formula that the docs say."""
    rule = ExitRule(Artifact.open(tolerant).fresh_graph(), tolerance=0.3)
    generator = np.random.default_rng(0)
    before = generator.standard_normal((40, 1, 1, 32))
    after = before + generator.uniform(0.1, 0.5, (40, 1, 1, 1)) * generator.standard_normal(
        before.shape
    )
    norms = [np.linalg.norm(each.reshape(40, -1), axis=1) for each in (after - before, before)]
    states = {
        name: array.astype(np.float32)
        for name, array in zip(("exit/before.0", "exit/after.0"), (before, after), strict=True)
    }
    answers = [rule.ends(states, row, {}) for row in range(40)]
    assert answers == (norms[0] <= 0.3 * norms[1]).tolist()
    assert {*answers} == {True, False}
    close = {
        "exit/before.0": states["exit/before.0"],
        "exit/after.0": 1.3 * states["exit/before.0"],
    }
    assert rule.ends(close, 0, {}) is None  # rounding decides
    never = ExitRule(Artifact.open(tolerant).fresh_graph(), tolerance=0.0)
    assert never.ends(close, 0, {}) is False


def changes(feeds: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Relative change of each row by iteration, (loops, batch), at kept positions."""
    model = make_model("padded", loops=LOOPS)
    ids, mask = (torch.from_numpy(feeds[name]) for name in ("input_ids", "attention_mask"))
    table = model.timestep_table(LOOPS)
    kept = mask[..., None]
    found = []
    with torch.no_grad():
        state, context = model.prelude(ids, mask)
        for t in range(LOOPS):
            assert isinstance(state, Tensor)
            after = model.core(state, context, {name: rows[t] for name, rows in table.items()})
            moved = ((after - state) * kept).double().flatten(1).norm(dim=1)
            found.append((moved / (state * kept).double().flatten(1).norm(dim=1)).numpy())
            state = after
    return np.stack(found)


def test_a_tolerance_stops_where_the_state_changes_by_less(tolerant: Path) -> None:
    _, feeds = make_inputs(make_model("padded"), Sizes(4, 9))
    session = loopedge.Session(tolerant)
    change = changes(feeds)
    ordered = np.unique(change)
    for tolerance in [0.0, *np.sqrt(ordered[1:] * ordered[:-1]), ordered[-1] * 2]:
        below = change <= tolerance
        expected = np.where(below.any(0), below.argmax(0) + 1, LOOPS)
        given = session.run(feeds, tolerance=float(tolerance))["iterations"]
        assert given.tolist() == expected.tolist()
    assert session.run(feeds)["iterations"].tolist() == (
        session.run(feeds, tolerance=0.3)["iterations"].tolist()
    )


def test_the_tolerance_is_an_input_that_every_client_feeds(tolerant: Path) -> None:
    """As an initializer that may be overwritten it was dropped in JavaScript, and ONNX Runtime warned of it."""
    session = ort.InferenceSession(str(tolerant), providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_inputs()][-1] == "tolerance"
    assert session.get_overridable_initializers() == []
    _, feeds = make_inputs(make_model("padded"), Sizes(2, 5))
    for tolerance, ran in ((0.0, LOOPS), (100.0, 1)):
        fed = {**feeds, "tolerance": np.array(tolerance, np.float32)}
        assert session.run(["iterations"], fed)[0].tolist() == [ran] * 2


def test_what_is_padded_does_not_count_as_change(tolerant: Path) -> None:
    session = loopedge.Session(tolerant)
    ids = np.random.default_rng(0).integers(1, 50, (1, 6))
    padded = np.concatenate([ids, np.full((1, 8), 33)], axis=1)
    mask = np.array([[1] * 6 + [0] * 8])
    for tolerance in (0.05, 0.2, 0.3, 0.4):
        alone = session.run(
            {"input_ids": ids, "attention_mask": np.ones_like(ids)}, tolerance=tolerance
        )
        more = session.run({"input_ids": padded, "attention_mask": mask}, tolerance=tolerance)
        assert alone["iterations"].tolist() == more["iterations"].tolist()
        assert relative_error(more["logits"][:, :6], alone["logits"]) < 1e-5


def test_a_tolerance_of_zero_runs_all_iterations(tolerant: Path) -> None:
    model = make_model("padded", loops=LOOPS)
    tensors, feeds = make_inputs(model, Sizes(3, 8))
    given = loopedge.Session(tolerant).run(feeds, tolerance=0.0)
    assert given["iterations"].tolist() == [LOOPS] * 3
    with torch.no_grad():
        expected = model(*tensors).numpy()
    assert relative_error(given["logits"], expected, feeds["attention_mask"]) < 1e-5


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_int8_keeps_the_exit_and_is_measured_without_it(
    scheme: str, tolerant: Path, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    data = [
        {
            "input_ids": generator.integers(0, 50, (4, 9)),
            "attention_mask": np.ones((4, 9), np.int64),
        }
        for _ in range(8)
    ]
    ranges = loopedge_calibration.collect(tolerant, data) if scheme == "static" else None
    result = loopedge.quantize(
        tolerant, tmp_path / "int8.onnx", scheme=scheme, ranges=ranges, **SEVEN_BITS
    )
    assert len(result.sqnr_db_per_iteration) == LOOPS
    assert min(result.sqnr_db_per_iteration) > 30
    assert "rows stop at another iteration" in result.notes[-1]
    session = loopedge.Session(result.path)
    assert session.run(data[0], tolerance=0.0)["iterations"].tolist() == [LOOPS] * 4
    assert session.run(data[0], tolerance=100.0)["iterations"].tolist() == [1] * 4


def test_what_rounding_costs_leaves_out_the_count_and_what_is_masked(
    tolerant: Path, tmp_path: Path
) -> None:
    """Whole numbers without any noise beside the logits flattered an SQNR by 3 dB."""
    mask = (np.arange(9) < np.array([[9], [2], [5], [4]])).astype(np.int64)
    feeds = {
        "input_ids": np.random.default_rng(0).integers(0, 50, (4, 9)),
        "attention_mask": mask,
    }
    result = loopedge.quantize(
        tolerant, tmp_path / "q.onnx", data=[feeds], scheme="dynamic", **SEVEN_BITS
    )
    last = {name: array[3:] for name, array in feeds.items()}  # every fourth sample judges
    exact, given = (
        loopedge.Session(path).run(last, tolerance=0.0)["logits"][last["attention_mask"] == 1]
        for path in (tolerant, Path(result.path))
    )
    noise = np.square(given.astype(np.float64) - exact).sum()
    expected = 10 * np.log10(np.square(exact.astype(np.float64)).sum() / noise)
    assert result.sqnr_db == pytest.approx(expected, abs=0.1)
    loss = RelativeError([last], loopedge.Session(tolerant))
    exact, given = (
        loopedge.Session(path).run(last)["logits"][last["attention_mask"] == 1]
        for path in (tolerant, Path(result.path))
    )
    share = np.linalg.norm(given - exact) / np.linalg.norm(exact)
    assert loss.of(loopedge.Session(result.path))[0] == pytest.approx(share, rel=1e-3)


@pytest.mark.filterwarnings("ignore::loopedge.errors.LoopCountWarning")
@pytest.mark.slow
def test_a_selectable_count_ends_the_loop_too(tmp_path: Path) -> None:
    result = loopedge.export(Counter(), tmp_path / "model.onnx", dynamic_loops=True)
    session = loopedge.Session(result.path)
    given = session.run({"inputs": rows_starting_at([5, 2, -9])}, loops=3)
    assert given["iterations"].tolist() == [1, 3, 3]


def test_a_wrong_condition_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loopedge.exporter import assembled, passes

    honest = passes.optimise

    def never_done(graph: Any) -> None:
        honest(graph)
        for node in graph.graph.all_nodes():
            if node.op_type == "Or":
                node.replace_input_with(1, node.inputs[0])

    monkeypatch.setattr(assembled, "optimise", never_done)
    with pytest.raises(VerificationError, match=r"runs .* iterations"):
        loopedge.export(Counter(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("exit", "text"),
    [
        ("soon", "exit 'soon' is not known"),
        ("tolerance=", "is not a number"),
        ("tolerance=-1", "at least 0"),
        ("tolerance=nan", "finite"),
        ("halt", "has no method halt"),
    ],
)
def test_a_wrong_exit_is_refused(exit: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=text):
        loopedge.export(make_model("plain"), tmp_path / "model.onnx", exit=exit)


def test_a_halt_that_answers_for_no_row_is_refused(tmp_path: Path) -> None:
    class All(Counter):
        def halt(self, state: Tensors, previous: Tensors) -> Tensor:
            return super().halt(state, previous).all()

    with pytest.raises(InputError, match=r"halt must give bool \(2,\).* torch.bool \(\)"):
        loopedge.export(All(), tmp_path / "model.onnx")

    class Shared(Counter):
        def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return (x, torch.zeros(3)), ()

    with pytest.raises(InputError, match=r"first axis of every state, state 1 has shape \(3,\)"):
        loopedge.export(Shared(), tmp_path / "model.onnx")


def test_a_tolerance_is_refused_where_there_is_none(tolerant: Path, tmp_path: Path) -> None:
    _, feeds = make_inputs(make_model("padded"), Sizes(1, 4))
    with pytest.raises(InputError, match="at least 0"):
        loopedge.Session(tolerant).run(feeds, tolerance=-0.5)
    result = loopedge.export(Counter(), tmp_path / "model.onnx", exit="none")
    with pytest.raises(InputError, match="takes no tolerance"):
        loopedge.Session(result.path).run({"inputs": rows_starting_at([1])}, tolerance=0.1)


class Settling(Counter):
    """Converges to a fixed point within some twenty iterations, in the last bit."""

    loops = 40

    def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
        return x, x

    def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
        assert isinstance(state, Tensor)
        assert isinstance(context, Tensor)
        return 0.3 * torch.tanh(self.linear(state)) + context

    halt = None  # type: ignore[assignment]

    def coda(self, state: Tensors, context: Tensors) -> Tensors:
        return state


def test_a_core_that_settles_stops_and_with_a_tolerance_of_zero_does_not(tmp_path: Path) -> None:
    result = loopedge.export(Settling(), tmp_path / "model.onnx", exit="tolerance=1e-3")
    session = loopedge.Session(result.path)
    x = rows_starting_at([1, 2, 3])
    assert max(session.run({"inputs": x})["iterations"]) < 10
    assert session.run({"inputs": x}, tolerance=0.0)["iterations"].tolist() == [40] * 3


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_a_state_of_bools_may_say_who_is_done(opset: int, tmp_path: Path) -> None:
    class Flagged(Counter):
        def prelude(self, x: Tensor) -> tuple[Tensors, Tensors]:  # type: ignore[override]
            return (x, x[:, 0, 0].round(), x[:, 0, 0] > 100), ()

        def core(self, state: Tensors, context: Tensors, row: dict[str, Tensor]) -> Tensors:
            x, count, _ = state
            return torch.tanh(self.linear(x)), count + 1, count + 1 >= 6

        def halt(self, state: Tensors, previous: Tensors) -> Tensor:
            return state[2]

    model = Flagged().eval()
    result = loopedge.export(model, tmp_path / "model.onnx", opset=opset)
    x = rows_starting_at([5, 2, -9])
    given = loopedge.Session(result.path).run({"inputs": x})
    assert given["iterations"].tolist() == [1, 4, 6]
    with torch.no_grad():
        assert relative_error(given["outputs"], model(torch.from_numpy(x)).numpy()) < 1e-5


def test_the_iterations_that_ran_are_reported(tmp_path: Path) -> None:
    result = loopedge.export(Counter(), tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", inputs=rows_starting_at([5, 3]))
    assert run_file(result.path, tmp_path / "x.npz").loops == 3


@pytest.mark.slow
def test_weights_in_float16_may_stop_elsewhere(tmp_path: Path) -> None:
    model = make_model("padded", loops=LOOPS)
    result = loopedge.export(model, tmp_path / "m.onnx", exit="tolerance=0.3", storage="float16")
    assert result.rounding_error is not None
    assert result.max_rel_error < 1e-5
