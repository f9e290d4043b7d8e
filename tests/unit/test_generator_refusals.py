"""What `loopedge.Generator` refuses, in one line, and what it notes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopedge.errors import InputError, ProviderError
from loopedge.graph.metadata import CacheSlot, Generation, Metadata
from loopedge.runtime.decoding.generate_file import needed_runtime
from loopedge.runtime.generator import Generator
from tests.graph.generate_files import GenerateModel, write_generate_file
from tests.unit.generators import PROMPT, close


@pytest.fixture
def model() -> GenerateModel:
    return GenerateModel()


@pytest.fixture
def file(model: GenerateModel, tmp_path: Path) -> Path:
    return write_generate_file(model, tmp_path / "lm.generate.onnx")


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


@pytest.mark.parametrize("provider", ["cuda", "CUDAExecutionProvider"])
def test_another_provider_is_refused(file: Path, provider: str) -> None:
    with pytest.raises(ProviderError, match="on CUDAExecutionProvider it was never tried"):
        Generator(file, provider=provider)


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


@pytest.mark.parametrize("name", ["context", "loops", "batch", "seed"])
@pytest.mark.parametrize("value", [1.5, "8", float("nan"), True])
def test_numbers_are_whole(file: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} is .*, a whole number is needed"):
        Generator(file, **{name: value})
