"""The public log of what the key service did: C2SP tlog-tiles with signed checkpoints.

Every life-cycle act, policy change, release and denial is a leaf. The package knows Merkle
trees, notes and files; it must not know keys, tenants' secrets, SQL or HTTP.
"""
