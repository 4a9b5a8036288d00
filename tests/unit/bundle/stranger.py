"""An independent verifier, written from docs/BUNDLE.md alone, without code of `bundle`.

Usage: python stranger.py BUNDLE ALLOWED_SIGNERS IDENTITY
"""

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

HEX, TEXT = "[0-9a-f]{64}", "[ -~]{1,4096}"
DIGEST = "sha256:" + HEX
VERSION = r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z.-]+)?"
NAME = "[a-z0-9]+([._-][a-z0-9]+)*"
SEGMENT = "[A-Za-z0-9_][A-Za-z0-9._+~@%=,-]*"
PATH = f"(?=.{{1,255}}$){SEGMENT}(/{SEGMENT})*"
MOST = 8**11 - 1
FILE = {"path": PATH, "size": (0, MOST), "sha256": HEX}
COMPONENT: dict[str, Any] = {"version": TEXT, "repository": f"{NAME}(/{NAME})*", "probe": [TEXT]}
COMPONENT |= {"manifest_digest": DIGEST, "config_digest": DIGEST, "diff_ids": [DIGEST]}
COMPONENT |= {"layers": [{"digest": DIGEST, "size": (1, MOST), "media_type": TEXT}]}
COMPONENT |= {"unpacked_size": (0, None), "pinned": {None, TEXT}, "drift": {None, TEXT}}
MANIFEST: dict[str, Any] = {"format": (1, 1), "product": "airlift", "version": VERSION}
MANIFEST |= {"serial": (1, 2**53), "created": "[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}Z"}
MANIFEST |= {"architecture": "amd64|arm64", "image_source": "debian|registry", "revision": TEXT}
MANIFEST |= {"upgrade": {"minimum_version": VERSION, "required_stops": [VERSION]}}
MANIFEST |= {"schema": {"head": (0, None), "lowest_compatible": (0, None)}}
MANIFEST |= {"components": (NAME, COMPONENT), "absent": (NAME, {"reason": TEXT})}
MANIFEST |= {"zones": ("[a-z][a-z0-9_]*", {"bytes": (0, None)})}
MANIFEST |= {"bases": [{"version": VERSION, "serial": (1, 2**53), "release_sha256": HEX}]}
MANIFEST |= {"left_out": [{**FILE, "base": VERSION}], "members": [FILE]}
ALWAYS = {"verify.pyz", "content/ansible.cfg", "content/bundle/__init__.py", "oci/index.json"}
ALWAYS |= {"content/requirements/controller.txt", "oci/oci-layout"}
PLACE = r"verify\.pyz|(content|about|wheels|packages|oci|blobs)/.*"
TAKEN = (
    r"content/(venv|about|wheels|packages|oci|verify\.pyz|manifest\.json|manifest\.sig[^/]*)(/.*)?"
)


class RefusedError(Exception):
    """The file is not a bundle made by this signer."""


def need(good: object, what: str) -> None:
    if not good:
        raise RefusedError(what)


def header(path: str, size: int) -> bytes:
    prefix, name = "", path
    if len(path) > 100:
        cut = path.find("/", len(path) - 101)
        need(0 < cut <= 155, "path too long")
        prefix, name = path[:cut], path[cut + 1 :]
    block = name.encode().ljust(100, b"\0") + b"0000644\0" + 2 * b"0000000\0"
    block += b"%011o\0" % size + b"02263523000\0" + b" " * 8 + b"0" + bytes(100) + b"ustar\x0000"
    block += bytes(64) + 2 * b"0000000\0" + prefix.encode().ljust(155, b"\0") + bytes(12)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, set):
        return value is None or fits(value, next(s for s in shape if s))
    if isinstance(shape, str):
        return isinstance(value, str) and re.fullmatch(shape, value) is not None
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, dict):
        same = isinstance(value, dict) and value.keys() == shape.keys()
        return same and all(fits(value[key], shape[key]) for key in shape)
    if isinstance(shape[0], str):
        return isinstance(value, dict) and all(
            fits(key, shape[0]) and fits(item, shape[1]) for key, item in value.items()
        )
    low, high = shape
    return type(value) is int and value >= low and (high is None or value <= high)


def small(file: BinaryIO, path: str, most: int) -> bytes | None:
    """Return the next member if it has this name."""
    start = file.tell()
    block = file.read(512)
    size = int(block[124:135], 8) if re.fullmatch(rb"[0-7]{11}", block[124:135]) else -1
    if size < 0 or size > most or block != header(path, size):
        file.seek(start)
        return None
    data = file.read(size + -size % 512)
    need(len(data) == size + -size % 512 and not any(data[size:]), f"{path} is cut or padded")
    return data[:size]


