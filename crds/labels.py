"""Every label, annotation, taint, gate and finalizer name that Kekkai writes or reads."""

GROUP = "kekkai.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "kekkai"

# Namespaces and what is in them.
TENANT = f"{GROUP}/tenant"  # on a namespace and on all that Kekkai makes in it
READY = f"{GROUP}/ready"  # on a namespace: "true" once its isolation is in force
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY_VALUE = "kekkai"

# Nodes and machines.
POOL = f"{GROUP}/pool"
MACHINE = f"{GROUP}/machine"
SITE = f"{GROUP}/site"
ACCELERATOR = f"{GROUP}/accelerator"  # the accelerator class, such as H200
CONFIDENTIAL = f"{GROUP}/confidential"  # the node's CPU TEE: none, sev-snp, tdx
ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
BLOCK = f"{GROUP}/block"
RACK = f"{GROUP}/rack"
NVLINK_DOMAIN = f"{GROUP}/nvlink-domain"
STARTUP_TAINT = f"{GROUP}/uninitialized"  # NoSchedule until the devices have registered
DRAIN_TAINT = f"{GROUP}/draining"
# Annotations on a node.
REPAIR = f"{GROUP}/repair"  # cordoned by a repair, and why; a person's cordon has no such mark
DRAINING_SINCE = f"{GROUP}/draining-since"  # when a repair began to drain it, RFC 3339
XIDS = f"{GROUP}/xids"  # Xid errors since its last boot, by its agent: code[/device]@time, comma separated
DO_NOT_DISRUPT = f"{GROUP}/do-not-disrupt"  # "true" on a node or a pod: no drain by a repair

# Workloads.
WORKLOAD = f"{GROUP}/workload"  # on a Job: the Workload that governs it
PRIORITY = f"{GROUP}/priority"  # on a Job: queue priority, an integer
SCHEDULING_GATE = f"{GROUP}/admission"
KEYS = f"{GROUP}/keys"  # on a Job: names of ProtectedKeys, comma separated

# Annotations on a Job (or another queued object) that fill its shadow Workload's spec.
TOPOLOGY_REQUIRED = f"{GROUP}/topology-required"  # nvlinkDomain, rack, block, zone or site
TOPOLOGY_PREFERRED = f"{GROUP}/topology-preferred"
ACCELERATORS = f"{GROUP}/accelerators"  # class=throughput, comma separated, the best first: H200=1,H100=0.6
JURISDICTIONS = f"{GROUP}/jurisdictions"  # ISO 3166-1 alpha-2, comma separated
PREEMPTIBLE = f"{GROUP}/preemptible"  # true or false
MAXIMUM_RUNTIME = f"{GROUP}/maximum-runtime-seconds"
PODS_READY_TIMEOUT = f"{GROUP}/pods-ready-timeout-seconds"
ADMISSION_CHECKS = f"{GROUP}/admission-checks"  # names, comma separated
LAST_CHECKPOINT = f"{GROUP}/last-checkpoint"  # on a Job or a pod: when its work was saved last, RFC 3339
FULL_PARALLELISM = f"{GROUP}/full-parallelism"  # written on a Job that was admitted in part: its own parallelism
# On a pod template (or, where there is one template only, the object itself).
MIN_COUNT = f"{GROUP}/min-count"  # pods with which it may start
SPREAD = f"{GROUP}/spread"  # topology level over which its pods are spread
DEVICE_MILLI = f"{GROUP}/device-milli"  # thousandths of one device

# Services.
BANDWIDTH_CLASS = f"{GROUP}/bandwidth-class"  # annotation on a running pod: the fabric class that it shall have

# Plain pods that belong together.
POD_GROUP = f"{GROUP}/pod-group"  # label: the group's name
POD_GROUP_COUNT = f"{GROUP}/pod-group-count"  # annotation: how many pods it has

FINALIZER = f"{GROUP}/cleanup"

# Field managers, one an operator (server-side apply).
MANAGER_POOLS = "kekkai-pools"
MANAGER_TENANTS = "kekkai-tenants"
MANAGER_WORKLOADS = "kekkai-workloads"
MANAGER_DATA_FLOW = "kekkai-data-flow"
MANAGER_KEYS = "kekkai-keys"

# Who may unsuspend, ungate and label: a ServiceAccount in production, a client
# certificate with the same subject on one machine, so that policies are the same.
SYSTEM_NAMESPACE = "kekkai-system"
OPERATOR_USER = f"system:serviceaccount:{SYSTEM_NAMESPACE}:kekkai-operator"
