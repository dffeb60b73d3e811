"""Turns the models into what users meet: CRD manifests and the API reference.

`python -m crds.generate` writes both; CI runs it and fails when anything differs.
"""
