"""Joins pools and workloads: watched objects become the `scheduler.Fleet`, plans become decisions.

`pod_requests`, `job_shape`, `fleet_objects` and `holding` are pure translation; `feed`
keeps the fleet in step with the stores; `planner` runs `scheduler.plan`; `decisions` is
the desk on which its outcome lies until the pools and workloads controllers have
written it. Nothing here writes to the cluster, and nothing here decides what
`scheduler` decides.
"""
