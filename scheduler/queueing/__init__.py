"""Who is next and who may: the order of pending workloads, and tenants' quotas."""
