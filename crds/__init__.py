"""The vocabulary of Kekkai: API types, labels, conditions, quantities and typed errors.

One module a kind. The CRD manifests (`crds/manifests`) and the API reference are
generated from these models, so that the schema a user meets and the types the code
reads are the same. This package must not know any other room, nor the cluster
libraries: everything may import it, it imports nothing of ours.
"""
