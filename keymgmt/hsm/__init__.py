"""Hardware security modules behind one small protocol; PKCS#11 with SoftHSM2 as the default.

Used only inside the worker process. It must not know tenants, policies, SQL or HTTP: it
holds keys, encrypts data keys with them and signs.
"""
