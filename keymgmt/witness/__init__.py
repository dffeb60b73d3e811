"""Witnesses over HTTP: the client that the log asks, and a witness that a custodian runs.

What is asked and judged is in `keymgmt.transparency`; here it meets sockets and files. The
package must not know keys, tenants or the store.
"""
