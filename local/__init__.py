"""A real control plane on one machine, with the hardware that is absent emulated.

It starts etcd, the API server, the controller manager, the scheduler and kwok, runs the
operators and the key service beside them, and plays the devices that this machine lacks
(an SNP processor, accelerators). It may import every other room; nothing but the
command line's local commands, the tests and the benchmarks may import it. Production
code must not be able to tell an emulated device from a real one except by its trust root.
"""
