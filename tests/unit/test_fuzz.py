"""A short fuzzing campaign of every parser of outside bytes; `make fuzz` runs the long one."""

from __future__ import annotations

import pytest

from keymgmt.policy.errors import PolicyInvalid
from keymgmt.policy.rule import compile_rule
from tests.fuzz.campaign import run
from tests.fuzz.targets import Target, targets

# A rule that compiles is tried against a decoy of each TEE, which takes long.
SLOW = {"release-rule": 300}


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_hostile_bytes_end_in_a_typed_error(target: Target) -> None:
    count = SLOW.get(target.name, 1500)
    found = run(target, iterations=count, watch_memory=True)
    assert [(told, data[:200].hex()) for data, told in found.faults] == []
    assert found.inputs == count


def test_finding_stray_characters_made_the_rule_parser_use_memory_quadratic_in_the_rule() -> None:
    """Found by the campaign: 4,096 stray characters cost 154 MiB of error text, before any signature was checked."""
    with pytest.raises(PolicyInvalid, match="no place outside a string"):
        compile_rule("claims.tee" + "\x81" * 4000)
