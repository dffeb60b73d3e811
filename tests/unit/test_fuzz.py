"""A short fuzzing campaign of every parser of outside bytes; `make fuzz` runs the long one."""

from __future__ import annotations

import pytest

from keymgmt.policy.errors import PolicyInvalid
from keymgmt.policy.rule import compile_rule
from tests.fuzz.campaign import run
from tests.fuzz.targets import Target, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_hostile_bytes_end_in_a_typed_error(target: Target) -> None:
    found = run(target, iterations=1500, watch_memory=True)
    assert [(told, data[:200].hex()) for data, told in found.faults] == []
    assert found.inputs == 1500


def test_finding_stray_characters_made_the_rule_parser_use_memory_quadratic_in_the_rule() -> None:
    """Found by the campaign: 4,096 stray characters cost 154 MiB of error text, before any signature was checked."""
    with pytest.raises(PolicyInvalid, match="no place outside a string"):
        compile_rule("claims.tee" + "\x81" * 4000)
