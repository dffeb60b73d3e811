"""The key service: keys under their owner's control, released only to proven enclaves.

Holds the HSM, sealing, life cycle, attestation verifiers, release policies, the KBS
broker and the transparency log. It runs as a process with its own identity and store.
It must not know Kubernetes: no module here imports `kubernetes` or `kopf`, and the
cluster's administrator is not in its trusted base.
"""