def signed(manifest: bytes, signature: bytes, signers: str, identity: str) -> bool:
    """Return whether the signature is valid and made by the identity."""
    lines = signature.decode("ascii").split("\n")
    body = base64.b64decode("".join(lines[1:-2]), validate=True)
    text = base64.b64encode(body).decode()
    folded = [text[i : i + 70] for i in range(0, len(text), 70)]
    wanted = ["-----BEGIN SSH SIGNATURE-----", *folded, "-----END SSH SIGNATURE-----", ""]
    need(lines == wanted and body[:10] == b"SSHSIG\0\0\0\1", "not one signature")
    key = base64.b64encode(body[14 : 14 + int.from_bytes(body[10:14], "big")]).decode()
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature)
        file.flush()
        command = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", identity]
        command += ["-n", "airlift-bundle", "-s", file.name]
        good = subprocess.run(command, input=manifest, capture_output=True, check=False)
    need(good.returncode == 0 or key not in Path(signers).read_text(), "a bad signature")
    return good.returncode == 0


def understood(raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw.decode("ascii"))
        need(json.dumps(data, sort_keys=True, indent=1).encode() + b"\n" == raw, "not canonical")
    except (ValueError, RecursionError) as error:
        raise RefusedError(str(error)) from error
    need(fits(data, MANIFEST), "not a manifest")
    members, blobs = data["members"], [*data["left_out"]]
    paths = [member["path"] for member in members]
    need(len({*paths}) == len(paths) and paths[0] == "verify.pyz", "twice, or verify.pyz not first")
    need({*paths} >= ALWAYS, "incomplete")
    for member in members:
        path = member["path"]
        need(re.fullmatch(PLACE, path) and not re.fullmatch(TAKEN, path), path)
        folders = [path[:i] for i, c in enumerate(path) if c == "/"]
        need(not {*folders} & {*paths}, "a file and a folder")
        blobs += [member] if path.startswith("blobs/") else []
    sizes = {blob["sha256"]: blob["size"] for blob in blobs}
    need(len(sizes) == len(blobs), "a blob twice")
    need(all(b["path"] == f"blobs/sha256/{b['sha256']}" for b in blobs), "a blob's name")
    used = set()
    for name, one in data["components"].items():
        need(name not in data["absent"], "present and absent")
        need(len(one["layers"]) == len(one["diff_ids"]), "layers")
        for digest, size in [(x["digest"], x["size"]) for x in one["layers"]] + [
            (one[key], None) for key in ("manifest_digest", "config_digest")
        ]:
            used.add(digest[7:])
            need(digest[7:] in sizes and size in {None, sizes[digest[7:]]}, f"a blob of {name}")
    need(set(sizes) <= used, "needless")
    chain = [data, *data["bases"]]
    need(all(a["serial"] > b["serial"] for a, b in itertools.pairwise(chain)), "bases")
    need(len({one["version"] for one in chain}) == len(chain), "versions of bases")
    need({b["base"] for b in data["left_out"]} == {b["version"] for b in data["bases"]}, "bases")
    need(data["schema"]["lowest_compatible"] <= data["schema"]["head"], "schema")
    return dict(data)


def verify(bundle: str, signers: str, identity: str) -> dict[str, Any]:
    with Path(bundle).open("rb") as file:
        raw = small(file, "manifest.json", 32 << 20)
        need(raw is not None, "no manifest")
        assert raw is not None
        good, name, number = 0, "manifest.sig", 1
        while number <= 8 and (signature := small(file, name, 1 << 16)) is not None:
            try:
                good += signed(raw, signature, signers, identity)
            except ValueError as error:
                raise RefusedError("not a signature") from error
            number += 1
            name = f"manifest.sig.{number}"
        need(good, "nobody known signed")
        data = understood(raw)
        for member in data["members"]:
            need(file.read(512) == header(member["path"], member["size"]), member["path"])
            digest, left = hashlib.sha256(), member["size"]
            while piece := file.read(min(left, 1 << 20)):
                digest.update(piece)
                left -= len(piece)
            need(left == 0 and digest.hexdigest() == member["sha256"], member["path"])
            gap = -member["size"] % 512
            need(file.read(gap) == bytes(gap), "the gap")
        need(file.read() == bytes(1024), "the end")
    return data


if __name__ == "__main__":
    try:
        print("good:", verify(*sys.argv[1:])["version"])
    except RefusedError as error:
        sys.exit(f"refused: {error}")
