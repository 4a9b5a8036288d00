"""Deliver missing images from the jump host's store to a host's engine.

This process serves the store as a read-only registry on the jump host's loopback. The host reaches
it through an SSH session that lasts as long as the pull. If sshd forbids forwarding, the images are
streamed into `docker load` instead.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

# The release directory, from which `bundle` and this role are imported on the controller.
RELEASE = str(Path(__file__).resolve().parents[3])
if RELEASE not in sys.path:
    sys.path.insert(0, RELEASE)

from bundle.errors import AirliftError  # noqa: E402
from bundle.jumphost import readers  # noqa: E402
from bundle.jumphost.registry import RegistryServer  # noqa: E402
from roles.images.delivery import archive, ssh  # noqa: E402
from roles.site.module_utils.image_identity import identifying, image_ids  # noqa: E402

# Bytes sent to measure a link: first few, then enough to outweigh the start of the session.
SAMPLES = (1 << 18, 1 << 23)
SLOW = 1.0
# Bytes that an engine unpacks per second, and seconds to test an image, measured on hosts with two
# cores. They are only used for estimates.
UNPACK_RATE = 50e6
PROBE_SECONDS = 1.5


class ActionModule(ActionBase):  # type: ignore[misc]
    """The controller's part; the module images_engine is the host's part."""

    _VALID_ARGS = frozenset(("components", "store", "port", "way", "timeout", "known"))

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        """Look, deliver what is missing, prove it."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        arguments = self._task.args
        components: dict[str, Any] = dict(arguments["components"])
        self._store = Path(arguments["store"])
        self._port = int(arguments["port"])
        self._timeout = int(arguments.get("timeout") or 1800)

        # In check mode, plan the delivery for a host without an engine as well.
        check = bool(self._task.check_mode)
        state = self._known(components, check=check) or self._engine(
            "inspect", components, port=self._port, optional=check
        )
        if state.get("failed"):
            return state
        if not state["missing"]:
            known = {"bytes": 0, "disk": 0, "free": state["free"], "seconds": 0, "delivered": []}
            return {"changed": False, "msg": "every image is present", **known}
        missing = {name: components[name] for name in state["missing"]}
        absent = {name: components[name] for name in state["absent"]}
        chains = archive.known_chains(state["layers"])
        size = archive.bytes_to_send(absent.values(), chains)
        if check:
            packed = state["store"] == "containerd"
            disk = archive.disk_needed(absent.values(), chains, keeps_packed=packed)
            seconds = self._seconds(size) + disk / UNPACK_RATE + PROBE_SECONDS * len(missing)
            message = f"would deliver {', '.join(missing)}: {size / 1e6:.1f} MB"
            cost = {"bytes": size, "disk": disk, "free": state["free"], "seconds": seconds}
            cost["limit"] = self._timeout
            return {"changed": True, "msg": message, "delivered": list(missing), **cost}

        started = time.monotonic()
        if not absent:
            way, result, sent = "there already", self._engine("settle", missing), 0
        else:
            try:
                with readers.reading(self._store):
                    self._complete(absent)
                    way, result, sent = self._deliver(missing, absent, state, str(arguments["way"]))
            except AirliftError as error:  # a prune is in progress
                raise AnsibleActionFail(str(error)) from error
        if result.get("failed"):
            return result
        seconds = time.monotonic() - started
        pulled = result.get("pulled_seconds", 0.0)
        how = f"{way}, {pulled:.2f} s of it the pull" if pulled else way
        message = f"{', '.join(missing)}: {sent / 1e6:.1f} MB in {seconds:.1f} s ({how})"
        return {
            "changed": True,
            "msg": message,
            "bytes": sent,
            "seconds": round(seconds, 1),
            "pulled_seconds": round(pulled, 2),
            "way": way,
            "delivered": list(missing),
            "images": result.get("images", {}),
        }

    def _known(self, components: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
        """Return the images that preflight found in this run, if that is enough.

        That is so in check mode, and if nothing is missing. A delivery queries the host itself.
        """
        known: dict[str, Any] = dict(self._task.args.get("known") or {})
        same = known and known["ids"] == image_ids(components, known["store"])
        return known if same and (check or not known["missing"]) else {}

    def _seconds(self, size: int) -> float:
        """Estimate the seconds to transfer so many bytes, by a measurement with a few bytes."""
        if size < SAMPLES[0]:  # too little to measure
            return 0.0
        rate = 0.0
        for sample in SAMPLES:
            if sample > size:  # a measurement must not cost more than the transfer
                break
            # Random bytes, because a session may compress.
            data = os.urandom(sample)
            started = time.monotonic()
            try:
                ssh.stream_to(
                    *(self._connection, "cat > /dev/null", partial(_send, data)),
                    limit=self._timeout,
                    # A sudo that asks for a password, or needs a terminal, has no part in it.
                    as_root=False,
                )
            except ssh.StreamError as error:
                raise AnsibleActionFail(str(error)) from error
            seconds = time.monotonic() - started
            rate = sample / seconds
            if seconds > SLOW:  # a slow link, on which the larger sample would take long
                break
        return size / rate

    def _engine(self, state: str, components: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Run the host's module."""
        result: dict[str, Any] = self._execute_module(
            module_name="images_engine",
            module_args={
                "state": state,
                "components": identifying(components),
                "timeout": self._timeout,
                **more,
            },
            task_vars=self._vars,
        )
        return result

    def _complete(self, components: Mapping[str, Any]) -> None:
        """Refuse a store without all blobs, before the host is changed."""
        lacking = [
            f"{name} ({digest})"
            for name, component in components.items()
            for digest in archive.lacking_blobs(self._store, component)
        ]
        if lacking:
            message = (
                f"the store {self._store} lacks {len(lacking)} blob(s): {', '.join(lacking)}. "
                "Import the bundle again on the jump host."
            )
            raise AnsibleActionFail(message)

    def _deliver(
        self,
        missing: Mapping[str, Any],
        absent: Mapping[str, Any],
        state: Mapping[str, Any],
        way: str,
    ) -> tuple[str, dict[str, Any], int]:
        """Deliver in the requested way; `auto` falls back to the stream."""
        if way in ("auto", "registry"):
            if state["port_taken"]:
                message = (
                    f"port {self._port} on the loopback of {self._vars['inventory_hostname']} is "
                    "in use: wait for the other run to end, or set images_tunnel_port"
                )
                raise AnsibleActionFail(message)
            try:
                return self._by_registry(missing)
            except ssh.StreamError as error:
                raise AnsibleActionFail(str(error)) from error
            except ssh.ForwardingRefusedError as error:
                if way == "registry":
                    message = (
                        "sshd on the host refuses to forward a port; allow it (AllowTcpForwarding) "
                        "or set images_way to auto"
                    )
                    raise AnsibleActionFail(message) from error
        return self._by_stream(missing, absent, state)

    def _by_registry(self, missing: Mapping[str, Any]) -> tuple[str, dict[str, Any], int]:
        """Let the engine pull through the tunnel, which transfers only missing layers."""
        local = self._connection.transport == "local"
        server = RegistryServer(self._store, port=self._port if local else 0)
        local_port = server.start()
        registry = f"127.0.0.1:{self._port}"
        try:
            if local:
                result = self._engine("pull", missing, registry=registry)
            else:
                with ssh.reverse_tunnel(self._connection, self._port, local_port):
                    result = self._engine("pull", missing, registry=registry)
        finally:
            server.stop()
        return "registry", result, server.bytes_sent

    def _by_stream(
        self, missing: Mapping[str, Any], absent: Mapping[str, Any], state: Mapping[str, Any]
    ) -> tuple[str, dict[str, Any], int]:
        """Stream into `docker load`: overlay2 accepts only new layers, containerd needs all."""
        chains = archive.known_chains(state["layers"]) if state["store"] == "overlay2" else set()
        try:
            sent = ssh.stream_to(
                self._connection,
                "docker load",
                lambda stream: archive.write_archive(
                    stream, self._store, list(absent.values()), chains
                ),
                limit=self._timeout,
            )
        except ssh.StreamError as error:
            message = f"the engine did not accept the images: {error}"
            raise AnsibleActionFail(message) from error
        return "stream", self._engine("settle", missing), sent


def _send(data: bytes, stream: archive.Sink) -> None:
    stream.write(data)
