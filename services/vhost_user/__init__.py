"""vhost-user: a device core of the mesh behind a real front end (QEMU, DPDK), on memory that the front end shares."""
