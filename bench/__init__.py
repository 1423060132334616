"""The benchmarks: ratios against a floor or a peer, measured in the same run on the same machine. Not timed tests."""
