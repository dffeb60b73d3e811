from __future__ import annotations

import pickle

from crds.errors import Conflict, KekkaiError


def test_says_what_where_and_what_to_do() -> None:
    error = Conflict(
        "the digest differs", where="spec.releasePolicy.digest", fix="sign a change", reason="PolicyChange"
    )
    assert str(error) == "spec.releasePolicy.digest: the digest differs; sign a change"
    assert error.problem.as_dict() == {
        "reason": "PolicyChange",
        "what": "the digest differs",
        "where": "spec.releasePolicy.digest",
        "fix": "sign a change",
    }


def test_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(Conflict("x", where="y", fix="z", reason="Q")))
    assert isinstance(error, Conflict)
    assert error.problem == Conflict("x", where="y", fix="z", reason="Q").problem
    assert isinstance(error, KekkaiError)
