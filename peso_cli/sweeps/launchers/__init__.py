"""The engines that carry out the runs of a sweep, one short file each."""
