"""From disk to a batch: drives, token stores, remote files, videos."""
