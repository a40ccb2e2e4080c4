# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: disposable machines that play KVM hosts, and the guest that tests and the demo run on them.

Run as `python -m lab`. Standard library only, so that it works before any environment is built.
What does not belong here: anything Ansible does on a host once it is up.
"""
