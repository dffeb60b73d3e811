"""The demo: two tenants, two pools at zero, a gang with a sealed dataset, a batch over its quota.

`scenario` says what happens and what must come of it, `materials` makes the dataset, the
custodian and the signed policy, `look` reads the cluster for the live view, and `view`
shows it. It uses what a user would use: kubectl, the `kekkai` command and the examples
in docs/examples. It must not reach into the operators or the key service.
"""
