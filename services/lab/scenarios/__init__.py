"""Every race, one file each. Importing this package registers them all."""

from services.lab.scenarios import aba_wrap

__all__ = ["aba_wrap"]
