"""`loopedge.Generator` on files written by hand: equal to a computation without a cache, and what it refuses."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from loopedge.errors import InputError, LoopedgeError, ProviderError
from loopedge.graph.metadata import CacheSlot, Generation, Metadata
from loopedge.runtime.decoding.cached_texts import CachedTexts
from loopedge.runtime.decoding.generate_file import needed_runtime
from loopedge.runtime.generator import Generator
from tests.graph.generate_files import GenerateModel, write_generate_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROMPT = [84, 104, 101, 32, 108, 111, 111, 112]


def close(found: NDArray[Any], wanted: NDArray[Any], error: float = 2e-5) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= error * np.abs(wanted).max()


@pytest.fixture
def model() -> GenerateModel:
    return GenerateModel()


@pytest.fixture
def file(model: GenerateModel, tmp_path: Path) -> Path:
    return write_generate_file(model, tmp_path / "lm.generate.onnx")


KINDS: dict[str, dict[str, Any]] = {
    "scan": {},
    "all places": {"places": ("prelude", "core", "coda")},
    "window": {"window": 5},
    "unrolled": {"form": "unrolled", "places": ("core", "coda")},
    "one loop": {"loops": 1},
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_without_a_cache(tmp_path: Path, kind: str) -> None:
    model = GenerateModel(**KINDS[kind])
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    text: list[int] = []
    for chunk in ([3], [200, 7, 7, 9, 1], [2], [5], list(range(20, 32))):
        logits = generator.prefill(chunk)
        text += chunk
        close(logits[0], model.logits(text)[-1])
    for token in (1, 255, 0):
        logits = generator.step(token)
        text.append(token)
        close(logits[0], model.logits(text)[-1])
    assert generator.lengths.tolist() == [len(text)]
    generator.reset()
    found = [token.id for token in generator.stream(PROMPT, new_tokens=30)]
    assert found == model.greedy(PROMPT, 30)


def last_loop_logits(model: GenerateModel, chunks: list[list[int]]) -> NDArray[Any]:
    """Return the logits after the last chunk, where earlier loops see the last loop's past and their own chunk."""
    from tests.graph.generate_files import HEAD_SIZE, HEADS, KV_HEADS, WIDTH

    weights = model.weights
    past = {side: np.zeros((0, KV_HEADS, HEAD_SIZE), np.float32) for side in "kv"}
    done = 0
    state = np.zeros((0, WIDTH), np.float32)
    for chunk in chunks:
        length = len(chunk)
        state = weights["table"][chunk] + weights["places"][done : done + length]
        now = past
        for t in range(model.loops):
            state = state + weights["steps"][t]
            new = {
                side: (state @ weights[f"core.{side}"]).reshape(length, KV_HEADS, HEAD_SIZE)
                for side in "kv"
            }
            now = {side: np.concatenate([past[side], new[side]]) for side in "kv"}
            queries = (state @ weights["core.q"]).reshape(length, HEADS, HEAD_SIZE)
            keys, values = (np.repeat(now[side], HEADS // KV_HEADS, axis=1) for side in "kv")
            scores = np.einsum("qhd,khd->hqk", queries, keys) / np.sqrt(HEAD_SIZE)
            hidden = np.arange(done + length)[None, :] > done + np.arange(length)[:, None]
            scores = np.where(hidden, -np.inf, scores)
            shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares /= shares.sum(axis=-1, keepdims=True)
            mixed = np.einsum("hqk,khd->qhd", shares, values).reshape(length, WIDTH)
            state = np.tanh(state + mixed @ weights["core.o"])
        past, done = now, done + length
    last: NDArray[Any] = state[-1] @ weights["head"]
    return last


def test_last_loop_shares_one_buffer_among_the_iterations(tmp_path: Path) -> None:
    model = GenerateModel(form="unrolled", cache="last-loop")
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    per_loop = GenerateModel(form="unrolled")
    other = Generator(write_generate_file(per_loop, tmp_path / "p.onnx"), threads=1)
    assert other.cache_bytes == 3 * generator.cache_bytes
    chunks = [PROMPT, [5], [6, 7, 8], [9]]
    for place, chunk in enumerate(chunks):
        close(generator.prefill(chunk)[0], last_loop_logits(model, chunks[: place + 1]))


@pytest.mark.parametrize(("kind", "error"), [("float16", 5e-3), ("int8", 0.1), ("int4", 0.7)])
def test_narrow_caches_are_near(tmp_path: Path, kind: Any, error: float) -> None:
    model = GenerateModel(cache_type=kind)
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    float32 = Generator(write_generate_file(GenerateModel(), tmp_path / "f.onnx"), threads=1)
    assert float32.cache_bytes == {"float16": 2, "int8": 4, "int4": 8}[kind] * generator.cache_bytes
    text = list(PROMPT)
    close(generator.prefill(PROMPT)[0], model.logits(text)[-1], error)
    for token in (1, 2, 3):
        text.append(token)
        close(generator.step(token)[0], model.logits(text)[-1], error)


def test_a_batch_of_different_lengths(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, batch=3, threads=1)
    texts = [[1, 2, 3, 4, 5], [9], [7, 7, 7]]
    logits = generator.prefill(texts)
    for round_ in range(12):
        close(logits, np.stack([model.logits(text)[-1] for text in texts]))
        tokens = logits.argmax(axis=1) if round_ % 2 else np.array([round_, 3, 200])
        for text, token in zip(texts, tokens, strict=True):
            text.append(int(token))
        logits = generator.step(tokens)
    assert generator.lengths.tolist() == [17, 13, 15]
    more = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]  # token by token: the cache holds something
    logits = generator.prefill(more)
    texts = [text + new for text, new in zip(texts, more, strict=True)]
    close(logits, np.stack([model.logits(text)[-1] for text in texts]))
    assert generator.texts == texts
    with pytest.raises(InputError, match="different lengths"):
        generator.prefill([[1, 2], [3], [4]])
    generator.reset()
    array = np.array([[1, 2], [3, 4], [5, 6]])
    close(generator.prefill(array), np.stack([model.logits(row)[-1] for row in array.tolist()]))


def test_buffers_grow_as_the_text_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.STEP", 4)
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.CHUNK", 7)
    model = GenerateModel(context=50, places=("prelude", "core"))
    file = write_generate_file(model, tmp_path / "m.onnx")
    growing, whole = Generator(file, threads=1), Generator(file, context=50, threads=1)
    sizes = {growing.cache_bytes}
    text: list[int] = []
    for chunk in ([1], [2], [3], [4], [5], list(range(20)), [6, 7]):
        text += chunk
        for generator in (growing, whole):
            close(generator.prefill(chunk)[0], model.logits(text)[-1])
        sizes.add(growing.cache_bytes)
    position = sum(
        2 * 4 * 2 * 8 * slots for slots in (1, 3)
    )  # float32 keys and values of two heads of 8
    assert sizes == {positions * position for positions in (4, 8, 28)}
    assert whole.cache_bytes == 50 * position
    growing.prefill(range(23))  # the context is no multiple of the steps
    assert growing.cache_bytes == 50 * position
    assert len(growing.texts[0]) == 50
    with pytest.raises(InputError, match="context is 50 positions"):
        growing.step(1)
    assert growing.lengths.tolist() == [50]


def test_without_memory_to_grow_the_text_is_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.STEP", 4)
    model = GenerateModel(places=("prelude", "core"))
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    generator.prefill([1, 2, 3, 4])
    zeros, made = np.zeros, []

    def scarce(shape: Any, *given: Any) -> Any:
        made.append(shape)
        if len(made) == 3:  # two buffers are larger by then
            raise MemoryError
        return zeros(shape, *given)

    with monkeypatch.context() as patch:
        patch.setattr("loopedge.runtime.decoding.cache_buffers.np.zeros", scarce)
        with pytest.raises(LoopedgeError, match="there is no memory for a cache of 8 positions"):
            generator.step(5)
    assert generator.texts == [[1, 2, 3, 4]]
    close(generator.step(5)[0], model.logits([1, 2, 3, 4, 5])[-1])
    generator.reset()
    close(generator.prefill([7, 8])[0], model.logits([7, 8])[-1])


def test_up_to_the_limit_of_the_context(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, context=12, threads=1)
    found = list(generator.stream(PROMPT))
    assert [token.id for token in found] == model.greedy(PROMPT, 5)
    assert generator.ended == "context"
    assert generator.lengths.tolist() == [12]
    generator.reset()
    close(generator.prefill(list(range(12)))[0], model.logits(list(range(12)))[-1])
    with pytest.raises(InputError, match="context is 12 positions") as caught:
        generator.step(1)
    assert caught.value.hint == "context=48"
    generator.reset()
    with pytest.raises(InputError, match="the text has 13 tokens and the context is 12"):
        generator.prefill(list(range(13)))
    assert generator.lengths.tolist() == [0]


def test_fewer_loops_are_exact_at_once_and_more_compute_the_text_again(
    model: GenerateModel, file: Path
) -> None:
    generator = Generator(file, loops=4, threads=1)
    text = list(PROMPT)
    close(generator.prefill(text)[0], model.logits(text, 4)[-1])
    again = []
    for loops, token in [(4, 1), (2, 2), (1, 3), (2, 4), (4, 5), (3, 6), (4, 7), (4, 8)]:
        again.append(generator.change_loops(loops))
        text.append(token)
        close(generator.step(token)[0], model.logits(text, loops)[-1])
        assert generator.loops == loops
        assert generator.texts == [text]
    assert again == [False, False, False, True, True, False, True, False]
    generator.change_loops(2)
    generator.reset()
    assert not generator.change_loops(4)
    close(generator.prefill(text)[0], model.logits(text, 4)[-1])


def test_loops_lowered_before_a_text_are_those_it_was_computed_with(
    model: GenerateModel, file: Path
) -> None:
    generator = Generator(file, threads=1)
    assert not generator.change_loops(1)  # nothing is there to be computed again
    generator.prefill(PROMPT)
    assert generator.change_loops(3)
    close(generator.step(3)[0], model.logits([*PROMPT, 3], 3)[-1])
    generator.reset()
    assert not generator.change_loops(2)
    assert not generator.change_loops(3)
    close(generator.prefill(PROMPT)[0], model.logits(PROMPT, 3)[-1])


def test_with_a_layer_behind_the_core_every_change_computes_the_text_again(tmp_path: Path) -> None:
    model = GenerateModel(places=("prelude", "core", "coda"))
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    generator.prefill(PROMPT)
    assert generator.change_loops(1)
    close(generator.step(3)[0], model.logits([*PROMPT, 3], 1)[-1])


def test_a_batch_changes_its_loops(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, loops=1, batch=2, threads=1)
    texts = [[1, 2, 3], [4]]
    generator.prefill(texts)
    assert generator.change_loops(4)
    logits = generator.step([5, 6])
    close(
        logits, np.stack([model.logits([*t, n], 4)[-1] for t, n in zip(texts, (5, 6), strict=True)])
    )


def test_logits_are_the_callers_own(file: Path) -> None:
    generator = Generator(file, threads=1)
    first = generator.prefill(PROMPT)
    kept = first.copy()
    second = generator.step(7)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 0
    generator.lengths[:] = 99
    generator.texts[0].append(1)
    assert generator.lengths.tolist() == [len(PROMPT) + 1]


def test_streams_share_the_session_side_by_side(model: GenerateModel, file: Path) -> None:
    first = Generator(file, threads=1)
    streams = [first, *(first.another() for _ in range(3))]
    assert len({id(stream.file.session.session) for stream in streams}) == 1
    found: dict[int, list[int]] = {}

    def run(place: int) -> None:
        tokens = streams[place].stream([place, 2 * place + 1], new_tokens=30)
        found[place] = [token.id for token in tokens]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {place: model.greedy([place, 2 * place + 1], 30) for place in range(4)}
    other = first.another(loops=1, context=10, batch=2)
    assert (other.loops, other.context, other.batch) == (1, 10, 2)


def test_two_threads_on_one_generator_are_refused(file: Path) -> None:
    generator = Generator(file, threads=1)
    with generator._use(), pytest.raises(LoopedgeError, match="another thread"):
        generator.prefill(PROMPT)
    generator.prefill(PROMPT)


def test_a_stream_ends_at_an_end_id(tmp_path: Path) -> None:
    tokens = GenerateModel().greedy(PROMPT, 20)
    end = next(token for token in tokens if token != tokens[0])
    model = GenerateModel(end_ids=(end,))
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    found = [token.id for token in generator.stream(PROMPT)]
    assert found == tokens[: tokens.index(end)]
    assert generator.ended == "end"
    generator.reset()
    assert len(list(generator.stream(PROMPT, new_tokens=20, end_ids=()))) == 20
    assert generator.ended == "new_tokens"


def test_a_stream_goes_on_where_the_text_ended(model: GenerateModel, file: Path) -> None:
    generator = Generator(file, threads=1)
    first = [token.id for token in generator.stream(PROMPT, new_tokens=6)]
    second = [token.id for token in generator.stream([first[-1], 40], new_tokens=6)]
    assert second == model.greedy([*PROMPT, *first, 40], 6)


def test_a_text_that_is_changed_while_it_is_streamed_is_an_error(file: Path) -> None:
    generator = Generator(file, threads=1)
    for change in (lambda: generator.step(1), lambda: generator.prefill([1]), generator.reset):
        tokens = generator.stream(PROMPT, new_tokens=5)
        next(tokens)
        change()
        with pytest.raises(LoopedgeError, match="was changed while it was streamed"):
            next(tokens)
        generator.reset()
    tokens = generator.stream(PROMPT, new_tokens=3)
    next(tokens)
    assert not generator.change_loops(2)  # from the next token on
    assert len(list(tokens)) == 2


def test_draws_repeat_with_a_seed_and_say_the_models_probability(
    model: GenerateModel, file: Path
) -> None:
    generator = Generator(file, threads=1)
    runs = []
    for seed in (1, 1, 2):
        generator.reset()
        runs.append(list(generator.stream(PROMPT, new_tokens=12, temperature=3.0, seed=seed)))
    assert runs[0] == runs[1] != runs[2]
    text = list(PROMPT)
    for token in runs[0]:
        shares = np.exp(model.logits(text)[-1].astype(np.float64))
        assert token.probability == pytest.approx(
            shares[token.id] / shares.sum(), rel=1e-3, abs=1e-9
        )
        text.append(token.id)


def test_nan_is_one_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model = GenerateModel(spoiled=66)
    generator = Generator(write_generate_file(model, tmp_path / "m.onnx"), threads=1)
    generator.prefill(PROMPT)
    with pytest.raises(InputError, match="gives NaN or infinite logits: after token 9") as caught:
        generator.step(66)
    assert caught.value.hint is not None
    assert generator.lengths.tolist() == [0]
    generator.prefill(PROMPT)
    close(generator.step(3)[0], model.logits([*PROMPT, 3])[-1])


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([], "the text is empty"),
        (np.zeros(0, np.int64), "the text is empty"),
        ([1, 256], "token 2 is 256, .* takes ids from 0 to 255"),
        ([-1], "token 1 is -1"),
        ([1.5], "type float64"),
        ([True], "type bool"),
        (["a"], "type <U1"),
        ([[1], [2]], "2 texts were given, the batch is 1"),
        (np.zeros((1, 2, 2), np.int64), "shape"),
        ([2**63], "is no token"),
        (list(range(49)), "49 tokens and the context is 48"),
    ],
)
def test_prompts_that_are_refused(file: Path, ids: Any, words: str) -> None:
    generator = Generator(file, threads=1)
    with pytest.raises(InputError, match=words):
        generator.prefill(ids)
    assert generator.lengths.tolist() == [0]


