"""Kubernetes objects, as plain dicts, read as the states of a plan; and back into the wire form of a pod set.

Pure translation, for whoever has objects: the operators from their watches, the command
line from a list or a file. It must not know where objects come from, and decides nothing.
"""
