# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception of this package."""

from __future__ import annotations


class LabError(Exception):
    """Something the user can act on; the text names the thing and says what to do."""
