"""The operators: they read the cluster, ask `scheduler` or the key service, apply, and write status.

One folder an operator (`pools`, `tenants`, `workloads`, `keys`); `planning` joins pools
and workloads through the one `scheduler.plan`; `runtime` is what they all stand on;
`admission` and `rbac` hold the policies that the API server enforces for them. They
must never hold a plaintext key: `keymgmt.hsm` and `keymgmt.wrapping` are out of reach,
and the key service is reached over HTTP.
"""
