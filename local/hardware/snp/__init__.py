"""An emulated SEV-SNP platform: endorsement keys, chips, launch measurement, guest devices.

Reports have the real format (version 3 by default) and are signed by a VCEK whose chain has
AMD's shape but a root of its own, made at the first start. It must not know Kubernetes or
the key service.
"""
