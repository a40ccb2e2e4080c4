# SPDX-License-Identifier: GPL-3.0-or-later
"""The one gate to qemu.qmp, which is not part of Python and is not installed system-wide on managed hosts."""

from __future__ import annotations

import importlib
import logging
import os
import sys

from .errors import LibraryMissing

#: Where role hybrid_host unpacks this package and qemu.qmp.
PYTHON_DIR = "/opt/hybrid-vmm/python"

#: Who installs it, for error messages.
HINT = "to talk to QEMU; role hybrid_host installs it in " + PYTHON_DIR


def require_qmp(python_dir: str = PYTHON_DIR) -> None:
    """Make ``import qemu.qmp`` work, or say clearly that it cannot.

    The pinned copy in ``python_dir`` wins over one that the system may have.

    :param python_dir: folder that holds ``qemu/qmp``.
    :raises LibraryMissing: when no copy can be imported.
    """
    if "qemu.qmp" not in sys.modules and os.path.isdir(python_dir) and python_dir not in sys.path:
        sys.path.insert(0, python_dir)
    try:
        importlib.import_module("qemu.qmp")
    except ImportError as exc:
        raise LibraryMissing(f"cannot import the Python library qemu.qmp ({exc}): it is needed {HINT}") from exc
    # Its messages repeat our exceptions on stderr; whoever wants them adds a handler.
    logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())
