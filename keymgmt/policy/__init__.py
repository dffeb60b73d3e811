"""Who may get a key: custodians, their signatures, and the rule that evidence must satisfy.

Pure: documents and claims go in, a verdict with its reasons comes out. It must not know the
store, the HSM or HTTP.
"""
