"""Drives a headless Chromium through its debugging pipe: pages are opened, asked and photographed."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["WEBGPU_FLAGS", "Chromium", "link_runtime", "serve", "start_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
         "--disable-background-networking", "--remote-debugging-pipe")  # fmt: skip
WEBGPU_FLAGS = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU",
                "--use-angle=swiftshader", "--use-vulkan=swiftshader", "--ignore-gpu-blocklist")  # fmt: skip
"""A WebGPU adapter in software: what it computes counts, its times do not."""
RUNTIME = (
    "onnxruntime-web/dist/ort.wasm.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
    "onnxruntime-web/dist/ort.webgpu.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm",
    "@huggingface/tokenizers/dist/tokenizers.min.mjs",
)
"""What the page of a bundle loads, of the packages of npm."""
TO_BROWSER, FROM_BROWSER = 3, 4
SECONDS = 120


class Chromium:
    """A browser with one page."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def open(
        self, address: str, *, width: int = 1000, dark: bool = False, phone: bool = False
    ) -> None:
        """Open a page and wait until it says that it is ready."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        self._call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && document.body.dataset.ready === 'yes'")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression, a promise's once it is there."""
        found = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true; the page looks, at each of its frames."""
        self.ask(
            f"new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20); look(); }})"
        )

    def photograph(self, path: Path) -> None:
        """Write a picture of the whole page."""
        picture = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], SECONDS)
            assert ready, f"the browser says nothing for {SECONDS} seconds"
            part = os.read(self._read, 1 << 16)
            if not part:
                raise AssertionError("the browser ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def start_chromium(*flags: str) -> Iterator[Chromium]:
    """Start a browser, and end it."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    assert program is not None, f"there is no browser: install one of {', '.join(NAMES)}"
    child_read, write = os.pipe()
    read, child_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:

        def place() -> None:  # the browser's side of the pipes as 3 and 4
            one, other = os.dup(child_read), os.dup(child_write)
            os.dup2(one, TO_BROWSER)
            os.dup2(other, FROM_BROWSER)

        browser = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", *flags, "about:blank"],
            stderr=subprocess.DEVNULL, preexec_fn=place, close_fds=False,
        )  # fmt: skip
        os.close(child_read)
        os.close(child_write)
        try:
            yield Chromium(write, read)
        finally:
            browser.kill()
            browser.wait()
            os.close(write)
            os.close(read)


def link_runtime(bundle: Path, packages: Path) -> None:
    """Put links to ONNX Runtime and the tokenizers' library into the ``runtime/`` of a bundle.

    Args:
        bundle: Its folder.
        packages: ``node_modules``.
    """
    folder = bundle / "runtime"
    folder.mkdir(exist_ok=True)
    for name in RUNTIME:
        link = folder / Path(name).name
        if not link.exists():
            link.symlink_to(packages / name)


class _Handler(SimpleHTTPRequestHandler):
    """Serves a folder; with `isolated` as a page must be served for threads."""

    isolated = False

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


class _Isolated(_Handler):
    isolated = True


@contextmanager
def serve(folder: Path, *, isolated: bool = False) -> Iterator[str]:
    """Serve a folder on this machine, and return its address."""
    handler = partial(_Isolated if isolated else _Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
