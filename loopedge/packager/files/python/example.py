"""The shortest program: open the bundle, run it on the inputs of its first test vector. Put your own in their place."""

import sys
from pathlib import Path

import loopedge_bundle

BUNDLE = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the model once, or let it write."""
    try:
        bundle = loopedge_bundle.load(BUNDLE)
        text = next((each["text"] for each in bundle.manifest["vectors"] if each["text"]), None)
        if text is not None:
            print(text["prompt"], end="", flush=True)
            for piece in bundle.stream(text["prompt"]):
                print(piece, end="", flush=True)
            print()
            return 0
        vector = bundle.manifest["vectors"][0]
        inputs = {
            each["name"]: loopedge_bundle.read_array(BUNDLE, each) for each in vector["inputs"]
        }
        outputs = {each["name"]: each for each in vector["outputs"]}
        print(bundle.run_vector(inputs, outputs))
    except loopedge_bundle.BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
