"""What a comparison of sweeps says of their test sets."""

from separation.commands.compare import test_set_notices as notices_of

TEST = {("music", "test", str(item)) for item in range(4)}
OTHER = {("music", "val", str(item)) for item in range(3)}


def test_of_equal_test_sets_nothing_is_said():
    assert notices_of({"a": TEST, "b": set(TEST)}) == []


def test_who_shares_no_mixture_with_whom_is_named():
    (told,) = notices_of({"a": TEST, "b": TEST, "c": OTHER})
    assert "a on 4 mixtures of music/test; b on 4 mixtures of music/test; c on 3 mixtures of music/val" in told
    assert "a and c, b and c have no mixture in common" in told
    assert "a and b" not in told


def test_sets_that_overlap_are_compared_on_what_both_have():
    (told,) = notices_of({"a": TEST, "b": TEST | OTHER})
    assert "differences between points are taken on the mixtures that both were tested on" in told
    assert "b on 7 mixtures of music/test and music/val" in told
