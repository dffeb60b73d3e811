"""The agent inside a confidential guest: prove, fetch, decrypt, work.

It reads evidence from the kernel's configfs-tsm, speaks the KBS protocol to the key service,
opens the sealed input with the released key and writes a result. It is measured at launch, so
it stays small: it must not import Kubernetes, the key service's HSM or store, or anything of
other rooms but `crds.errors`.
"""
