# SPDX-License-Identifier: GPL-3.0-or-later
"""``hybridctl``: list, show, switch and watch the VMs of this host.  The same functions as the Ansible modules use.

Exit status: 0 all well, 1 something failed with a VM, 2 wrong usage, 3 no such VM, 4 no permission.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable
from typing import Any, Callable, Optional

from . import aio, hybrid, info, mode, policies, policy, store, table, watch
from .argspec import for_ms, names_problem, reason_problem, timeout_problem
from .errors import HybridError, NotRunning, PermissionDenied, StoreError, UnknownVm
from .hybrid import MODES
from .paths import CONFIG_DIR, RUN_DIR, Paths
from .qmp import Session

OK, FAILED, USAGE, UNKNOWN, FORBIDDEN = 0, 1, 2, 3, 4

_LIST = (
    ("VM", "name"),
    ("UNIT", "unit_state"),
    ("ACCEL", "accel"),
    ("MODE", "mode"),
    ("EXPECTED", "expected_mode"),
    ("SINCE", "since"),
    ("QEMU", "qemu"),
    ("WHY", "why"),
)
_MODE = (
    ("VM", "name"),
    ("BEFORE", "before"),
    ("AFTER", "after"),
    ("PAUSE", "pause_us"),
    ("OK", "ok"),
)


def main(argv: Optional[list[str]] = None) -> int:
    """Run hybridctl.

    :param argv: the words after the command's name.
    :return: exit status.
    """
    options = parser().parse_args(argv)
    named = options.vm if options.action is _mode else None
    problem = timeout_problem(getattr(options, "timeout", 1.0)) or names_problem(named) or reason_problem(getattr(options, "reason", None))
    if problem:
        print(f"hybridctl: {problem}", file=sys.stderr)
        return USAGE
    action: Callable[[argparse.Namespace, Paths], int] = options.action
    try:
        return action(options, Paths(options.config_dir, options.run_dir))
    except HybridError as exc:
        print(f"hybridctl: {exc.message}", file=sys.stderr)
        return exit_status(exc)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return OK


def exit_status(exc: HybridError) -> int:
    """Return the exit status that belongs to an error."""
    if isinstance(exc, UnknownVm):
        return UNKNOWN
    if isinstance(exc, PermissionDenied) or (isinstance(exc, StoreError) and isinstance(exc.__cause__, PermissionError)):
        return FORBIDDEN
    return FAILED


def parser() -> argparse.ArgumentParser:
    """Return hybridctl's command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="JSON instead of a table")
    common.add_argument("--config-dir", default=CONFIG_DIR, help="folder of vms/ (%(default)s)")
    common.add_argument("--run-dir", default=RUN_DIR, help="folder of the sockets (%(default)s)")
    result = argparse.ArgumentParser(
        prog="hybridctl",
        description="The hybrid VMs of this host.",
        epilog="Exit status: 0 all well, 1 something failed with a VM, 2 wrong usage, 3 no such VM, 4 no permission.",
    )
    commands = result.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, action: Callable[[argparse.Namespace, Paths], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text.capitalize() + ".", parents=[common])
        command.set_defaults(action=action)
        return command

    command = add("list", _list, "all VMs, stopped ones too")
    command.add_argument("--timeout", type=float, default=5.0, help="seconds (%(default)s)")
    command = add("show", _show, "all that is known of one VM")
    command.add_argument("vm")
    command.add_argument("--timeout", type=float, default=5.0, help="seconds (%(default)s)")
    command = add("mode", _mode, "switch running VMs to a mode and wait until they run in it")
    command.add_argument("mode", choices=MODES)
    command.add_argument("vm", nargs="+", help="names, or 'all' for every running VM that can switch")
    command.add_argument("--reason", help="why, at most 256 bytes; kept with the switch")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds for the whole call (%(default)s)")
    command.add_argument("--check", action="store_true", help="only say what would be done")
    command.add_argument("--for", dest="for_", metavar="TIME", help="then the VM's policy decides again, such as 10m; until released by default")
    command.add_argument("--force", action="store_true", help="also against the lock of the VM's policy")
    command = add("release", _release, "let the policies of VMs decide again")
    command.add_argument("vm", nargs="+")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds for the whole call (%(default)s)")
    command = add("begin", _begin, "trigger a rule of a VM's policy")
    command.add_argument("rule", metavar="VM:RULE", type=_vm_and_rule)
    command.add_argument("--if-running", action="store_true", help="a VM that does not run is no failure")
    command.add_argument("--reason", help="why, at most 256 bytes; kept with the switch")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds (%(default)s)")
    command = add("end", _end, "end a rule of a VM's policy, or let it end as soon as its hold allows")
    command.add_argument("rule", metavar="VM:RULE", type=_vm_and_rule)
    command.add_argument("--timeout", type=float, default=30.0, help="seconds (%(default)s)")
    command = add("alert", _alert, "report an alert to VMs: their policies say what it triggers")
    command.add_argument("alert", help="name of the alert")
    command.add_argument("vm", nargs="+")
    command.add_argument("--reason", help="what was found, at most 256 bytes; kept with the switch")
    command.add_argument("--timeout", type=float, default=30.0, help="seconds for the whole call (%(default)s)")
    command = add("watch", _watch, "show switches as they happen, until interrupted")
    command.add_argument("vm", nargs="*", help="names; all running VMs by default")
    command.add_argument("--timeout", type=float, default=5.0, help="seconds to connect (%(default)s)")
    command = add("validate", _validate, "check VM definition files, or stored policies")
    command.add_argument("file", nargs="+")
    command.add_argument("--policy", action="store_true", help="the files are stored policies")
    return result