def test_steps_that_are_refused(file: Path) -> None:
    generator = Generator(file, threads=1)
    with pytest.raises(InputError, match="no text to go on with"):
        generator.step(1)
    generator.prefill([1])
    for tokens, words in [([1, 2], "2 tokens"), (999, "token 1 is 999"), (1.5, "float64")]:
        with pytest.raises(InputError, match=words):
            generator.step(tokens)  # type: ignore[arg-type]
    assert generator.lengths.tolist() == [1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loops": 5}, "at most 4 loops, 5 were asked for"),
        ({"loops": 0}, "loops is 0"),
        ({"context": 0}, "context is 0"),
        ({"context": 49}, "takes at most 48 positions, a context of 49"),
        ({"batch": 0}, "batch is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "tpu"}, "device 'tpu'"),
    ],
)
def test_options_that_are_refused(file: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Generator(file, **options)


def test_a_fixed_batch_is_refused(file: Path, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(file)
    for value in [*proto.graph.input, *proto.graph.output]:
        if ".core.0." in value.name:
            value.type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(proto, tmp_path / "m.onnx")
    assert Generator(tmp_path / "m.onnx").batch == 1
    with pytest.raises(InputError, match="takes 1 text at a time, a batch of 2"):
        Generator(tmp_path / "m.onnx", batch=2)


def test_a_gpu_is_refused(file: Path) -> None:
    with pytest.raises(ProviderError, match="on a GPU it was never tried"):
        Generator(file, device="cuda")


def test_streams_that_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(InputError, match="the batch is 2"):
        Generator(file, batch=2).stream([1])
    with pytest.raises(InputError, match="temperature is 0"):
        Generator(file).stream([1], temperature=0)
    endless = write_generate_file(GenerateModel(context=None), tmp_path / "e.onnx")
    with pytest.raises(InputError, match="nothing ends the text"):
        Generator(endless).stream([1])


def test_a_fixed_count_is_refused_with_what_would_help(tmp_path: Path) -> None:
    file = write_generate_file(GenerateModel(form="unrolled"), tmp_path / "m.onnx")
    assert Generator(file, loops=3).loops == 3
    with pytest.raises(InputError, match="runs 3 loops, 2 were asked for"):
        Generator(file, loops=2)


def test_loops_that_were_not_trained_are_noted(tmp_path: Path) -> None:
    model = GenerateModel(properties={"loop_range": [2, 3]})
    file = write_generate_file(model, tmp_path / "m.onnx")
    assert Generator(file).notes == []
    noted = ["4 loops asked for, the model was trained with 2 to 3"]
    assert Generator(file, loops=4).notes == noted
    generator = Generator(file)
    generator.change_loops(4)
    assert generator.notes == noted


def test_a_file_without_a_cache_names_the_command() -> None:
    tiny = Path(__file__).parents[1] / "fixtures" / "tiny.onnx"
    with pytest.raises(InputError, match="has no cache") as caught:
        Generator(tiny)
    assert caught.value.hint == f"loopedge to-generate {tiny}"


def test_damaged_caches_are_refused(model: GenerateModel, file: Path, tmp_path: Path) -> None:
    import onnx

    def damaged(change: Any) -> Path:
        proto = onnx.load(file)
        change(proto)
        onnx.save(proto, tmp_path / "damaged.onnx")
        return tmp_path / "damaged.onnx"

    def drop_output(proto: Any) -> None:
        del proto.graph.output[1]

    def rename_output(proto: Any) -> None:
        proto.graph.output[1].name = "present.coda.7.key"
        scan = next(node for node in proto.graph.node if node.op_type == "Scan")
        scan.output[2] = "present.coda.7.key"

    def say_more_tokens(proto: Any) -> None:
        entry = next(e for e in proto.metadata_props if e.key == "loopedge.generate")
        entry.value = entry.value.replace('"vocab_size": 256', '"vocab_size": 400')

    def say_nonsense(proto: Any) -> None:
        entry = next(e for e in proto.metadata_props if e.key == "loopedge.generate")
        entry.value = '{"cache": "none"}'

    for change, words in [
        (drop_output, "no cache that goes on"),
        (rename_output, "has no past"),
        (say_more_tokens, "says 400 tokens, its logits are of 256"),
        (say_nonsense, "metadata of the model is damaged: generate.cache"),
    ]:
        with pytest.raises(InputError, match=words):
            Generator(damaged(change))


def test_a_file_that_does_not_say_its_vocabulary_is_asked_with_a_token(
    model: GenerateModel, file: Path, tmp_path: Path
) -> None:
    import onnx

    proto = onnx.load(file)
    proto.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "vocabulary"
    entry = next(e for e in proto.metadata_props if e.key == "loopedge.generate")
    entry.value = entry.value.replace('"vocab_size": 256', '"vocab_size": null')
    onnx.save(proto, tmp_path / "m.onnx")
    generator = Generator(tmp_path / "m.onnx", threads=1)
    assert (generator.file.vocabulary, generator.file.ids) == (256, 256)
    close(generator.prefill(PROMPT)[0], model.logits(PROMPT)[-1])


def test_an_old_runtime_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    int8 = write_generate_file(GenerateModel(cache_type="int8"), tmp_path / "i.onnx")
    monkeypatch.setattr("onnxruntime.__version__", "1.26.1")
    Generator(file)
    with pytest.raises(
        InputError, match=r"needs onnxruntime 1\.27 for a cache of int8, this is 1\.26\.1"
    ):
        Generator(int8)


def test_what_needs_which_runtime() -> None:
    slot = CacheSlot(name="core.0", loops=2, kv_heads=2, head_size=8, window=None)
    wide = slot.model_copy(update={"window": 16})

    def need(form: Any = "scan", **fields: Any) -> Any:
        found = needed_runtime(Metadata(form=form, generate=Generation(**fields)))
        return None if found is None else found[0]

    assert needed_runtime(Metadata()) is None
    assert need(slots=[slot]) is None
    capped = slot.model_copy(update={"softcap": 2.0})
    assert need(slots=[capped]) is None
    assert need("tensorscatter", slots=[slot]) == (1, 25)
    assert need("tensorscatter", slots=[slot, capped]) == (1, 27)
    assert need(slots=[slot, wide]) == (1, 24)
    assert need("tensorscatter", slots=[wide]) == (1, 25)
    assert need("tensorscatter", slots=[wide], cache_type="int4") == (1, 27)


def test_a_generator_says_what_it_is(file: Path) -> None:
    generator = Generator(file, threads=1)
    generator.prefill([1, 2])
    assert repr(generator) == f"<Generator {file}: loops=3, batch=1, context=48, lengths=[2]>"


@pytest.mark.parametrize("name", ["context", "loops", "batch", "seed"])
@pytest.mark.parametrize("value", [1.5, "8", float("nan"), True])
def test_numbers_are_whole(file: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is .*, a whole number is needed"):
        Generator(file, **{name: value})


def test_tokens_are_counted_in_whole_numbers(file: Path) -> None:
    generator = Generator(file)
    for options in ({"new_tokens": 1.5}, {"temperature": 1.0, "top_k": 2.5}):
        with pytest.raises(InputError, match="a whole number is needed"):
            generator.stream([1, 2], **options)  # type: ignore[arg-type]


def test_a_prompt_that_fails_half_way_leaves_the_text_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(file)
    generator.prefill([1, 2, 3])
    monkeypatch.setattr("loopedge.runtime.decoding.cached_texts.CHUNK", 2)
    run = CachedTexts._run_chunk
    calls: list[int] = []

    def fail_second(texts: CachedTexts, rows: list[Any]) -> Any:
        calls.append(len(rows[0]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(texts, rows)

    monkeypatch.setattr(CachedTexts, "_run_chunk", fail_second)
    with pytest.raises(KeyboardInterrupt):
        generator.prefill([4, 5, 6, 7])
    assert generator.texts == [[1, 2, 3]]
    other = Generator(file)
    other.prefill([1, 2, 3])
    np.testing.assert_allclose(generator.step(4), other.step(4), rtol=1e-4, atol=1e-4)
