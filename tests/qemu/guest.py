"""The program that the CPUs run to acknowledge interrupts, since the GIC's CPU interface is system registers.

Each CPU has a mailbox: it brings ``done`` up to ``request`` and leaves what ICC_IAR1_EL1 said, after the EOI. CPU 0
switches the others on. Interrupts stay masked in PSTATE: reading ICC_IAR1_EL1 is all that takes one.
"""

from __future__ import annotations

import struct
from typing import Final

_MAILBOXES: Final = 0x1000
#: Bytes of program and mailboxes.
SIZE: Final = 0x2000
#: Offsets in a mailbox, 64 bits each.
REQUEST, DONE, RESULT = 0, 8, 16


def mailbox(cpu: int) -> int:
    """Its offset from the program's start."""
    return _MAILBOXES + cpu * 64


def program(cpus: int) -> bytes:
    """Position-independent A64 code."""
    return struct.pack(
        "<36I",
        0xD53800A8,  # mrs   x8, mpidr_el1
        0x92401D08,  # and   x8, x8, #0xff          virt numbers its CPUs in Aff0
        0x10000013 | (_MAILBOXES - 8) >> 2 << 5,  # adr   x19, mailboxes
        0x8B081A73,  # add   x19, x19, x8, lsl #6
        0xD2801FE9,  # mov   x9, #0xff
        0xD5184609,  # msr   icc_pmr_el1, x9
        0xD2800029,  # mov   x9, #1
        0xD518CCE9,  # msr   icc_igrpen1_el1, x9
        0xD5033FDF,  # isb
        0xB50001A8,  # cbnz  x8, loop
        0xD2800034,  # mov   x20, #1
        0xD2800015 | cpus << 5,  # mov   x21, #cpus
        # on:
        0xEB15029F,  # cmp   x20, x21
        0x5400012A,  # b.ge  loop
        0xD2800060,  # mov   x0, #3
        0xF2B88000,  # movk  x0, #0xc400, lsl #16   PSCI CPU_ON
        0xAA1403E1,  # mov   x1, x20
        0x10FFFDE2,  # adr   x2, start
        0xD2800003,  # mov   x3, #0
        0xD4000002,  # hvc   #0
        0x91000694,  # add   x20, x20, #1
        0x17FFFFF7,  # b     on
        # loop:
        0xD503203F,  # yield
        0xF9400269,  # ldr   x9, [x19]
        0xF940066A,  # ldr   x10, [x19, #8]
        0xEB0A013F,  # cmp   x9, x10
        0x54FFFF80,  # b.eq  loop
        0xD538CC0B,  # mrs   x11, icc_iar1_el1
        0xD5033F9F,  # dsb   sy
        0xF10FFD7F,  # cmp   x11, #1023
        0x54000040,  # b.eq  none
        0xD518CC2B,  # msr   icc_eoir1_el1, x11
        # none:
        0xF9000A6B,  # str   x11, [x19, #16]
        0xD5033F9F,  # dsb   sy
        0xF9000669,  # str   x9, [x19, #8]
        0x17FFFFF3,  # b     loop
    )
