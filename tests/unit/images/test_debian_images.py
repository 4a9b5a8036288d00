"""The images, packages and wheels that the product ships, each used without a network.

They are built once and cached by content; the first run on a machine takes minutes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bundle.builder import cache, release, wheels
from bundle.builder.about import deb_apk
from bundle.builder.collected import Collected
from bundle.builder.hosts import packages, systems
from bundle.builder.images import collect, engine, lockfile, recipes
from bundle.builder.images.lockfile import ImageLock

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.usefixtures("shared_cache"),
]

TRIXIE = ("app", "postgres", "redis")
FORKY = (
    *("nginx", "prometheus", "alertmanager", "node-exporter"),
    *("postgres-exporter", "redis-exporter", "nginx-exporter"),
)

#: Programs by upstream's names.
PROGRAMS = {
    "postgres": "postgres initdb pg_isready pg_ctl psql pg_dump pg_restore pg_dumpall",
    "redis": "redis-server redis-cli redis-check-aof sh date mv rm",
    "nginx": "nginx",
    "prometheus": "prometheus promtool",
    "alertmanager": "alertmanager amtool",
    "app": "python python3",
}
VERSION = release.load(Path(__file__).parents[3], version=None, serial=None).version


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """Use the cache of the person who builds."""
    return cache.root()


@pytest.fixture(scope="session")
def lock(tree: Path) -> ImageLock:
    return lockfile.load(tree / "bundle" / "images.lock.yml")


@pytest.fixture(scope="session")
def product(
    engine_here: None, shared_cache: Path, lock: ImageLock, tmp_path_factory: pytest.TempPathFactory
) -> Collected:
    layout = tmp_path_factory.mktemp("product") / "layout"
    # Use the version of all builds of this tree, so that the app's image is built once.
    return collect.collect(lock.path, "debian", VERSION, layout, log=print)


def run(image: str, script: str, *options: str, user: str = "0:0") -> str:
    """Run a script in a read-only container without network; only a tmpfs is writable."""
    fixed = ["--rm", "--network", "none", "--read-only", "--security-opt", "no-new-privileges"]
    done = subprocess.run(
        [
            *(*engine.docker(), "run", *fixed, "--user", user, *options),
            *("--entrypoint", "/bin/sh", image, "-euc", script),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ours(name: str) -> str:
    return f"airlift/{name}:debian"


def test_every_component_is_there_or_declared_absent(product: Collected, lock: ImageLock) -> None:
    assert set(product.components) | set(product.absent) == set(lock.images)
    assert set(product.absent) == {"grafana"}
    assert "no Grafana package" in product.absent["grafana"]["reason"]


def test_bases_are_shared(product: Collected) -> None:
    for names in (TRIXIE, FORKY):
        bases = {product.components[name]["diff_ids"][0] for name in names}
        assert len(bases) == 1, f"{names} do not start from one base"
    for name in (*TRIXIE[1:], *FORKY):
        assert len(product.components[name]["diff_ids"]) == 2


def test_versions_are_the_packages_and_drift_is_told(product: Collected, lock: ImageLock) -> None:
    for name in ("postgres", "nginx-exporter"):
        recipe = lock.images[name].recipe
        assert recipe is not None
        found = engine.package_version(ours(name), recipe.package)
        assert product.components[name]["version"] == found
    assert product.components["app"]["version"] == VERSION
    assert re.fullmatch(
        r"debian python3\.13 3\.13\.\S+, pin 3\.13\.15|None",
        str(product.components["app"]["drift"]),
    )
    assert product.components["postgres"]["version"].startswith("17.")


@pytest.mark.parametrize("name", [*TRIXIE, *FORKY])
@pytest.mark.usefixtures("product")
def test_an_image_has_what_it_needs_and_nothing_of_the_builder(name: str) -> None:
    """Check programs, foreign files and packages in one container per image, to save time."""
    programs = PROGRAMS.get(name, "sh")
    found, installed, recorded = run(
        ours(name),
        f"for program in {programs}; do command -v $program >/dev/null; done;"
        "find / -xdev -type f -perm /6000 -o -xdev -nouser -o -xdev -nogroup"
        " -o -type f -path '/var/lib/apt/lists/*' -o -type f -path '/var/cache/*'"
        " -o -type f -path '/var/log/*'; echo =;"
        "dpkg-query -W -f '${Package}_${Version}_${Architecture}\\n' | sort -u; echo =;"
        f"sed -En 's/^[0-9a-f]{{64}}  //p' /{deb_apk.HASHES}",
    ).split("=\n")
    assert found == "", "privileged bits, files without an owner, or leftovers of the build"
    assert len(installed.split()) > 50
    assert set(installed.split()) <= set(recorded.split()), "a package without its file's hash"


@pytest.mark.usefixtures("product")
def test_nginx_holds_connections_through_a_reload() -> None:
    config = (
        "pid /tmp/pid; events {} http { include /etc/nginx/mime.types; access_log off;"
        "client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;"
        "uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;"
        "keepalive_timeout 20s 15s; keepalive_min_timeout 20s;"
        "upstream app { zone app 256k; server 127.0.0.1:1; keepalive 32; }"
        "server { listen 8443 ssl; ssl_reject_handshake on; http2 on;"
        "location / { proxy_pass http://app; } location /_s { stub_status; } } }"
    )
    said = run(
        ours("nginx"),
        'printf %s "$CONFIG" > /tmp/nginx.conf; nginx -e stderr -t -c /tmp/nginx.conf',
        *("--tmpfs=/tmp", "--env", f"CONFIG={config}"),
        user="101:101",
    )
    assert "syntax is ok" in said
    assert "alert" not in said


@pytest.mark.usefixtures("product")
def test_postgres_makes_a_cluster_with_a_builtin_locale_and_answers() -> None:
    assert run(ours("postgres"), "ls -A /var/lib/postgresql /etc/postgresql 2>/dev/null || :") == ""
    said = run(
        ours("postgres"),
        "initdb -D /data/db --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8"
        " --encoding=UTF8 --data-checksums --auth=trust >/dev/null;"
        "pg_ctl -D /data/db -o '-k /tmp -h \"\"' -w -l /tmp/log start >/dev/null;"
        'psql -h /tmp -At postgres -c "select datlocprovider, datlocale from pg_database '
        "where datname='postgres'\" -c 'select sum(g) from generate_series(1,200000) g'"
        " -c \"select 'ssl' where exists (select from pg_settings where name='ssl_library'"
        " and setting='OpenSSL')\" -c \"select now() at time zone 'Europe/Vienna' is not null\";"
        "pg_dump -h /tmp postgres >/dev/null; pg_ctl -D /data/db -m fast stop >/dev/null",
        *("--tmpfs=/tmp", "--tmpfs", "/data:uid=999,gid=999"),
        user="999:999",
    )
    assert said.split() == ["b|C.UTF-8", "20000100000", "ssl", "t"]


@pytest.mark.usefixtures("product")
def test_redis_speaks_tls() -> None:
    said = run(
        ours("redis"),
        "redis-server --port 0 --tls-port 6380 || :",
        "--tmpfs",
        "/data",
        user="999:999",
    )
    assert "tls-cert-file" in said


@pytest.mark.usefixtures("product")
def test_python_has_its_whole_standard_library(lock: ImageLock) -> None:
    said = run(
        ours("app"),
        "python -c 'import ssl, sqlite3, ctypes, zlib, bz2, lzma, venv, zoneinfo, asyncio, sys;"
        'print(sys.version_info[:2], zoneinfo.ZoneInfo("Europe/Vienna"))\'',
        user="10001:10001",
    )
    assert said.strip() == "(3, 13) Europe/Vienna"


@pytest.mark.usefixtures("engine_here")
def test_an_older_host_without_a_network_gets_an_engine(lock: ImageLock, tmp_path: Path) -> None:
    """Simulate the install with apt; the hosts of the lab install it from the bundle and run it."""
    system = systems.load()[0]
    packages.fetch(system, tmp_path / "packages")
    base = recipes.base(lock, system.base.suite, print)
    # An earlier point release has an older TLS library than the new openssl requires.
    said = run_writable(
        base,
        "V=$(dpkg-query -W -f '${Version}' libssl3t64);"
        'sed -i "s/$V/3.5.0-1/" /var/lib/dpkg/status; dpkg-query -W libssl3t64;'
        "echo 'deb [trusted=yes] file:/packages ./' > /etc/airlift.list;"
        "O='-o Dir::Etc::sourcelist=/etc/airlift.list -o Dir::Etc::sourceparts=-';"
        "apt-get $O -o APT::Get::List-Cleanup=0 update;"
        "apt-get $O install --simulate --yes --no-install-recommends "
        "docker.io docker-cli nftables iptables python3-requests apparmor ca-certificates openssl",
        *("--volume", f"{tmp_path / 'packages'}:/packages:ro"),
    )
    assert "Inst docker.io (26." in said
    assert "Inst libssl3t64 [3.5.0-1]" in said


def run_writable(image: str, script: str, *options: str) -> str:
    command = ["run", "--rm", "--network", "none", *options, "--entrypoint", "/bin/sh", image]
    done = subprocess.run(
        [*engine.docker(), *command, "-euc", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def controller(tree: Path) -> Path:
    return tree / "requirements" / "controller.txt"


@pytest.fixture(scope="module")
def wheelhouse(controller: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controller") / "wheels"
    wheels.collect(controller, folder)
    return folder


@pytest.mark.parametrize("version", wheels.CONTROLLER_PYTHONS)
def test_the_wheelhouse_is_complete_for_every_jump_host(
    version: str, controller: Path, wheelhouse: Path, tmp_path: Path
) -> None:
    # pip resolves here on purpose: the wheelhouse must hold all requirements and extras.
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--isolated", "--no-index"),
            *("--find-links", str(wheelhouse), "--dest", str(tmp_path / version)),
            *("--require-hashes", "--only-binary=:all:", "--python-version", version),
            *("--platform=manylinux_2_34_x86_64", "--platform=manylinux_2_28_x86_64"),
            *("--platform=manylinux2014_x86_64", "--platform=manylinux_2_17_x86_64"),
            *("--requirement", str(controller)),
        ],
        check=True,
    )
