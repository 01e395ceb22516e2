"""Notices of `make compare` about different test sets."""

from separation.commands.compare import test_set_notices as notices_of

TEST = {("music", "test", str(item)) for item in range(4)}
OTHER = {("music", "val", str(item)) for item in range(3)}


def test_equal_test_sets_cause_no_notice():
    assert notices_of({"a": TEST, "b": set(TEST)}) == []


def test_sweeps_without_shared_mixtures_are_named():
    (notice,) = notices_of({"a": TEST, "b": TEST, "c": OTHER})
    assert "a on 4 mixtures of music/test; b on 4 mixtures of music/test; c on 3 mixtures of music/val" in notice
    assert "a and c, b and c have no mixture in common" in notice
    assert "a and b" not in notice


def test_overlapping_test_sets_are_compared_on_their_shared_mixtures():
    (notice,) = notices_of({"a": TEST, "b": TEST | OTHER})
    assert "differences between points are computed on the mixtures that both were tested on" in notice
    assert "b on 7 mixtures of music/test and music/val" in notice
