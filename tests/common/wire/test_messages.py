"""common.wire.messages: tags, and the legality table."""

from __future__ import annotations

from common.wire.messages import CONNECTS, LEGAL, AnyMessage, Hello, Message, Refuse, Welcome

ROLES = {"guest", "vmm", "scmi", "nic", "its"}


def test_every_message_class_is_in_the_union_and_has_its_own_tag() -> None:
    classes = Message.__subclasses__()
    assert set(classes) == set(AnyMessage.__args__)
    assert len({cls.__struct_config__.tag for cls in classes}) == len(classes)


def test_legal_names_known_roles_and_both_directions_of_each_link() -> None:
    assert {role for pair in LEGAL for role in pair} == ROLES
    assert all((receiver, sender) in LEGAL for sender, receiver in LEGAL)
    assert all(sender != receiver and legal for (sender, receiver), legal in LEGAL.items())


def test_each_link_is_opened_by_exactly_one_end() -> None:
    both = {(b, a) for a, b in CONNECTS}
    assert not CONNECTS & both
    assert CONNECTS | both == set(LEGAL)


def test_session_messages_are_legal_nowhere_and_every_other_somewhere() -> None:
    somewhere = {cls for legal in LEGAL.values() for cls in legal}
    assert somewhere == set(AnyMessage.__args__) - {Hello, Welcome, Refuse}


def test_no_message_is_tracked_by_the_garbage_collector() -> None:
    assert not any(cls.__struct_config__.gc for cls in AnyMessage.__args__)
