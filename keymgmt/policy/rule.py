"""The rule of a release policy: one CEL expression over verified claims (cel.dev).

Variables: `claims` (verified evidence), `request.namespace`, `request.name`, `now` (timestamp).
Only the value `true` allows; anything else, an error included, denies. Rules are bounded so
that no tenant can slow the service down.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keymgmt.policy.cel_engine import load_compiler
from keymgmt.policy.errors import PolicyInvalid

_parse = load_compiler()
MAX_RULE = 4096  # characters
_STRAY = re.compile(r"[^A-Za-z0-9_.,()\[\]{}<>=!&|+\-*/%?:'\"\s]")
MAX_MACROS = 1  # comprehensions: two nested ones would already be quadratic
MAX_NESTING = 32
_MACRO = re.compile(r"\.\s*(all|exists|exists_one|map|filter)\s*\(")
_PATH = re.compile(r"\b(?:claims|request)(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_QUOTES = ('"""', "'''", '"', "'")
# What a policy must talk about: without a measurement it would release to any code, without
# the init data to any configuration of that code (it pins agent policy, images and key paths).
# A rule names the measurement of each TEE that it means to accept; of any other it is not true.
MEASUREMENTS = (
    "claims.snp.measurement",
    "claims.tdx.mrtd",
    "claims.sgx.mrenclave",
    "claims.sgx.mrsigner",
    "claims.nitro.pcr0",
    # Of a vTPM, what names the operating system: its loader, kernel or unified kernel image.
    "claims.vtpm.pcr4",
    "claims.vtpm.pcr9",
    "claims.vtpm.pcr11",
)
INIT_DATA = "claims.init_data"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a rule. `unmet` explains a denial to the key's owner: condition and values seen."""

    allowed: bool
    unmet: tuple[str, ...] = ()


@functools.lru_cache(maxsize=4096)
def compile_rule(rule: str) -> Any:
    """Parse a rule and check its bounds. Raises PolicyInvalid."""
    if len(rule) > MAX_RULE:
        raise PolicyInvalid(f"a rule has at most {MAX_RULE} characters", where="rule")
    plain = _without_strings(rule)
    if (stray := _STRAY.search(plain)) is not None:
        # The parser reports each stray character with the whole rule: memory quadratic in its length.
        raise PolicyInvalid(f"{stray[0]!r} has no place outside a string", where="rule", fix="remove it, or quote it")
    if len(_MACRO.findall(plain)) > MAX_MACROS:
        raise PolicyInvalid(f"a rule has at most {MAX_MACROS} comprehension", where="rule", fix="use `in`")
    if _nesting(plain) > MAX_NESTING:
        raise PolicyInvalid(f"brackets are nested deeper than {MAX_NESTING}", where="rule")
    program = _compile(rule)
    if not any(_names(path, plain) for path in MEASUREMENTS):
        raise _not_looked_at(MEASUREMENTS[0], f"{MEASUREMENTS[0]} or another TEE's measurement")
    if not _names(INIT_DATA, plain):
        raise _not_looked_at(INIT_DATA, INIT_DATA)
    if any(_execute(program, decoy) is True for decoy in _decoys()):
        raise PolicyInvalid(
            "the rule also allows evidence of an unknown guest", where="rule", fix="compare with exact values"
        )
    return program


def _names(path: str, plain: str) -> bool:
    return re.search(re.escape(path) + r"\b", plain) is not None


def _not_looked_at(path: str, said: str) -> PolicyInvalid:
    return PolicyInvalid(f"the rule does not look at {said}", where="rule", fix=f'add: && {path} == "<expected hex>"')


def evaluate(rule: str, variables: Mapping[str, Any]) -> Verdict:
    """Whether the rule allows. Never raises: what cannot be evaluated is denied."""
    try:
        program = compile_rule(rule)
    except PolicyInvalid as error:
        return Verdict(False, (f"invalid rule: {error.problem.what}",))
    if _execute(program, variables) is True:
        return Verdict(True)
    return Verdict(False, tuple(_unmet(rule, variables)))


