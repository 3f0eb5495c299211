"""The loop: steps, evaluations, what is logged and measured of them."""
