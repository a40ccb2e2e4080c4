# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter hybrid_vm_plan: a thin wrapper over hybrid_vmm.items, see hybrid_vm_plan.yml."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

from ansible.errors import AnsibleFilterError

# On the controller, Ansible finds the package only for modules; Python needs to be told.
_PACKAGES = str(pathlib.Path(__file__).resolve().parent.parent / "module_utils")
if _PACKAGES not in sys.path:
    sys.path.append(_PACKAGES)

from hybrid_vmm.errors import DefinitionError
from hybrid_vmm.items import plan


def hybrid_vm_plan(items: Any, host: str, variable: str = "hybrid_vm_vms") -> list[dict[str, Any]]:
    """Check an inventory's VMs and return the plan for one host."""
    try:
        return plan(items, host, variable)
    except DefinitionError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"hybrid_vm_plan": hybrid_vm_plan}
