"""Compute every test vector of the bundle and compare: one line of JSON each, exit status 0 where all pass.

python python/verify.py [--provider cpu] [--model ID]
"""

import argparse
import json
import sys
from pathlib import Path

import loopedge_bundle


def main() -> int:
    """Check all files, then run all test vectors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--provider", default=loopedge_bundle.CPU)
    parser.add_argument("--model")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    try:
        manifest = loopedge_bundle.read_manifest(asked.bundle)
        loopedge_bundle.check_files(asked.bundle, manifest)
        bundle = loopedge_bundle.load(
            asked.bundle, provider=asked.provider, model=asked.model, threads=asked.threads
        )
        passed = True
        for result in bundle.check_vectors():
            print(json.dumps(result), flush=True)
            passed = passed and result["passed"]
    except loopedge_bundle.BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
