"""Sensor types (DEN0056E §4.7, the table of sensor type encodings): the name that a board file uses, its number.

The table counts up from 0 in the order of the PLDM sensor units (DSP0248), which is where its names come from.
"""

from __future__ import annotations

from typing import Final

_IN_ORDER: Final = """
none unspecified degrees_c degrees_f degrees_k volts amps watts joules coulombs va nits lumens lux candelas kpa psi
newtons cfm rpm hertz seconds minutes hours days weeks mils inches feet cubic_inches cubic_feet meters
cubic_centimeters cubic_meters liters fluid_ounces radians steradians revolutions cycles gravities ounces pounds
foot_pounds ounce_inches gauss gilberts henries farads ohms siemens moles becquerels ppm decibels dba dbc grays
sieverts color_temperature_k bits bytes words dwords qwords percentage pascals counts grams newton_meters hits misses
retries overruns underruns collisions packets messages characters errors corrected_errors uncorrectable_errors
square_mils square_inches square_feet square_centimeters square_meters radians_per_second beats_per_minute
meters_per_second_squared meters_per_second cubic_meters_per_second millimeters_of_mercury radians_per_second_squared
"""

SENSOR_TYPES: Final[dict[str, int]] = {name: number for number, name in enumerate(_IN_ORDER.split())} | {"oem": 0xFF}
