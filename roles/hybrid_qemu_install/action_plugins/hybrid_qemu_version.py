# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of module hybrid_qemu_version: brings the archive to the host for as long as the module runs.

One task instead of four (folder, copy, install, remove), each of which is a round trip, and nothing is left on the host.
"""

from __future__ import annotations

import os
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """See the module's documentation."""

    TRANSFERS_FILES = False  # only if there is something to transfer; Ansible removes the folder after the task

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Transfer the archive if there is one, then run the module."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        args = dict(self._task.args)
        archive = args.get("archive")
        if not archive:
            args.pop("archive", None)
        elif not self._task.check_mode:
            folder = self._make_tmp_path()
            remote = self._connection._shell.join_path(folder, os.path.basename(archive))
            try:
                self._transfer_file(archive, remote)
                self._fixup_perms2((folder, remote))
            except AnsibleError as exc:
                raise AnsibleActionFail(f"{archive} cannot be copied to the host, nothing was changed there: {exc}") from exc
            args["archive"] = remote
        return {**result, **self._execute_module(module_args=args, task_vars=task_vars)}
