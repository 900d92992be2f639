"""`python -m service.health`: exits with 0 when the process answers; a container's health check.

Not when it is ready: until a first model is promoted nothing is served, and who promotes it asks
this process. Whether pictures are drawn is /readyz, for balancers and whoever watches.
"""

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 3


def main() -> None:
    port = os.environ.get("TRCE_PORT", "8000")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as error:
        sys.exit(error.read(500).decode(errors="replace"))
    except OSError as error:
        sys.exit(f"no answer: {error}")


if __name__ == "__main__":
    main()
