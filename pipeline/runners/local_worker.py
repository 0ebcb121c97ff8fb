"""A worker process of the local runner: Beam's harness without its log on stderr, which the launcher gets anyway."""

import logging
import os
import sys

from transforms.parent import LAUNCHER_VARIABLE, end_with_parent


def main() -> None:
    """Serve the launcher that started this process."""
    end_with_parent(int(os.environ[LAUNCHER_VARIABLE]))
    # Before Beam is imported: it warns on import, and sets up a log of its own where there is none.
    logging.getLogger().addHandler(logging.NullHandler())
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
