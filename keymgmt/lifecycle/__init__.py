"""The key service's memory: keys and their states, policies, custodians, sessions, pending log leaves.

Every change runs through the journal, which commits many of them in one transaction and has
their leaves published before anyone is answered. The package must not know HTTP, and never
sees a plaintext key: it stores sealed bytes.
"""
