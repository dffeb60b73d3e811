"""Collateral: what vendors publish about their platforms (chains, TCB levels, revocation), kept at hand.

Names say what a piece is for; the cache keeps the newest piece of each name on disk; bundles
carry pieces to places without a network; fetchers get them from the vendors. Collateral is
data, not trust: verifiers check its signatures against pinned roots, so a wrong piece can
only cause a refusal. It must not know evidence, policies of release, keys or tenants.
"""
