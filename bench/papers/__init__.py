"""What papers claim about pruning, tried with the product's own engine on scikit-learn's digits."""
