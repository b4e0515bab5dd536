"""The parts that a continual method composes: adapters, regularizers, memories."""
