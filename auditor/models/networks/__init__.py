"""Networks that detect synthetic media: features computed in the network, a calibrated head.

Each takes the encoded input of its preprocessing and gives (n, 2) calibrated logits in class order; ``features(x)``
(n, d) is what its head sees.
"""
