"""The benchmarks: ratios against a floor or a peer, measured in the same run on the same machine. Not timed tests."""

import os

# An installed program has the bytecode of its modules, or keeps it from its first start on. Where this stands in the environment
# (some images for containers set it) each start would compile all of them once more, ours and the peer's.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
