# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules behave in check mode, in diff mode and in a second run. A module adds `details` of its own where it is special.

Options do not belong here: those of modules that talk to VMs are in hybrid_vmm.py.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes by kind of module: `hybrid_attributes.reads`, `hybrid_attributes.changes`."""

    #: Modules that only look.
    READS = r"""
attributes:
  check_mode:
    description: Can run in check mode and say what it would change, without changing it.
    support: full
    details:
      - It never changes anything.
  diff_mode:
    description: Returns what was changed, or would be, in diff mode.
    support: none
    details:
      - There is nothing to compare.
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""

    #: Modules that read, compare, and act on the difference.
    CHANGES = r"""
attributes:
  check_mode:
    description: Can run in check mode and say what it would change, without changing it.
    support: full
  diff_mode:
    description: Returns what was changed, or would be, in diff mode.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
"""
