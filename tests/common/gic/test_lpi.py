from __future__ import annotations

from common.gic.lpi import (
    CONFIG_ENABLE,
    LPI_BASE,
    config_byte,
    config_table_size,
    pending_intids,
    pending_table_size,
)


def test_configuration_byte_as_linux_writes_it() -> None:
    assert config_byte(True) == 0xA3
    assert config_byte(False) == 0xA2
    assert config_byte(True, 0x47) & ~CONFIG_ENABLE == 0x46


def test_table_sizes() -> None:
    assert config_table_size(14) == 8192
    assert config_table_size(16) == 57344
    assert config_table_size(5) == 0
    assert pending_table_size(16) == 8192


def test_pending_bits() -> None:
    table = bytearray(1024)
    assert pending_intids(bytes(table)) == []
    table[0] = 0x09
    table[1023] = 0x80
    assert pending_intids(bytes(table)) == [LPI_BASE, LPI_BASE + 3, LPI_BASE + 8191]
