"""Pin control protocol 0x19 from the agent's side (DEN0056E §4.11).

What an identifier names says the selector that goes with it: a pin unless the caller says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from common.errors import ScmiError
from common.scmi import pinctrl
from common.scmi.pinctrl import Command, Config, GetFlag, Selector
from common.scmi.status import Status
from services.guest_driver.scmi_client import ProtocolClient, went_on
from services.guest_driver.scmi_message import MAX_MSG_SIZE

#: Configs that one PINCTRL_SETTINGS_CONFIGURE can carry.
_ROOM: Final = (MAX_MSG_SIZE - pinctrl.SETTINGS_CONFIGURE.size) // pinctrl.CONFIG.size


@dataclass(slots=True, frozen=True)
class PinctrlClient(ProtocolClient):
    """Pins, groups and functions: what there are, what they do, who has them. There are no notifications."""

    protocol: ClassVar[int] = pinctrl.PROTOCOL.value

    async def attributes(self, *, poll: bool = False) -> pinctrl.Attributes:
        """How many pins, groups and functions."""
        reply = await self.agent.do_xfer(
            self.protocol, Command.PROTOCOL_ATTRIBUTES, expect=pinctrl.ATTRIBUTES_REPLY.size, poll=poll
        )
        return pinctrl.parse_attributes(reply)

    async def pin_attributes(
        self, identifier: int, selector: int = Selector.PIN, *, poll: bool = False
    ) -> pinctrl.PinAttributes:
        reply = await self.agent.do_xfer(
            self.protocol,
            Command.PINCTRL_ATTRIBUTES,
            pinctrl.IDENTIFIED.pack(identifier, selector),
            expect=pinctrl.PIN_ATTRIBUTES_REPLY.size,
            poll=poll,
        )
        return pinctrl.parse_pin_attributes(reply)

    async def associations(self, identifier: int, selector: int, *, poll: bool = False) -> list[int]:
        """The pins of a group; the groups of a function, or its pins where it is pin-only."""
        found = await self.listed(
            Command.PINCTRL_LIST_ASSOCIATIONS,
            lambda skip: pinctrl.LIST_ASSOCIATIONS.pack(identifier, selector, skip),
            pinctrl.parse_associations,
            poll,
        )
        return found.identifiers

    async def setting_get(self, identifier: int, kind: int, selector: int = Selector.PIN, *, poll: bool = False) -> int:
        """The value of one config of a pin or a group."""
        found = await self._settings(pinctrl.settings_get(identifier, selector, GetFlag.ONE, kind=kind), poll)
        if [one[0] for one in found.configs] != [kind]:
            said = ", ".join(str(one[0]) for one in found.configs)
            raise ScmiError("PINCTRL_SETTINGS_GET", Status.PROTOCOL_ERROR, f"config {kind} asked for, given: {said}")
        return found.configs[0][1]

    async def settings_get(
        self, identifier: int, selector: int = Selector.PIN, *, poll: bool = False
    ) -> pinctrl.Settings:
        """The function and all configs of a pin or a group. Asks again while some remain."""
        configs: list[Config] = []
        before: int | None = None
        while True:
            request = pinctrl.settings_get(identifier, selector, GetFlag.ALL, skip=len(configs))
            part = await self._settings(request, poll)
            configs += part.configs
            if not went_on("PINCTRL_SETTINGS_GET", len(part.configs), part.remaining, before):
                return pinctrl.Settings(part.function, configs, 0)
            before = part.remaining
            if len(configs) > pinctrl.MAX_CONFIGS:
                raise ScmiError(
                    "PINCTRL_SETTINGS_GET", Status.PROTOCOL_ERROR, f"more than {pinctrl.MAX_CONFIGS} configs"
                )

    async def function_get(self, identifier: int, selector: int = Selector.PIN, *, poll: bool = False) -> int | None:
        """The function that a pin or a group has now, None for none."""
        return (await self._settings(pinctrl.settings_get(identifier, selector, GetFlag.FUNCTION), poll)).function

    async def _settings(self, request: bytes, poll: bool) -> pinctrl.Settings:
        reply = await self.agent.do_xfer(self.protocol, Command.PINCTRL_SETTINGS_GET, request, poll=poll)
        return pinctrl.parse_settings(reply)

    async def settings_set(
        self, identifier: int, configs: Sequence[Config], selector: int = Selector.PIN, *, poll: bool = False
    ) -> None:
        """Set configs (type, value) of a pin or of all pins of a group: as many messages as they need, each of which
        the platform takes whole or not at all."""
        for first in range(0, len(configs), _ROOM):
            payload = pinctrl.settings_configure(identifier, selector, configs[first : first + _ROOM])
            await self._configure(payload, poll)

    async def function_select(
        self, identifier: int, function: int | None, selector: int = Selector.PIN, *, poll: bool = False
    ) -> None:
        """Have a pin, or all pins of a group, do ``function``; None for nothing."""
        chosen = pinctrl.NO_FUNCTION if function is None else function
        await self._configure(pinctrl.settings_configure(identifier, selector, function=chosen), poll)

    async def _configure(self, payload: bytes, poll: bool) -> None:
        await self.agent.do_xfer(self.protocol, Command.PINCTRL_SETTINGS_CONFIGURE, payload, expect=0, poll=poll)

    async def request(self, identifier: int, selector: int = Selector.PIN, *, poll: bool = False) -> None:
        """Have a pin or a group to ourselves; ScmiError IN_USE where another agent has."""
        payload = pinctrl.IDENTIFIED.pack(identifier, selector)
        await self.agent.do_xfer(self.protocol, Command.PINCTRL_REQUEST, payload, expect=0, poll=poll)

    async def release(self, identifier: int, selector: int = Selector.PIN, *, poll: bool = False) -> None:
        """Let others have it again."""
        payload = pinctrl.IDENTIFIED.pack(identifier, selector)
        await self.agent.do_xfer(self.protocol, Command.PINCTRL_RELEASE, payload, expect=0, poll=poll)

    async def name_get(self, identifier: int, selector: int = Selector.PIN, *, poll: bool = False) -> str:
        """The name where it is longer than the attributes can hold."""
        return await self.extended_name(Command.PINCTRL_NAME_GET, pinctrl.IDENTIFIED.pack(identifier, selector), poll)

    async def set_permissions(
        self, agent: int, identifier: int, selector: int = Selector.PIN, *, allow: bool, poll: bool = False
    ) -> None:
        """Allow or deny ``agent`` a pin or a group; for trusted agents."""
        flags = selector | (pinctrl.PERMIT if allow else 0)
        payload = pinctrl.SET_PERMISSIONS.pack(agent, identifier, flags)
        await self.agent.do_xfer(self.protocol, Command.PINCTRL_SET_PERMISSIONS, payload, expect=0, poll=poll)
