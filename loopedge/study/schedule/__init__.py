"""How a pilot spends its time: what runs take, how many seeds, what a budget leaves out."""
