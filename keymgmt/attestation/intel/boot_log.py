"""What a TD booted: its CCEL event log, believed as far as the RTMRs that the quote signs bear it out.

Source: UEFI specification, "Confidential Computing Event Log": register 0 is MRTD, 1 to 4 are RTMR0 to RTMR3.
"""

from __future__ import annotations

from typing import Any, Final

from keymgmt.attestation.eventlog import boot_claims, check_replay, parse_log
from keymgmt.attestation.intel.quote import TdReport
from keymgmt.attestation.refusal import refuse

SHA384: Final = 0x0C  # TPM_ALG_ID
MAX_LISTED: Final = 32
_LISTS: Final = ("initrd", "kernel", "kernel_cmdline", "loaders")
_FACTS: Final = ("boot_services_exited", "key_databases", "secure_boot", "secure_boot_proven")


def boot_of(event_log: bytes, body: TdReport) -> dict[str, Any]:
    """Claims of loaders, kernel, command line, initrd and Secure Boot; see eventlog.BootClaims.

    Replaying the log must give exactly RTMR0 to RTMR3. The quote must have been verified.
    Raises EventLogMalformed, EventLogAlgorithmUnsupported, EventLogMismatch.
    """
    log = parse_log(event_log)
    check_replay(log, SHA384, dict(enumerate(body.rtmrs, 1)))
    told = boot_claims(log, SHA384).as_dict()
    for name in _LISTS:  # a rule over a list that was cut short would not see what was cut off
        if len(told[name]) > MAX_LISTED:
            raise refuse("EventLogMalformed", f"more than {MAX_LISTED} entries of {name}", where="cc_eventlog")
    return {name: told[name] for name in (*_FACTS, *_LISTS)}
