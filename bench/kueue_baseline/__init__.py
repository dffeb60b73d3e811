"""Kueue's scheduler performance test, baseline configuration: its load, and a controller that runs it.

`load` says what arrives and on what; `foreign` is the controller of a kind that Kekkai
does not know, which makes the Workloads and reports their end. Nothing here starts a
process or measures one.
"""
