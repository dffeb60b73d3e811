"""What tenants and operators touch: the command line today, REST and web pages beside it.

It may call the pure rooms (`crds`, `scheduler`, `keymgmt`). It must not import
`operators`, and only the commands that start a local control plane import `local`.
"""