def conditions(rule: str, variables: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Each top-level conjunct: its text, whether it is true, and the values of the claims that it names."""
    found = []
    for condition in conjuncts(rule):
        try:
            value = _execute(_compile(condition), variables)
        except PolicyInvalid:
            value = None
        seen = ", ".join(f"{path} is {_look_up(path, variables)}" for path in _paths(condition))
        found.append((condition, value is True, seen))
    return found


def _unmet(rule: str, variables: Mapping[str, Any]) -> list[str]:
    """The conjuncts that are not true, cut to what an entry has room for."""
    reasons = [
        f"{condition[:200]} ({seen})" if seen else condition[:200]
        for condition, holds, seen in conditions(rule, variables)
        if not holds
    ]
    return reasons[:16] or ["the rule as a whole is not true"]


def conjuncts(rule: str) -> list[str]:
    """Split at top-level `&&`; a rule with a top-level `||` or `?:` is one condition."""
    plain = _without_strings(rule)
    depth, start, parts = 0, 0, []
    position = 0
    while position < len(plain):
        char = plain[position]
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif depth == 0 and (plain.startswith("||", position) or char == "?"):
            return [rule.strip()]
        elif depth == 0 and plain.startswith("&&", position):
            parts.append(rule[start:position].strip())
            start = position + 2
            position += 1
        position += 1
    parts.append(rule[start:].strip())
    return [part for part in parts if part]


def _compile(rule: str) -> Any:
    try:
        return _parse(rule)
    except Exception as error:
        raise PolicyInvalid(f"not a CEL expression: {str(error)[:200]}", where="rule") from None


def _execute(program: Any, variables: Mapping[str, Any]) -> Any:
    """The value, or None on any error. The Rust library may raise outside of Exception (a panic)."""
    try:
        return program.execute(dict(variables))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return None


def _decoys() -> list[dict[str, Any]]:
    """Evidence of nobody, one of each TEE: well-formed, with values that no policy can name."""
    from datetime import UTC, datetime

    registers = {f"{kind}{index}": "decoy" for kind in ("rtmr", "pcr") for index in range(16)}
    fields = {"debug": False, "vmpl": 0, "sept_ve_disable": True, "tcb_status": "UpToDate", "advisories": []}
    named = ("measurement", "host_data", "chip_id", "mrtd", "mr_config_id", "mrenclave", "mrsigner", "config_id")
    guest = {**fields, **registers, **dict.fromkeys(named, "decoy"), "user_data": "decoy", "public_key": "decoy"}
    roots = {"snp": "amd", "tdx": "intel", "sgx": "intel", "nitro": "aws", "vtpm": "amd"}
    devices: dict[str, Any] = {"gpus": [], "switches": [], "protected_links": False}
    return [
        {
            "claims": {tee: {**guest, "snp": guest}, "init_data": init_data, "root": root, "tee": tee, **devices},
            "request": {"namespace": "decoy", "name": "decoy"},
            "now": datetime(2100, 1, 1, tzinfo=UTC),
        }
        for tee, root in roots.items()
        for init_data in ("decoy", "")
    ]


def _paths(condition: str) -> list[str]:
    return list(dict.fromkeys(_PATH.findall(_without_strings(condition))))[:4]


def _look_up(path: str, variables: Mapping[str, Any]) -> str:
    value: Any = variables
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return "absent"
        value = value[part]
    return repr(value)[:120]


def _without_strings(rule: str) -> str:
    """The rule with the inside of each string literal and comment blanked; positions are kept."""
    result, position = list(rule), 0
    while position < len(rule):
        if rule.startswith("//", position):
            end = rule.find("\n", position)
            end = len(rule) if end < 0 else end
            result[position:end] = " " * (end - position)
            position = end
            continue
        quote = next((q for q in _QUOTES if rule.startswith(q, position)), None)
        if quote is None:
            position += 1
            continue
        raw = position > 0 and rule[position - 1] in "rR"
        end = position + len(quote)
        while end < len(rule) and not rule.startswith(quote, end):
            end += 2 if rule[end] == "\\" and not raw else 1
        stop = min(end, len(rule))
        inside = slice(position + len(quote), stop)
        result[inside] = " " * (stop - position - len(quote))
        position = end + len(quote)
    return "".join(result)


def _nesting(plain: str) -> int:
    depth = deepest = 0
    for char in plain:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest
