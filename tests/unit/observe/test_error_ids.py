"""Ids of errors."""

from __future__ import annotations

from predictd.server.observe.error_ids import PLACES_MAX, ErrorIds, place_of


def raised(kind: type[Exception]) -> Exception:
    try:
        raise kind("text")
    except Exception as error:  # noqa: BLE001 - it is wanted with its traceback
        return error


def test_the_same_error_has_one_id_a_second_and_the_next_one_says_how_often_it_was_told() -> None:
    errors = ErrorIds()
    first, again = (errors.id_of(place_of(raised(KeyError)), at) for at in (0.0, 0.9))
    other = errors.id_of(place_of(raised(ValueError)), 0.9)
    later = errors.id_of(place_of(raised(KeyError)), 1.0)
    assert (first.new, again.new, other.new, later.new) == (True, False, True, True)
    assert first.id == again.id
    assert len({first.id, other.id, later.id}) == 3
    assert (later.repeated, other.repeated) == (1, 0)


def test_only_so_many_errors_are_remembered() -> None:
    errors = ErrorIds()
    kinds = [type(f"Error{number}", (Exception,), {}) for number in range(PLACES_MAX + 1)]
    for kind in kinds:
        assert errors.id_of(place_of(raised(kind)), 0.0).new
    assert not errors.id_of(place_of(raised(kinds[-1])), 0.0).new
    assert errors.id_of(place_of(raised(kinds[0])), 0.0).new
