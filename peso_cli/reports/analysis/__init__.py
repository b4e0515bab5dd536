"""Where methods differ: what `peso analyse` works out of the predictions of finished stages."""
