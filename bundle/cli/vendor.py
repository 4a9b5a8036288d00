"""The commands of whoever builds: build, sign, image, lock; serve and completion, too."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from bundle.cli import completion
from bundle.cli.answer import Answer
from bundle.cli.main import make_parser
from bundle.cli.options import add_custody
from bundle.cli.parser import add_command
from bundle.cli.terminal import Narrator
from bundle.core.text import size, table
from bundle.errors import AirliftError, Kind
from bundle.format.delta import describe, facts
from bundle.jumphost.store import DEFAULT_HOME

TREE = Path(__file__).resolve().parents[2]
IDENTITY = "release@airlift.example"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to the parser."""
    one = add_command(
        commands,
        "build",
        _build,
        about="Collects images, roles, wheels and packages, and writes one signed tar and its\n"
        "SHA256SUMS. The same tree and SOURCE_DATE_EPOCH give the same bytes. A delta,\n"
        "with --since, is for clients that imported those bundles.",
        examples=(
            "build --version 1.2.0 --key ~/.ssh/airlift_release",
            "build --since dist/airlift-1.1.0-amd64.tar --key release.pub",
        ),
    )
    one.add_argument("--version", help="default: the one in bundle/release.yml")
    one.add_argument("--serial", type=int, help="default: the one in bundle/release.yml")
    one.add_argument(
        "--source",
        choices=["auto", "registry", "debian"],
        help="where the images come from: pulled from registries, built from packages, or what "
        "can be reached from here (default: the one in bundle/release.yml)",
    )
    one.add_argument(
        "--allow-absent",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="let the bundle lack these, such as grafana or packages-rhel-9, or all that cannot "
        "be had here; a build that would lack anything else is refused",
    )
    one.add_argument("-o", "--output", type=Path, default=Path("dist"), metavar="DIR")
    one.add_argument(
        "--allow-dirty",
        action="store_true",
        help="let files travel that are changed or new and not committed",
    )
    one.add_argument(
        "--since",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="BUNDLE",
        help="make a delta, without what these earlier bundles have, for sites that imported all "
        "of them; or without what the receipts of sites list (docs/DELTAS.md); a full bundle is "
        "made without this option",
    )
    one.add_argument(
        "--receipt-signers",
        type=Path,
        metavar="FILE",
        help="who may sign receipts, in the form of allowed_signers, got from the sites",
    )
    one.add_argument(
        "--vulnerability-data",
        type=Path,
        metavar="FILE|DIR",
        help="the JSON that Debian's security tracker publishes: packages of Debian are matched "
        "with it (docs/SBOM.md); without it they are reported as not scanned",
    )
    _add_keys(one)
    add_custody(one)
    one = add_command(
        commands,
        "sign",
        _sign,
        about="For clients that ask for signatures by several keys. Every byte is checked\n"
        "first. Whoever may not have the whole bundle signs its manifest.json elsewhere.",
        examples=(
            "sign dist/airlift-1.2.0-amd64.tar --key ~/.ssh/second_signer",
            "sign dist/airlift-1.2.0-amd64.tar --signature manifest.json.sig",
        ),
    )
    one.add_argument("bundle", type=Path)
    one.add_argument(
        "--signature",
        type=Path,
        metavar="FILE",
        help="made elsewhere: ssh-keygen -Y sign -n airlift-bundle -f KEY manifest.json",
    )
    _add_keys(one)
    one = add_command(
        commands,
        "image",
        _image,
        about="For work on the service: the image is in this machine's engine afterwards.",
        examples=("image app --tag airlift/app:dev",),
    )
    one.add_argument("name", help="such as app")
    one.add_argument("--tag", required=True)
    one.add_argument("--source", choices=["auto", "registry", "debian"], default="auto")
    one = add_command(
        commands,
        "lock",
        _lock,
        about="Asks the registries what each tag of bundle/images.lock.yml names, and writes\n"
        "digest and platforms there; comments stay. With --check nothing is written, and\n"
        "a tag that has moved is an error.",
        examples=("lock --check", "lock nginx redis"),
    )
    one.add_argument("names", nargs="*", metavar="IMAGE", help="these only (default: all)")
    one.add_argument(
        "--check", action="store_true", help="write nothing; fail when a tag has moved"
    )
    one.add_argument("--file", type=Path, default=TREE / "bundle" / "images.lock.yml")
    one = add_command(
        commands,
        "serve",
        _serve,
        about="The playbooks do this themselves; by hand it is for looking into a store with\n"
        "any registry client. Read-only, 127.0.0.1 only, until Ctrl-C.",
        examples=("serve --store /opt/airlift/store --port 5000",),
    )
    home = os.environ.get("AIRLIFT_HOME", DEFAULT_HOME)
    one.add_argument("--store", type=Path, default=Path(home, "store"))
    one.add_argument("--port", type=_port, default=0, help="default: any free one; it is printed")
    one = add_command(
        commands,
        "completion",
        _completion,
        about="It defines the command airlift-bundle, for `python -m bundle` of this tree, and\n"
        "completes its commands, options and files.",
        examples=(
            "completion bash > ~/.local/share/bash-completion/completions/airlift-bundle",
            "completion zsh > ~/.airlift-bundle.zsh  # which ~/.zshrc sources",
            "completion fish > ~/.config/fish/conf.d/airlift-bundle.fish",
        ),
    )
    one.add_argument("shell", choices=completion.SHELLS)


