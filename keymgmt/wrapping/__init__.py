"""The worker process: the only place where plaintext tenant keys exist, for microseconds.

`client` is the service's side, `worker` the process, `operations` what it can do, `jwe` how a
key is wrapped for a guest. The HTTP process gets ciphertext only. The worker must not know
HTTP, SQL or policies: it checks that what it unseals is bound to exactly the context that it
is asked for.
"""
