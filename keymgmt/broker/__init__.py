"""The key service's HTTP face: the KBS protocol for guests, /v1 for administration, the log's tiles.

It turns requests into calls of `lifecycle`, `policy`, `attestation` and the HSM worker, and
their answers into replies. It must not hold plaintext tenant keys (only the worker process
does) and must not decide anything itself: decisions are pure functions elsewhere.
"""
