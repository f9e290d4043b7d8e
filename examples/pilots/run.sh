#!/usr/bin/env bash
# Three pilots of this folder, one after the other (README.md of the project has the fourth): bash examples/pilots/run.sh [FOLDER]
# Makes the data (data.py says which packages carry it), then FOLDER/seattle, FOLDER/vowels and FOLDER/pronunciation;
# FOLDER is build/pilots unless it is named. What is finished is kept: call it again to go on.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:-build/pilots}"
test -s "${1:-build/pilots}/pronunciation.jsonl" || python "$here/data.py" "${1:-build/pilots}"
cd "${1:-build/pilots}"

resume() { # --resume where the folder holds a pilot
    if test -e "$1/design.json"; then echo --resume; fi
}

loopedge pilot series seattle.csv --target temp_max --time date --context 28 --horizon 7 \
    --d-model 32 --steps 400 --jobs 2 -o seattle $(resume seattle)

loopedge pilot series vowels.csv --classify speaker --group utterance --covariate 'c*' --context 29 --min-context 7 \
    --d-model 32 --steps 300 --jobs 2 -o vowels $(resume vowels)

loopedge pilot pairs pronunciation.jsonl --length 28 --loops 1,4 --arms looped,timestep,untied,narrow \
    --d-model 64 --steps 2000 --batch-size 64 --jobs 2 -o pronunciation $(resume pronunciation)
