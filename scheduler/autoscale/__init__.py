"""Machines to come and go: growth for what waits, shrinking of what is idle, slots in the interconnect."""
