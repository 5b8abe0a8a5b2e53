"""MSIs: numbered, sent again until confirmed, coalesced."""

from __future__ import annotations

from common.virtio.msi_source import RESEND_AFTER, MsiSource
from common.wire.messages import Message, Msi


def make() -> tuple[MsiSource, list[Message]]:
    sent: list[Message] = []
    return MsiSource("vm", 5, sent.append), sent


def test_only_higher_numbers_go_out() -> None:
    msi, sent = make()
    for number in (1, 1, 3, 2):
        msi.raise_(9, number, 0.0)
    assert sent == [Msi("vm", 5, 9, 1), Msi("vm", 5, 9, 3)]
    assert (msi.raised, msi.unconfirmed) == (2, 1)


def test_resent_until_the_highest_is_confirmed() -> None:
    msi, sent = make()
    msi.raise_(9, 4, 1.0)
    msi.tick(1.0 + RESEND_AFTER / 2)
    assert len(sent) == 1
    msi.tick(1.0 + 1.5 * RESEND_AFTER)
    msi.done(9, 3)  # covers an older one only
    msi.tick(1.0 + 3 * RESEND_AFTER)
    assert sent == [Msi("vm", 5, 9, 4)] * 3
    assert msi.resent == 2
    msi.done(9, 4)
    msi.tick(99.0)
    assert (len(sent), msi.unconfirmed) == (3, 0)
    msi.raise_(9, 5, 99.0)
    assert sent[-1] == Msi("vm", 5, 9, 5)


def test_resend_all_after_a_reconnect() -> None:
    msi, sent = make()
    msi.raise_(1, 1, 0.0)
    msi.raise_(2, 7, 0.0)
    msi.done(1, 1)
    msi.resend_all(0.5)
    assert sent[2:] == [Msi("vm", 5, 2, 7)]
    msi.tick(0.5 + RESEND_AFTER / 2)  # the clock of the repeat began anew
    assert len(sent) == 3


def test_a_confirmation_of_what_was_never_raised_is_forgotten() -> None:
    msi, sent = make()
    for event in range(1000):
        msi.done(event, 1 << 60)
    assert (msi.unconfirmed, sent) == (0, [])
    msi.raise_(3, 1, 0.0)
    assert msi.unconfirmed == 1


def test_what_is_forgotten_is_not_sent_again_and_numbers_begin_anew() -> None:
    msi, sent = make()
    msi.raise_(1, 9, 0.0)
    msi.forget()
    msi.tick(99.0)
    msi.resend_all(99.0)
    assert (len(sent), msi.unconfirmed) == (1, 0)
    msi.done(1, 9)  # on its way when the device was reset
    msi.raise_(1, 1, 99.0)
    assert sent[1:] == [Msi("vm", 5, 1, 1)]
