"""Joins pools and workloads: watched objects become the `scheduler.Fleet`, plans become decisions.

`scheduler.objects` translates objects; `family` and `queued_kind` know what belongs to which
queued object, and `holding` what it holds; `feed` keeps the fleet in step with the stores;
`telling` says who is told why it waits; `planner` runs `scheduler.plan`; `decisions` is
the desk on which its outcome lies until the pools and workloads controllers have
written it. Nothing here writes to the cluster, and nothing here decides what
`scheduler` decides.
"""
