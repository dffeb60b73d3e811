"""Tenant isolation, one file a property; after the 19 checks of the kubernetes-sigs multi-tenancy benchmarks.

All by what owners try on the real API server, while the operator is stopped.
"""
