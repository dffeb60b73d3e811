"""Hardware that is not on this machine, behind its real interfaces: the SEV-SNP device, and a
runner that does for confidential pods on emulated nodes what a kubelet with Kata does.

Production code meets it only through real formats (reports, certificates, configfs-tsm, pod
status) and trusts it only where its root is named in the configuration. Nothing outside
`local`, tests and benchmarks may import it.
"""
