"""deploy/compose.yaml: what both generations of compose take, closed where it should be, and settings that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from common.runtime.config import BaseConfig, load
from services.gic_its.config import ItsConfig
from services.guest_driver.config import GuestConfig
from services.scmi_platform.config import ScmiConfig
from services.vdpa_nic.config import NicConfig
from tests.deploy.deployment import DEPLOY, PORTS, compose, load_yaml, settings, variables

CONFIGS: dict[str, type[BaseConfig]] = {
    "its": ItsConfig,
    "scmi": ScmiConfig,
    "nic": NicConfig,
    "guest": GuestConfig,
}
#: Keys of a service that docker-compose 1.29 (without --compatibility) and compose v2 both act upon.
COMMON_KEYS = {
    "build", "cap_drop", "command", "cpus", "depends_on", "environment", "image", "init", "logging", "mem_limit",
    "networks", "pids_limit", "ports", "read_only", "restart", "secrets", "security_opt", "stop_grace_period",
    "tmpfs", "volumes",
}  # fmt: skip
OTHERS = ("prometheus", "grafana")

SERVICES: dict[str, Any] = compose()["services"]


def test_services() -> None:
    assert set(SERVICES) == {*PORTS, *OTHERS}


def test_top_level_keys_are_of_the_common_subset() -> None:
    assert {key for key in compose() if not key.startswith("x-")} == {"services", "networks", "volumes", "secrets"}


@pytest.mark.parametrize("name", SERVICES)
def test_service_keys_are_of_the_common_subset(name: str) -> None:
    assert set(SERVICES[name]) <= COMMON_KEYS


def test_shell_variables_are_no_settings() -> None:
    """A variable exported for compose must not stop a service that is started in the same shell."""
    assert variables()
    assert not [name for name in variables() if name.startswith("RINGMESH_")]


@pytest.mark.parametrize("name", SERVICES)
def test_hardening(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["mem_limit"]
    assert service["cpus"] > 0
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    assert service["networks"] == ["mesh"]
    assert "privileged" not in service


def test_only_http_is_published_and_only_on_loopback() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    admin = {role: [f"127.0.0.1:{port}:{port}"] for role, (port, _) in PORTS.items()}
    assert published == admin | {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}


@pytest.mark.parametrize("role", PORTS)
def test_role_is_what_runs(role: str) -> None:
    assert SERVICES[role]["command"] == ["serve", role]


@pytest.mark.parametrize("role", PORTS)
def test_settings_are_accepted(role: str, tmp_path: Path) -> None:
    """Every variable is a setting of the service, and says what compose.yaml means by it."""
    token = tmp_path / "token"
    token.write_text("of-the-mesh\n")
    environ = settings(role)
    assert environ.pop("RINGMESH_TOKEN_FILE") == "/run/secrets/ringmesh_token"
    config = load(CONFIGS[role], None, environ | {"RINGMESH_TOKEN_FILE": str(token)})
    assert config.token == "of-the-mesh"
    assert config.admin.host == "0.0.0.0"
    assert (config.admin.port, config.listen.port) == PORTS[role]
    if role != "guest":
        assert config.listen.host == "0.0.0.0"
    with pytest.raises(ConfigError):
        load(CONFIGS[role], None, environ | {"RINGMESH_NO_SUCH_SETTING": "1"})


@pytest.mark.parametrize(
    ("role", "peers"), [("its", ()), ("scmi", ("its",)), ("nic", ("its",)), ("guest", ("scmi", "nic", "its"))]
)
def test_peers(role: str, peers: tuple[str, ...]) -> None:
    """A service reaches its peers by their names and waits until they are healthy."""
    environ = settings(role)
    named = {key for key in environ if key.endswith("__HOST")} - {"RINGMESH_ADMIN__HOST", "RINGMESH_LISTEN__HOST"}
    assert named == {f"RINGMESH_{peer.upper()}__HOST" for peer in peers}
    for peer in peers:
        assert environ[f"RINGMESH_{peer.upper()}__HOST"] == peer
        assert environ[f"RINGMESH_{peer.upper()}__PORT"] == str(PORTS[peer][1])
    waits = SERVICES[role].get("depends_on", {})
    assert waits == {peer: {"condition": "service_healthy"} for peer in peers}


def test_guest_drives_its_workload() -> None:
    config = load(
        GuestConfig, None, {"RINGMESH_WORKLOAD__AUTOSTART": settings("guest")["RINGMESH_WORKLOAD__AUTOSTART"]}
    )
    assert config.workload.autostart


@pytest.mark.parametrize("role", PORTS)
def test_limits_are_above_what_the_service_asks_for(role: str) -> None:
    """The guest's memory is its RAM and the process; the others are the process alone."""
    mebibytes = int(SERVICES[role]["mem_limit"].removesuffix("m"))
    assert mebibytes >= 128 + (GuestConfig().memory_mib * GuestConfig().guests if role == "guest" else 0)


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists(name: str) -> None:
    named = set(compose()["volumes"])
    for mount in SERVICES[name].get("volumes", []):
        source, _, rest = mount.partition(":")
        if source.startswith("."):
            assert (DEPLOY / source).exists()
            assert rest.endswith(":ro")
        else:
            assert source in named


@pytest.mark.parametrize("role", PORTS)
def test_token_is_a_file_secret(role: str) -> None:
    assert SERVICES[role]["secrets"] == ["ringmesh_token"]
    assert compose()["secrets"] == {"ringmesh_token": {"file": "./secrets/token"}}
    assert "RINGMESH_TOKEN" not in settings(role)


def test_prometheus_scrapes_the_admin_ports() -> None:
    (job,) = load_yaml(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    targets = {group["labels"]["service"]: group["targets"] for group in job["static_configs"]}
    assert targets == {role: [f"{role}:{port}"] for role, (port, _) in PORTS.items()}
    assert job["job_name"] == "ringmesh"
    assert job["honor_labels"] is True


def test_grafana_finds_what_is_mounted() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    (provider,) = load_yaml(DEPLOY / "grafana" / "provisioning" / "dashboards" / "ringmesh.yaml")["providers"]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / Path(home).name).is_file()
    assert str(Path(home).parent) == mounts["./grafana/dashboards"]
