"""Image and compose file against a Docker engine: built, started, scraped, killed, torn down.

Wants an engine that answers (DOCKER_HOST or the default socket) and compose, v2 or docker-compose; is skipped with the
reason elsewhere. BASE_IMAGE and PROMETHEUS_IMAGE replace what cannot be pulled. Grafana is not started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.deployment import DEPLOY, PORTS, PROJECT

SERVICES: Final = (*PORTS, "prometheus")
#: Seconds for building, for all to be healthy, and for anything else that is waited for.
BUILD, HEALTHY, PATIENCE = 600.0, 90.0, 60.0

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def run(*command: str, data: str | None = None, timeout: float = 120, **env: str) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(
        command, input=data, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | env
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def until(what: str, condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true value of ``condition()``; fails after ``patience`` seconds."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {patience:.0f} s")
        time.sleep(0.5)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


class Stack:
    """The composed mesh. ``seconds`` from ``up`` until all were healthy; ``size`` of the image in bytes."""

    def __init__(self, compose: list[str], directory: Path) -> None:
        self.project: Final = f"ringmeshtest{os.getpid()}"
        self.image: Final = f"ringmesh:test-{os.getpid()}"
        self.token: Final = "0123456789abcdef" * 4
        token = directory / "token"
        token.write_text(self.token)
        token.chmod(0o444)
        names = ("ITS_ADMIN_PORT", "SCMI_ADMIN_PORT", "NIC_ADMIN_PORT", "GUEST_ADMIN_PORT", "PROMETHEUS_PORT")
        ports = dict(zip(SERVICES, free_ports(len(names)), strict=True))
        self.url: Final = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        published = dict(zip(names, map(str, ports.values()), strict=True))
        self._env: Final = published | {"MESH_IMAGE": self.image, "TOKEN_FILE": str(token)}
        self._compose: Final = [*compose, "-p", self.project, "-f", str(DEPLOY / "compose.yaml")]
        self.seconds = 0.0

    def compose(self, *args: str, timeout: float = 300) -> str:
        return run(*self._compose, *args, timeout=timeout, **self._env)

    def build(self) -> None:
        base = os.environ.get("BASE_IMAGE", "python:3.11-slim")
        run("docker", "build", "--build-arg", f"BASE={base}", "-t", self.image, str(PROJECT), timeout=BUILD)

    def up(self) -> None:
        began = time.monotonic()
        self.compose("up", "-d", "--no-build", *SERVICES)
        for role in PORTS:
            until(f"{role} healthy", partial(self.healthy, role), HEALTHY)
        self.seconds = time.monotonic() - began

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "15")

    def container(self, service: str) -> str:
        label = f"label=com.docker.compose.project={self.project}"
        return run(
            "docker", "ps", "-aq", "--filter", label, "--filter", f"label=com.docker.compose.service={service}"
        ).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", self.container(service)))
        return found[0]

    def state(self, service: str) -> dict[str, Any]:
        state: dict[str, Any] = self.inspect(service)["State"]
        return state

    def healthy(self, role: str) -> bool:
        return bool(self.state(role)["Health"]["Status"] == "healthy")

    def python(self, service: str, program: str) -> str:
        """What ``program`` prints, run in a service's container as its user."""
        return run("docker", "exec", self.container(service), "python", "-c", program)

    def ready(self, role: str) -> bool:
        try:
            return bool(json.loads(get(f"{self.url[role]}/readyz"))["ready"])
        except OSError:
            return False

    def report(self) -> dict[str, Any]:
        books: dict[str, Any] = json.loads(get(f"{self.url['guest']}/report"))
        return books

    def post(self, path: str) -> dict[str, Any]:
        """The guest's answer to a POST with the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url["guest"] + path, data=b"{}", headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: dict[str, Any] = json.loads(answer.read())
            return body

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector of a PromQL expression."""
        url = f"{self.url['prometheus']}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            answer = json.loads(get(url))
        except OSError:
            return []
        assert answer["status"] == "success"
        vector: list[dict[str, Any]] = answer["data"]["result"]
        return vector


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    if not works("docker", "info"):
        pytest.skip("no Docker engine answers (DOCKER_HOST or the default socket)")
    if works("docker", "compose", "version"):
        compose = ["docker", "compose"]
    elif works("docker-compose", "version"):
        compose = ["docker-compose"]
    else:
        pytest.skip("neither docker compose nor docker-compose is installed")
    mesh = Stack(compose, tmp_path_factory.mktemp("secrets"))
    try:
        mesh.build()
        mesh.up()
        yield mesh
    finally:
        mesh.down()
        subprocess.run(["docker", "rmi", mesh.image], capture_output=True, check=False)


