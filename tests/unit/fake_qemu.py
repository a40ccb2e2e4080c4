# SPDX-License-Identifier: GPL-3.0-or-later
"""A QMP server that answers as a hybrid QEMU does (qapi/hybrid.json), and misbehaves when told to.

    python fake_qemu.py CONTROL_SOCKET EVENTS_SOCKET '{"mode": "kvm", "on_set": "die"}'

Behaviour: mode, accel ("hybrid", other accelerators, "stock"), policies (False: a series without them), blockers,
interface, reason; on_set, on_query and on_policy: "die" (the process ends), "hang", "refuse" (GenericError), "blocked",
"garbage", "empty"; greeting: "hang" or "garbage"; delay: seconds that a switch takes.  What does not belong here: what a
real binary is needed for, see tests/qemu.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

AT_US = 1763874000000000
POLICY_COMMANDS = ("hybrid-set-policy", "hybrid-release", "hybrid-begin", "hybrid-end", "hybrid-alert")


class FakeQemu:
    """One VM."""

    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.behaviour = behaviour
        self.mode = behaviour.get("mode", "kvm")
        self.reason = behaviour.get("reason")
        self.switches = {"kvm-to-tcg": 0, "tcg-to-kvm": 0, "failed": 0}
        self.last: dict[str, Any] = {}
        self.policy: dict[str, Any] = {}
        self.override: dict[str, Any] = {}
        self.active: set[str] = set()
        self.listeners: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client."""
        greeting = self.behaviour.get("greeting")
        if greeting == "hang":
            await asyncio.sleep(3600)
        if greeting == "garbage":
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            return
        series = "" if self.behaviour.get("accel") == "stock" else " (hybrid-vmm h1.0a1b2c3d)"
        version = {"qemu": {"major": 10, "minor": 0, "micro": 13}, "package": series}
        self.send(writer, {"QMP": {"version": version, "capabilities": []}})
        self.listeners.append(writer)
        try:
            async for message in messages(reader):
                await self.answer(writer, message["execute"], message.get("arguments", {}), message.get("id"))
        finally:
            self.listeners.remove(writer)
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, command: str, arguments: dict[str, Any], ident: Any) -> None:
        """Run one command."""
        trouble = {"query-hybrid": "on_query", "hybrid-set-mode": "on_set", "hybrid-set-policy": "on_policy"}.get(command, "")
        trouble = self.behaviour.get(trouble, "")
        accel = self.behaviour.get("accel", "hybrid")
        if trouble == "die":
            os._exit(1)
        if trouble == "hang":
            await asyncio.sleep(3600)
        if trouble == "garbage":
            writer.write(b"{]\n")
        elif trouble == "empty":
            self.send(writer, {"return": {}, "id": ident})
        elif trouble == "refuse":
            self.error(writer, ident, "GenericError", "state transfer failed in phase 'registers'")
        elif trouble == "blocked":
            self.error(writer, ident, "GenericError", "switch to 'tcg' blocked by 'vfio': device 0000:01:00.0 in use")
        elif command in ("qmp_capabilities",):
            self.send(writer, {"return": {}, "id": ident})
        elif command == "query-status":
            self.send(writer, {"return": {"status": "running", "running": True}, "id": ident})
        elif command == "query-kvm":
            self.send(writer, {"return": {"enabled": accel == "kvm", "present": True}, "id": ident})
        elif accel == "stock" or command not in self.commands():
            self.error(writer, ident, "CommandNotFound", f"The command {command} has not been found")
        elif accel != "hybrid":
            self.error(writer, ident, "GenericError", f"accelerator is '{accel}', not 'hybrid'")
        elif command == "query-hybrid":
            self.send(writer, {"return": self.state(), "id": ident})
        elif command in POLICY_COMMANDS:
            if not self.policy and command != "hybrid-set-policy":
                self.error(writer, ident, "GenericError", "there is no policy")
            elif "rule" in arguments and arguments["rule"] not in self.rules():
                self.error(writer, ident, "GenericError", f"the policy has no rule '{arguments['rule']}'; it has: {', '.join(self.rules())}")
            else:
                self.send(writer, {"return": self.change(command, arguments), "id": ident})
        else:
            await asyncio.sleep(self.behaviour.get("delay", 0))
            self.send(writer, {"return": self.switch(arguments), "id": ident})

    def commands(self) -> tuple[str, ...]:
        """Those of the series."""
        return ("query-hybrid", "hybrid-set-mode", *(POLICY_COMMANDS if self.behaviour.get("policies", True) else ()))

    def rules(self) -> list[str]:
        """Names of the policy's rules."""
        return [rule["name"] for rule in self.policy["rules"]]

    def change(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answers of the policy's commands. Nothing switches here: what a policy does is a real QEMU's business."""
        before = (self.policy, self.override, set(self.active))
        if command == "hybrid-set-policy":
            self.policy = arguments.get("policy", {})
        elif command == "hybrid-release":
            self.override = {}
        elif command == "hybrid-begin":
            self.active.add(arguments["rule"])
        elif command == "hybrid-end":
            self.active.discard(arguments["rule"])
        else:
            found = [rule["name"] for rule in self.policy["rules"] if arguments["name"] in rule["alerts"]]
            self.active.update(found)
            return {"rules": found}
        return {"changed": before != (self.policy, self.override, self.active)}

    def policy_state(self) -> dict[str, Any]:
        """The policy in the answer to query-hybrid."""
        rules = [{"name": name, "active": name in self.active, "count": 0} for name in self.rules()]
        state = {"wanted": self.policy["rest"], "cause": "rest", "limited": False, "rules": rules}
        if self.override:
            state["override"] = self.override
        return {**{key: self.policy[key] for key in ("hash", "rest", "lock")}, **state}

    def state(self) -> dict[str, Any]:
        """The answer to query-hybrid."""
        result = {
            "interface": self.behaviour.get("interface", 1),
            "mode": self.mode,
            "since-us": AT_US,
            "cause": "operator" if self.last else "start",
            "switches": self.switches,
            "time": {"kvm-us": 1000, "tcg-us": 0},
            "blockers": self.behaviour.get("blockers", []),
            "dropped-features": ["avx512f"],
            "irqchip": "on",
            "start": "kvm",
        }
        if self.reason:
            result["reason"] = self.reason
        if self.last:
            result["last-switch"] = self.last
        if self.policy:
            result["policy"] = self.policy_state()
        return result

    def switch(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The answer to hybrid-set-mode, and the event."""
        before, after = self.mode, arguments["mode"]
        if self.policy:
            self.override = {"mode": after, "forced": arguments.get("force", False)}
        if before == after:
            nothing = {"cause": "start", "pause-us": 0, "phases": [], "at-us": AT_US}
            return {"changed": False, "before": before, "after": after, **nothing}
        self.mode, self.reason = after, arguments.get("reason")
        self.switches[f"{before}-to-{after}"] += 1
        phases = [{"name": "stop", "us": 180}, {"name": "save", "us": 2230}]
        self.last = {"before": before, "after": after, "cause": "operator", "pause-us": 2410, "phases": phases}
        self.last["at-us"] = AT_US
        if self.reason:
            self.last["reason"] = self.reason
        stamp = {"seconds": AT_US // 1000000, "microseconds": 0}
        for listener in self.listeners:
            self.send(listener, {"event": "HYBRID_SWITCH", "data": self.last, "timestamp": stamp})
        return {"changed": True, **self.last}

    @staticmethod
    def send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        """Write one message."""
        writer.write(json.dumps(message).encode() + b"\r\n")

    def error(self, writer: asyncio.StreamWriter, ident: Any, kind: str, desc: str) -> None:
        """Write an error."""
        self.send(writer, {"error": {"class": kind, "desc": desc}, "id": ident})


async def messages(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """Yield JSON objects that come one after the other, as QMP allows: without line ends."""
    text = ""
    while True:
        data = await reader.read(65536)
        if not data:
            return
        text = (text + data.decode()).lstrip()
        while text:
            try:
                message, end = json.JSONDecoder().raw_decode(text)
            except ValueError:
                break
            text = text[end:].lstrip()
            yield message


async def main() -> None:
    """Serve both sockets until killed."""
    control, events, behaviour = sys.argv[1:4]
    vm = FakeQemu(json.loads(behaviour))
    await asyncio.start_unix_server(vm.serve, events)
    server = await asyncio.start_unix_server(vm.serve, control)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
