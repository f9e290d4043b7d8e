"""What a budget leaves out: by successive halving on the validation split, with nothing trained here."""

from collections.abc import Mapping, Sequence

from loopedge.study.schedule.budget import Halving, Plan, leave_out

Key = tuple[str, int]

COMPARED: list[Key] = [(arm, loops) for loops in (1, 4, 8) for arm in ("looped", "timestep")]
FEWEST: Key = ("looped", 1)


class Pilot:
    """Takes ``loops`` seconds a run and reaches an error that is known; its clock is counted, not read."""

    def __init__(self, budget: float, errors: Mapping[Key, float | None]) -> None:
        self.left, self.errors = budget, errors
        self.rungs: list[tuple[float, list[Key]]] = []

    def try_short(self, keys: Sequence[Key], share: float) -> Mapping[Key, float | None]:
        self.rungs.append((share, list(keys)))
        self.left -= sum(loops * share for _, loops in keys)
        return {key: self.errors[key] for key in keys}

    def leave_out(self, runs: int = 3) -> Halving:
        plan = Plan(
            fixed=frozenset({FEWEST}),
            seconds=lambda key: float(runs * key[1]),
            short_seconds=lambda key, share: key[1] * share,
            runs=runs,
            higher_is_better=False,
        )
        return leave_out(COMPARED, plan, lambda: self.left, self.try_short)


ERRORS: dict[Key, float | None] = {
    ("looped", 1): 9.0, ("timestep", 1): 5.0, ("looped", 4): 3.0, ("timestep", 4): 1.0, ("looped", 8): 2.0,
    ("timestep", 8): 4.0,
}  # fmt: skip


def test_all_stay_where_there_is_time_for_all() -> None:
    pilot = Pilot(78.0, ERRORS)  # 3 seeds x 2 arms x (1 + 4 + 8) loops
    found = pilot.leave_out()
    assert found.kept == COMPARED
    assert found.left_out == []
    assert pilot.rungs == []


def test_the_worse_half_is_left_out_and_the_rest_is_tried_longer() -> None:
    pilot = Pilot(35.0, ERRORS)
    found = pilot.leave_out()
    # 78 s of full runs do not fit: 26 / 8 s of short ones leave 31.75. Of five that may go, two do: 51 s do not fit.
    # 17 / 4 leave 27.5; of three one goes: 39 s. 13 / 2 leave 21; of two one goes: 15 s fit.
    assert [share for share, _ in pilot.rungs] == [1 / 8, 1 / 4, 1 / 2]
    assert pilot.rungs[0][1] == COMPARED
    assert [(one.arm, one.loops, one.share, one.validation) for one in found.left_out] == [
        ("timestep", 1, 1 / 8, 5.0),
        ("timestep", 8, 1 / 8, 4.0),
        ("looped", 4, 1 / 4, 3.0),
        ("looped", 8, 1 / 2, 2.0),
    ]
    assert found.kept == [FEWEST, ("timestep", 4)]
    assert pilot.left == 21
    assert all(one.runs == 3 and one.reason == "worse" for one in found.left_out)


def test_one_loop_and_the_best_with_more_stay_even_where_the_time_is_short() -> None:
    pilot = Pilot(20.0, ERRORS)
    found = pilot.leave_out()
    assert found.kept == [FEWEST, ("timestep", 4)]


def test_without_time_for_a_short_run_the_dearest_are_left_out_at_once() -> None:
    pilot = Pilot(15.5, ERRORS)  # a rung takes 26 / 8, the least 15
    found = pilot.leave_out()
    assert pilot.rungs == []
    assert found.kept == [FEWEST, ("timestep", 4)]
    assert {one.reason for one in found.left_out} == {"longest"}


def test_what_diverges_in_a_short_run_is_left_out_first() -> None:
    pilot = Pilot(60.0, ERRORS | {("timestep", 4): None, ("looped", 8): float("nan")})
    found = pilot.leave_out()
    assert {(one.arm, one.loops) for one in found.left_out} >= {("timestep", 4), ("looped", 8)}


def test_what_is_made_already_stays_where_the_time_is_used_up() -> None:
    """A pilot that took longer than its budget is resumed: its finished runs are still judged."""
    made: set[Key] = {("looped", 1), ("timestep", 1), ("looped", 4), ("timestep", 4)}

    def resumed(left: float) -> Halving:
        plan = Plan(
            fixed=frozenset({FEWEST}),
            seconds=lambda key: 0.0 if key in made else 3.0 * key[1],
            short_seconds=lambda key, share: 0.0,
            runs=3,
            higher_is_better=False,
        )
        return leave_out(
            COMPARED, plan, lambda: left, lambda keys, share: {k: ERRORS[k] for k in keys}
        )

    found = resumed(-30.0)
    assert set(found.kept) == made
    assert {(one.arm, one.loops) for one in found.left_out} == {("looped", 8), ("timestep", 8)}
    made.update({("looped", 8), ("timestep", 8)})
    found = resumed(-30.0)
    assert (found.kept, found.left_out) == (COMPARED, [])
