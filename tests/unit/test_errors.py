from loopedge import errors


def test_every_kind_is_a_loopedge_error() -> None:
    for name in set(errors.__all__) - {
        "InputLengthWarning",
        "LoopCountWarning",
        "UntrainedWarning",
        "install_hint",
    }:
        assert issubclass(getattr(errors, name), errors.LoopedgeError)


def test_fields_and_text() -> None:
    error = errors.VerificationError("too far", measured=2e-3, allowed=1e-4, hint="--debug")
    assert (str(error), error.message, error.hint) == ("too far", "too far", "--debug")
    assert (error.measured, error.allowed) == (2e-3, 1e-4)
    assert errors.InputError("x").hint is None


def test_a_missing_extra_names_its_install_command() -> None:
    error = errors.MissingExtraError("loopedge.export", extra="train")
    assert str(error) == "loopedge.export needs the extra 'train'"
    assert error.hint == "in a clone of loopedge: pip install -c constraints.txt -e '.[train]'"
