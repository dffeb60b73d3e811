"""Messages on the wire, generated from the .proto files beside (`make generate`). Must not be edited by hand."""
