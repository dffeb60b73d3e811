"""Mutation fuzzing of every parser that sees bytes from outside.

`targets` names the parsers with seeds and the errors that they may raise; `mutate` makes
hostile inputs from the seeds. `python -m tests.fuzz --iterations N` runs a long campaign
(`make fuzz`), `tests/unit/test_fuzz.py` a short one. Any other error, or an input that
takes long, is a finding.
"""
