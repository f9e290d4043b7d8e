"""Weights rounded by what their linears read: Hessians by iteration, GPTQ, and the best of several ways to weight them."""
