"""What `headrace bench` measures: jobs of several kinds, a size for this machine, and the incident before and after."""
