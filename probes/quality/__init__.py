"""How good features are without asking for labels: ranks, spread, similarity of layers, beside a random twin."""
