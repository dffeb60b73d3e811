"""HSM keys without a version are deleted only when no replica can still be about to file them."""

from keymgmt.lifecycle.orphans import Orphans

A, B = b"a" * 16, b"b" * 16


def test_only_what_was_never_needed_for_long_enough_is_deleted():
    orphans = Orphans(patience=100)
    assert orphans.look([A, B], [B], 0) == []
    assert orphans.look([A, B], [B], 99) == []
    assert orphans.look([B, A], [B], 100) == [A]


def test_a_key_that_is_filed_or_gone_meanwhile_starts_anew():
    orphans = Orphans(patience=100)
    orphans.look([A, B], [], 0)
    assert orphans.look([A], [A], 60) == []
    assert orphans.look([A, B], [], 120) == []
    assert orphans.look([A, B], [], 220) == [A, B]
