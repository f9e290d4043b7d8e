"""The page of a bundle: for a developer who does not know ONNX."""

from collections.abc import Mapping

from loopedge.packager.manifest import Manifest

__all__ = ["PAGE_NAME", "page_text"]

PAGE_NAME = "README.md"


def page_text(manifest: Manifest, sizes: Mapping[str, int]) -> str:
    """Return the page.

    Args:
        manifest: What the bundle says of itself.
        sizes: Bytes of its files, by path.
    """
    return f"# {manifest.name}\n"