def test_all_healthy_and_ready(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    for role in PORTS:
        until(f"{role} ready", partial(stack.ready, role))
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", stack.image))
    with capsys.disabled():
        print(f"\nimage {size / 1e6:.0f} MB; healthy {stack.seconds:.1f} s after up")
    assert stack.seconds < HEALTHY


def test_image_has_no_build_tools_and_an_unprivileged_user(stack: Stack) -> None:
    program = (
        "import importlib.util as u, os, shutil, json;"
        "print(json.dumps([os.getuid(), [t for t in ('gcc', 'cc', 'make', 'git') if shutil.which(t)],"
        " [m for m in ('pip', 'setuptools', 'pytest') if u.find_spec(m)], os.access('/opt/ringmesh', os.W_OK)]))"
    )
    assert json.loads(stack.python("guest", program)) == [10001, [], [], False]


def test_root_is_read_only_and_capabilities_are_dropped(stack: Stack) -> None:
    for service in SERVICES:
        host = stack.inspect(service)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["CapDrop"] == ["ALL"]
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["Memory"] > 0
        assert host["NanoCpus"] > 0
    status = stack.python("nic", "print(open('/proc/1/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_boards_and_captures_are_found(stack: Stack) -> None:
    program = (
        "from services.scmi_platform.config import DEFAULT_BOARD as b;"
        "from services.guest_driver.config import DEFAULT_CAPTURE as c; print(b, b.is_file(), c, c.is_file())"
    )
    words = stack.python("scmi", program).split()
    assert words == [
        "/opt/ringmesh/deploy/boards/juno-r2.toml", "True", "/opt/ringmesh/deploy/captures/veth.pcap", "True",
    ]  # fmt: skip


def test_token_is_wanted_and_is_no_environment(stack: Stack) -> None:
    request = urllib.request.Request(f"{stack.url['guest']}/workload/stop", data=b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)
    assert refused.value.code == 401
    refused.value.close()
    for role in PORTS:
        assert stack.token not in json.dumps(stack.inspect(role)["Config"])
        assert stack.token not in run("docker", "logs", stack.container(role))


def test_logs_are_json_lines(stack: Stack) -> None:
    for role in PORTS:
        done = subprocess.run(["docker", "logs", stack.container(role)], capture_output=True, text=True, check=True)
        lines = done.stderr.splitlines() + done.stdout.splitlines()
        events = [json.loads(line) for line in lines]
        assert "started" in {event["event"] for event in events}
        assert {event["service"] for event in events} == {role}


def test_metrics_pass_promtool(stack: Stack) -> None:
    """promtool comes with the Prometheus image; it reads the metrics as the published ports give them."""
    prometheus = stack.container("prometheus")
    for role in PORTS:
        text = get(f"{stack.url[role]}/metrics")
        assert "ringmesh_queue_depth" in text
        run("docker", "exec", "-i", prometheus, "promtool", "check", "metrics", data=text)


def test_prometheus_scrapes_all_four(stack: Stack) -> None:
    def up() -> set[str]:
        return {sample["metric"]["service"] for sample in stack.query('up{job="ringmesh"} == 1')}

    until("all four targets up", lambda: up() == set(PORTS))
    depths = until("queue depths", lambda: stack.query("ringmesh_queue_depth"))
    assert {sample["metric"]["service"] for sample in depths} == set(PORTS)
    assert {sample["metric"]["queue"] for sample in depths} >= {"cmdq", "eventq", "rx0", "tx0"}


def test_every_query_of_the_dashboard_has_data(stack: Stack) -> None:
    """As Grafana would ask, two scrapes after one refused peer."""
    stack.python(
        "nic", "import socket; s = socket.create_connection(('its', 7103)); s.send(b'\\0\\0\\0\\1\\xc0'); s.recv(1)"
    )
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "mesh-overview.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in expressions:
        filled = expression.replace("$__rate_interval", "30s")
        until(f"data for {filled}", partial(stack.query, filled))


@pytest.mark.parametrize("role", ["nic", "scmi", "its", "guest"])
def test_killed_service_is_restarted_and_nothing_is_lost(stack: Stack, role: str) -> None:
    """By SIGKILL. A guest that starts anew has a new memory and new books; the others it takes up where they stood.

    What is lost is only known once the workload has stopped: until then everything missing counts as in flight.
    """
    before = stack.inspect(role)
    until("traffic", lambda: stack.report()["net"]["rx"])
    try:
        os.kill(before["State"]["Pid"], signal.SIGKILL)
    except (PermissionError, ProcessLookupError) as error:
        pytest.skip(f"the engine's processes are not ours to kill: {error}")
    until(f"{role} restarted", lambda: stack.inspect(role)["RestartCount"] == before["RestartCount"] + 1)
    until(f"{role} healthy", partial(stack.healthy, role))
    for other in PORTS:
        until(f"{other} ready", partial(stack.ready, other))
    at = stack.report()
    until("frames go on", lambda: stack.report()["net"]["rx"] > at["net"]["rx"] + 1000)
    until("commands go on", lambda: stack.report()["scmi"]["completed"] > at["scmi"]["completed"] + 100)
    until("interrupts go on", lambda: stack.report()["irq"]["delivered"] > at["irq"]["delivered"] + 100)
    restarts = f'changes(process_start_time_seconds{{service="{role}"}}[5m]) == 1'
    until("the dashboard's restart count", partial(stack.query, restarts))
    books = stack.post("/workload/stop")
    stack.post("/workload/start")
    for part in ("scmi", "net", "irq"):
        assert [books[part][fault] for fault in ("lost", "duplicated", "corrupted")] == [0, 0, 0], books


def test_stops_in_order_and_leaves_nothing(stack: Stack) -> None:
    """Last: every service ends by itself on SIGTERM, then the containers, the network and the volumes go."""
    began = time.monotonic()
    stack.compose("stop", "--timeout", "15")
    assert time.monotonic() - began < 60
    codes = {role: stack.state(role)["ExitCode"] for role in PORTS}
    assert codes == dict.fromkeys(PORTS, 0)
    stack.down()
    label = f"label=com.docker.compose.project={stack.project}"
    for listing in (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q")):
        assert run("docker", *listing, "--filter", label) == ""
