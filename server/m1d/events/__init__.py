"""Events: made, translated to the contract, published, followed."""
