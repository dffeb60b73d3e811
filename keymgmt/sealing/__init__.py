"""How a tenant key rests in the database: sealed under its own data key, bound to its context.

The format is final (docs/keys.md, "Sealed key"). The package knows bytes and AES-GCM; it
reaches the HSM only through a function that encrypts data keys, and must not know SQL,
policies or HTTP.
"""
