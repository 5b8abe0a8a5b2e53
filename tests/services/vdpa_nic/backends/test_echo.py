"""The echo: everything comes back, where it was sent and as it was sent."""

from __future__ import annotations

from services.vdpa_nic.backends.echo import Echo


def test_echo() -> None:
    echo = Echo(2)
    echo.transmit(1, [b"a", b"b", b"a"], 2.0)
    echo.transmit(0, [b"c"], 3.0)
    echo.transmit(1, [b"d"], 4.0)
    echo.tick(5.0)
    assert list(echo.backlog[0]) == [(b"c", 3.0)]
    assert list(echo.backlog[1]) == [(b"a", 2.0), (b"b", 2.0), (b"a", 2.0), (b"d", 4.0)]
    assert echo.answers
