"""Runs the version of the account that ACCOUNT_VSN names. A change of the code in the running process takes the other
version from the module beside it."""

import os
from importlib import import_module

from processhub import Worker

PATTERN = "account.v{vsn}"

if __name__ == "__main__":
    worker: Worker = import_module(PATTERN.format(vsn=os.environ.get("ACCOUNT_VSN", "1"))).worker
    worker.run(code=PATTERN)
