"""``ringmesh its``: what an ITS has mapped, as tables and as a picture; save it, restore it."""
