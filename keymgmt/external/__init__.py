"""Keys that stay with their custodians (HYOK): the protocol to ask their own key service, and one such service.

The key service decides, counts and logs a release as for any key, then asks the custodian's
service, which checks everything again and answers with the key already encrypted to the
guest's attested key. The key service never holds it. This package knows neither the store nor
the HSM; `protocol` and `ask` are the key service's side, `decide`, `ledger` and `server` the
custodian's.
"""
