"""`--with-runtime`: which files of the packages come into a bundle, and what is said where one is missing."""

from __future__ import annotations

import json
import platform
from typing import TYPE_CHECKING

import pytest

from loopedge.errors import InputError
from loopedge.packager.bundle import read_bundle
from loopedge.packager.runtimes import WEB_FILES
from loopedge.packager.static_files import npm_package
from tests.unit.bundles import package, tiny

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder in which the packages were installed: their files hold their own names."""
    folder = tmp_path / "packages"
    modules = folder / "node_modules"
    names = [
        *(f"onnxruntime-web/dist/{name}" for name in (*WEB_FILES, "ort.all.js")),
        *(f"onnxruntime-{part}/package.json" for part in ("web", "node", "common")),
        "onnxruntime-node/dist/index.js",
        "onnxruntime-node/dist/index.js.map",
        "onnxruntime-node/lib/index.ts",
        "onnxruntime-node/script/install.js",
        "onnxruntime-node/bin/napi-v6/linux/x64/libonnxruntime.so.1",
        "onnxruntime-node/bin/napi-v6/linux/x64/onnxruntime_binding.node",
        "onnxruntime-node/bin/napi-v6/linux/arm64/libonnxruntime.so.1",
        "onnxruntime-node/bin/napi-v6/win32/x64/onnxruntime.dll",
        "onnxruntime-common/dist/index.js",
    ]
    for name in names:
        (modules / name).parent.mkdir(parents=True, exist_ok=True)
        (modules / name).write_text(name)
    (folder / "onnxruntime-1.32.0-cp311-linux.whl").write_text("wheel")
    (folder / "numpy-2.0-cp311-linux.whl").write_text("wheel")
    return folder


@pytest.fixture(autouse=True)
def _a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def test_the_runtime_of_each_client_comes_with_its_licence(tmp_path: Path, packages: Path) -> None:
    model = tiny(tmp_path)
    result = package(model, "node", "c", "python", with_runtime=True, packages=packages)
    folder = tmp_path / "bundle"
    held = {
        path.relative_to(folder / "runtime").as_posix()
        for path in (folder / "runtime").rglob("*")
        if path.is_file()
    }
    licences = {name for name in held if name.startswith("onnxruntime.")}
    assert "onnxruntime.LICENSE.txt" in licences
    node = "node_modules/onnxruntime-node"
    assert held - licences == {
        f"{node}/package.json",
        f"{node}/dist/index.js",
        f"{node}/bin/napi-v6/linux/x64/libonnxruntime.so.1",
        f"{node}/bin/napi-v6/linux/x64/onnxruntime_binding.node",
        f"{node}/bin/napi-v6/linux/arm64/libonnxruntime.so.1",
        "node_modules/onnxruntime-common/package.json",
        "node_modules/onnxruntime-common/dist/index.js",
        "c/libonnxruntime.so.1",
        "c-linux-arm64/libonnxruntime.so.1",
        "python/onnxruntime-1.32.0-cp311-linux.whl",
        "python/numpy-2.0-cp311-linux.whl",
    }
    manifest = read_bundle(folder)
    assert "runtime/c/libonnxruntime.so.1" in manifest.clients["c"].runtime_files
    listed = {file.path for file in manifest.files}
    assert {f"runtime/{name}" for name in held} <= listed
    sizes = sum((folder / "runtime" / name).stat().st_size for name in held)
    assert result.runtime_bytes == sizes
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "--no-index --find-links runtime/python" in page
    assert "npm install" not in page


@pytest.mark.slow
def test_a_browser_gets_the_files_of_webassembly(tmp_path: Path, packages: Path) -> None:
    package(tiny(tmp_path), "web", with_runtime=True, packages=packages)
    web = tmp_path / "bundle" / "runtime" / "web"
    assert {path.name for path in web.iterdir()} == set(WEB_FILES)
    with pytest.raises(InputError, match=r"lacks ort\.webgpu\.min\.mjs"):
        package(
            tiny(tmp_path),
            "web",
            with_runtime=True,
            packages=packages,
            provider="webgpu",
            path=tmp_path / "gpu",
        )
    assert not (tmp_path / "gpu").exists()


def test_a_package_that_is_missing_is_named_with_its_version(
    tmp_path: Path, packages: Path
) -> None:
    (packages / "node_modules" / "onnxruntime-common" / "package.json").unlink()
    with pytest.raises(InputError, match="holds no package onnxruntime-common") as refusal:
        package(tiny(tmp_path), "node", with_runtime=True, packages=packages)
    assert refusal.value.hint is not None
    version = json.loads('"' + npm_package("onnxruntime-node").rpartition("@")[2] + '"')
    assert f"onnxruntime-common@{version}" in refusal.value.hint
    for wheel in packages.glob("onnxruntime-*.whl"):
        wheel.unlink()
    with pytest.raises(InputError, match="holds no wheel of onnxruntime"):
        package(tiny(tmp_path), with_runtime=True, packages=packages)
    with pytest.raises(InputError, match="is not a folder of packages"):
        package(tiny(tmp_path), with_runtime=True, packages=tmp_path / "no")
    assert not (tmp_path / "bundle").exists()


def test_a_machine_without_a_library_is_named(
    tmp_path: Path, packages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.rmtree(packages / "node_modules" / "onnxruntime-node" / "bin" / "napi-v6" / "linux")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(InputError, match="no library for this machine: Linux riscv64"):
        package(tiny(tmp_path), "c", with_runtime=True, packages=packages)
