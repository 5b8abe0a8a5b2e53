"""A Linux guest on our platform: both started, watched, talked to and ended together.

::

    async with LinuxGuest(Boot(board=Path("deploy/boards/virt.toml"), kernel=…, initrd=…)) as guest:
        await guest.ready(60)
        print((await guest.run("cat /proc/uptime")).text)
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

from common.errors import ConfigError, LinkDownError, LocalError, RemoteError
from services.linux_guest import children, device_tree, initramfs
from services.linux_guest.console import Console, Section
from services.linux_guest.qemu import MAX_CPUS, Machine, Qemu
from services.mesh.children import BAD_SETTINGS
from services.mesh.ports import LOOPBACK, port_of, release, reserve
from services.mesh.process import Process
from services.scmi_platform.board import Board

#: Kernel parameters of every guest: the console; a restart at a panic, which ends QEMU; and no governor that would set
#: levels all the time, so that what the trace shows is what somebody asked for.
APPEND: Final = "console=ttyAMA0 panic=-1 cpufreq.default_governor=userspace"
#: What records every SCMI message from the first one on, and makes our init print it.
TRACING: Final = "trace_event=scmi:* trace_buf_size=4M ringmesh.trace"
#: Seconds for the platform to be ready, and for either process to end on SIGTERM.
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 10.0
#: Messages of the platform's trace that wait for us.
TRACE_MESSAGES: Final = 1 << 16
#: Seconds between two looks at the platform's trace, and at what has no event.
STEP: Final = 0.1
#: Seconds for an answer of the platform's admin endpoint.
_ANSWER: Final = aiohttp.ClientTimeout(total=10)
#: Lines of the platform's log that an error quotes.
_QUOTED: Final = 5


@dataclass(slots=True)
class Boot:
    """``append`` is added to the kernel's command line; ``settings`` are RINGMESH_… variables of the platform.
    ``faults``: a body of POST /faults, in force before the guest's first command. ``traced``: record the guest's SCMI
    events. ``script``: run by init before GUEST-READY."""

    board: Path
    kernel: Path
    initrd: Path
    machine: Machine = field(default_factory=Machine)
    append: str = ""
    traced: bool = True
    script: bytes = b""
    atomic_threshold_us: int = device_tree.ATOMIC_THRESHOLD_US
    max_rx_timeout_ms: int = device_tree.MAX_RX_TIMEOUT_MS
    settings: Mapping[str, str] = field(default_factory=dict)
    faults: Mapping[str, Any] = field(default_factory=dict)


class LinuxGuest:
    """An async context manager. ``show(source, line)`` gets every line as it comes: of the ``console``, of the
    platform's trace (``scmi``), and what either process says besides (``qemu``, ``log``).

    Entering it raises ConfigError for a board, a machine, a setting or a QEMU that cannot work, LocalError where a
    process does not start.
    """

    def __init__(self, boot: Boot, show: Callable[[str, str], None] = lambda _source, _line: None) -> None:
        self.boot: Final = boot
        self.console: Final = Console()
        #: the platform's trace so far
        self.trace: Final[list[str]] = []
        self.log: Final[list[str]] = []
        self.token: Final = secrets.token_hex(16)
        self.admin = ""
        self._stopped = False
        self._show: Final = show
        self._changed: Final = asyncio.Event()
        self._ports: Final = reserve(1)
        self._directory: Final = tempfile.TemporaryDirectory(prefix="ringmesh-")
        self._platform: Process | None = None
        self._qemu: children.Qemu | None = None
        self._http: aiohttp.ClientSession | None = None
        self._follower: asyncio.Task[None] | None = None
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    # --- start and end ------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        boot, here = self.boot, Path(self._directory.name)
        if not 1 <= boot.machine.cpus <= MAX_CPUS:
            raise ConfigError("--cpus", "", f"{boot.machine.cpus} is not in 1 … {MAX_CPUS}")
        board = Board.load(boot.board)
        qemu = Qemu.find()
        tree, socket, initrd = here / "guest.dtb", here / "scmi.sock", boot.initrd
        flat = device_tree.build(
            qemu.device_tree(boot.machine),
            board,
            atomic_threshold_us=boot.atomic_threshold_us,
            max_rx_timeout_ms=boot.max_rx_timeout_ms,
        )
        tree.write_bytes(flat)
        if boot.script:
            initrd = here / "initramfs"
            initrd.write_bytes(initramfs.with_script(boot.initrd.read_bytes(), boot.script))
        await self._start_platform(socket, board.agents[0].name)
        if boot.faults:
            await self.post("/faults", boot.faults)
        append = " ".join(filter(None, (APPEND, TRACING if boot.traced else "", boot.append)))
        command = qemu.command(boot.machine, kernel=boot.kernel, initrd=initrd, tree=tree, socket=socket, append=append)
        self._qemu = children.Qemu(command, self._heard, lambda line: self._say("qemu", line))

    async def _start_platform(self, socket: Path, agent: str) -> None:
        port = port_of(self._ports[0])
        self.admin = f"http://{LOOPBACK}:{port}"
        env = {"RINGMESH_LOG__LEVEL": "warning", "RINGMESH_LOG__FORMAT": "console"} | dict(self.boot.settings)
        env |= {
            "RINGMESH_TOKEN": self.token,
            "RINGMESH_BOARD": str(self.boot.board.resolve()),
            "RINGMESH_TRACE": str(TRACE_MESSAGES),
            "RINGMESH_ADMIN__HOST": LOOPBACK,
            "RINGMESH_ADMIN__PORT": str(port),
        }
        headers = {"Authorization": f"Bearer {self.token}"}
        self._http = aiohttp.ClientSession(headers=headers, timeout=_ANSWER)
        self._platform = children.start_platform(socket, agent, env, lambda line: self._say("log", line))
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._answers():
                    if self._platform.returncode == BAD_SETTINGS:
                        raise ConfigError("platform", "", self._quote())
                    if self._platform.returncode is not None:
                        raise LocalError(f"the platform ended with {self._platform.returncode}: {self._quote()}")
                    await asyncio.sleep(STEP)
        except TimeoutError:
            raise LocalError(f"the platform is not ready after {START_TIMEOUT:g} s: {self._quote()}") from None
        self._follower = asyncio.create_task(self._follow())

    async def _answers(self) -> bool:
        assert self._http is not None
        try:
            async with self._http.get(f"{self.admin}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    def _quote(self) -> str:
        return "; ".join(self.log[-_QUOTED:]) or "it said nothing"

    async def stop(self) -> None:
        """End what is running: the guest first, so that the platform's trace is whole. May be repeated."""
        if self._stopped:
            return
        self._stopped = True
        if self._qemu is not None:
            await self._qemu.stop(STOP_TIMEOUT)
        for task in self._tasks:
            task.cancel()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait([self._follower])
            with suppress(LocalError, RemoteError):
                await self._fetch()
        if self._platform is not None:
            await self._platform.stop(STOP_TIMEOUT)
        if self._http is not None:
            await self._http.close()
        release(self._ports)
        self._directory.cleanup()

    def kill(self) -> None:
        """SIGKILL to both, at once; :meth:`stop` still has to be awaited."""
        for process in (self._platform, self._qemu.process if self._qemu is not None else None):
            if process is not None:
                process.send_signal(signal.SIGKILL)

    # --- what comes in ------------------------------------------------------------------------------------------------

    def _heard(self, data: bytes) -> None:
        for line in self.console.feed(data):
            self._show("console", line)
        self._changed.set()

    def _say(self, source: str, line: str) -> None:
        self.log.append(line)
        self._show(source, line)

    async def _follow(self) -> None:
        while True:
            await self._fetch()
            await asyncio.sleep(STEP)

    async def _fetch(self) -> None:
        for line in (await self.post("/trace/pipe"))["lines"]:
            self.trace.append(line)
            self._show("scmi", line)

    # --- what one can do ----------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._qemu is not None and self._qemu.process.returncode is None

    async def until(self, happened: Callable[[], bool], timeout: float) -> bool:
        """Wait until ``happened()``, for ``timeout`` seconds or the guest's end at most; did it?"""
        assert self._qemu is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not happened() and not self._qemu.drained.is_set():
                    self._changed.clear()
                    ended = asyncio.ensure_future(self._qemu.drained.wait())
                    changed = asyncio.ensure_future(self._changed.wait())
                    try:
                        await asyncio.wait((ended, changed), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        ended.cancel()
                        changed.cancel()
        return happened()

    async def ready(self, timeout: float) -> bool:
        """Wait for GUEST-READY, ``timeout`` seconds at most; did it come?"""
        return await self.until(lambda: self.console.ready is not None, timeout)

    async def ended(self, timeout: float) -> bool:
        """Wait until the guest has powered off and all that it printed is here; did it?"""
        assert self._qemu is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._qemu.drained.wait()
                await self._qemu.process.wait()
        return not self.running

    async def run(self, command: str, timeout: float = 30.0) -> Section:
        """Have init run a line of shell in the guest; what it printed. Raises LocalError where it does not end."""
        assert self._qemu is not None
        before = self.console.count
        self._qemu.type(command)
        if not await self.until(lambda: self.console.count > before, timeout):
            raise LocalError(f"the guest did not run {command!r} in {timeout:g} s")
        return self.console.sections[-1]

    async def get(self, path: str) -> dict[str, Any]:
        """GET from the platform's admin endpoint; as :meth:`post`."""
        return await self._ask("GET", path, None)

    async def post(self, path: str, body: object = None) -> dict[str, Any]:
        """POST to the platform's admin endpoint; its JSON answer. Raises LinkDownError where it does not answer,
        RemoteError for a refusal."""
        return await self._ask("POST", path, body)

    async def _ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        assert self._http is not None
        try:
            async with self._http.request(method, self.admin + path, json=body) as answer:
                said: dict[str, Any] = await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise LinkDownError("admin", self.admin, None, str(error) or type(error).__name__) from None
        if answer.status != 200:
            raise RemoteError(path, said.get("field"), None, str(said.get("error", answer.status)))
        return said

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work`` beside everything else; it ends with the guest."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def system_power(self, state: str) -> None:
        """Have the platform send the notification that the system is to go to ``state`` (``shutdown``, …)."""
        await self.post("/scmi/system-power", {"state": state})
