"""One planning cycle: the scratch state of a plan and its steps.

`admit` decides workload by workload, `floor` keeps minimum and headroom, `waits` says why
the rest waits. The steps know each other only through `Scratch`; their order is
`scheduler.plan`'s. Nothing here lasts from one cycle to the next.
"""
