"""Disks that are full, without filling one."""

import resource
import signal


def limit_files_to(size):
    """What a full disk is to a process: no file of it can grow beyond this."""

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return {"preexec_fn": limit, "restore_signals": False}
