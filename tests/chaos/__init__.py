"""Chaos: a whole box under load, hurt by a seeded random plan, and checked against what it promises."""
