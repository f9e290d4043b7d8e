"""The page of a bundle in a headless Chromium: what it shows is what Python computes; WebAssembly and WebGPU."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import loopedge
from loopedge.packager.manifest import MANIFEST_NAME
from tests.clients.chromium import WEBGPU_FLAGS, Chromium, link_runtime, serve, start_chromium
from tests.clients.models import CONTEXT, LEAST, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Bundles = Callable[[str], Path]

MIB = 2**20


@pytest.fixture(scope="session")
def page(
    packaged: Bundles, node_packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundles:
    """Return the bundle of a kind of model with the runtime in it, as its page says."""
    folder = tmp_path_factory.mktemp("pages")

    def with_runtime(kind: str) -> Path:
        target = folder / kind
        if not target.exists():
            shutil.copytree(packaged(kind), target)
            link_runtime(target, node_packages)
        return target

    return with_runtime


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with start_chromium() as started:
        yield started


def opened(browser: Chromium, address: str, **view: Any) -> None:
    browser.open(address, **view)
    assert browser.ask("loopedgePage.problem") is None


def window_of(bundle: Path) -> np.ndarray:
    """Return the inputs of the first test vector."""
    vector = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))["vectors"][0]
    file = vector["inputs"][0]
    return np.fromfile(bundle / file["file"], np.float32).reshape(file["shape"])


@pytest.mark.parametrize("isolated", [False, True])
def test_the_page_shows_the_forecast_of_python(
    isolated: bool, browser: Chromium, page: Bundles, written_model: Bundles
) -> None:
    bundle = page("loops")
    with serve(bundle, isolated=isolated) as address:
        opened(browser, f"{address}?threads={2 if isolated else 1}")
        assert browser.ask("crossOriginIsolated") is isolated
        said = browser.ask("document.getElementById('runtime').innerText")
        assert f"{2 if isolated else 1} thread" in said
        session = loopedge.Session(written_model("loops"), threads=1)
        for loops in (3, 1):
            slide = "const s = document.getElementById('loops'); s.value = {}; s.dispatchEvent(new Event('input'))"
            browser.ask(f"{{ {slide.format(loops)} }}")
            browser.wait(f"loopedgePage.forecast.loops === {loops}")
            found = browser.ask("loopedgePage.forecast.values")
            with pytest.warns(Warning, match="trained") if loops == 1 else _nothing():
                expected = session.run({"inputs": window_of(bundle)}, loops=loops)["outputs"]
            np.testing.assert_allclose(found, expected[0], rtol=1e-5)
        assert browser.ask("document.querySelectorAll('svg .dot').length") == len(expected[0])
        assert browser.ask("document.querySelectorAll('svg path.band80').length") == 1


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_a_table_of_ones_own_is_forecast(
    browser: Chromium, page: Bundles, written_model: Bundles, tmp_path: Path
) -> None:
    model = written_model("gaps")
    table = table_of(model.parent)
    expected = loopedge.forecast(model, table)
    assert expected.values is not None
    choose = """{
      const files = new DataTransfer();
      files.items.add(new File([%s], "table.csv", { type: "text/csv" }));
      const input = document.getElementById("csv");
      input.files = files.files;
      input.dispatchEvent(new Event("change"));
    }"""
    with serve(page("gaps")) as address:
        opened(browser, address)
        browser.ask(choose % json.dumps(table.read_text(encoding="utf-8")))
        browser.wait("loopedgePage.forecast.times !== null || loopedgePage.problem")
        assert browser.ask("loopedgePage.problem") is None
        found = browser.ask("loopedgePage.forecast")
        assert found["times"] == list(expected.times[0])
        np.testing.assert_allclose(found["values"], expected.values[0], rtol=1e-5)
        assert f"The last {CONTEXT} table rows of table.csv" in browser.ask(
            "document.getElementById('source').innerText"
        )
        lines = table.read_text(encoding="utf-8").splitlines()
        gap = lines.pop(-LEAST - 1).partition(",")[0]
        cut = tmp_path / "cut.csv"
        cut.write_text("\n".join(lines), encoding="utf-8")
        behind = loopedge.forecast(model, cut)
        assert behind.values is not None
        browser.ask(choose % json.dumps(cut.read_text(encoding="utf-8")))
        first = json.dumps(found["values"][0][0])
        browser.wait(f"loopedgePage.forecast.values[0][0] !== {first} || loopedgePage.problem")
        np.testing.assert_allclose(
            browser.ask("loopedgePage.forecast.values"), behind.values[0], rtol=1e-5
        )
        said = browser.ask("document.getElementById('source').innerText")
        assert said.startswith(f"The last {LEAST} table rows of table.csv behind the gap between ")
        assert gap not in said
        browser.ask(choose % json.dumps("a,b\n1,2\n"))
        browser.wait("loopedgePage.problem")
        said = browser.ask("document.getElementById('problem').innerText")
        assert said.startswith("the table lacks sales, degrees")


@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_the_page_writes_the_text_of_python(
    kind: str, browser: Chromium, page: Bundles, written_model: Bundles
) -> None:
    prompt = "the loop "
    with serve(page(kind)) as address:
        opened(browser, address)
        browser.ask(f"document.getElementById('prompt').value = {json.dumps(prompt)}")
        browser.ask("document.getElementById('tokens').value = 20")
        browser.ask("document.getElementById('write').click()")
        browser.wait("loopedgePage.generated || loopedgePage.problem")
        found = browser.ask("loopedgePage.generated")
        shown = browser.ask("document.getElementById('written').innerText")
        encoded = browser.ask(
            f"loopedgePage.model.tokenizer().then((t) => t.encode({json.dumps(prompt)}))"
        )
    generator = loopedge.Generator(written_model(kind), threads=1)
    ids = [token.id for token in generator.stream(encoded, new_tokens=20)]
    assert found["ids"] == ids
    assert shown == prompt + found["text"]
    if kind == "text":
        assert encoded == list(prompt.encode())


@pytest.mark.parametrize("kind", ["loops", "int8", "gaps", "labels", "text", "large"])
def test_the_page_verifies_its_bundle(kind: str, browser: Chromium, page: Bundles) -> None:
    bundle = page(kind)
    vectors = json.loads((bundle / MANIFEST_NAME).read_text(encoding="utf-8"))["vectors"]
    with serve(bundle) as address:
        opened(browser, address)
        found = verified(browser)
    assert [line["vector"] for line in found] == [vector["name"] for vector in vectors]
    assert all(line["passed"] for line in found), found


def verified(browser: Chromium) -> Any:
    browser.ask("document.getElementById('verify').click()")
    browser.wait("!document.getElementById('verify').disabled")
    assert browser.ask("loopedgePage.problem") is None
    return browser.ask("loopedgePage.verified")


def test_the_page_writes_a_report(browser: Chromium, page: Bundles) -> None:
    with serve(page("loops")) as address:
        opened(browser, address)
        browser.ask("document.getElementById('bench').click()")
        browser.wait("!document.getElementById('bench').disabled")
        report = browser.ask(
            "fetch(document.getElementById('report').href).then((answer) => answer.json())"
        )
    assert (report["client"], report["runs"][0]["runtime"]) == ("web", "onnxruntime-web")
    assert report["runs"][0]["output_error"] < 1e-5
    assert 8 * MIB < report["runs"][0]["heap_bytes"] < 64 * MIB


def test_webgpu_computes_the_unrolled_form(page: Bundles) -> None:
    with start_chromium(*WEBGPU_FLAGS) as browser, serve(page("loops")) as address:
        opened(browser, f"{address}?provider=webgpu")
        assert "WebGPU" in browser.ask("document.getElementById('runtime').innerText")
        assert browser.ask("loopedgePage.model.model.form") == "unrolled"
        found = verified(browser)
        assert all(line["passed"] for line in found), found
        assert "loops 1 is left out" in browser.ask("document.getElementById('state').innerText")


def test_a_changed_file_and_a_missing_runtime_are_said_on_the_page(
    browser: Chromium, page: Bundles, packaged: Bundles, tmp_path: Path
) -> None:
    with serve(packaged("loops")) as address:
        browser.open(address)
        said = browser.ask("document.getElementById('problem').innerText")
        assert said.startswith(
            "ONNX Runtime is missing. In the folder of this page run: npm install"
        )
    bundle = shutil.copytree(page("loops"), tmp_path / "bundle", symlinks=True)
    [name] = [path.name for path in (bundle / "models").iterdir() if "unrolled" not in path.name]
    content = bytearray((bundle / "models" / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / "models" / name).write_bytes(content)
    with serve(bundle) as address:
        browser.open(address)
        said = browser.ask("document.getElementById('problem').innerText")
        assert said.startswith(f"models/{name} was changed")


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone(dark: bool, browser: Chromium, page: Bundles) -> None:
    with serve(page("loops")) as address:
        opened(browser, address, width=360, dark=dark, phone=True)
        assert browser.ask("document.documentElement.scrollWidth") == 360
        colour = browser.ask("getComputedStyle(document.body).backgroundColor")
        assert colour == ("rgb(18, 20, 23)" if dark else "rgb(246, 247, 249)")
