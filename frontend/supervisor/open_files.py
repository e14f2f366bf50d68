"""The limit of open files: every connection is one."""

import logging
import resource

logger = logging.getLogger("headrace.supervisor")

_ENOUGH = 65_536  # where the hard limit is "unlimited" or huge: some libraries loop over all possible descriptors


def raise_open_files_limit(*, max_num_seqs: int) -> None:
    """Raise the soft limit towards the hard one, for this process and its children; warn if that is little."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        soft = target
    wanted = 4 * max_num_seqs + 1024
    if soft < wanted:
        logger.warning(
            "the limit of open files is %d; --max-num-seqs %d needs about %d: raise it with ulimit -Hn", soft,
            max_num_seqs, wanted,
        )  # fmt: skip