def _list(options: argparse.Namespace, paths: Paths) -> int:
    facts = info.collect(paths, None, options.timeout)
    if options.json:
        _print_json(facts)
    elif facts:
        rows = [{**vm, "qemu": vm["series"] or vm["qemu_version"]} for vm in facts]
        print(table.render(rows, _LIST))
    else:
        print(f"no VMs are defined in {paths.definitions}")
    return OK


def _show(options: argparse.Namespace, paths: Paths) -> int:
    facts = info.collect(paths, [options.vm], options.timeout)[0]
    if options.json:
        _print_json(facts)
        return OK
    width = max(map(len, facts))
    for key, value in facts.items():
        print(f"{key.ljust(width)}  {_brief(key, value)}")
    return OK


def _brief(key: str, value: Any) -> str:
    if key == "last_switch" and value:
        return f"{value['before']} -> {value['after']} at {value['at']} by {value['cause']}, pause {table.pause(value['pause_us'])}"
    if key == "policy" and value:
        return _policy_brief(value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(f"{x['name']}: {x['reason']}" if isinstance(x, dict) else str(x) for x in value) or "-"
    return table.cell(key, value)


def _policy_brief(info: dict[str, Any]) -> str:
    """Return the state of a policy on one line: what it wants, why, and which rules are active."""
    parts = [f"wants {info['wanted']} by {info['cause']}{' ' + info['rule'] if info.get('rule') else ''}", f"rests in {info['rest']}"]
    parts += [f"locked in {info['lock']}"] if info["lock"] != "none" else []
    parts += [f"overridden with {info['override']['mode']}"] if info.get("override") else []
    parts += ["at its limit of switches"] if info["limited"] else []
    parts += [f"rule {rule['name']} active" for rule in info["rules"] if rule["active"]]
    return ", ".join(parts)


def _mode(options: argparse.Namespace, paths: Paths) -> int:
    override = mode.Override(for_ms(options.for_), options.force)
    outcome = mode.change(paths, options.vm, options.mode, options.timeout, options.reason, options.check, override)
    rows = [result.to_dict() for result in outcome.results]
    if options.json:
        _print_json({"vms": rows, "left_out": outcome.left_out})
    else:
        if rows:
            print(table.render(rows, _MODE))
        for item in outcome.left_out:
            print(f"left out: {item['reason']}")
    if outcome.error is None:
        return OK
    print(f"hybridctl: {outcome.error}", file=sys.stderr)
    return FORBIDDEN if any(row["code"] == PermissionDenied.code for row in rows) else FAILED


def _vm_and_rule(text: str) -> tuple[str, str]:
    vm, colon, rule = text.rpartition(":")
    if not (vm and colon and rule):
        raise argparse.ArgumentTypeError(f"'{text}' is not VM:RULE")
    return vm, rule


def _release(options: argparse.Namespace, paths: Paths) -> int:
    return _policy(options, policies.command(paths, options.vm, options.timeout, hybrid.release))


def _begin(options: argparse.Namespace, paths: Paths) -> int:
    vm, rule = options.rule
    answers = policies.command(paths, [vm], options.timeout, lambda session: hybrid.begin(session, rule, options.reason))
    if options.if_running:
        answers = [(name, False if isinstance(answer, NotRunning) else answer) for name, answer in answers]
    return _policy(options, answers)


def _end(options: argparse.Namespace, paths: Paths) -> int:
    vm, rule = options.rule
    return _policy(options, policies.command(paths, [vm], options.timeout, lambda session: hybrid.end(session, rule)))


def _alert(options: argparse.Namespace, paths: Paths) -> int:
    def act(session: Session) -> Awaitable[list[str]]:
        return hybrid.alert(session, options.alert, options.reason)

    return _policy(options, policies.command(paths, options.vm, options.timeout, act))


def _policy(options: argparse.Namespace, answers: list[tuple[str, Any]]) -> int:
    """Show what a command of the policy has changed on each VM: whether, or which rules; or why it failed."""
    if options.json:
        _print_json([_policy_row(vm, answer) for vm, answer in answers])
    for vm, answer in answers:
        if isinstance(answer, HybridError):
            print(f"hybridctl: {answer.message}", file=sys.stderr)
        elif options.json:
            continue
        elif isinstance(answer, list):
            print(f"{vm}: {'triggers ' + ', '.join(answer) if answer else 'triggers no rule'}")
        else:
            print(f"{vm}: {'done' if answer else 'nothing to change'}")
    return max((exit_status(answer) for _vm, answer in answers if isinstance(answer, HybridError)), default=OK)


def _policy_row(vm: str, answer: Any) -> dict[str, Any]:
    if isinstance(answer, HybridError):
        return {"vm": vm, "error": answer.message, "code": answer.code}
    return {"vm": vm, "rules" if isinstance(answer, list) else "changed": answer}


def _watch(options: argparse.Namespace, paths: Paths) -> int:
    def show(row: dict[str, Any]) -> None:
        print(json.dumps(row) if options.json else watch.line(row), flush=True)

    aio.run(watch.follow(paths, options.vm, options.timeout, show))
    return OK


def _validate(options: argparse.Namespace, paths: Paths) -> int:  # noqa: ARG001  every command has this signature
    status = OK
    rows = []
    for name in options.file:
        try:
            if options.policy:
                store.read(name, policy.from_compiled)
                rows.append({"file": name, "vm": None, "error": None})
            else:
                rows.append({"file": name, "vm": store.load_file(name).name, "error": None})
        except HybridError as exc:
            rows.append({"file": name, "vm": None, "error": exc.message})
            status = max(status, exit_status(exc))
    if options.json:
        _print_json(rows)
        return status
    for row in rows:
        if row["error"]:
            print(f"hybridctl: {row['error']}", file=sys.stderr)
        else:
            print(f"{row['file']}: {'policy' if options.policy else 'definition of VM ' + repr(row['vm'])} is valid")
    return status


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    sys.exit(main())
