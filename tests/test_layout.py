"""One test file a source file, same name and place: the mirror that CONTRIBUTING.md asks for."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Source files without a test file of their own, and the one that tests them.
_GUEST, _PLATFORM = "services/guest_driver", "services/scmi_platform"
WITHOUT = {
    "common/errors.py": "common/wire/test_codec.py",
    "common/virtio/device_core.py": "services/scmi_platform/test_core.py",
    "common/world.py": "common/runtime/test_world.py",
    "services/gic_its/state.py": "services/gic_its/test_core.py",
    "services/gic_its/stats.py": "services/gic_its/test_core.py",
    f"{_GUEST}/scmi_base.py": f"{_GUEST}/test_scmi_clients.py",
    f"{_GUEST}/scmi_channel.py": f"{_GUEST}/test_scmi_virtio.py",
    f"{_GUEST}/scmi_client.py": f"{_GUEST}/test_scmi_clients.py",
    f"{_GUEST}/scmi_clock.py": f"{_GUEST}/test_scmi_clients.py",
    f"{_GUEST}/scmi_message.py": f"{_GUEST}/test_scmi_virtio.py",
    f"{_GUEST}/scmi_sensor.py": f"{_GUEST}/test_scmi_clients.py",
    f"{_GUEST}/scmi_virtio_rx.py": f"{_GUEST}/test_scmi_virtio.py",
    f"{_GUEST}/scmi_xfer.py": f"{_GUEST}/test_scmi_agent.py",
    "services/mesh/run.py": "mesh/test_run.py",
    "services/scmi_cli/base_view.py": "services/scmi_cli/test_command.py",
    "services/scmi_cli/clock_view.py": "services/scmi_cli/test_command.py",
    "services/scmi_cli/options.py": "services/scmi_cli/test_command.py",
    "services/scmi_cli/sensor_view.py": "services/scmi_cli/test_command.py",
    f"{_PLATFORM}/agent.py": f"{_PLATFORM}/test_platform.py",
    f"{_PLATFORM}/boards/agent.py": f"{_PLATFORM}/test_board.py",
    f"{_PLATFORM}/boards/clock.py": f"{_PLATFORM}/test_board.py",
    f"{_PLATFORM}/boards/section.py": f"{_PLATFORM}/test_board.py",
    f"{_PLATFORM}/boards/sensor.py": f"{_PLATFORM}/test_board.py",
    f"{_PLATFORM}/config.py": f"{_PLATFORM}/test_shell.py",
    f"{_PLATFORM}/faults_stats.py": f"{_PLATFORM}/test_faults.py",
}


def test_every_source_file_has_its_test_file() -> None:
    missing = []
    for source in sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("common/**/*.py")]):
        name = source.relative_to(ROOT)
        if source.name in {"__init__.py", "__main__.py"} or str(name) in WITHOUT:
            continue
        if not (ROOT / "tests" / name.parent / f"test_{source.name}").is_file():
            missing.append(str(name))
    assert not missing


def test_exceptions_are_still_there() -> None:
    assert [name for name in WITHOUT if not (ROOT / name).is_file()] == []
    assert [name for name in WITHOUT.values() if not (ROOT / "tests" / name).is_file()] == []
    mirrored = [name for name in map(Path, WITHOUT) if (ROOT / "tests" / name.parent / f"test_{name.name}").is_file()]
    assert not mirrored


def test_files_fit_in_a_head() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("common/**/*.py")])
        if (lines := len(path.read_text().splitlines())) > 450
    ]
    assert not long
