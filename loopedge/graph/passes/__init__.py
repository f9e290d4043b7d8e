"""Passes over a whole graph.

Each pass says what it `Requires:` of the graph and what it `Ensures:` of it afterwards. It changes the graph that
it is handed and returns whether, or what, it changed; or it leaves that graph as it is and returns another one;
never both. What every pass ensures is not repeated: the graph is valid, has the same inputs and outputs, computes
the same but for rounding, and a second run changes nothing.
"""
