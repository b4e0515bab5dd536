"""Many runs from one command: the grid, the plan of runs, the ledger of what is done, the engines that run them."""
