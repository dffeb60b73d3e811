"""The kubelet's and Kata's part for confidential pods on emulated nodes.

For each pod with a runtime class `kata-qemu-snp*` bound to an emulated node it launches an
emulated SNP guest, runs the real guest agent in it as a process, and reports the pod's status.
It decides nothing about keys: whether a guest gets one is between guest and key service. It
must not know tenants, quotas or Kekkai's kinds.

A pod that ended is never run again. A guest lives and dies with the runner, as a container
does with its host: after a restart of the runner, a pod whose guest had finished keeps that
outcome; otherwise, where its restart policy is Never it is Failed (exit code 137, reason
ContainerStatusUnknown, as a kubelet says after a crash) and its Job may try again, and with
another policy its guest starts anew and restartCount counts up.
"""
