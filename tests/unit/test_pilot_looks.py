"""After how many seeds a pilot looks, and when it stops."""

from loopedge.study.schedule.looks import looks


def seen(seeds: object, known: int, decided_at: int) -> list[int]:
    asked: list[int] = []

    def is_decided(count: int) -> bool:
        asked.append(count)
        return count >= decided_at

    made = list(looks(seeds, known, is_decided))  # type: ignore[arg-type]
    assert asked == made  # each is looked at once, after its seeds are there
    return made


def test_a_number_of_seeds_is_looked_at_once() -> None:
    assert seen(4, known=0, decided_at=99) == [4]
    assert seen(2, known=8, decided_at=99) == [2]


def test_auto_stops_as_soon_as_it_is_decided() -> None:
    assert seen("auto", known=0, decided_at=3) == [3]
    assert seen("auto", known=0, decided_at=8) == [3, 5, 8]
    assert seen("auto", known=0, decided_at=99) == [3, 5, 8, 12]


def test_auto_goes_on_where_a_resumed_pilot_was() -> None:
    assert seen("auto", known=5, decided_at=99) == [5, 8, 12]
    assert seen("auto", known=6, decided_at=8) == [8]  # no look more than planned
    assert seen("auto", known=1, decided_at=3) == [3]
    assert seen("auto", known=40, decided_at=99) == [40]