def _completion(arguments: argparse.Namespace) -> Answer:
    text = completion.script(make_parser(), arguments.shell, TREE)
    return Answer(text, {"shell": arguments.shell, "script": text})


def _add_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        help="private key, or a .pub whose key is in ssh-agent; may be repeated "
        "(default: AIRLIFT_SIGNING_KEY)",
    )
    parser.add_argument("--identity", default=IDENTITY, help=f"who signs (default: {IDENTITY})")


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        message = f"{text!r} is not a port: 0 to 65535"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _keys(arguments: argparse.Namespace) -> tuple[Path, ...]:
    given = arguments.key or [Path(p) for p in [os.environ.get("AIRLIFT_SIGNING_KEY")] if p]
    return tuple(path.expanduser() for path in given)


def _build(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import build, suppliers  # noqa: PLC0415 - needs PyYAML and an engine

    start = time.monotonic()
    built = build.build(
        build.Options(
            tree=TREE,
            out=arguments.output,
            keys=_keys(arguments),
            identity=arguments.identity,
            version=arguments.version,
            serial=arguments.serial,
            source=arguments.source,
            allow_absent=tuple(arguments.allow_absent),
            since=tuple(arguments.since),
            receipt_signers=arguments.receipt_signers,
            vulnerability_data=arguments.vulnerability_data,
            audit=True,
            allow_dirty=arguments.allow_dirty,
        ),
        suppliers.Real(),
        log=Narrator(),
    )
    absent = built.manifest.data["absent"]
    rows = [
        ("bundle", str(built.path)),
        ("size", size(built.path.stat().st_size)),
        *([("delta", describe(built.manifest))] if built.manifest.bases else []),
        ("sha256", built.sha256),
        *([("absent", ", ".join(sorted(absent)))] if absent else []),
        ("time", f"{time.monotonic() - start:.1f} s"),
    ]
    lines = "\n".join(f"  {line}" for line in built.allowed_signers)
    return Answer(
        f"airlift {built.manifest.version}, serial {built.manifest.serial}\n{table(rows)}\n\n"
        f"Clients need in allowed_signers, sent another way than the bundle:\n{lines}",
        {
            "bundle": str(built.path),
            "bytes": built.path.stat().st_size,
            "version": built.manifest.version,
            "serial": built.manifest.serial,
            "delta": facts(built.manifest),
            "sha256": built.sha256,
            "absent": sorted(absent),
            "manifest_sha256": built.manifest_sha256,
            "allowed_signers": list(built.allowed_signers),
            "notes": list(built.notes),
        },
    )


def _image(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import suppliers  # noqa: PLC0415 - needs PyYAML and an engine

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lock = TREE / "bundle" / "images.lock.yml"
    suppliers.app_image(lock, arguments.name, arguments.source, arguments.tag, log)
    return Answer(arguments.tag, {"image": arguments.tag})


def _lock(arguments: argparse.Namespace) -> Answer:
    from bundle.builder.images import relock  # noqa: PLC0415 - needs libraries that only a builder has

    path: Path = arguments.file
    found = relock.ask(path, arguments.names)
    if arguments.check:
        relock.refuse_moved(found, path)
    else:
        relock.write(path, found)
    rows = [(one.name, one.pinned.tag, one.digest[:19], one.news or "as locked") for one in found]
    last = "every tag names what is locked" if arguments.check else f"written to {path}"
    return Answer(
        f"{table(rows, ['image', 'tag', 'digest', 'news'])}\n\n{last}",
        {"file": str(path), "images": [one.as_dict() for one in found]},
    )


def _sign(arguments: argparse.Namespace) -> Answer:
    from bundle.builder import countersign  # noqa: PLC0415

    keys = _keys(arguments)
    total = countersign.add(
        arguments.bundle,
        key=keys[0] if keys else None,
        signature=arguments.signature,
    )
    sums = (
        "SHA256SUMS beside it is new, and signed with this key only"
        if keys
        else "SHA256SUMS beside it fits no more: a `sign` with a key writes it again"
    )
    return Answer(
        f"{arguments.bundle} has {total} signatures now; {sums}",
        {"bundle": str(arguments.bundle), "signatures": total},
    )


def _serve(arguments: argparse.Namespace) -> Answer:
    from bundle.jumphost.registry import RegistryServer  # noqa: PLC0415 - an HTTP server is slow to load

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    server = RegistryServer(arguments.store, port=arguments.port, log=log)
    try:
        port = server.start()
    except OSError as error:
        raise AirliftError(
            Kind.HOME,
            f"cannot listen on 127.0.0.1:{arguments.port}: {error.strerror}",
            where=str(arguments.store),
            fix="choose another --port, or stop what listens there (ss -ltnp)",
        ) from error
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print(f"127.0.0.1:{port}", flush=True)
    stop.wait()
    server.stop()
    return Answer(f"{size(server.bytes_sent)} sent", {"bytes_sent": server.bytes_sent})
