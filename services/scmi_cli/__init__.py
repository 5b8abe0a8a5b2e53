"""``ringmesh scmi``: the firmware from the command line, on the agent that the guests run."""
